//! The flow programs against streams in any order, compared with what they amount to by definition.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use graylag::kernel::trial::FlowProgram;
use graylag_ebpf::{
    demux::Kind,
    media::{BURST_BUCKETS, MediaCounter, burst_bucket, group},
    rtp::Turns,
};
use graylag_tests::{
    frames::{self, datagram, tagged},
    random::Random,
    repetitions,
    rtp::{Expected, Stream, expected},
    trial::{path_of, paths, show, socket, socket6, trial},
};

/// Up to 30 numbers lost in a row, late and repeated by up to 30: within the window, whatever happens at once.
fn any_order(random: &mut Random) -> Vec<u64> {
    const APART: usize = 30;
    let (first, n) = (random.below(70_000) as u64 + 100, 60 + random.below(400) as u64);
    let (loss, repeated, apart) = (random.below(40), random.below(30), 1 + random.below(APART));
    let mut keyed = Vec::new();
    let mut number = first;
    while number < first + n {
        if random.percent(loss / 4) {
            number += 1 + random.below(APART) as u64;
        }
        keyed.push((number + random.below(apart) as u64, number));
        if random.percent(repeated) {
            keyed.push((number + random.below(APART) as u64, number));
        }
        number += 1;
        // One at a time, never two in a row: a burst stays as long as it is.
        number += u64::from(random.percent(loss));
    }
    keyed.sort_by_key(|(at, _)| *at);
    keyed.into_iter().map(|(_, number)| number).collect()
}

/// Runs of numbers between the first and the last that never came, by length.
fn bursts(order: &[u64]) -> [u64; BURST_BUCKETS] {
    let seen: BTreeSet<u64> = order.iter().copied().collect();
    let mut bursts = [0; BURST_BUCKETS];
    for (a, b) in seen.iter().zip(seen.iter().skip(1)) {
        if b - a > 1 {
            bursts[burst_bucket((b - a - 1) as u32)] += 1;
        }
    }
    bursts
}

/// How a stream is sent.
#[derive(Clone, Copy, Debug)]
struct Manner {
    ipv6: bool,
    tag: bool,
    channel: bool,
    /// Packets that one stands for.
    together: usize,
}

#[test]
fn any_order_of_a_stream_is_told_to_the_packet_in_its_direction_alone() {
    let seeds = repetitions(600, 60) as u64;
    let mut trial = trial();
    let mut random = Random::new(2);
    let mut expectations = Vec::new();
    for seed in 0..seeds {
        let manner = Manner {
            ipv6: seed % 5 == 4,
            tag: seed % 7 == 6,
            channel: seed % 3 == 2,
            together: if seed % 4 == 3 { 2 + random.below(40) } else { 1 },
        };
        // Whose turn it is at the clock changes no count.
        trial.take_turns([0, 1, Turns::MOST_OTHERS][seed as usize % 3]).unwrap();
        let (remote, local) = if manner.ipv6 {
            (
                SocketAddr::new(IpAddr::from([0x2001, 0xdb8, seed as u16 + 1, 1, 0, 0, 0, 1]), 6000),
                socket6(0, 6001),
            )
        } else {
            (socket([10, (seed >> 8) as u8, seed as u8, 1], 6000), socket([198, 51, 100, 1], 6001))
        };
        // Of some, one direction is all there is.
        let mut orders = [any_order(&mut random), any_order(&mut random)];
        if seed % 6 < 2 {
            orders[seed as usize % 6].clear();
        }
        let channel = if manner.channel { 0x4000 + seed as u16 } else { 0 };
        let stream = Stream { channel, bytes: 20 + random.below(50), ..Stream::audio(seed as u32) };
        let mut at = [0; 2];
        while at[0] < orders[0].len() || at[1] < orders[1].len() {
            let half = random.below(2);
            let rest = &orders[half][at[half]..];
            let now = &rest[..manner.together.min(rest.len())];
            at[half] += now.len();
            let payload: Vec<u8> = now.iter().flat_map(|number| stream.packet(*number)).collect();
            let (from, to) = if half == 0 { (remote, local) } else { (local, remote) };
            let mut frame = datagram(from, to, &payload);
            if manner.tag {
                frame = tagged(&frame, &[0x8100]);
            }
            let segment_size = if now.len() > 1 { stream.packet(0).len() as u32 } else { 0 };
            if !now.is_empty() {
                show(&trial, FlowProgram::ALL[half], &frame, segment_size);
            }
        }
        expectations.push((seed, manner, remote, orders));
    }
    let paths = paths(&trial);
    let mut lost = 0;
    for (seed, manner, remote, orders) in expectations {
        let found = path_of(&paths, remote.ip());
        for (half, order) in orders.iter().enumerate() {
            let (counts, expected) = (found[half], expected(order));
            assert_eq!(counts.stream, expected, "{seed} {half} {manner:?}");
            assert_eq!(counts.bursts, bursts(order), "{seed} {half} {manner:?}");
            assert_eq!(counts.groups[group(Kind::Rtp)], order.len() as u64, "{seed} {half}");
            assert_eq!((counts.stale, counts.restarts), (0, 0), "{seed} {half}");
            lost += expected.lost;
        }
    }
    assert!(lost > 20 * seeds, "{lost}");
    let counters = trial.counters().unwrap();
    assert_eq!(counters[MediaCounter::FlowCreated as usize], seeds);
    assert!(MediaCounter::NOT_COVERED.iter().all(|counter| counters[*counter as usize] == 0), "{counters:?}");
}

/// The kernel joins datagrams of one flow and size, whatever they carry.
#[test]
fn what_is_no_rtp_among_the_segments_makes_no_stream() {
    const SIZE: usize = 92;
    const ROUNDS: u16 = 30;
    let trial = trial();
    let (remote, local) = (socket([203, 0, 113, 7], 5004), socket([198, 51, 100, 1], 5006));
    let stream = Stream::audio(0xabcd);
    let sized = |mut segment: Vec<u8>| {
        segment.resize(SIZE, 0);
        segment
    };
    for round in 0..ROUNDS {
        // A receiver report about one source, compound: its own length varies, that of the whole does not.
        let mut report = vec![0x81, 201, 0, 7 + (round % 3) as u8, 0, 0, 0, 1, 0, 0, 0x56, 0x78];
        report.resize(SIZE, 1);
        let segments = [
            stream.packet(2 * u64::from(round)),
            report,
            sized(frames::stun()),
            sized(frames::dtls()),
            vec![0x40; SIZE],
            stream.packet(2 * u64::from(round) + 1),
        ];
        show(&trial, FlowProgram::Ingress, &datagram(remote, local, &segments.concat()), SIZE as u32);
    }
    let [received, sent] = path_of(&paths(&trial), remote.ip());
    let whole = Expected { received: 2 * u64::from(ROUNDS), ..Expected::default() };
    assert_eq!(received.stream, whole);
    assert!(!sent.says_anything());
    let counters = trial.counters().unwrap();
    assert_eq!(counters[MediaCounter::StreamCreated as usize], 0, "{counters:?}");
}
