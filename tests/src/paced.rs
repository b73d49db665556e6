//! Streams at the pace of voice whose jitter is known: of half of them every packet leaves on time, of the others every other
//! one leaves late, always by the same.

use std::{
    net::UdpSocket,
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use crate::{background::Background, rtp::Stream};

/// Clock of the streams in Hz.
pub const RATE: f64 = 8000.0;
const INTERVAL: Duration = Duration::from_millis(20);
/// By how much every other packet is late; interarrival jitter comes to be that.
pub const LATE: Duration = Duration::from_millis(16);
/// Of so many numbers the last one never leaves.
const GAP: u64 = 499;
/// Near the end of a cycle of the sequence number.
const FIRST: u64 = 65_300;

/// So many streams through each of the two sockets: what is on time, and what is late.
pub fn start(on_time: UdpSocket, late: UdpSocket, streams: u32) -> Background<()> {
    Background::start(move |stop| {
        let begin = Instant::now();
        for (i, number) in (0u32..).zip(FIRST..) {
            let due = begin + INTERVAL * i;
            sleep_until(due);
            send(&on_time, streams, number);
            if number % 2 == 1 {
                sleep_until(due + LATE);
            }
            send(&late, streams, number);
            if stop.load(Ordering::Relaxed) {
                return;
            }
        }
    })
}

fn sleep_until(due: Instant) {
    thread::sleep(due.saturating_duration_since(Instant::now()));
}

/// A packet of each. PCMU: its clock is fixed (RFC 3551), so that its jitter is measured from the second packet on.
fn send(socket: &UdpSocket, streams: u32, number: u64) {
    for ssrc in 1..=streams {
        // Not all of them at the same number: samples of the jitter are taken by it.
        let number = number + 8 * u64::from(ssrc);
        if number % GAP != GAP - 1 {
            let stream = Stream { payload_type: 0, ticks: 160, ..Stream::audio(ssrc) };
            let _ = socket.send(&stream.packet(number));
        }
    }
}
