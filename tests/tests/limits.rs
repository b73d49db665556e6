//! At every limit: what finds no room is counted, `~other` takes it where something can take it, totals stay whole.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests

use std::{net::IpAddr, net::TcpListener, thread, time::Duration};

use graylag_tests::{
    agent::{Agent, Setup},
    metrics::Scrape,
    net::{Pair, address},
    nft::Nft,
    traffic::{begin, connect, listen},
};

const SOON: Duration = Duration::from_secs(20);
const SERVERS: [IpAddr; 2] = [address::SERVER_V4, address::SERVER_V6];
const OTHER: (&str, &str) = ("graylag.peer.name", "~other");

fn established(scrape: &Scrape, labels: &[(&str, &str)]) -> u64 {
    let mut all = vec![("graylag.outcome", "established")];
    all.extend_from_slice(labels);
    scrape.sum("graylag.tcp.handshake.count", &all) as u64
}

/// `(in use, limit, found no room)` of a table.
fn table(scrape: &Scrape, name: &str) -> (u64, u64, u64) {
    let of = |metric: &str| scrape.sum(metric, &[("graylag.map.name", name)]) as u64;
    (of("graylag.agent.map.usage"), of("graylag.agent.map.limit"), of("graylag.agent.map.evicted"))
}

/// Listeners on these ports, both families; connections wait in their queues.
fn services(pair: &Pair, ports: std::ops::Range<u16>) -> Vec<TcpListener> {
    ports.flat_map(|port| SERVERS.map(|server| listen(&pair.server, server, port, 1024))).collect()
}

fn coverage(agent: &Agent, signal: &str) -> f64 {
    agent.signal(signal).coverage.unwrap()
}

#[test]
fn paths_that_find_no_room_are_counted_as_other() {
    let pair = Pair::new();
    let agent = Setup::watching(&[&pair.client]).alone().config("[limits]\npaths = 64").start();
    let _listeners = services(&pair, 9000..9050);
    for port in 9000..9050 {
        for server in SERVERS {
            drop(connect(&pair.client, server, port).unwrap());
        }
    }
    // Two of the 64 entries are `~other`, one to a role.
    agent.until(SOON, &(100, 38, (64, 64)), |s| {
        let (used, limit, _) = table(s, "PATHS");
        (established(s, &[]), established(s, &[OTHER]), (used, limit))
    });
    let scrape = agent.scrape();
    assert!(table(&scrape, "PATHS").2 >= 38, "{:?}", table(&scrape, "PATHS"));
    assert_eq!(scrape.count("graylag.tcp.handshake.duration", &[OTHER]) as u64, 38, "with their latency");
    assert_eq!(established(&scrape, &[OTHER, ("graylag.service.name", "~other")]), 38);
    assert!(coverage(&agent, "handshake_client") >= 1.0, "every one of them was seen");
}

#[test]
fn connections_that_find_no_room_are_counted_and_lower_the_coverage() {
    let pair = Pair::new();
    let agent = Setup::watching(&[&pair.client]).alone().config("[limits]\nconnections = 256").start();
    let _listeners = services(&pair, 9000..9001);
    let connect_all = |n: usize| -> Vec<_> {
        SERVERS.iter().flat_map(|s| vec![*s; n]).map(|s| connect(&pair.client, s, 9000).unwrap()).collect()
    };
    let held = connect_all(150);
    agent.until(SOON, &(256, (256, 256, 44)), |s| (established(s, &[]), table(s, "CONNS")));
    let seen = coverage(&agent, "handshake_client");
    assert!((seen - 256.0 / 300.0).abs() < 1e-9, "{seen}");
    drop(held);
    agent.until(SOON, &0, |s| table(s, "CONNS").0);
    drop(connect_all(5));
    agent.until(SOON, &(266, (0, 256, 44)), |s| (established(s, &[]), table(s, "CONNS")));
}

#[test]
fn half_open_handshakes_that_find_no_room_are_counted_and_still_complete() {
    let pair = Pair::new();
    let agent = Setup::watching(&[&pair.server]).alone().config("[limits]\nhalf_open = 256").start();
    let _listeners = services(&pair, 9000..9001);
    let nft = Nft::new(&pair.client);
    nft.rule("synack", "tcp flags & (syn|ack) == syn|ack", "drop");
    let _attempts: Vec<_> =
        SERVERS.iter().flat_map(|s| vec![*s; 150]).map(|s| begin(&pair.client, s, 9000)).collect();
    // More than 44 found no room where a SYN was repeated meanwhile.
    agent.until(SOON, &(256, 256, true), |s| {
        let (used, _, full) = table(s, "HALF_OPEN");
        (used, s.sum("graylag.tcp.handshake.pending", &[]) as u64, full >= 44)
    });
    assert!(coverage(&agent, "handshake_server") < 1.0);
    nft.heal();
    agent.until(Duration::from_secs(40), &(300, 0), |s| (established(s, &[]), table(s, "HALF_OPEN").0));
}

#[test]
fn subjects_beyond_the_limit_are_published_as_other_and_totals_stay_whole() {
    let pair = Pair::new();
    let agent = Setup::watching(&[&pair.client]).alone().config("[limits]\nsubjects = 4").start();
    let _listeners = services(&pair, 9000..9005);
    let round = || {
        for port in 9000..9005 {
            for server in SERVERS {
                drop(connect(&pair.client, server, port).unwrap());
            }
        }
    };
    round();
    // Ten subjects; those that came first are published by themselves.
    let view = |s: &Scrape| {
        let folded = s.sum("graylag.agent.series.folded", &[]) as u64;
        (established(s, &[]), established(s, &[OTHER]), folded)
    };
    agent.until(SOON, &(10, 6, 6), view);
    // A review of who is busiest, among equals, moves nobody.
    thread::sleep(Duration::from_secs(6));
    round();
    agent.until(SOON, &(20, 12, 6), view);
    assert_eq!(agent.status().subjects.len(), 5, "four, and all others together");
}
