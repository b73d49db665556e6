//! RTP by the hundred thousand packets a second: each call sends many, which pass through the host as one (`UDP_SEGMENT`), and
//! some numbers never leave. What an observer must have counted is known when it ends.

use std::{
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    background::Background,
    rtp::{Expected, Stream, cut_up},
};

/// Packets to a call.
const BATCH: usize = 40;
/// Of so many numbers the last one never leaves.
const GAP: u64 = 997;
/// Where it falls behind by more than this, it does not make up for it: a rate is a rate at every look.
const BEHIND: Duration = Duration::from_millis(20);
/// Near the end of a cycle of the sequence number.
const FIRST: u64 = 65_000;

/// Streams at full tilt until this is stopped or goes out of scope.
pub struct Flood {
    sent: Arc<AtomicU64>,
    thread: Background<Expected>,
}

impl Flood {
    /// Sends `rate` packets a second, if the machine can: a stream for each socket, in turn.
    pub fn start(sockets: Vec<UdpSocket>, rate: u64) -> Self {
        let sent = Arc::new(AtomicU64::new(0));
        let thread = Background::start({
            let sent = sent.clone();
            move |stop| send(&sockets, rate, stop, &sent)
        });
        Self { sent, thread }
    }

    /// Packets sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Ends it: all that an observer must have counted.
    pub fn stop(self) -> Expected {
        self.thread.stop()
    }
}

/// What one socket sends.
struct Sender<'a> {
    socket: &'a UdpSocket,
    stream: Stream,
    /// A batch, of which only numbers and timestamps change.
    batch: Vec<u8>,
    next: u64,
    sent: u64,
}

impl<'a> Sender<'a> {
    fn new(socket: &'a UdpSocket, ssrc: u32) -> Self {
        let stream = Stream::audio(ssrc);
        cut_up(socket, &stream);
        Self { socket, stream, batch: stream.packet(FIRST).repeat(BATCH), next: FIRST, sent: 0 }
    }

    fn send(&mut self) {
        let length = self.batch.len() / BATCH;
        for packet in self.batch.chunks_exact_mut(length) {
            if self.next % GAP == GAP - 1 {
                self.next += 1;
            }
            self.stream.renumber(packet, self.next);
            self.next += 1;
            self.sent += 1;
        }
        self.socket.send(&self.batch).expect("send");
    }

    fn expected(&self) -> Expected {
        Expected { received: self.sent, lost: self.next - FIRST - self.sent, ..Expected::default() }
    }
}

fn send(sockets: &[UdpSocket], rate: u64, stop: &AtomicBool, sent: &AtomicU64) -> Expected {
    let mut senders: Vec<_> =
        sockets.iter().zip(0x0f10_0000..).map(|(socket, ssrc)| Sender::new(socket, ssrc)).collect();
    let gap = Duration::from_nanos(1_000_000_000 * BATCH as u64 / rate);
    let mut due = Instant::now();
    'all: loop {
        for sender in &mut senders {
            if stop.load(Ordering::Relaxed) {
                break 'all;
            }
            sender.send();
            sent.fetch_add(BATCH as u64, Ordering::Relaxed);
            let now = Instant::now();
            due += gap;
            if now.saturating_duration_since(due) > BEHIND {
                due = now;
            }
            thread::sleep(due.saturating_duration_since(now));
        }
    }
    senders.iter().map(Sender::expected).fold(Expected::default(), |sum, one| sum + one)
}
