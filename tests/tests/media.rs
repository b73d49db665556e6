//! Media at the interfaces, to the packet: what was sent is known, and what the agent counted must be that.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use graylag_tests::{
    agent::{Agent, Setup, Watch, about},
    eventually,
    every::Every20ms,
    metrics::Scrape,
    net::{Pair, address},
    nft::Nft,
    raw,
    rtp::{self, Expected, Stream, expected, order},
    udp,
};

const SOON: Duration = Duration::from_secs(20);
const PORT: u16 = 5004;
const SERVERS: [IpAddr; 2] = [address::SERVER_V4, address::SERVER_V6];

/// On the server's host.
fn agent(pair: &Pair) -> Agent {
    agent_with(pair, 1024)
}

fn agent_with(pair: &Pair, flows: u32) -> Agent {
    let media = format!("[media]\ninterfaces = [\"*\"]\n[limits]\nflows = {flows}\npaths = 64");
    let agent = Setup::watching(&[&pair.server]).inside(&pair.server).config(&media).start();
    warm_up(pair, &agent);
    agent
}

/// Sends until a packet is counted: the interface is watched.
fn warm_up(pair: &Pair, agent: &Agent) {
    let stream = Stream::audio(0x77);
    let receiver = udp::bind(&pair.server, address::SERVER_V4, 9, 1 << 20);
    let sender = udp::sender(&pair.client, SocketAddr::new(address::SERVER_V4, 9));
    let mut number = 0;
    eventually("media is watched", SOON, || {
        for _ in 0..2 {
            sender.send(&stream.packet(number)).unwrap();
            number += 1;
        }
        udp::drain(&receiver);
        (counted(&agent.scrape(), "receive").received > 1).then_some(())
    });
    thread::sleep(Duration::from_secs(2));
}

fn counted(scrape: &Scrape, direction: &str) -> Expected {
    let of = |name: &str| {
        scrape.sum(&format!("graylag.rtp.packet.{name}"), &[("network.io.direction", direction)]) as u64
    };
    Expected {
        received: of("count"),
        lost: of("lost"),
        reordered: of("reordered"),
        duplicated: of("duplicated"),
    }
}

fn both(scrape: &Scrape) -> (Expected, Expected) {
    (counted(scrape, "receive"), counted(scrape, "transmit"))
}

/// A socket of each host, connected to the other's.
fn joined(pair: &Pair, server: IpAddr, port: u16) -> (UdpSocket, UdpSocket) {
    let client = if server.is_ipv4() { address::CLIENT_V4 } else { address::CLIENT_V6 };
    let (there, here) = (SocketAddr::new(client, port), SocketAddr::new(server, port));
    let outside = udp::bind(&pair.client, client, port, 1 << 22);
    outside.connect(here).unwrap();
    let inside = udp::bind(&pair.server, server, port, 1 << 22);
    inside.connect(there).unwrap();
    (outside, inside)
}

/// What came on top of what was counted before must be this.
fn until(agent: &Agent, before: (Expected, Expected), receive: Expected, transmit: Expected) {
    agent.until(SOON, &(before.0 + receive, before.1 + transmit), both);
}

#[test]
fn both_directions_of_both_families_are_counted_to_the_packet() {
    let pair = Pair::new();
    let agent = agent(&pair);
    let before = both(&agent.scrape());
    let (mut receive, mut transmit) = (Expected::default(), Expected::default());
    for (i, server) in SERVERS.into_iter().enumerate() {
        let (outside, inside) = joined(&pair, server, PORT);
        // Across the wrap, from no loss to one in ten.
        for (j, per_thousand) in [0, 5, 20, 100].into_iter().enumerate() {
            let seed = (10 * i + j) as u64;
            let (there, back) =
                (order(seed, 64_900, 1500, per_thousand), order(seed + 50, 100, 1000, per_thousand));
            rtp::send(&outside, &Stream::audio(0x1000 + seed as u32), &there);
            rtp::send(&inside, &Stream::audio(0x2000 + seed as u32), &back);
            (receive, transmit) = (receive + expected(&there), transmit + expected(&back));
            udp::drain(&outside);
            udp::drain(&inside);
        }
    }
    assert!(receive.lost > 100 && receive.reordered > 50 && receive.duplicated > 50, "{receive:?}");
    until(&agent, before, receive, transmit);
}

#[test]
fn batches_that_the_kernel_cuts_up_later_are_counted_by_the_packet() {
    let pair = Pair::new();
    let agent = agent(&pair);
    let before = both(&agent.scrape());
    let mut transmit = Expected::default();
    for server in SERVERS {
        let (_outside, inside) = joined(&pair, server, PORT);
        for (ssrc, bytes) in [(1, 80), (2, 1100)] {
            let sent = order(u64::from(ssrc), 65_000, 2000, 20);
            let stream = Stream { bytes, ..Stream::audio(ssrc) };
            rtp::send_batches(&inside, &stream, &sent, 40);
            transmit = transmit + expected(&sent);
        }
    }
    until(&agent, before, Expected::default(), transmit);
}

#[test]
fn streams_in_turn_channels_and_several_in_a_flow_are_told_apart() {
    let pair = Pair::new();
    let agent = agent(&pair);
    let before = both(&agent.scrape());
    let (outside, _inside) = joined(&pair, address::SERVER_V4, 3478);
    let mut receive = Expected::default();
    // The same SSRC in two channels and bare, and another: four streams, a packet of each in turn.
    let streams = [
        Stream::audio(7),
        Stream { channel: 0x4001, ..Stream::audio(7) },
        Stream { channel: 0x4002, ..Stream::audio(7) },
        Stream { payload_type: 96, ..Stream::audio(8) },
    ];
    let orders: Vec<Vec<u64>> = (0..4).map(|i| order(i, 10_000 * i, 1000, 20)).collect();
    for i in 0..orders.iter().map(Vec::len).max().unwrap() {
        for (stream, order) in streams.iter().zip(&orders) {
            if let Some(number) = order.get(i) {
                outside.send(&stream.packet(*number)).unwrap();
            }
        }
        if i % 8 == 7 {
            thread::sleep(Duration::from_millis(1));
        }
    }
    for order in &orders {
        receive = receive + expected(order);
    }
    until(&agent, before, receive, Expected::default());
}

/// VLAN tags, and the IP header for a datagram of some length.
type Shape = (&'static [u16], fn(usize) -> Vec<u8>);

/// An Ethernet frame to the server: tags, IPv4 with options or IPv6 with extension headers, UDP.
fn frame(tags: &[u16], ip: &[u8], datagram: &[u8]) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 1]);
    for tag in tags {
        frame.extend([0x81, 0x00]);
        frame.extend(tag.to_be_bytes());
    }
    frame.extend(if ip[0] >> 4 == 4 { [0x08, 0x00] } else { [0x86, 0xdd] });
    frame.extend(ip);
    frame.extend(datagram);
    frame
}

fn datagram(stream: &Stream, number: u64) -> Vec<u8> {
    let payload = stream.packet(number);
    let mut datagram = Vec::new();
    for word in [5004, 5004, 8 + payload.len() as u16, 0] {
        datagram.extend(word.to_be_bytes());
    }
    datagram.extend(payload);
    datagram
}

/// IPv4 from a stranger; `options` are bytes, a multiple of four; `fragment` is the field of that name.
fn ipv4(options: usize, fragment: u16, length: usize) -> Vec<u8> {
    let mut header = vec![0x45 + (options / 4) as u8, 0];
    header.extend((20 + options as u16 + length as u16).to_be_bytes());
    header.extend([0, 1]);
    header.extend(fragment.to_be_bytes());
    header.extend([64, 17, 0, 0, 192, 0, 2, 1, 10, 77, 0, 1]);
    header.resize(20 + options, 1);
    header
}

/// IPv6 from a stranger, with extension headers of these kinds, eight bytes each.
fn ipv6(extensions: &[u8], length: usize) -> Vec<u8> {
    let mut header = vec![0x60, 0, 0, 0];
    header.extend((8 * extensions.len() as u16 + length as u16).to_be_bytes());
    header.extend([extensions.first().copied().unwrap_or(17), 64]);
    header.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    header.extend([0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    for i in 0..extensions.len() {
        header.extend([extensions.get(i + 1).copied().unwrap_or(17), 0, 0, 0, 0, 0, 0, 0]);
    }
    header
}

#[test]
fn tags_options_and_extension_headers_are_seen_through() {
    let pair = Pair::new();
    let agent = agent(&pair);
    let before = both(&agent.scrape());
    let sent = order(3, 0, 400, 20);
    // Each shape is a stream of its own, for all of them are one flow of their family.
    let shapes: [Shape; 6] = [
        (&[7], |n| ipv4(0, 0x4000, n)),
        (&[7, 8], |n| ipv4(0, 0, n)),
        (&[], |n| ipv4(8, 0, n)),
        (&[7], |n| ipv6(&[], n)),
        (&[], |n| ipv6(&[0, 43, 60], n)),
        (&[7, 8], |n| ipv6(&[60], n)),
    ];
    let mut frames = Vec::new();
    let mut receive = Expected::default();
    for (i, (tags, ip)) in shapes.iter().enumerate() {
        let stream = Stream::audio(100 + i as u32);
        for number in &sent {
            let datagram = datagram(&stream, *number);
            frames.push(frame(tags, &ip(datagram.len()), &datagram));
        }
        receive = receive + expected(&sent);
    }
    // A later fragment has no ports, ESP no datagram, and what claims to be longer than it is is damaged: none is counted.
    let damaged = datagram(&Stream::audio(1), 1);
    frames.push(frame(&[], &ipv4(0, 0x00ff, damaged.len()), &damaged));
    frames.push(frame(&[], &ipv6(&[50], damaged.len()), &damaged));
    frames.push(frame(&[], &ipv4(0, 0, damaged.len()), &damaged[..30]));
    raw::send(&pair.client, &frames);
    until(&agent, before, receive, Expected::default());
    let media = agent.signal("media");
    assert!(
        media.coverage.is_some_and(|share| share < 1.0),
        "three datagrams are in nobody's account: {media:?}"
    );
}

#[test]
fn flows_beyond_the_limit_are_counted_and_lower_the_coverage() {
    let pair = Pair::new();
    let agent = agent_with(&pair, 256);
    // Both ways, so that each is settled and none is given up for another.
    let calls: Vec<_> = (0..300).map(|i| joined(&pair, address::SERVER_V4, 20_000 + i)).collect();
    for (outside, inside) in &calls {
        outside.send(&Stream::audio(1).packet(0)).unwrap();
        inside.send(&Stream::audio(2).packet(0)).unwrap();
    }
    let table = |s: &Scrape, name: &str| {
        let of = |metric: &str| s.sum(metric, &[("graylag.map.name", name)]) as u64;
        (of("graylag.agent.map.usage"), of("graylag.agent.map.limit"), of("graylag.agent.map.evicted"))
    };
    // Of the places a few may be lost to a bucket that is full.
    agent.until(SOON, &(true, 256, true), |s| {
        let (used, limit, refused) = table(s, "FLOWS");
        (used > 250, limit, refused >= 2 * 44)
    });
    assert!(agent.signal("media").coverage.unwrap() < 1.0);
}

#[test]
fn interfaces_come_and_go() {
    let pair = Pair::new();
    let agent = agent(&pair);
    pair.server.ip(&[
        "link",
        "add",
        "late0",
        "type",
        "veth",
        "peer",
        "name",
        "late0",
        "netns",
        pair.client.name(),
    ]);
    for (host, address) in [(&pair.server, "10.79.0.1/24"), (&pair.client, "10.79.0.2/24")] {
        host.ip(&["addr", "add", address, "dev", "late0"]);
        host.ip(&["link", "set", "late0", "up"]);
    }
    let before = both(&agent.scrape());
    let server: IpAddr = "10.79.0.1".parse().unwrap();
    let _receiver = udp::bind(&pair.server, server, PORT, 1 << 20);
    let sender = udp::sender(&pair.client, SocketAddr::new(server, PORT));
    let mut number = 0;
    eventually("the new interface is watched", SOON, || {
        sender.send(&Stream::audio(9).packet(number)).unwrap();
        number += 1;
        (counted(&agent.scrape(), "receive").received > before.0.received + 1).then_some(())
    });
    pair.server.ip(&["link", "del", "late0"]);
    // The other one goes on being watched, to the packet. What came last here may wait for the next look.
    thread::sleep(Duration::from_secs(1));
    let before = both(&agent.scrape());
    let (outside, _inside) = joined(&pair, address::SERVER_V4, PORT);
    let sent = order(7, 0, 500, 20);
    rtp::send(&outside, &Stream::audio(10), &sent);
    until(&agent, before, expected(&sent), Expected::default());
}

/// A path is what the configuration calls it, from the next packet on also where that changes.
#[test]
fn configured_peers_name_the_paths_of_media() {
    let pair = Pair::new();
    let setup = |name: &str| {
        let config = format!(
            "[media]\ninterfaces = [\"*\"]\n[limits]\nflows = 256\npaths = 64\n\
             [[peer]]\nname = \"{name}\"\ncidrs = [\"{}/32\"]\n",
            address::CLIENT_V4
        );
        Setup::watching(&[&pair.server]).inside(&pair.server).config(&config)
    };
    let agent = setup("fra-relay").start();
    warm_up(&pair, &agent);
    let (outside, _inside) = joined(&pair, address::SERVER_V4, PORT);
    let of = |scrape: &Scrape, peer: &str| {
        scrape.sum(
            "graylag.rtp.packet.count",
            &[("graylag.peer.name", peer), ("network.io.direction", "receive")],
        ) as u64
    };
    let before = of(&agent.scrape(), "fra-relay");
    rtp::send(&outside, &Stream::audio(5), &(0..100).collect::<Vec<u64>>());
    agent.until(SOON, &(before + 100), |scrape| of(scrape, "fra-relay"));
    agent.reload(&setup("ams-relay").toml());
    let mut number = 100;
    eventually("the new name is used", SOON, || {
        rtp::send(&outside, &Stream::audio(5), &[number]);
        number += 1;
        (of(&agent.scrape(), "ams-relay") > 0).then_some(())
    });
}

/// Calls: flows with media both ways, a packet every 20 ms, each direction stopped on demand.
struct Calls {
    /// Of all calls, the first so many send nothing to the server.
    outside_silent: Arc<AtomicU64>,
    _load: Every20ms,
}

impl Calls {
    fn start(pair: &Pair, n: u16) -> Self {
        let outside_silent: Arc<AtomicU64> = Arc::default();
        let sockets: Vec<(UdpSocket, UdpSocket)> =
            (0..n).map(|i| joined(pair, address::SERVER_V4, 6000 + i)).collect();
        let silent = outside_silent.clone();
        let load = Every20ms::start(move |number| {
            for (i, (outside, inside)) in sockets.iter().enumerate() {
                if i as u64 >= silent.load(Ordering::Relaxed) {
                    let _ = outside.send(&Stream::audio(i as u32).packet(number));
                }
                let _ = inside.send(&Stream::audio(1000 + i as u32).packet(number));
                udp::drain(outside);
                udp::drain(inside);
            }
        });
        Self { outside_silent, _load: load }
    }
}

fn raised(watch: &Watch) -> Vec<String> {
    watch.raised().into_iter().map(|(name, about, blame)| format!("{name} {about} {blame}")).collect()
}

#[test]
fn media_that_no_longer_arrives_on_many_calls_is_one_way_and_a_muted_caller_is_not() {
    let pair = Pair::new();
    let agent = agent(&pair);
    let watch = Watch::start(&agent);
    let calls = Calls::start(&pair, 12);
    thread::sleep(Duration::from_secs(4));
    // Two of twelve are muted: nothing.
    calls.outside_silent.store(2, Ordering::Relaxed);
    thread::sleep(Duration::from_secs(6));
    assert_eq!(raised(&watch), Vec::<String>::new());
    // Nothing comes in any more while everything goes out.
    calls.outside_silent.store(12, Ordering::Relaxed);
    let found = eventually("it is raised", SOON, || raised(&watch).into_iter().next());
    assert_eq!(found, "one_way_media 10.77.0.0/24 receive path_receive");
    calls.outside_silent.store(0, Ordering::Relaxed);
    eventually("it is cleared", Duration::from_secs(60), || agent.conditions().is_empty().then_some(()));
    assert_eq!(raised(&watch).len(), 1, "{:?}", raised(&watch));
}

#[test]
fn loss_on_the_way_is_the_paths_and_its_healthy_twin_is_silent() {
    let pair = Pair::new();
    let agent = agent(&pair);
    let watch = Watch::start(&agent);
    let _calls = Calls::start(&pair, 12);
    thread::sleep(Duration::from_secs(10));
    assert_eq!(raised(&watch), Vec::<String>::new());
    let nft = Nft::new(&pair.client);
    nft.apply("add rule inet t out udp dport 6000-6100 numgen random mod 100 < 8 drop");
    let condition = eventually("loss is found", SOON, || agent.conditions().into_iter().next());
    assert_eq!((condition.name.as_str(), condition.blame.as_str()), ("path_loss", "path_receive"));
    assert!(about(&condition).ends_with("receive"), "{}", about(&condition));
    nft.heal();
    eventually("it is cleared", Duration::from_secs(90), || agent.conditions().is_empty().then_some(()));
    assert_eq!(raised(&watch).len(), 1, "{:?}", raised(&watch));
}
