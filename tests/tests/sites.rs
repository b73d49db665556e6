//! The closed loop: three sites, live media, and a controller that moves routes by what graylag says; and what graylag says where
//! routes are not moved as they should be.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use graylag_tests::{
    agent::Watch,
    eventually,
    every::Every20ms,
    http, monotonic,
    net::Host,
    nft::Nft,
    proc::Process,
    rtp::Stream,
    schema::Described,
    sites::{Controller, Media, Move, OTHER, SHARED, Sites, on_link, site},
    udp,
};
use rustix::process::Signal;
use serde_json::{Value, json};

/// Patience with a busy machine: what was measured is printed, and stands in docs/performance.md.
const SOON: Duration = Duration::from_secs(30);

struct Loop {
    sites: Sites,
    controller: Controller,
    media: Media,
}

impl Loop {
    fn moves_since(&self, since: Duration) -> Vec<Move> {
        self.controller.moves().into_iter().filter(|moved| moved.at >= since).collect()
    }

    /// Begins a fault, waits for these moves and no others, ends it, and waits for their way back.
    #[track_caller]
    fn fault(&self, name: &str, begin: impl FnOnce(), lasts: Duration, end: impl FnOnce(), routes: &[&str]) {
        let (began, began_at) = (monotonic(), Instant::now());
        begin();
        let there = self.moved(began, routes.iter().map(|route| format!("{route} via c")).collect());
        thread::sleep(lasts.saturating_sub(began_at.elapsed()));
        let gaps = [0, 1].map(|n| self.media.longest_gap(n, began_at));
        let (ended, ended_at) = (monotonic(), Instant::now());
        end();
        let back = self.moved(ended, routes.iter().map(|route| format!("{route} direct")).collect());
        eventually("nothing stands", SOON, || self.sites.conditions().is_empty().then_some(()));
        let expected = routes.len() * 2;
        assert_eq!(self.moves_since(began).len(), expected, "{name}: {:?}", self.moves_since(began));
        println!(
            "{name}: moved after {there:.2?}, back after {back:.2?}; media missed at a {:.2?}, at b {:.2?}, on the way back {:.2?}",
            gaps[0],
            gaps[1],
            self.media.longest_gap(0, ended_at).max(self.media.longest_gap(1, ended_at))
        );
    }

    /// Waits until exactly these moves have been made; how long the last of them took.
    #[track_caller]
    fn moved(&self, since: Duration, mut routes: Vec<String>) -> Duration {
        routes.sort();
        eventually(&format!("{routes:?}"), SOON, || {
            let moves = self.moves_since(since);
            let mut made: Vec<String> = moves.iter().map(|moved| moved.route.clone()).collect();
            made.sort();
            (made == routes)
                .then(|| moves.iter().map(|moved| moved.at.saturating_sub(since)).max().unwrap_or_default())
        })
    }
}

/// Drops, where it arrives, what comes over the link from another site.
fn dead(nft: &Nft<'_>, from: &str) {
    nft.apply(&format!("add rule inet t in iifname \"to-{from}\" drop"));
}

/// A relay at C, with calls from A to B through it: 12 of them, 50 packets a second each way.
fn relay(sites: &Sites) -> (Process, Vec<Every20ms>) {
    const CALLS: u16 = 12;
    let (at, to) = (site(2).to_string(), site(1).to_string());
    let process = Process::start(sites.hosts[2].command(env!("CARGO_BIN_EXE_relay")).args([
        &at,
        &to,
        &CALLS.to_string(),
    ]));
    thread::sleep(Duration::from_secs(1));
    let calls = |host: &Host, local: u8, remote: Option<u8>| {
        let sockets: Vec<_> = (0..CALLS).map(|i| udp::bind(host, site(local), 7000 + i, 1 << 20)).collect();
        Every20ms::start(move |number| {
            for (port, socket) in (7000u16..).zip(&sockets) {
                udp::drain(socket);
                if let Some(remote) = remote {
                    let to = SocketAddr::new(site(remote), port);
                    let _ = socket.send_to(&Stream::audio(u32::from(port)).packet(number), to);
                }
            }
        })
    };
    (process, vec![calls(&sites.hosts[0], 0, Some(2)), calls(&sites.hosts[1], 1, None)])
}

#[test]
fn a_controller_moves_what_is_dead_and_nothing_else_and_comes_back() {
    let sites = Sites::new();
    eventually("all paths are healthy", SOON, || sites.is_well().then_some(()));
    let (relay, _calls) = relay(&sites);
    let (controller, media) = (sites.controller(), sites.media());
    let all = Loop { sites, controller, media };
    let [at_a, at_b] = [0, 1].map(|n: usize| Nft::new(&all.sites.hosts[n]));

    // The twin.
    let began = Instant::now();
    thread::sleep(Duration::from_secs(10));
    assert_eq!(all.controller.moves(), Vec::new());
    assert_eq!(all.sites.conditions(), Vec::<String>::new());
    println!("twin: longest gaps {:?}", [0, 1].map(|n| all.media.longest_gap(n, began)));

    let five = Duration::from_secs(5);
    all.fault("a to b dead", || dead(&at_b, "a"), five, || at_b.heal(), &["a b"]);
    all.fault("b to a dead", || dead(&at_a, "b"), five, || at_a.heal(), &["b a"]);
    let both = || {
        dead(&at_a, "b");
        dead(&at_b, "a");
    };
    let healed = || {
        at_a.heal();
        at_b.heal();
    };
    all.fault("both dead", both, five, healed, &["a b", "b a"]);
    let lossy = "add rule inet t in iifname \"to-a\" numgen random mod 5 == 0 drop";
    let half_a_minute = Duration::from_secs(30);
    // What is lost in the first seconds after an outage is taken for its last, and a session sends more only once in ten seconds.
    thread::sleep(Duration::from_secs(12));
    all.fault("a to b loses 20 %", || at_b.apply(lossy), half_a_minute, || at_b.heal(), &["a b"]);

    // Keys that disagree are no reason to move anything.
    let began = monotonic();
    all.sites.key(1, OTHER);
    eventually("it is said", SOON, || {
        all.sites.conditions().iter().any(|name| name == "auth_mismatch").then_some(())
    });
    thread::sleep(Duration::from_secs(12));
    all.sites.key(1, SHARED);
    eventually("keys agree", SOON, || all.sites.is_well().then_some(()));
    assert_eq!(all.moves_since(began), Vec::new());

    // Where the relay at C is stuck, its site is no way round.
    relay.signal(Signal::STOP);
    eventually("it is stuck", SOON, || {
        all.sites.conditions().iter().any(|name| name == "relay_stall").then_some(())
    });
    let began = monotonic();
    dead(&at_b, "a");
    eventually("it is dead", SOON, || (all.sites.state(0, 1, "transmit") == "down").then_some(()));
    thread::sleep(Duration::from_secs(3));
    assert_eq!(all.moves_since(began), Vec::new());
    relay.signal(Signal::CONT);
    let took = all.moved(began, vec!["a b via c".into()]);
    println!("relay at c stuck, a to b dead: moved when the relay went on, {took:.2?} after the fault");
    at_b.heal();
    all.moved(began, vec!["a b via c".into(), "a b direct".into()]);
    let stuck = all.sites.watches.iter().flat_map(Watch::raised).find(|c| c.0 == "stuck_avoid");
    assert_eq!(stuck, None);
}

/// What `POST /v1/avoid` answers.
fn avoid(sites: &Sites, body: &Value) -> (u16, String) {
    let body = body.to_string();
    let request = format!(
        "POST /v1/avoid HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    http::send(&sites.agents[0].socket, request.as_bytes()).and_then(http::answer).expect("an answer")
}

#[test]
fn routes_that_are_not_moved_and_avoidance_that_is_held_are_told() {
    let sites = Sites::new();
    eventually("all paths are healthy", SOON, || sites.is_well().then_some(()));
    let raised = || {
        let told = sites.watches[0].raised().into_iter();
        told.map(|(name, about, blame)| format!("{name} {about} {blame}")).collect::<Vec<_>>()
    };
    // Media to the address that is probed, and nobody to move it.
    let sockets: Vec<_> =
        (0..4).map(|i| udp::sender(&sites.hosts[0], SocketAddr::new(on_link(1, 0), 6000 + i))).collect();
    let _taken: Vec<_> =
        (0..4).map(|i| udp::bind(&sites.hosts[1], on_link(1, 0), 6000 + i, 1 << 16)).collect();
    let load = Every20ms::start(move |number| {
        for (ssrc, socket) in (1..).zip(&sockets) {
            let _ = socket.send(&Stream::audio(ssrc).packet(number));
        }
    });
    thread::sleep(Duration::from_secs(5));
    assert_eq!(raised(), Vec::<String>::new());
    let at_b = Nft::new(&sites.hosts[1]);
    dead(&at_b, "a");
    let named = |name: &str| sites.conditions().iter().any(|condition| condition == name);
    eventually("it is not rerouted", SOON, || named("not_rerouted").then_some(()));
    assert_eq!(raised(), ["path_down b transmit path_transmit", "not_rerouted b transmit local_host"]);
    drop(load);
    eventually("media has ended", SOON, || (!named("not_rerouted")).then_some(()));
    assert!(named("path_down"));
    at_b.heal();
    eventually("all is well", SOON, || (sites.is_well() && sites.conditions().is_empty()).then_some(()));

    let message = Described::new("Message");
    for line in sites.watches[0].lines() {
        let value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(message.problems(&value), Vec::<String>::new(), "{line}");
    }

    // A controller that avoids it still, and one that asks for the impossible.
    let said =
        json!({ "avoid": [{ "peer": "b", "direction": "transmit" }, { "peer": "nobody" }], "valid_for": 60 });
    let (code, answer) = avoid(&sites, &said);
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    assert_eq!(Described::new("Avoided").problems(&answer), Vec::<String>::new());
    assert_eq!(Described::new("Avoid").problems(&said), Vec::<String>::new());
    assert_eq!((code, answer["avoid"][0]["stuck"].as_bool()), (200, Some(false)), "{answer}");
    assert_eq!(answer["avoid"][0]["path"]["state"], "healthy");
    assert_eq!(
        (answer["avoid"].as_array().map(Vec::len), &answer["avoid"][1]["path"]["state"]),
        (Some(3), &json!("unknown"))
    );
    eventually("it is stuck", SOON, || named("stuck_avoid").then_some(()));
    let (_, answer) = avoid(&sites, &said);
    assert!(answer.contains("\"stuck\":true"), "{answer}");
    let (code, problem) = avoid(&sites, &json!({ "avoid": [{ "pear": "b" }] }));
    assert!(code == 422 && problem.contains("unknown field `pear`"), "{code} {problem}");
    let (code, problem) = avoid(&sites, &json!({ "avoid": [], "valid_for": 1e9 }));
    assert!(code == 400 && problem.starts_with("valid_for: 1000000000 is out of range"), "{code} {problem}");
    avoid(&sites, &json!({ "avoid": [] }));
    eventually("nothing is avoided", SOON, || sites.conditions().is_empty().then_some(()));
}
