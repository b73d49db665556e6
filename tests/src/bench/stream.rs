//! One connection at full speed: bytes one way, or requests one after the other.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::load::Bed;
use crate::{
    net::{Pair, address},
    rtp::Stream,
    traffic::{ask, connect, listen},
    udp,
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

/// RTP as fast as one sender can, counted where it is received.
pub fn datagrams_per_second(pair: &Pair, time: Duration) -> f64 {
    let receiver = udp::bind(&pair.server, address::SERVER_V4, 5004, 1 << 22);
    receiver.set_nonblocking(false).expect("blocking");
    receiver.set_read_timeout(Some(Duration::from_millis(200))).expect("timeout");
    let sender = udp::sender(&pair.client, SocketAddr::new(address::SERVER_V4, 5004));
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let sending = thread::spawn(move || {
        let stream = Stream::audio(1);
        let mut number = 0;
        while !stopped.load(Ordering::Relaxed) {
            let _ = sender.send(&stream.packet(number));
            number += 1;
        }
    });
    let mut buffer = [0; 2048];
    let mut over = |time: Duration| {
        let (start, mut n) = (Instant::now(), 0u64);
        while start.elapsed() < time {
            n += u64::from(receiver.recv(&mut buffer).is_ok());
        }
        n as f64 / start.elapsed().as_secs_f64()
    };
    over(Duration::from_millis(500));
    let rate = over(time);
    stop.store(true, Ordering::Relaxed);
    let _ = sending.join();
    rate
}
