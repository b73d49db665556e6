//! Start, reload, restart, end: what was there is found, no count is lost, nothing is left behind.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests

use std::{
    fs,
    net::TcpStream,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use graylag::model::status::Message;
use graylag_tests::{
    agent::{Setup, Watch},
    bpf::Held,
    eventually,
    metrics::Scrape,
    net::{Pair, address},
    traffic::{Echo, Stops, ask, connect},
};
use rustix::process::Signal;

const PORT: u16 = 8080;
const SOON: Duration = Duration::from_secs(20);
const CLIENT: (&str, &str) = ("graylag.role", "client");
const SERVER: (&str, &str) = ("graylag.role", "server");

fn echoes(pair: &Pair) -> [Echo; 2] {
    [address::SERVER_V4, address::SERVER_V6].map(|server| Echo::start(&pair.server, server, PORT))
}

fn calls(pair: &Pair, echoes: &[Echo], n: usize) {
    for echo in echoes {
        for _ in 0..n {
            ask(&mut connect(&pair.client, echo.address.ip(), PORT).unwrap(), 10).unwrap();
        }
    }
}

fn ask_all(streams: &mut [TcpStream]) {
    for stream in streams {
        ask(stream, 10).unwrap();
    }
}

fn established(scrape: &Scrape, role: (&str, &str)) -> u64 {
    scrape.sum("graylag.tcp.handshake.count", &[role, ("graylag.outcome", "established")]) as u64
}

fn responses(scrape: &Scrape, role: (&str, &str)) -> u64 {
    scrape.count("graylag.tcp.response.duration", &[role]) as u64
}

/// Ends an agent with a signal, and looks for what the kernel and the file system still have of it.
fn leaves_nothing_behind(signal: Signal) {
    let mut agent = Setup::default().config("[kernel]\nlog = \"debug\"").start();
    let held = Held::by(agent.process.id());
    let attached = agent.scrape().sum("graylag.agent.program.attached", &[]) as usize;
    assert!(held.programs.len() >= attached, "{held:?}");
    assert!(held.maps.len() >= 13 && held.links.len() >= attached - 1, "{held:?}");
    assert_eq!(held.alive(), held, "the kernel has all of it");
    agent.process.signal(signal);
    let status = eventually("it ends", SOON, || agent.process.ended());
    eventually("the kernel has nothing of it any more", SOON, || held.alive().is_empty().then_some(()));
    if signal == Signal::KILL {
        assert_eq!(status.code(), None);
        assert!(agent.socket.exists(), "nobody was left to remove it");
        let again = agent.again();
        assert_eq!(again.get("/healthz").unwrap().0, 200, "and it is in nobody's way");
    } else {
        assert_eq!(status.code(), Some(0), "{:?}", agent.process.output());
        let left: Vec<_> =
            fs::read_dir(agent.directory.path()).unwrap().flatten().map(|f| f.file_name()).collect();
        assert_eq!(left, ["graylag.toml"], "no socket, no file of its own");
    }
}

#[test]
fn ctrl_c_leaves_nothing_behind() {
    leaves_nothing_behind(Signal::INT);
}

#[test]
fn a_polite_end_leaves_nothing_behind() {
    leaves_nothing_behind(Signal::TERM);
}

#[test]
fn a_sudden_end_leaves_nothing_but_a_socket_that_the_next_start_replaces() {
    leaves_nothing_behind(Signal::KILL);
}

#[test]
fn an_end_in_the_middle_of_the_start_leaves_nothing_behind() {
    for wait in [10, 50, 100, 200, 400] {
        let mut agent = Setup::default().spawn();
        thread::sleep(Duration::from_millis(wait));
        agent.process.signal(Signal::TERM);
        let status = eventually("it ends", SOON, || agent.process.ended());
        // Before the handlers are there the signal itself ends it.
        assert!(status.code().is_none_or(|code| code == 0), "{status}: {:?}", agent.process.output());
        assert!(!agent.socket.exists() || status.code().is_none(), "after {wait} ms");
    }
}

#[test]
fn connections_that_are_older_than_the_agent_are_found() {
    let pair = Pair::new();
    let _echoes = echoes(&pair);
    let mut old: Vec<_> = [address::SERVER_V4, address::SERVER_V6]
        .iter()
        .flat_map(|server| [*server; 3])
        .map(|server| connect(&pair.client, server, PORT).unwrap())
        .collect();
    ask_all(&mut old);
    let agent = Setup::watching(&[&pair.client, &pair.server]).alone().start();
    for _ in 0..4 {
        ask_all(&mut old);
    }
    let usage = |s: &Scrape| s.sum("graylag.agent.map.usage", &[("graylag.map.name", "CONNS")]) as u64;
    agent.until(SOON, &(24, 24, 12), |s| (responses(s, CLIENT), responses(s, SERVER), usage(s)));
    let scrape = agent.scrape();
    for role in [CLIENT, SERVER] {
        assert_eq!(established(&scrape, role), 0, "their handshakes were before its time");
        let first_bytes = scrape.count("graylag.tcp.first_byte.duration", &[role]) as u64;
        assert_eq!(first_bytes, 0, "and so was their first byte");
    }
    drop(old);
    agent.until(SOON, &0, usage);
    let scrape = agent.scrape();
    for peer in ["10.77.0.1", "fd77::1", "10.77.0.0/24", "fd77::/48"] {
        let segments = scrape.sum("graylag.tcp.segment.count", &[("graylag.peer.name", peer)]);
        // Of three connections four requests, as many answers and the end; what was sent before is not counted.
        assert!((24.0..=80.0).contains(&segments), "{peer}: {segments}");
    }
}

#[test]
fn reloads_under_traffic_lose_no_count() {
    let pair = Pair::new();
    let toml = |n: usize| {
        let peer = format!("[[peer]]\nname = \"site-{n}\"\ncidrs = [\"10.77.0.0/24\", \"fd77::/48\"]\n");
        let service =
            format!("[[service]]\nname = \"api-{n}\"\nremote_ports = [8080]\nlocal_ports = [8080]\n");
        Setup::watching(&[&pair.client, &pair.server]).config(&format!("{peer}{service}")).toml()
    };
    let agent = Setup::watching(&[&pair.client, &pair.server]).alone().start();
    let echoes = echoes(&pair);
    let (stop, made) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut kept: Vec<_> =
        echoes.iter().map(|e| connect(&pair.client, e.address.ip(), PORT).unwrap()).collect();
    thread::scope(|scope| {
        let _stops = Stops(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                calls(&pair, &echoes, 5);
                made.fetch_add(10, Ordering::Relaxed);
            }
        });
        for n in 0..6 {
            agent.reload(&toml(n));
            eventually("it is taken", SOON, || {
                let taken = agent.process.output();
                (taken.iter().filter(|line| line.contains("configuration reloaded")).count() > n)
                    .then_some(())
            });
            ask_all(&mut kept);
            let names =
                [("graylag.peer.name", format!("site-{n}")), ("graylag.service.name", format!("api-{n}"))];
            eventually("both names have their share", SOON, || {
                let scrape = agent.scrape();
                let counted = |(label, name): &(&str, String)| {
                    scrape.sum("graylag.tcp.handshake.count", &[(*label, name.as_str())]) > 0.0
                };
                names.iter().all(counted).then_some(())
            });
        }
    });
    let made = made.load(Ordering::Relaxed);
    let expected = (made + 2, made + 12);
    agent.until(SOON, &(expected, expected), |s| {
        let of = |role| (established(s, role), responses(s, role));
        (of(CLIENT), of(SERVER))
    });
    // None of the names is one that nobody gave.
    let scrape = agent.scrape();
    let given =
        |name: &str| name.starts_with("site-") || ["10.77.0", "fd77::"].iter().any(|a| name.starts_with(a));
    let names = scrape.values("graylag.tcp.handshake.count", "graylag.peer.name");
    assert!(names.iter().all(|name| given(name)), "{names:?}");
}

#[test]
fn a_restart_counts_anew_under_a_new_epoch() {
    let pair = Pair::new();
    let agent = Setup::watching(&[&pair.client]).alone().start();
    let echoes = echoes(&pair);
    calls(&pair, &echoes, 5);
    agent.until(SOON, &10, |s| established(s, CLIENT));
    let before = agent.status().stamp;
    agent.process.signal(Signal::TERM);
    let mut agent = agent;
    eventually("it ends", SOON, || agent.process.ended());
    let agent = agent.again();
    let after = agent.status().stamp;
    assert!(after.epoch > before.epoch, "{before:?} {after:?}");
    assert_eq!((established(&agent.scrape(), CLIENT), after.sequence), (0, 0));
    let Message::State { stamp, .. } = Watch::start(&agent).messages().remove(0) else {
        panic!("a state first")
    };
    assert_eq!(stamp.epoch, after.epoch);
    calls(&pair, &echoes, 2);
    agent.until(SOON, &4, |s| established(s, CLIENT));
}
