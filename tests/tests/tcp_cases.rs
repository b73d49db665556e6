//! Every TCP case of the kernel facts, both families, against ground truth: an nft counter, a kernel counter or the
//! program's own tally. Exact, not "more than zero".
//!
//! These also run in the guests of `cargo xtask kernels`, on emulated processors: a state that passes has to last long
//! enough to be seen there. What a guest's kernel cannot tell, by the list that the matrix keeps (`GRAYLAG_WITHOUT`), is
//! counted as the agent then says it is; tests/degraded.rs holds the agent to that list.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr},
    thread,
    time::Duration,
};

use graylag_tests::{
    agent::{Agent, Setup},
    eventually,
    metrics::Scrape,
    net::{Pair, address},
    nft::Nft,
    traffic::{Echo, ask, begin, connect, listen},
};
use socket2::{Domain, SockRef, Socket, Type};

const PORT: u16 = 8080;
const SOON: Duration = Duration::from_secs(20);
const SERVERS: [IpAddr; 2] = [address::SERVER_V4, address::SERVER_V6];

const CLIENT: (&str, &str) = ("graylag.role", "client");
const SERVER: (&str, &str) = ("graylag.role", "server");

fn watched() -> (Pair, Agent) {
    let pair = Pair::new();
    let agent = Setup::watching(&[&pair.client, &pair.server]).alone().start();
    (pair, agent)
}

/// Whether this kernel is listed as one that does not give a signal, or not all of it.
fn lacks(signal: &str) -> bool {
    std::env::var("GRAYLAG_WITHOUT").is_ok_and(|list| list.split(',').any(|name| name == signal))
}

fn outcome(scrape: &Scrape, role: (&str, &str), outcome: &str) -> u64 {
    scrape.sum("graylag.tcp.handshake.count", &[role, ("graylag.outcome", outcome)]) as u64
}

/// All outcomes of a role, as `[established, refused, reset, timed_out, unreachable, abandoned]`.
fn outcomes(scrape: &Scrape, role: (&str, &str)) -> [u64; 6] {
    ["established", "refused", "reset", "timed_out", "unreachable", "abandoned"]
        .map(|o| outcome(scrape, role, o))
}

fn pending(scrape: &Scrape, metric: &str, role: (&str, &str)) -> (u64, u64) {
    let of = |stalled| scrape.sum(metric, &[role, ("graylag.stalled", stalled)]) as u64;
    (of("false"), of("true"))
}

#[test]
fn connections_that_work_are_counted_on_both_ends() {
    let (pair, agent) = watched();
    for server in SERVERS {
        let echo = Echo::start(&pair.server, server, PORT);
        for _ in 0..20 {
            let mut stream = connect(&pair.client, server, PORT).unwrap();
            for _ in 0..3 {
                ask(&mut stream, 100).unwrap();
            }
        }
        assert_eq!(echo.answered.load(std::sync::atomic::Ordering::Relaxed), 60);
    }
    agent.until(SOON, &[(40, 40, 40, 120); 2], |scrape| {
        [CLIENT, SERVER].map(|role| {
            (
                outcome(scrape, role, "established"),
                scrape.count("graylag.tcp.handshake.duration", &[role]) as u64,
                scrape.count("graylag.tcp.first_byte.duration", &[role]) as u64,
                scrape.count("graylag.tcp.response.duration", &[role]) as u64,
            )
        })
    });
    let scrape = agent.scrape();
    assert_eq!(outcomes(&scrape, CLIENT)[1..], [0; 5]);
    assert_eq!(outcomes(&scrape, SERVER)[1..], [0; 5]);
    assert_eq!(scrape.sum("graylag.tcp.syn.retransmitted", &[]) as u64, 0);
    assert!(agent.conditions().is_empty());
}

#[test]
fn segments_are_what_netfilter_counts() {
    let (pair, agent) = watched();
    let (at_server, at_client) = (Nft::new(&pair.server), Nft::new(&pair.client));
    at_server.rule("segments", "meta l4proto tcp", "accept");
    at_client.rule("segments", "meta l4proto tcp", "accept");
    for server in SERVERS {
        let _echo = Echo::start(&pair.server, server, PORT);
        let mut stream = connect(&pair.client, server, PORT).unwrap();
        for _ in 0..50 {
            ask(&mut stream, 4000).unwrap();
        }
    }
    // What a socket sends itself: the SYN-ACK comes from a request socket, the last ACK may come from TIME_WAIT.
    thread::sleep(Duration::from_secs(1));
    let (to_server, to_client) = (at_server.count("segments"), at_client.count("segments"));
    let near = |found: f64, truth: u64| (truth as f64 - found).abs() <= 8.0;
    let scrape = agent.scrape();
    let path = |direction, peer| {
        scrape.sum(
            "graylag.tcp.segment.count",
            &[("network.io.direction", direction), ("graylag.peer.name", peer)],
        )
    };
    let sent = path("transmit", "10.77.0.1") + path("transmit", "fd77::1");
    let received = path("receive", "10.77.0.1") + path("receive", "fd77::1");
    assert!(near(sent, to_server), "sent {sent}, netfilter saw {to_server}");
    assert!(near(received, to_client), "received {received}, netfilter saw {to_client}");
}

#[test]
fn a_lost_syn_is_pending_stalls_and_is_abandoned() {
    let (pair, agent) = watched();
    let nft = Nft::new(&pair.server);
    nft.rule("syn", "tcp flags syn / syn,ack", "drop");
    let sockets: Vec<_> = SERVERS.iter().map(|server| begin(&pair.client, *server, PORT)).collect();
    agent.until(SOON, &(0, 2), |s| pending(s, "graylag.tcp.handshake.pending", CLIENT));
    thread::sleep(Duration::from_millis(1500)); // a few retransmissions
    drop(sockets);
    let retransmitted = pair.client.tcp_ext("TCPSynRetrans");
    agent.until(SOON, &([0, 0, 0, 0, 0, 2], retransmitted, (0, 0)), |s| {
        (
            outcomes(s, CLIENT),
            s.sum("graylag.tcp.syn.retransmitted", &[CLIENT]) as u64,
            pending(s, "graylag.tcp.handshake.pending", CLIENT),
        )
    });
    assert!(retransmitted >= 2, "at least one retransmission each");
    assert_eq!(nft.count("syn"), 2 + retransmitted, "all of them arrived");
}

#[test]
fn a_lost_syn_times_out_when_nobody_gives_up() {
    let (pair, agent) = watched();
    pair.client.sysctl("net.ipv4.tcp_syn_retries", "1");
    let nft = Nft::new(&pair.server);
    nft.rule("syn", "tcp flags syn / syn,ack", "drop");
    let _sockets: Vec<_> = SERVERS.iter().map(|server| begin(&pair.client, *server, PORT)).collect();
    agent.until(SOON, &[0, 0, 0, 2, 0, 0], |s| outcomes(s, CLIENT));
    let retransmitted = agent.scrape().sum("graylag.tcp.syn.retransmitted", &[CLIENT]) as u64;
    let sent = pair.client.tcp_ext("TCPSynRetrans");
    assert_eq!((retransmitted, sent), (nft.count("syn") - 2, nft.count("syn") - 2));
}

#[test]
fn a_lost_syn_ack_is_seen_from_both_ends() {
    let (pair, agent) = watched();
    pair.server.sysctl("net.ipv4.tcp_synack_retries", "1");
    let nft = Nft::new(&pair.client);
    nft.rule("synack", "tcp flags & (syn|ack) == syn|ack", "drop");
    let _listeners: Vec<_> = SERVERS.iter().map(|s| listen(&pair.server, *s, PORT, 16)).collect();
    let sockets: Vec<_> = SERVERS.iter().map(|server| begin(&pair.client, *server, PORT)).collect();
    agent.until(SOON, &((0, 2), (0, 2)), |s| {
        [CLIENT, SERVER].map(|role| pending(s, "graylag.tcp.handshake.pending", role)).into()
    });
    drop(sockets);
    agent.until(SOON, &([0, 0, 0, 0, 0, 2], [0, 0, 0, 2, 0, 0]), |s| {
        (outcomes(s, CLIENT), outcomes(s, SERVER))
    });
    let retransmitted = agent.scrape().sum("graylag.tcp.syn.retransmitted", &[SERVER]) as u64;
    assert_eq!(retransmitted, nft.count("synack") - 2, "every SYN-ACK but the first two");
}

#[test]
fn a_lost_final_ack_is_the_servers_stall_alone() {
    let (pair, agent) = watched();
    pair.server.sysctl("net.ipv4.tcp_synack_retries", "2");
    let (server, client) = (Nft::new(&pair.server), Nft::new(&pair.client));
    server.rule("ack", "tcp flags & (syn|ack|rst|fin) == ack", "drop");
    client.rule("synack", "tcp flags & (syn|ack) == syn|ack", "accept");
    let _listeners: Vec<_> = SERVERS.iter().map(|s| listen(&pair.server, *s, PORT, 16)).collect();
    let _streams: Vec<_> = SERVERS.iter().map(|s| connect(&pair.client, *s, PORT).unwrap()).collect();
    agent.until(SOON, &(2, (0, 2)), |s| {
        (outcome(s, CLIENT, "established"), pending(s, "graylag.tcp.handshake.pending", SERVER))
    });
    agent.until(Duration::from_secs(40), &[0, 0, 0, 2, 0, 0], |s| outcomes(s, SERVER));
    let retransmitted = agent.scrape().sum("graylag.tcp.syn.retransmitted", &[SERVER]) as u64;
    assert_eq!((retransmitted, client.count("synack")), (4, 6));
}

#[test]
fn a_full_accept_queue_at_syn_is_counted_as_the_kernel_counts_it() {
    let (pair, agent) = watched();
    let listeners: Vec<_> = SERVERS.iter().map(|s| listen(&pair.server, *s, PORT, 1)).collect();
    let nft = Nft::new(&pair.server);
    nft.rule("syn", "tcp flags syn / syn,ack", "accept");
    // A backlog of 1 has room for two: `sk_acceptq_is_full` compares with "greater".
    let mut sockets: Vec<_> =
        SERVERS.iter().flat_map(|s| [*s; 2]).map(|s| begin(&pair.client, s, PORT)).collect();
    agent.until(SOON, &4, |s| outcome(s, SERVER, "established"));
    sockets.extend(SERVERS.iter().flat_map(|s| [*s; 3]).map(|s| begin(&pair.client, s, PORT)));
    agent.until(SOON, &((0, 6), (0, 6)), |s| {
        [CLIENT, SERVER].map(|role| pending(s, "graylag.tcp.handshake.pending", role)).into()
    });
    drop(sockets.split_off(4));
    thread::sleep(Duration::from_millis(500));
    let overflows = pair.server.tcp_ext("ListenOverflows");
    assert_eq!(overflows, nft.count("syn") - 4, "all but the first four were dropped");
    agent.until(SOON, &(overflows, [4, 0, 0, 0, 0, 6]), |s| {
        let overflows = s.sum("graylag.tcp.accept_queue.overflow", &[("graylag.service.name", "tcp/8080")]);
        (overflows as u64, outcomes(s, CLIENT))
    });
    agent.until(SOON, &6, |s| outcome(s, SERVER, "timed_out"));
    drop(listeners);
}

#[test]
fn a_full_accept_queue_at_the_final_ack_is_counted_as_the_kernel_counts_it() {
    let (pair, agent) = watched();
    let nft = Nft::new(&pair.server);
    let listeners: Vec<_> = SERVERS.iter().map(|s| listen(&pair.server, *s, PORT, 4)).collect();
    // Three handshakes to each address get as far as the SYN-ACK …
    nft.rule("ack", "tcp sport 2000-2999 tcp flags & (syn|ack|rst|fin) == ack", "drop");
    let _held: Vec<_> =
        (0..3u16).flat_map(|i| SERVERS.map(|server| bound(&pair, server, 2000 + i))).collect();
    // … then five others fill the queue, and the three come to late when their SYN-ACK is repeated.
    let _filling: Vec<_> =
        SERVERS.iter().flat_map(|s| [*s; 5]).map(|s| connect(&pair.client, s, PORT).unwrap()).collect();
    assert_eq!(pair.server.tcp_ext("ListenOverflows"), 0);
    nft.heal();
    eventually("every one of the three is late", SOON, || {
        (pair.server.tcp_ext("ListenOverflows") >= 6).then_some(())
    });
    // The kernel goes on counting: once the two agree, they agree.
    agent.until(SOON, &(0, (0, 6)), |s| {
        let counted = s.sum("graylag.tcp.accept_queue.overflow", &[]) as i64;
        (
            counted - pair.server.tcp_ext("ListenOverflows") as i64,
            pending(s, "graylag.tcp.handshake.pending", SERVER),
        )
    });
    drop(listeners);
}

/// A connection from a given source port.
fn bound(pair: &Pair, server: IpAddr, port: u16) -> Socket {
    let any: IpAddr = if server.is_ipv4() { address::CLIENT_V4 } else { address::CLIENT_V6 };
    let connect = || -> std::io::Result<Socket> {
        let socket = Socket::new(Domain::for_address((server, PORT).into()), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::new(any, port).into())?;
        socket.connect(&SocketAddr::new(server, PORT).into())?;
        Ok(socket)
    };
    pair.client.run(connect).unwrap()
}

#[test]
fn a_full_request_queue_drops_syns_where_cookies_are_off() {
    let (pair, agent) = watched();
    pair.server.sysctl("net.ipv4.tcp_syncookies", "0");
    let nft = Nft::new(&pair.server);
    nft.rule("ack", "tcp flags & (syn|ack|rst|fin) == ack", "drop");
    let _listeners: Vec<_> = SERVERS.iter().map(|s| listen(&pair.server, *s, PORT, 2)).collect();
    let sockets: Vec<_> =
        SERVERS.iter().flat_map(|s| [*s; 4]).map(|s| begin(&pair.client, s, PORT)).collect();
    thread::sleep(Duration::from_millis(1500));
    drop(sockets);
    thread::sleep(Duration::from_millis(100));
    agent.until(SOON, &(pair.server.tcp_ext("TCPReqQFullDrop"), 0), |s| {
        (
            s.sum("graylag.tcp.request_queue.overflow", &[("graylag.service.name", "tcp/8080")]) as u64,
            s.sum("graylag.tcp.accept_queue.overflow", &[]) as u64,
        )
    });
    assert!(pair.server.tcp_ext("TCPReqQFullDrop") >= 4);
}

#[test]
fn syn_cookies_are_counted_and_still_have_a_latency() {
    let (pair, agent) = watched();
    pair.server.sysctl("net.ipv4.tcp_syncookies", "2");
    let _echoes: Vec<_> = SERVERS.iter().map(|s| Echo::start(&pair.server, *s, PORT)).collect();
    for server in SERVERS {
        for _ in 0..5 {
            ask(&mut connect(&pair.client, server, PORT).unwrap(), 10).unwrap();
        }
    }
    let sent = pair.server.tcp_ext("SyncookiesSent");
    assert_eq!((sent, pair.server.tcp_ext("SyncookiesRecv")), (10, 10));
    agent.until(SOON, &(10, 10, 10, 10, 0), |s| {
        let cookies = |what| s.sum("graylag.tcp.syn_cookie.count", &[("graylag.cookie", what)]) as u64;
        (
            cookies("sent"),
            cookies("established"),
            outcome(s, SERVER, "established"),
            s.count("graylag.tcp.handshake.duration", &[SERVER]) as u64,
            pending(s, "graylag.tcp.handshake.pending", SERVER).0,
        )
    });
}

#[test]
fn accepted_and_never_answered_is_pending_on_both_ends() {
    let pair = Pair::new();
    let setup = Setup::watching(&[&pair.client, &pair.server]).alone();
    let agent = setup.config("[thresholds]\nfirst_byte_stall = \"8s\"").start();
    let listeners: Vec<_> = SERVERS.iter().map(|s| listen(&pair.server, *s, PORT, 16)).collect();
    let mut streams: Vec<_> =
        SERVERS.iter().flat_map(|s| [*s; 3]).map(|s| connect(&pair.client, s, PORT).unwrap()).collect();
    let accepted: Vec<_> = listeners.iter().flat_map(|l| (0..3).map(|_| l.accept().unwrap().0)).collect();
    agent.until(SOON, &(6, (0, 0)), |s| {
        (outcome(s, CLIENT, "established"), pending(s, "graylag.tcp.first_byte.pending", CLIENT))
    });
    for stream in &mut streams {
        stream.write_all(b"anybody there?").unwrap();
    }
    agent.until(SOON, &((6, 0), (6, 0)), |s| {
        [CLIENT, SERVER].map(|role| pending(s, "graylag.tcp.first_byte.pending", role)).into()
    });
    agent.until(SOON, &((0, 6), (0, 6)), |s| {
        [CLIENT, SERVER].map(|role| pending(s, "graylag.tcp.first_byte.pending", role)).into()
    });
    let silence = agent.scrape().sum("graylag.tcp.receive.silence", &[]);
    assert!(silence >= 8.0, "longest silence {silence}");
    drop(streams);
    drop(accepted);
    agent.until(SOON, &((0, 0), (0, 0), 0), |s| {
        let [client, server] =
            [CLIENT, SERVER].map(|role| pending(s, "graylag.tcp.first_byte.pending", role));
        (client, server, s.count("graylag.tcp.first_byte.duration", &[]) as u64)
    });
}

#[test]
fn refused_is_refused() {
    let (pair, agent) = watched();
    for server in SERVERS {
        for _ in 0..7 {
            assert!(connect(&pair.client, server, PORT).is_err());
        }
    }
    agent.until(SOON, &[0, 14, 0, 0, 0, 0], |s| outcomes(s, CLIENT));
    assert_eq!(outcomes(&agent.scrape(), SERVER), [0; 6]);
}

#[test]
fn icmp_unreachable_is_unreachable() {
    let (pair, agent) = watched();
    let nft = Nft::new(&pair.server);
    nft.rule("v4", "meta nfproto ipv4 tcp flags syn", "reject with icmp type host-unreachable");
    nft.rule("v6", "meta nfproto ipv6 tcp flags syn", "reject with icmpv6 type addr-unreachable");
    for server in SERVERS {
        for _ in 0..5 {
            assert!(connect(&pair.client, server, PORT).is_err());
        }
    }
    if lacks("handshake_client") {
        // Where nobody reports the error, the caller may have taken it by the time the attempt ends.
        agent.until(SOON, &([0; 4], 10), |s| {
            let [rest @ .., unreachable, abandoned] = outcomes(s, CLIENT);
            (rest, unreachable + abandoned)
        });
        return;
    }
    agent.until(SOON, &[0, 0, 0, 0, 10, 0], |s| outcomes(s, CLIENT));
}

#[test]
fn a_handshake_that_the_client_resets_is_reset() {
    let (pair, agent) = watched();
    let _listeners: Vec<_> = SERVERS.iter().map(|s| listen(&pair.server, *s, PORT, 16)).collect();
    let nft = Nft::new(&pair.client);
    nft.rule("synack", "tcp flags & (syn|ack) == syn|ack", "drop");
    drop(SERVERS.map(|server| begin(&pair.client, server, PORT)));
    // The caller is gone; the repeated SYN-ACK finds no socket and is answered with a RST.
    nft.heal();
    agent.until(SOON, &([0, 0, 2, 0, 0, 0], [0, 0, 0, 0, 0, 2], (0, 0)), |s| {
        (outcomes(s, SERVER), outcomes(s, CLIENT), pending(s, "graylag.tcp.handshake.pending", SERVER))
    });
}

#[test]
fn a_connection_reset_in_mid_flight_is_counted_and_waits_no_more() {
    let (pair, agent) = watched();
    for server in SERVERS {
        let listener = listen(&pair.server, server, PORT, 16);
        for _ in 0..4 {
            let mut stream = connect(&pair.client, server, PORT).unwrap();
            let (accepted, _) = listener.accept().unwrap();
            stream.write_all(b"request").unwrap();
            thread::sleep(Duration::from_millis(20));
            SockRef::from(&accepted).set_linger(Some(Duration::ZERO)).unwrap();
            drop(accepted);
            assert!(stream.read(&mut [0; 10]).is_err());
        }
    }
    agent.until(SOON, &(8, 0, (0, 0)), |s| {
        (
            s.sum("graylag.tcp.connection.reset", &[CLIENT]) as u64,
            s.sum("graylag.tcp.connection.reset", &[SERVER]) as u64,
            pending(s, "graylag.tcp.first_byte.pending", CLIENT),
        )
    });
}
