//! A server for tens of thousands of connections: one thread, `epoll`, every request answered by its own bytes.

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsRawFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::Result;
use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
};

use super::options::Serve;
use crate::{net::Host, traffic::listen};

/// What the listener is called in the event set: no descriptor has this number.
const LISTENER: u64 = u64::MAX;
const EVENTS: usize = 256;

/// A running server.
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    /// From now on it accepts and reads, and says nothing.
    pub silent: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts it.
    pub fn start(host: &Host, address: IpAddr, port: u16) -> Self {
        Self::on(listen(host, address, port, 4096))
    }

    fn on(listener: TcpListener) -> Self {
        listener.set_nonblocking(true).expect("non-blocking");
        let address = listener.local_addr().expect("address");
        let (silent, stop) = (Arc::default(), Arc::default());
        let mut work = Work {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).expect("epoll"),
            listener,
            connections: HashMap::new(),
            silent: Arc::clone(&silent),
        };
        let stopped: Arc<AtomicBool> = Arc::clone(&stop);
        let thread = thread::spawn(move || work.run(&stopped));
        Self { address, silent, stop, thread: Some(thread) }
    }
}

/// Serves until the process is killed: for more connections than one process may have ends of.
pub fn run(serve: Serve) -> Result<()> {
    let server = Server::on(TcpListener::bind(serve.address)?);
    server.silent.store(!serve.answers, Ordering::Relaxed);
    loop {
        thread::park();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Work {
    epoll: OwnedFd,
    listener: TcpListener,
    connections: HashMap<u64, TcpStream>,
    silent: Arc<AtomicBool>,
}

impl Work {
    fn run(&mut self, stop: &AtomicBool) {
        let data = epoll::EventData::new_u64(LISTENER);
        epoll::add(&self.epoll, &self.listener, data, epoll::EventFlags::IN).expect("epoll");
        let timeout = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        let mut events = Vec::with_capacity(EVENTS);
        while !stop.load(Ordering::Relaxed) {
            events.clear();
            if epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&timeout)).is_err() {
                continue; // interrupted
            }
            for event in &events {
                match event.data.u64() {
                    LISTENER => self.accept(),
                    id => self.serve(id),
                }
            }
        }
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            stream.set_nonblocking(true).expect("non-blocking");
            let id = stream.as_raw_fd() as u64;
            epoll::add(&self.epoll, &stream, epoll::EventData::new_u64(id), epoll::EventFlags::IN)
                .expect("epoll");
            self.connections.insert(id, stream);
        }
    }

    fn serve(&mut self, id: u64) {
        let Some(stream) = self.connections.get_mut(&id) else { return };
        let mut buffer = [0; 4096];
        let lives = match stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(n) => self.silent.load(Ordering::Relaxed) || stream.write_all(&buffer[..n]).is_ok(),
            Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
        };
        if !lives {
            self.connections.remove(&id);
        }
    }
}
