//! One agent after another on the same pins: nothing of what happens between them is lost, and nothing is made of it.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests

use std::{
    collections::BTreeMap,
    fs,
    net::{SocketAddr, UdpSocket},
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use aya::maps::{Array, Map, MapData};
use graylag::kernel::version_of;
use graylag_ebpf::ABI_VERSION;
use graylag_tests::{
    agent::{Agent, Setup, Watch, graylag},
    bpf::Held,
    eventually,
    metrics::Scrape,
    net::{Pair, address},
    otlp::{Collector, Protocol},
    path_map::BpfFs,
    proc::{Directory, Ended},
    rtp::{self, Stream, expected, order},
    traffic::{Echo, Stops, ask, connect},
    udp,
};
use rustix::process::Signal;

const SOON: Duration = Duration::from_secs(20);
/// How long there is no agent.
const GAP: Duration = Duration::from_secs(1);
const PORT: u16 = 8080;
const COLLECTOR: u16 = 4317;
const USAGE: i32 = 2;
const CLIENT: (&str, &str) = ("graylag.role", "client");
const SERVER: (&str, &str) = ("graylag.role", "server");

fn pin(directory: &Path) -> String {
    format!("[kernel]\npin = \"{}\"", directory.display())
}

/// Ends it, waits as long as the gap is, and starts it anew.
fn again(mut agent: Agent, signal: Signal, meanwhile: impl FnOnce()) -> Agent {
    agent.process.signal(signal);
    eventually("it ends", SOON, || agent.process.ended());
    meanwhile();
    agent.again()
}

fn pins(agent: &Agent) -> String {
    agent.status().agent.pins.expect("it says what it found")
}

/// Handshakes and answers, as client and as server.
fn counted(scrape: &Scrape) -> [u64; 4] {
    let of = |role| {
        let handshakes =
            scrape.sum("graylag.tcp.handshake.count", &[role, ("graylag.outcome", "established")]);
        [handshakes as u64, scrape.count("graylag.tcp.response.duration", &[role]) as u64]
    };
    let ([a, b], [c, d]) = (of(CLIENT), of(SERVER));
    [a, b, c, d]
}

#[track_caller]
fn no_less(before: [u64; 4], after: [u64; 4]) {
    assert!(before.iter().zip(after).all(|(before, after)| after >= *before), "{before:?} {after:?}");
}

/// When each series of a counter began, by its attributes, in the order in which that was said.
fn beginnings(collector: &Collector, metric: &str) -> BTreeMap<String, Vec<u64>> {
    let mut all: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for point in collector.points(metric) {
        let starts = all.entry(format!("{:?}", point.attributes)).or_default();
        let start = point.integer("start_time_unix_nano");
        if starts.last() != Some(&start) {
            starts.push(start);
        }
    }
    all
}

#[test]
fn killed_or_told_to_end_under_load_no_count_is_lost_and_nothing_is_raised() {
    let (pair, bpf) = (Pair::new(), BpfFs::new());
    let collector = Collector::start(&pair.client, Protocol::Grpc, COLLECTOR);
    let mut agent = Setup::watching(&[&pair.client, &pair.server])
        .inside(&pair.client)
        .alone()
        .config(&pin(&bpf.join("agent")))
        .config("[[service]]\nname = \"collector\"\nremote_ports = [4317]\nlocal_ports = [4317]")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://127.0.0.1:{COLLECTOR}"))
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", Protocol::Grpc.name())
        .env("OTEL_METRIC_EXPORT_INTERVAL", "500")
        .start();
    assert_eq!(pins(&agent), "began");
    let ours = |scrape: &Scrape| {
        let api = ("graylag.service.name", "tcp/8080");
        let established = ("graylag.outcome", "established");
        let of = |role| {
            let handshakes = scrape.sum("graylag.tcp.handshake.count", &[api, role, established]);
            [handshakes as u64, scrape.count("graylag.tcp.response.duration", &[api, role]) as u64]
        };
        let ([a, b], [c, d]) = (of(CLIENT), of(SERVER));
        [a, b, c, d]
    };
    let echo = Echo::start(&pair.server, address::SERVER_V4, PORT);
    let (stop, made) = (AtomicBool::new(false), AtomicU64::new(0));
    agent = thread::scope(|scope| {
        let _stops = Stops(&stop);
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let mut stream = connect(&pair.client, echo.address.ip(), PORT).unwrap();
                    ask(&mut stream, 10).unwrap();
                    made.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut raised = Vec::new();
        for signal in [Signal::KILL, Signal::TERM, Signal::KILL] {
            eventually("it counts", SOON, || (ours(&agent.scrape())[0] > 100).then_some(()));
            thread::sleep(GAP);
            let before = ours(&agent.scrape());
            let (mut at_end, mut after_gap) = (0, 0);
            agent = again(agent, signal, || {
                at_end = made.load(Ordering::Relaxed);
                thread::sleep(GAP);
                after_gap = made.load(Ordering::Relaxed);
            });
            assert!(after_gap > at_end + 10, "there was load: {at_end} {after_gap}");
            let first = ours(&agent.scrape());
            no_less(before, first);
            assert!(
                first[0] >= after_gap,
                "what happened in the gap is there at once: {first:?} {after_gap}"
            );
            assert_eq!(pins(&agent), "goes on");
            let watch = Watch::start(&agent);
            thread::sleep(3 * GAP);
            raised.extend(watch.raised());
        }
        assert_eq!(raised, []);
        agent
    });
    let made = made.load(Ordering::Relaxed);
    agent.until(SOON, &[made; 4], ours);
    assert_eq!(agent.conditions(), []);
    let beginnings = beginnings(&collector, "graylag.tcp.handshake.count");
    let ours: Vec<_> = beginnings.iter().filter(|(name, _)| name.contains("tcp/8080")).collect();
    assert!(ours.len() >= 2, "{beginnings:?}");
    assert!(ours.iter().all(|(_, starts)| starts.len() == 1), "each series began once: {ours:?}");
}

/// Before Linux 6.6 there are filters at interfaces in place of links, which an orderly end takes with it (docs/operations.md).
fn has_tcx() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    version_of(&release) >= (6, 6)
}

#[test]
fn media_is_counted_to_the_packet_while_there_is_no_agent() {
    let (pair, bpf) = (Pair::new(), BpfFs::new());
    let media = "[media]\ninterfaces = [\"*\"]\n[limits]\nflows = 1024\npaths = 64";
    let mut agent = Setup::watching(&[&pair.server])
        .inside(&pair.server)
        .config(media)
        .config(&pin(&bpf.join("agent")))
        .start();
    let received = |scrape: &Scrape| {
        let of = |name: &str| {
            let receive = [("network.io.direction", "receive")];
            scrape.sum(&format!("graylag.rtp.packet.{name}"), &receive) as u64
        };
        [of("count"), of("lost"), of("reordered"), of("duplicated")]
    };
    let port = |socket: &UdpSocket| socket.local_addr().unwrap().port();
    let inside = udp::bind(&pair.server, address::SERVER_V4, 5004, 1 << 22);
    let outside = udp::sender(&pair.client, SocketAddr::new(address::SERVER_V4, port(&inside)));
    let stream = Stream::audio(0x7a);
    let mut number = 0;
    eventually("media is watched", SOON, || {
        rtp::send(&outside, &stream, &[number, number + 1]);
        number += 2;
        (received(&agent.scrape())[0] > 1).then_some(())
    });
    let mut total = [0; 4];
    eventually("it has counted all of that", SOON, || {
        let before = total;
        // Several looks lie between the two.
        thread::sleep(GAP);
        total = received(&agent.scrape());
        (before == total).then_some(())
    });
    let signals = if has_tcx() { &[Signal::KILL, Signal::TERM][..] } else { &[Signal::KILL] };
    for (round, signal) in signals.iter().copied().enumerate() {
        let sent = order(round as u64 + 1, number, 2000, 20);
        number += 2000;
        let more = expected(&sent);
        agent = again(agent, signal, || {
            for part in sent.chunks(100) {
                rtp::send(&outside, &stream, part);
                udp::drain(&inside);
            }
        });
        let of_gap = [more.received, more.lost, more.reordered, more.duplicated];
        total.iter_mut().zip(of_gap).for_each(|(total, more)| *total += more);
        agent.until(SOON, &total, received);
        assert_eq!(pins(&agent), "goes on");
    }
    assert_eq!(agent.conditions(), []);
}

/// Changes a word of the header that an agent left, as one of another version or build would have written it.
fn alter(directory: &Path, word: usize, value: u32) {
    let data = MapData::from_pin(directory.join("header")).expect("a header");
    let mut header = Array::<_, [u32; 22]>::try_from(Map::Array(data)).expect("of that length");
    let mut words = header.get(&0, 0).unwrap();
    words[word] = value;
    header.set(0, words, 0).unwrap();
}

const VERSION: usize = 2;
const PROGRAMS: usize = 4;

fn calls(pair: &Pair, n: usize) {
    for _ in 0..n {
        ask(&mut connect(&pair.client, address::SERVER_V4, PORT).unwrap(), 10).unwrap();
    }
}

#[test]
fn other_programs_take_over_the_counters_and_another_version_begins_anew() {
    let (pair, bpf) = (Pair::new(), BpfFs::new());
    let directory = bpf.join("graylag/agent");
    let setup = || Setup::watching(&[&pair.client, &pair.server]).alone().config(&pin(&directory));
    let mut agent = setup().start();
    let _echo = Echo::start(&pair.server, address::SERVER_V4, PORT);
    // Open from the first to the last.
    let mut open = connect(&pair.client, address::SERVER_V4, PORT).unwrap();
    ask(&mut open, 10).unwrap();
    calls(&pair, 20);
    agent.until(SOON, &[21; 4], counted);
    let first = Held::by(agent.process.id());

    agent = again(agent, Signal::KILL, || {
        calls(&pair, 20);
        // All but the iterators, which nobody runs meanwhile.
        let links = fs::read_dir(directory.join("links")).unwrap().count();
        let programs = first.alive().programs.len();
        assert!(links > 4 && programs == links, "what is attached goes on: {programs} of {links}");
        alter(&directory, PROGRAMS, 7);
    });
    assert_eq!(pins(&agent), "goes on, with other programs");
    assert!(first.alive().programs.is_empty(), "the earlier ones are gone: {:?} of {first:?}", first.alive());
    agent.until(SOON, &[41; 4], counted);
    ask(&mut open, 10).unwrap();
    calls(&pair, 20);
    agent.until(SOON, &[61, 62, 61, 62], counted);
    let links = fs::read_dir(directory.join("links")).unwrap().count();
    let attached = agent.scrape().sum("graylag.agent.program.attached", &[]) as usize;
    assert!(links > 4 && links <= attached, "one of each that is attached: {links} of {attached}");

    // Other settings that leave the counters what they are.
    fs::write(&agent.config, setup().config("[paths]\nclient_prefix_v4 = 24\nserver_prefix_v4 = 32").toml())
        .unwrap();
    agent = again(agent, Signal::TERM, || calls(&pair, 20));
    assert_eq!(pins(&agent), "goes on, with other programs");
    agent.until(SOON, &[81, 82, 81, 82], counted);

    let before = Held::by(agent.process.id());
    agent = again(agent, Signal::KILL, || alter(&directory, VERSION, ABI_VERSION + 1));
    let said = pins(&agent);
    let version = format!("began anew: it has version {} of the contract", ABI_VERSION + 1);
    assert!(said.starts_with(&version), "{said}");
    agent.said("what an earlier agent left is removed, and everything is counted anew");
    assert_eq!(counted(&agent.scrape()), [0; 4]);
    eventually("the kernel has nothing of the earlier one", SOON, || before.alive().is_empty().then_some(()));
    calls(&pair, 3);
    agent.until(SOON, &[3; 4], counted);

    // So does one with other sizes.
    fs::write(&agent.config, setup().config("[limits]\npaths = 64").toml()).unwrap();
    agent = again(agent, Signal::TERM, || ());
    assert_eq!(pins(&agent), "began anew: its map PATHS has 4096 entries, not 64");

    // Two at once would each take what the other counts.
    let Ended { code, err, .. } = setup().refused();
    assert_eq!(code, Some(USAGE), "{err}");
    assert!(err.contains("kernel.pin: another graylag writes to a map in"), "{err}");
    let check = graylag(&["check", "--config", agent.config.to_str().unwrap()]);
    assert!(check.out.contains(&format!("rm -r {} removes them", directory.display())), "{}", check.out);

    // What nobody comes back for goes with its pins.
    let last = Held::by(agent.process.id());
    agent.process.signal(Signal::TERM);
    eventually("it ends", SOON, || agent.process.ended());
    assert!(!last.alive().programs.is_empty());
    fs::remove_dir_all(&directory).unwrap();
    eventually("the kernel has nothing of it any more", SOON, || last.alive().is_empty().then_some(()));
}

#[test]
fn what_happens_while_programs_are_exchanged_is_counted_and_once() {
    const EXCHANGES: u64 = 5;

    let (pair, bpf) = (Pair::new(), BpfFs::new());
    let directory = bpf.join("agent");
    let setup = Setup::watching(&[&pair.client, &pair.server]).alone().config(&pin(&directory));
    let mut agent = setup.start();
    let _echo = Echo::start(&pair.server, address::SERVER_V4, PORT);
    let (stop, made) = (AtomicBool::new(false), AtomicU64::new(0));
    agent = thread::scope(|scope| {
        let _stops = Stops(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                calls(&pair, 1);
                made.fetch_add(1, Ordering::Relaxed);
            }
        });
        for _ in 0..EXCHANGES {
            agent = again(agent, Signal::KILL, || alter(&directory, PROGRAMS, 7));
            assert_eq!(pins(&agent), "goes on, with other programs");
        }
        agent
    });
    let made = made.load(Ordering::Relaxed);
    let mut last = [0; 4];
    let all = eventually("it has counted all", SOON, || {
        let before = last;
        thread::sleep(GAP);
        last = counted(&agent.scrape());
        (before == last).then_some(last)
    });
    // What comes between two system calls in a row may count twice.
    assert!(all.iter().all(|n| (made..=made + EXCHANGES).contains(n)), "{made} {all:?}");
}

#[test]
fn where_nothing_can_be_pinned_the_remedy_is_told() {
    let directory = Directory::new();
    let Ended { code, err, .. } = Setup::default().config(&pin(&directory.path().join("a"))).refused();
    assert_eq!(code, Some(USAGE), "{err}");
    let remedy = "is on no BPF file system; mount one (mount -t bpf bpf /sys/fs/bpf)";
    assert!(err.contains("kernel.pin: ") && err.contains(remedy), "{err}");
}
