//! More RTP packets a second than the clock is read for: each stream's jitter is measured in its turn, everything else is counted
//! always; and the same with fewer, where nothing has to wait.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use graylag::collect::turns::TIMED;
use graylag_ebpf::{media::JITTER_EVERY, rtp::Turns};
use graylag_tests::{
    agent::{Agent, Setup, Watch},
    arrivals::{self, Arrivals},
    background::Background,
    eventually,
    flood::Flood,
    metrics::Scrape,
    net::{Pair, address},
    nft::Nft,
    otlp::{Collector, Point, Protocol},
    paced::{self, LATE, RATE},
    rtp::{Expected, Stream, expected},
    udp,
};

const SOON: Duration = Duration::from_secs(60);
const COLLECTOR: u16 = 14318;
const RECEIVE: &str = "receive";
const TRANSMIT: &str = "transmit";
const FLOOD: &str = "flood";
/// Peers whose streams are paced: on time, and every other packet late.
const PACED: [(&str, [u8; 4]); 2] = [("on-time", [10, 77, 0, 3]), ("late", [10, 77, 0, 4])];
/// Streams of each of them.
const STREAMS: u32 = 4;
/// What the log says, up to the number of streams that share.
const SAYS: &str = "jitter is measured of each stream for 1/";

/// The agent's host sends the flood, and receives what is paced.
struct Bed {
    agent: Agent,
    watch: Watch,
    collector: Collector,
    pair: Pair,
}

impl Bed {
    fn new() -> Self {
        let pair = Pair::new();
        // As on any host that sends: super-packets, all the way.
        for host in [&pair.client, &pair.server] {
            host.ip(&["link", "set", "eth0", "gso_max_segs", "65535"]);
        }
        let mut config = "[media]\ninterfaces = [\"eth0\"]\n[limits]\nflows = 256\npaths = 64\n".to_owned();
        for (name, address) in PACED {
            pair.client.ip(&["addr", "add", &format!("{}/24", IpAddr::from(address)), "dev", "eth0"]);
            config.push_str(&peer(name, IpAddr::from(address)));
        }
        config.push_str(&peer(FLOOD, address::CLIENT_V4));
        // Whoever the flood is for has seen enough of it.
        Nft::new(&pair.client).apply("add rule inet t in udp dport 7000-7999 drop");
        let collector = Collector::start(&pair.server, Protocol::Http, COLLECTOR);
        let agent = Setup::watching(&[&pair.server])
            .alone()
            .inside(&pair.server)
            .config(&config)
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://127.0.0.1:{COLLECTOR}"))
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", Protocol::Http.name())
            .env("OTEL_METRIC_EXPORT_INTERVAL", "500")
            .start();
        let watch = Watch::start(&agent);
        let bed = Self { agent, watch, collector, pair };
        bed.warm_up();
        bed
    }

    /// Sends until a packet is counted: the interface is watched.
    fn warm_up(&self) {
        let to = SocketAddr::new(address::CLIENT_V6, 9);
        let _receiver = udp::bind(&self.pair.client, to.ip(), to.port(), 1 << 20);
        let sender = udp::sender(&self.pair.server, to);
        let mut number = 0;
        eventually("media is watched", SOON, || {
            for _ in 0..2 {
                sender.send(&Stream::audio(0x77).packet(number)).unwrap();
                number += 1;
            }
            let counted =
                self.agent.scrape().sum("graylag.rtp.packet.count", &[("network.io.direction", TRANSMIT)]);
            (counted > 1.0).then_some(())
        });
    }

    fn flood(&self, rate: u64) -> Flood {
        let socket = |port| udp::sender(&self.pair.server, SocketAddr::new(address::CLIENT_V4, port));
        Flood::start((7000..7008).map(socket).collect(), rate)
    }

    /// The paced streams, and who receives them.
    fn paced(&self) -> (Background<()>, [Arrivals; 2]) {
        let ends = PACED.map(|(_, address)| {
            let there = SocketAddr::new(address::SERVER_V4, 5000 + u16::from(address[3]));
            let outside: UdpSocket =
                udp::bind(&self.pair.client, IpAddr::from(address), there.port(), 1 << 20);
            outside.connect(there).unwrap();
            (outside, Arrivals::of(udp::bind(&self.pair.server, there.ip(), there.port(), 1 << 20)))
        });
        let [(on_time, first), (late, second)] = ends;
        (paced::start(on_time, late, STREAMS), [first, second])
    }

    /// Of the jitter, in the status and in the metric.
    fn coverage(&self) -> f64 {
        let jitter = self.agent.signal("jitter");
        let share = jitter.coverage.expect("a figure");
        assert_eq!(jitter.reason.is_some(), share < 1.0, "{jitter:?}");
        share
    }

    /// Waits until the metrics say it as well: those that are asked for, and those that are sent.
    fn coverage_is_told(&self, fits: impl Fn(f64) -> bool) {
        let labels = [("graylag.signal", "jitter")];
        eventually("the metric says so", SOON, || {
            fits(self.agent.scrape().sum("graylag.agent.coverage", &labels)).then_some(())
        });
        eventually("the collector hears of it", SOON, || {
            let points = self.collector.points("graylag.agent.coverage");
            let jitter = |point: &&Point| point.attributes["graylag.signal"] == "jitter";
            let last = points.iter().rev().find(jitter)?;
            fits(last.value["as_double"].as_f64().expect("a number")).then_some(())
        });
    }
}

fn peer(name: &str, address: IpAddr) -> String {
    format!("[[peer]]\nname = \"{name}\"\ncidrs = [\"{address}/32\"]\n")
}

fn counted(scrape: &Scrape, peer: &str, direction: &str) -> Expected {
    let labels = [("graylag.peer.name", peer), ("network.io.direction", direction)];
    let of = |name: &str| scrape.sum(&format!("graylag.rtp.packet.{name}"), &labels) as u64;
    Expected {
        received: of("count"),
        lost: of("lost"),
        reordered: of("reordered"),
        duplicated: of("duplicated"),
    }
}

/// How often jitter was taken of what a peer sends, and the sum, as the agent says.
fn said(scrape: &Scrape, peer: &str) -> (f64, f64) {
    let labels = [("graylag.peer.name", peer), ("network.io.direction", RECEIVE)];
    let name = "graylag.rtp.jitter";
    (scrape.count(name, &labels), scrape.sum(&format!("{name}_seconds_sum"), &labels))
}

/// The same as the receiver makes it out.
fn heard(arrivals: &Arrivals) -> (f64, f64) {
    let samples =
        arrivals.streams.values().flat_map(|stream| arrivals::jitter(stream, RATE, JITTER_EVERY.into()));
    samples.fold((0.0, 0.0), |(n, sum), jitter| (n + 1.0, sum + jitter))
}

/// What has come meanwhile.
fn take(ends: &mut [Arrivals]) {
    for end in ends {
        end.take();
    }
}

fn mean(before: (f64, f64), after: (f64, f64)) -> f64 {
    (after.1 - before.1) / (after.0 - before.0)
}

/// Waits until, over some seconds, the agent and the receiver agree on the jitter of what is paced: of what takes turns it comes
/// near more slowly. Only seconds count in which the coverage is as it should be.
fn jitter_is_what_the_receiver_has(bed: &Bed, ends: &mut [Arrivals; 2], fits: impl Fn(f64) -> bool) {
    const LOOK: Duration = Duration::from_secs(8);
    const OFF: f64 = 0.001;
    let start = Instant::now();
    loop {
        let figures = |ends: &mut [Arrivals; 2]| {
            take(ends);
            let scrape = bed.agent.scrape();
            let both: Vec<_> =
                PACED.iter().zip(&*ends).map(|((peer, _), end)| (said(&scrape, peer), heard(end))).collect();
            (bed.coverage(), both)
        };
        let before = figures(ends);
        let look = Instant::now();
        while look.elapsed() < LOOK {
            thread::sleep(Duration::from_millis(50));
            take(ends);
        }
        let after = figures(ends);
        let jitter: Vec<(f64, f64)> =
            before.1.iter().zip(&after.1).map(|(b, a)| (mean(b.0, a.0), mean(b.1, a.1))).collect();
        println!("coverage {} to {}, jitter {jitter:?}: the agent's, the receiver's", before.0, after.0);
        let agreed = jitter.iter().all(|(ours, theirs)| (ours - theirs).abs() < OFF);
        // The fault is there, and only where it should be.
        let late = LATE.as_secs_f64();
        let there = jitter[0].1 < 0.3 * late && jitter[1].1 > 0.7 * late;
        if agreed && there && fits(before.0) && fits(after.0) {
            return;
        }
        assert!(start.elapsed() < 2 * SOON, "coverage {} to {}, jitter {jitter:?}", before.0, after.0);
    }
}

/// Ends everything: what was counted is what was sent and what arrived, to the packet.
fn counts_are_exact(bed: &Bed, flood: Flood, paced: Background<()>, ends: &mut [Arrivals; 2]) {
    drop(paced);
    let flood = flood.stop();
    thread::sleep(Duration::from_secs(1));
    take(ends);
    assert_eq!(bed.pair.server.udp("RcvbufErrors"), 0, "what the receiver missed it cannot count");
    assert!(flood.lost > 0, "{flood:?}");
    bed.agent.until(SOON, &flood, |scrape| counted(scrape, FLOOD, TRANSMIT));
    for ((peer, _), end) in PACED.iter().zip(&*ends) {
        let streams = end.streams.values().map(|stream| expected(&arrivals::numbers(stream)));
        let received = streams.fold(Expected::default(), |sum, one| sum + one);
        assert!(received.lost > 0, "{received:?}");
        bed.agent.until(SOON, &received, |scrape| counted(scrape, peer, RECEIVE));
    }
}

#[test]
fn of_very_many_packets_each_counts_and_jitter_is_measured_in_turns() {
    let bed = Bed::new();
    assert!(bed.coverage() >= 1.0);
    let flood = bed.flood(TIMED + TIMED / 2);
    let (start, mut share) = (Instant::now(), 1.0);
    while share >= 1.0 {
        let (seconds, sent) = (start.elapsed().as_secs_f64(), flood.sent() as f64);
        assert!(
            seconds < 60.0,
            "no turns are taken; this machine sent {:.0} packets a second",
            sent / seconds
        );
        thread::sleep(Duration::from_millis(100));
        share = bed.coverage();
    }
    let others = 1.0 / share - 1.0;
    assert!(others <= f64::from(Turns::MOST_OTHERS) && others.fract() == 0.0, "{share}");
    let line = bed.agent.said(SAYS);
    assert!(!line.contains("1/1 "), "{line}");
    bed.coverage_is_told(|share| share < 1.0);

    // What begins now has never been measured but in its turn.
    let (paced, mut ends) = bed.paced();
    thread::sleep(Duration::from_secs(2));
    jitter_is_what_the_receiver_has(&bed, &mut ends, |share| share < 1.0);
    counts_are_exact(&bed, flood, paced, &mut ends);

    eventually("all of the time again", SOON, || (bed.coverage() >= 1.0).then_some(()));
    bed.agent.said(&format!("{SAYS}1 "));
    bed.coverage_is_told(|share| share >= 1.0);
    assert_eq!(bed.watch.raised(), [], "nothing is wrong");
}

/// The healthy twin: the same streams, and fewer packets of the others.
#[test]
fn of_fewer_packets_the_jitter_is_measured_always() {
    let bed = Bed::new();
    let flood = bed.flood(TIMED / 10);
    let (paced, mut ends) = bed.paced();
    thread::sleep(Duration::from_secs(2));
    jitter_is_what_the_receiver_has(&bed, &mut ends, |share| share >= 1.0);
    counts_are_exact(&bed, flood, paced, &mut ends);
    assert!(bed.coverage() >= 1.0);
    let told = bed.collector.points("graylag.agent.coverage");
    let jitter: Vec<_> = told.iter().filter(|point| point.attributes["graylag.signal"] == "jitter").collect();
    assert!(!jitter.is_empty() && jitter.iter().all(|point| point.value["as_double"] == 1.0), "{jitter:?}");
    assert!(bed.agent.process.output().iter().all(|line| !line.contains(SAYS)), "it never took turns");
    assert_eq!(bed.watch.raised(), [], "nothing is wrong");
}
