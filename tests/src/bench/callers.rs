//! Callers as SDKs are: a second for the handshake, then again, until the request is answered.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::net::Host;

/// How often attempts are looked after.
const TURN: Duration = Duration::from_millis(5);

/// What the callers of one address did.
#[derive(Clone, Debug, Default)]
pub struct Line {
    /// When each attempt began.
    pub begun: Vec<Instant>,
    /// When each request was sent.
    pub asked: Vec<Instant>,
    /// Requests answered.
    pub answered: u64,
}

/// Callers of several addresses, until it is dropped.
pub struct Callers {
    lines: Arc<Vec<Mutex<Line>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Callers {
    /// `rate` requests a second to each address.
    pub fn start(host: &Host, addresses: &[Ipv4Addr], port: u16, rate: u32, patience: Duration) -> Self {
        let lines: Arc<Vec<_>> = Arc::new(addresses.iter().map(|_| Mutex::default()).collect());
        let stop: Arc<AtomicBool> = Arc::default();
        let targets: Vec<_> = addresses.iter().map(|a| SocketAddr::new((*a).into(), port)).collect();
        let pause = Duration::from_secs(1) / rate;
        let (theirs, stopped) = (lines.clone(), stop.clone());
        let work = move || run(&theirs, &targets, pause, patience, &stopped);
        let thread = host.run(|| thread::spawn(work));
        Self { lines, stop, thread: Some(thread) }
    }

    /// What happened at one address so far.
    pub fn line(&self, i: usize) -> Line {
        self.lines[i].lock().expect("line").clone()
    }
}

impl Drop for Callers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A request on its way.
enum Call {
    Connecting { socket: Socket, since: Instant },
    Asked { stream: TcpStream },
}

fn run(
    lines: &[Mutex<Line>],
    targets: &[SocketAddr],
    pause: Duration,
    patience: Duration,
    stop: &AtomicBool,
) {
    let start = Instant::now();
    // Spread over the pause: addresses are not called in step.
    let first = |i: usize| start + pause * i as u32 / targets.len() as u32;
    let mut due: Vec<Instant> = (0..targets.len()).map(first).collect();
    let mut calls: Vec<Vec<Call>> = targets.iter().map(|_| Vec::new()).collect();
    while !stop.load(Ordering::Relaxed) {
        for (i, target) in targets.iter().enumerate() {
            let mut line = lines[i].lock().expect("line");
            let mut going = Vec::with_capacity(calls[i].len() + 1);
            for call in calls[i].drain(..) {
                going.extend(progress(call, *target, patience, &mut line));
            }
            if Instant::now() >= due[i] {
                due[i] += pause;
                going.push(begin(*target, &mut line));
            }
            calls[i] = going;
        }
        thread::sleep(TURN);
    }
}

fn begin(target: SocketAddr, line: &mut Line) -> Call {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("socket");
    socket.set_nonblocking(true).expect("non-blocking");
    let since = Instant::now();
    line.begun.push(since);
    let _ = socket.connect(&target.into()); // in progress
    Call::Connecting { socket, since }
}

/// The same call a little later; nothing where it is over.
fn progress(call: Call, target: SocketAddr, patience: Duration, line: &mut Line) -> Option<Call> {
    match call {
        Call::Connecting { socket, since } => {
            if socket.peer_addr().is_ok() {
                let mut stream = TcpStream::from(socket);
                if stream.write_all(&[7; 64]).is_ok() {
                    line.asked.push(Instant::now());
                    return Some(Call::Asked { stream });
                }
                return Some(begin(target, line));
            }
            if since.elapsed() >= patience {
                drop(socket);
                return Some(begin(target, line));
            }
            Some(Call::Connecting { socket, since })
        }
        Call::Asked { mut stream } => match stream.read(&mut [0; 64]) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Some(Call::Asked { stream }),
            outcome => {
                line.answered += u64::from(outcome.is_ok_and(|n| n > 0));
                None
            }
        },
    }
}
