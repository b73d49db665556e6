//! What this host itself drops, by the kernel's reason and by direction, against the kernel's own counters; and what is concluded
//! from it. Both families.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use graylag::model::drops::BENIGN;
use graylag_tests::{
    agent::{Agent, Setup, Watch},
    eventually,
    metrics::Scrape,
    net::{Host, Pair, address},
    nft::Nft,
    traffic::{Stops, begin},
    udp::{bind, drain, send, sender},
};

const SOON: Duration = Duration::from_secs(20);
const SERVERS: [IpAddr; 2] = [address::SERVER_V4, address::SERVER_V6];
const PORT: u16 = 5000;

/// The agent as on a real host: in the namespace whose packets it counts.
fn watched() -> (Pair, Agent) {
    let pair = Pair::new();
    let agent = Setup::watching(&[&pair.server]).alone().inside(&pair.server).start();
    (pair, agent)
}

fn dropped(scrape: &Scrape, reason: &str, direction: &str, transport: &str) -> u64 {
    let labels = [
        ("graylag.drop.reason", reason),
        ("network.io.direction", direction),
        ("network.transport", transport),
    ];
    scrape.sum("graylag.packet.dropped", &labels) as u64
}

fn buffer_dropped(scrape: &Scrape, port: u16) -> u64 {
    let service = format!("udp/{port}");
    scrape.sum("graylag.udp.receive_buffer.dropped", &[("graylag.service.name", &service)]) as u64
}

#[test]
fn what_netfilter_drops_is_counted_by_direction_and_transport() {
    let (pair, agent) = watched();
    let nft = Nft::new(&pair.server);
    nft.rule("udp_in", "udp dport 5000", "drop");
    nft.rule("tcp_in", "tcp dport 5001 tcp flags syn", "drop");
    nft.apply("add counter inet t udp_out");
    nft.apply("add rule inet t out udp dport 5002 counter name \"udp_out\" drop");
    let _attempts = SERVERS.map(|server| begin(&pair.client, server, 5001));
    for (server, n) in SERVERS.iter().zip([50, 30]) {
        assert_eq!(send(&sender(&pair.client, SocketAddr::new(*server, PORT)), n, 100), n);
    }
    for (client, n) in [address::CLIENT_V4, address::CLIENT_V6].into_iter().zip([7, 5]) {
        let socket = sender(&pair.server, SocketAddr::new(client, 5002));
        assert_eq!(send(&socket, n, 100), 0, "the sender is told");
    }
    thread::sleep(Duration::from_millis(1500)); // a retransmitted SYN each
    nft.heal();
    let (syns, count) = (nft.count("tcp_in"), |name| nft.count(name));
    assert!(syns >= 4);
    assert_eq!((count("udp_in"), count("udp_out")), (80, 12));
    agent.until(SOON, &(80, syns, 12), |s| {
        let of = |direction, transport| dropped(s, "NETFILTER_DROP", direction, transport);
        (of("receive", "udp"), of("receive", "tcp"), of("transmit", "udp"))
    });
    assert_eq!(agent.conditions(), [], "somebody wants it so");
}

/// `RcvbufErrors` of a family.
fn buffer_errors(host: &Host, server: &IpAddr) -> u64 {
    if server.is_ipv4() { host.udp("RcvbufErrors") } else { host.snmp6("Udp6RcvbufErrors") }
}

#[test]
fn datagrams_without_room_in_the_socket_are_counted_by_port() {
    let (pair, agent) = watched();
    let mut total = 0;
    for (server, port) in SERVERS.iter().zip([PORT, PORT + 1]) {
        let socket = bind(&pair.server, *server, port, 1);
        let sent = send(&sender(&pair.client, SocketAddr::new(*server, port)), 300, 200);
        let truth = eventually("all have arrived", SOON, || {
            let errors = buffer_errors(&pair.server, server);
            thread::sleep(Duration::from_millis(100));
            (errors > 0 && errors == buffer_errors(&pair.server, server)).then_some(errors)
        });
        assert_eq!(drain(&socket) as u64 + truth, sent as u64);
        agent.until(SOON, &truth, |s| buffer_dropped(s, port));
        total += truth;
    }
    agent.until(SOON, &total, |s| dropped(s, "SOCKET_RCVBUFF", "receive", "udp"));
}

/// A flow to a server that reads, or does not.
struct Flow {
    stop: AtomicBool,
    read: AtomicBool,
}

impl Flow {
    fn run(pair: &Pair, server: IpAddr, reads: bool, watching: impl FnOnce(&Self)) {
        let flow = Self { stop: AtomicBool::new(false), read: AtomicBool::new(reads) };
        let socket = bind(&pair.server, server, PORT, 60_000);
        let source = sender(&pair.client, SocketAddr::new(server, PORT));
        thread::scope(|scope| {
            scope.spawn(|| flow.send(&source));
            scope.spawn(|| flow.receive(&socket));
            let _stops = Stops(&flow.stop);
            watching(&flow);
        });
    }

    fn send(&self, socket: &UdpSocket) {
        while !self.stop.load(Ordering::Relaxed) {
            send(socket, 20, 200);
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn receive(&self, socket: &UdpSocket) {
        while !self.stop.load(Ordering::Relaxed) {
            if self.read.load(Ordering::Relaxed) {
                drain(socket);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn a_process_that_does_not_read_is_reported_and_cleared_when_it_does() {
    for server in SERVERS {
        let (pair, agent) = watched();
        let watch = Watch::start(&agent);
        Flow::run(&pair, server, true, |flow| {
            thread::sleep(Duration::from_secs(1));
            flow.read.store(false, Ordering::Relaxed);
            let raised = eventually("it is reported", SOON, || {
                watch.raised().into_iter().find(|(name, ..)| name == "host_drops")
            });
            let (_, about, blame) = raised;
            assert_eq!((about.as_str(), blame.as_str()), ("SOCKET_RCVBUFF receive", "local_process"));
            let text = agent.conditions()[0].evidence.text.clone();
            assert!(text.contains("most at udp/5000"), "{text}");
            flow.read.store(true, Ordering::Relaxed);
            eventually("it clears by itself", Duration::from_secs(60), || {
                agent.conditions().is_empty().then_some(())
            });
        });
        assert_eq!(watch.raised().len(), 1);
    }
}

#[test]
fn its_twin_that_reads_raises_nothing() {
    for server in SERVERS {
        let (pair, agent) = watched();
        let watch = Watch::start(&agent);
        Flow::run(&pair, server, true, |_| thread::sleep(Duration::from_secs(5)));
        assert_eq!(watch.transitions(), []);
        assert_eq!(buffer_dropped(&agent.scrape(), PORT), 0);
    }
}

#[test]
fn what_is_no_loss_is_not_counted() {
    let (pair, agent) = watched();
    let reasons = |s: &Scrape| s.values("graylag.packet.dropped", "graylag.drop.reason");
    for server in SERVERS {
        // Datagrams that nobody will read: the application closed.
        let socket = bind(&pair.server, server, PORT, 1 << 20);
        send(&sender(&pair.client, SocketAddr::new(server, PORT)), 50, 200);
        thread::sleep(Duration::from_millis(200));
        drop(socket);
        // And nobody is there: counted, by its name, and judged by nobody.
        let refused = sender(&pair.client, SocketAddr::new(server, PORT + 1));
        for _ in 0..10 {
            // Each second one is told of the ICMP error instead of being sent.
            while send(&refused, 1, 100) == 0 {}
        }
    }
    agent.until(SOON, &20, |s| dropped(s, "NO_SOCKET", "receive", "udp"));
    let found = reasons(&agent.scrape());
    assert!(found.iter().all(|reason| !BENIGN.contains(&reason.as_str())), "{found:?}");
    assert_eq!(agent.conditions(), []);
}

#[test]
fn what_a_full_queue_of_the_interface_drops_is_counted_as_transmitted() {
    let (pair, agent) = watched();
    pair.server.tc(&[
        "qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", "1mbit", "burst", "2kb", "limit", "3kb",
    ]);
    for client in [address::CLIENT_V4, address::CLIENT_V6] {
        send(&sender(&pair.server, SocketAddr::new(client, PORT)), 100, 500);
    }
    thread::sleep(Duration::from_millis(500));
    let truth = pair.server.queue_drops("eth0");
    assert!(truth >= 50, "{truth}");
    agent.until(SOON, &truth, |s| {
        let queue = |reason: &String| reason.starts_with("QDISC_");
        let reasons = s.values("graylag.packet.dropped", "graylag.drop.reason");
        reasons.iter().filter(|reason| queue(reason)).map(|r| dropped(s, r, "transmit", "udp")).sum()
    });
}
