//! One connection at full speed: bytes one way, or requests one after the other.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::load::Bed;
use crate::{
    net::{Pair, address},
    traffic::{ask, connect, listen},
};

const PORT: u16 = 5201;
const CHUNK: usize = 256 * 1024;
/// Until the congestion window is open.
const WARM_UP: Duration = Duration::from_millis(300);

/// Bytes a second that one stream brings from the client to the server.
pub fn bytes_per_second(pair: &Pair, time: Duration) -> f64 {
    let listener = listen(&pair.server, address::SERVER_V4, PORT, 16);
    let (received, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let mut sender = connect(&pair.client, address::SERVER_V4, PORT).expect("the stream's connection");
        let (mut receiver, _) = listener.accept().expect("the stream's connection");
        scope.spawn(|| {
            let chunk = vec![7; CHUNK];
            while !stop.load(Ordering::Relaxed) {
                if sender.write_all(&chunk).is_err() {
                    break;
                }
            }
            drop(sender);
        });
        let received = &received;
        scope.spawn(move || {
            let mut buffer = vec![0; CHUNK];
            while let Ok(n) = receiver.read(&mut buffer) {
                if n == 0 {
                    break;
                }
                received.fetch_add(n as u64, Ordering::Relaxed);
            }
        });
        thread::sleep(WARM_UP);
        let (start, before) = (Instant::now(), received.load(Ordering::Relaxed));
        thread::sleep(time);
        let rate = (received.load(Ordering::Relaxed) - before) as f64 / start.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        rate
    })
}

/// Requests a second on one connection, each sent when the one before it was answered.
pub fn requests_per_second(bed: &Bed, time: Duration) -> f64 {
    let target = bed.targets(false)[0];
    bed.pair.client.run(|| {
        let mut stream = TcpStream::connect(target).expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        let mut requests = 0u64;
        let start = Instant::now();
        while start.elapsed() < time {
            ask(&mut stream, 64).expect("an answer");
            requests += 1;
        }
        requests as f64 / start.elapsed().as_secs_f64()
    })
}
