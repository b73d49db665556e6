//! Clients and servers with a tally of their own.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::net::Host;

/// A listener with a backlog, which nobody accepts from unless told.
pub fn listen(host: &Host, address: IpAddr, port: u16, backlog: i32) -> TcpListener {
    host.run(|| {
        let address = SocketAddr::new(address, port);
        let socket =
            Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)).expect("socket");
        socket.set_reuse_address(true).expect("reuse");
        socket.bind(&address.into()).unwrap_or_else(|e| panic!("{address}: {e}"));
        socket.listen(backlog).expect("listen");
        socket.into()
    })
}

/// A blocking connection.
pub fn connect(host: &Host, address: IpAddr, port: u16) -> std::io::Result<TcpStream> {
    host.run(|| TcpStream::connect_timeout(&SocketAddr::new(address, port), Duration::from_secs(20)))
}

/// A connection attempt that is under way when this returns.
pub fn begin(host: &Host, address: IpAddr, port: u16) -> Socket {
    host.run(|| {
        let address = SocketAddr::new(address, port);
        let socket =
            Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)).expect("socket");
        socket.set_nonblocking(true).expect("non-blocking");
        // In progress, or refused at once: either is what the caller asked for.
        let _ = socket.connect(&address.into());
        socket
    })
}

/// Stops what runs beside a test when it goes out of scope, so that a test that fails does not wait for it for ever.
pub struct Stops<'a>(pub &'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A server that answers every request of `ask` bytes with `answer` bytes after a delay.
pub struct Echo {
    /// Where it listens.
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    /// Connections it accepted.
    pub accepted: Arc<AtomicU64>,
    /// Requests it answered.
    pub answered: Arc<AtomicU64>,
    delay_ms: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    /// Starts it.
    pub fn start(host: &Host, address: IpAddr, port: u16) -> Self {
        Self::on(listen(host, address, port, 1024))
    }

    /// Starts it on a listener.
    pub fn on(listener: TcpListener) -> Self {
        let address = listener.local_addr().expect("address");
        listener.set_nonblocking(true).expect("non-blocking");
        let stop = Arc::new(AtomicBool::new(false));
        let (accepted, answered, delay_ms) =
            (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let thread = thread::spawn({
            let (stop, accepted, answered, delay) =
                (stop.clone(), accepted.clone(), answered.clone(), delay_ms.clone());
            move || {
                while !stop.load(Ordering::Relaxed) {
                    match listener.accept() {
                        Ok((stream, _)) => {
                            accepted.fetch_add(1, Ordering::Relaxed);
                            let (answered, delay) = (answered.clone(), delay.clone());
                            thread::spawn(move || answer(stream, &answered, &delay));
                        }
                        Err(_) => thread::sleep(Duration::from_millis(2)),
                    }
                }
            }
        });
        Self { address, stop, accepted, answered, delay_ms, thread: Some(thread) }
    }

    /// Answers only after this, from now on.
    pub fn delay(&self, delay: Duration) {
        self.delay_ms.store(delay.as_millis() as u64, Ordering::Relaxed);
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(mut stream: TcpStream, answered: &AtomicU64, delay: &AtomicU64) {
    stream.set_nonblocking(false).expect("blocking");
    let mut buffer = [0; 4096];
    while let Ok(n) = stream.read(&mut buffer) {
        if n == 0 {
            return;
        }
        thread::sleep(Duration::from_millis(delay.load(Ordering::Relaxed)));
        answered.fetch_add(1, Ordering::Relaxed);
        if stream.write_all(&buffer[..n]).is_err() {
            return;
        }
    }
}

/// One request and its whole answer on an open connection.
pub fn ask(stream: &mut TcpStream, bytes: usize) -> std::io::Result<()> {
    stream.write_all(&vec![7; bytes])?;
    let mut left = bytes;
    let mut buffer = [0; 4096];
    while left > 0 {
        let n = stream.read(&mut buffer)?;
        if n == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        left -= n.min(left);
    }
    Ok(())
}
