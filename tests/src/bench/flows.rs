//! Many connections at once that stay open.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    eventually,
    net::{Host, Pair, address},
    proc::Process,
};

const PORT: u16 = 443;
const REQUEST: usize = 64;
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 79, 0, 1);

/// Two hosts, one of which has sixty-five thousand addresses.
pub struct Estate {
    pair: Pair,
    answers: bool,
    /// A process of its own: ten thousand descriptors here, as many there.
    _server: Process,
}

impl Estate {
    /// Without connections. The server answers, or it does not.
    pub fn new(answers: bool) -> Self {
        let pair = Pair::new();
        pair.client.sysctl("net.ipv4.ip_local_port_range", "1024 65535");
        pair.server.ip(&["route", "add", "local", "10.79.0.0/16", "dev", "lo"]);
        pair.client.ip(&["route", "add", "10.79.0.0/16", "via", &address::SERVER_V4.to_string()]);
        let program = std::env::current_exe().expect("this program");
        let mut server = pair.server.command(program.to_str().expect("its path"));
        let option = if answers { "--serve" } else { "--serve-silence" };
        let server = Process::start(server.args([option, &format!("0.0.0.0:{PORT}")]));
        let estate = Self { pair, answers, _server: server };
        eventually("the server accepts", Duration::from_secs(20), || estate.connect(FIRST.into()).ok());
        estate
    }

    /// Where the connections come from.
    pub const fn client(&self) -> &Host {
        &self.pair.client
    }

    /// Opens `count` connections to `addresses` addresses in turn. Each sends one request, which is answered or is not.
    pub fn open(&self, count: usize, addresses: u32) -> Vec<TcpStream> {
        let open = |i: u32| {
            let target = Ipv4Addr::from(u32::from(FIRST) + i % addresses);
            let mut stream = TcpStream::connect(SocketAddr::new(target.into(), PORT))?;
            stream.write_all(&[7; REQUEST])?;
            if self.answers {
                stream.read_exact(&mut [0; REQUEST])?;
            }
            Ok::<_, std::io::Error>(stream)
        };
        // Where there are no more descriptors, these are all.
        self.pair.client.run(|| (0..count as u32).map_while(|i| open(i).ok()).collect())
    }

    fn connect(&self, address: IpAddr) -> std::io::Result<TcpStream> {
        self.pair.client.run(|| TcpStream::connect(SocketAddr::new(address, PORT)))
    }
}

/// Requests on open connections in turn, until it is dropped.
pub struct Requests {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
    began: Instant,
}

impl Requests {
    /// `rate` a second.
    pub fn start(mut flows: Vec<TcpStream>, rate: u32) -> Self {
        let stop: Arc<AtomicBool> = Arc::default();
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let (mut next, mut done) = (Instant::now(), 0);
            for i in (0..flows.len()).cycle() {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let flow = &mut flows[i];
                let answered =
                    flow.write_all(&[7; REQUEST]).and_then(|()| flow.read_exact(&mut [0; REQUEST]));
                done += u64::from(answered.is_ok());
                next += Duration::from_secs(1) / rate;
                thread::sleep(next.saturating_duration_since(Instant::now()));
            }
            done
        });
        Self { stop, thread: Some(thread), began: Instant::now() }
    }

    /// Ends them; how many a second were answered.
    pub fn stop(mut self) -> f64 {
        self.stop.store(true, Ordering::Relaxed);
        let time = self.began.elapsed().as_secs_f64();
        let done = self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or(0);
        done as f64 / time
    }
}
