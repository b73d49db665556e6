//! Connections one after the other: connect, ask, read the answer, close; at a rate, or as many as the machine can.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::server::Server;
use crate::net::{Pair, address};

/// Bytes of a request, and of its answer.
const REQUEST: usize = 64;
/// Callers at once.
const CALLERS: u32 = 4;
/// One to a CPU of a small machine.
const PORTS: [u16; 2] = [443, 444];

/// Two hosts and the servers on one of them.
pub struct Bed {
    /// The hosts.
    pub pair: Pair,
    servers: Vec<Server>,
}

impl Bed {
    /// IPv4 and IPv6, two ports each.
    pub fn new() -> Self {
        let pair = Pair::new();
        // As on any host that sends: super-packets. The tests switch them off to count what netfilter counts.
        for host in [&pair.client, &pair.server] {
            host.ip(&["link", "set", "eth0", "gso_max_segs", "65535"]);
        }
        // A closed connection keeps its port for a minute; at ten thousand a second there are not enough of them.
        pair.client.sysctl("net.ipv4.ip_local_port_range", "1024 65535");
        pair.client.sysctl("net.ipv4.tcp_tw_reuse", "1");
        let start = |address| PORTS.map(|port| Server::start(&pair.server, address, port));
        let servers = [address::SERVER_V4, address::SERVER_V6].into_iter().flat_map(start).collect();
        Self { pair, servers }
    }

    /// Where the servers listen.
    pub fn targets(&self, ipv6: bool) -> Vec<SocketAddr> {
        self.servers.iter().map(|server| server.address).filter(|a| a.is_ipv6() == ipv6).collect()
    }
}

/// Callers at work, until it is dropped.
pub struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// `rate` connections a second altogether; as many as possible where it is `None`.
    pub fn start(bed: &Bed, ipv6: bool, rate: Option<u32>) -> Self {
        let targets = bed.targets(ipv6);
        let mut load =
            Self { stop: Arc::default(), done: Arc::default(), failed: Arc::default(), threads: Vec::new() };
        for i in 0..CALLERS {
            let (stop, done, failed) = (load.stop.clone(), load.done.clone(), load.failed.clone());
            let target = targets[i as usize % targets.len()];
            let pause = rate.map(|rate| Duration::from_secs(1) * CALLERS / rate);
            let call_on = move || {
                let mut next = Instant::now();
                while !stop.load(Ordering::Relaxed) {
                    let outcome = call(target);
                    if outcome.is_ok() { &done } else { &failed }.fetch_add(1, Ordering::Relaxed);
                    if let Some(pause) = pause {
                        next += pause;
                        thread::sleep(next.saturating_duration_since(Instant::now()));
                    }
                }
            };
            load.threads.push(bed.pair.client.run(|| thread::spawn(call_on)));
        }
        load
    }

    /// Connections done so far.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Ends it; the connections done.
    pub fn stop(mut self) -> u64 {
        self.end();
        let (done, failed) = (self.done(), self.failed.load(Ordering::Relaxed));
        assert!(
            failed * 1000 <= done,
            "{failed} of {} connections failed: that is no measurement",
            done + failed
        );
        done
    }

    /// Connections a second over some time from now on.
    pub fn rate_over(&self, time: Duration) -> f64 {
        let (start, before) = (Instant::now(), self.done());
        thread::sleep(time);
        (self.done() - before) as f64 / start.elapsed().as_secs_f64()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

fn call(target: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&target, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(&[7; REQUEST])?;
    stream.read_exact(&mut [0; REQUEST])
}
