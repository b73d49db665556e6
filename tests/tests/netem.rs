//! Real delay, jitter, loss, reordering and duplication (netem): what the agent says of RTP streams is what their receiver
//! counts itself, packet by packet, and its jitter is RFC 3550's of the moments at which the kernel took the packets in.
//!
//! For the guests of `cargo xtask kernels` only: a machine's own kernel may have no netem (xtask/src/kernels, `ONLY_IN_GUESTS`).
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    thread,
    time::Duration,
};

use graylag_ebpf::media::JITTER_EVERY;
use graylag_tests::{
    agent::{Agent, Setup},
    arrivals::{self, Arrivals, TakenUp},
    eventually,
    metrics::Scrape,
    net::{Pair, address},
    proc::run,
    rtp::{Expected, Stream, expected},
    udp,
};

const SOON: Duration = Duration::from_secs(60);
const RECEIVE: &[(&str, &str)] = &[("network.io.direction", "receive")];
/// Packets of each stream, 20 ms apart or a little more: across the wrap of the sequence number.
const PACKETS: u64 = 400;
const FIRST: u64 = 65_300;
/// Of these, before netem does anything: the beginning of a stream is not what is tested here.
const UNDISTURBED: u64 = 5;
/// PCMU: its clock is fixed (RFC 3551), so that its jitter is measured from the second packet on.
const RATE: f64 = 8000.0;
const TICKS: u32 = 160;
const STREAMS: u32 = 2;

fn stream(ssrc: u32) -> Stream {
    Stream { payload_type: 0, ticks: TICKS, ..Stream::audio(ssrc) }
}

/// What a receiver counted itself, and what the agent beside it says.
struct Outcome {
    receiver: Expected,
    /// Bursts of loss.
    bursts: u64,
    /// Mean of the streams' jitter, seconds, as the receiver has it and as the agent says.
    jitter: (f64, f64),
}

/// Two hosts, the agent on the one that receives. One for all that is tried: an emulated processor takes long to start it.
struct Way {
    pair: Pair,
    agent: Agent,
    _taken_up: TakenUp,
}

impl Way {
    fn new() -> Self {
        let pair = Pair::new();
        one_cpu(&pair);
        let media = "[media]\ninterfaces = [\"*\"]\n[limits]\nflows = 256\npaths = 64";
        let agent = Setup::watching(&[&pair.server]).inside(&pair.server).config(media).start();
        warm_up(&agent, &pair);
        Self { pair, agent, _taken_up: TakenUp::noted() }
    }

    /// Streams of both families through netem with these parameters; `port` is theirs alone.
    fn through(&self, port: u16, netem: &[&str]) -> Outcome {
        let Self { pair, agent, .. } = self;
        let mut ends: Vec<(UdpSocket, Arrivals)> =
            [address::SERVER_V4, address::SERVER_V6].map(|server| joined(pair, server, port)).into();
        let before = said(&agent.scrape());
        for i in 0..PACKETS {
            if i == UNDISTURBED {
                let mut arguments = vec!["qdisc", "add", "dev", "eth0", "root", "netem", "limit", "10000"];
                arguments.extend_from_slice(netem);
                pair.client.tc(&arguments);
            }
            // Never nearer to each other than that, however late one was: none is overtaken for the sender's sake.
            thread::sleep(Duration::from_millis(20));
            for (outside, inside) in &mut ends {
                (1..=STREAMS).for_each(|ssrc| _ = outside.send(&stream(ssrc).packet(FIRST + i)).unwrap());
                inside.take();
            }
        }
        let outcome = self.compare(netem, &before, ends);
        pair.client.tc(&["qdisc", "del", "dev", "eth0", "root"]);
        outcome
    }

    /// What the receiver has counted and what the agent has said since, once everything has come.
    fn compare(&self, netem: &[&str], before: &Said, mut ends: Vec<(UdpSocket, Arrivals)>) -> Outcome {
        let Self { pair, agent, .. } = self;
        // The last ones are still on their way.
        let quiet = |inside: &mut Arrivals| {
            while inside.take() {
                thread::sleep(Duration::from_secs(2));
            }
        };
        thread::sleep(Duration::from_secs(1));
        for (_, inside) in &mut ends {
            quiet(inside);
        }
        let overflowed = pair.server.udp("RcvbufErrors") + pair.server.snmp6("Udp6RcvbufErrors");
        assert_eq!(overflowed, 0, "what the receiver missed it cannot count");

        let streams: Vec<&Vec<_>> = ends.iter().flat_map(|(_, inside)| inside.streams.values()).collect();
        assert_eq!(streams.len(), 2 * STREAMS as usize);
        let orders: Vec<Vec<u64>> = streams.iter().map(|arrivals| arrivals::numbers(arrivals)).collect();
        let receiver = orders.iter().fold(Expected::default(), |sum, order| sum + expected(order));
        agent.until(SOON, &(before.counts + receiver), |scrape| said(scrape).counts);
        let after = said(&agent.scrape());
        let samples: Vec<f64> =
            streams.iter().flat_map(|stream| arrivals::jitter(stream, RATE, JITTER_EVERY.into())).collect();
        assert_eq!(after.samples - before.samples, samples.len() as u64);
        let mean = |sum: f64| sum / samples.len() as f64;
        let outcome = Outcome {
            receiver,
            bursts: orders.iter().map(|order| bursts(order)).sum(),
            jitter: (mean(samples.iter().sum()), mean(after.jitter - before.jitter)),
        };
        println!("{netem:?}: {receiver:?}, {} bursts, jitter {:?} s", outcome.bursts, outcome.jitter);
        // A burst of which a part comes late is another burst: where packets were reordered its length was told before.
        assert!(
            receiver.reordered > 0 || after.bursts - before.bursts == outcome.bursts,
            "{} told",
            after.bursts - before.bursts
        );
        let (theirs, ours) = outcome.jitter;
        assert!((ours - theirs).abs() < 0.001, "jitter: the agent says {ours}, the receiver {theirs}");
        outcome
    }
}

/// What the agent has said of everything received so far.
struct Said {
    counts: Expected,
    bursts: u64,
    /// Jitter: how often it was taken, and the sum.
    samples: u64,
    jitter: f64,
}

fn said(scrape: &Scrape) -> Said {
    let of = |name: &str| scrape.sum(&format!("graylag.rtp.{name}"), RECEIVE) as u64;
    Said {
        counts: Expected {
            received: of("packet.count"),
            lost: of("packet.lost"),
            reordered: of("packet.reordered"),
            duplicated: of("packet.duplicated"),
        },
        bursts: of("loss.burst_count"),
        samples: scrape.count("graylag.rtp.jitter", RECEIVE) as u64,
        jitter: scrape.sum("graylag.rtp.jitter_seconds_sum", RECEIVE),
    }
}

/// Runs of numbers that never came.
fn bursts(order: &[u64]) -> u64 {
    let mut sorted = order.to_vec();
    sorted.sort_unstable();
    sorted.windows(2).filter(|pair| pair[1] - pair[0] > 1).count() as u64
}

/// All packets that the server's interface receives are handled by one processor, as a network card's queue has it: in one
/// order for the agent and for the socket.
fn one_cpu(pair: &Pair) {
    let queue = "echo 1 > /sys/class/net/eth0/queues/rx-0/rps_cpus";
    run(pair.server.command("sh").args(["-c", queue]));
}

/// A socket of each host, connected to the other's.
fn joined(pair: &Pair, server: IpAddr, port: u16) -> (UdpSocket, Arrivals) {
    let client = if server.is_ipv4() { address::CLIENT_V4 } else { address::CLIENT_V6 };
    let outside = udp::bind(&pair.client, client, port, 1 << 20);
    outside.connect(SocketAddr::new(server, port)).unwrap();
    let inside = udp::bind(&pair.server, server, port, 1 << 20);
    (outside, Arrivals::of(inside))
}

/// Sends until a packet is counted: the interface is watched.
fn warm_up(agent: &Agent, pair: &Pair) {
    let (outside, mut inside) = joined(pair, address::SERVER_V4, 9);
    let mut number = 0;
    eventually("media is watched", SOON, || {
        for _ in 0..2 {
            outside.send(&Stream::audio(0x77).packet(number)).unwrap();
            number += 1;
        }
        inside.take();
        (said(&agent.scrape()).counts.received > 1).then_some(())
    });
    thread::sleep(Duration::from_secs(2));
}

/// One after the other: each takes ten seconds, the start of an agent in a guest longer than all of them.
#[test]
fn what_a_way_does_to_streams_is_told_as_their_receiver_counts_it() {
    let way = Way::new();

    // Delays that differ by less than the packets are apart: none overtakes another, and the reference is A.8 by the letter.
    let Outcome { receiver, jitter: (theirs, _), .. } = way.through(5004, &["delay", "40ms", "8ms"]);
    assert_eq!((receiver.lost, receiver.reordered, receiver.duplicated), (0, 0, 0), "{receiver:?}");
    // Two delays, each anywhere in 16 ms, differ by a third of that on average; a busy machine adds to it.
    assert!(theirs > 0.004, "{theirs}");

    let Outcome { receiver, bursts, .. } = way.through(5006, &["loss", "random", "8%"]);
    assert!(receiver.lost > 60 && bursts > 50, "{receiver:?} in {bursts}");

    // Gilbert and Elliott: one packet in a hundred begins a burst, which goes on with every packet but one in twenty: some five
    // of each of the four streams.
    let Outcome { receiver, bursts, .. } =
        way.through(5008, &["delay", "5ms", "loss", "gemodel", "1%", "5%"]);
    assert!(bursts > 10 && receiver.lost > 2 * bursts, "{receiver:?} in {bursts}");

    // One in five is not delayed at all, and overtakes several others.
    let Outcome { receiver, .. } = way.through(5010, &["delay", "150ms", "reorder", "20%", "50%"]);
    assert_eq!((receiver.lost, receiver.duplicated), (0, 0), "{receiver:?}");
    assert!(receiver.reordered > 100, "{receiver:?}");

    // Everything at once: delays that differ by several packets' time, loss, and packets that come twice.
    let everything = ["delay", "100ms", "60ms", "25%", "loss", "random", "5%", "duplicate", "5%"];
    let Expected { lost, reordered, duplicated, .. } = way.through(5012, &everything).receiver;
    assert!(lost > 30 && reordered > 100 && duplicated > 30, "{lost} {reordered} {duplicated}");
}
