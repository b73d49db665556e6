//! States of a path, each direction for itself: two agents that probe each other with STAMP, real faults between them. Incidents
//! D1, D2 and D3, and what must not be taken for them.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, thread, time::Duration};

use graylag::model::status::PathStatus;
use graylag_tests::{
    agent::{Agent, Setup, Watch},
    eventually,
    net::{Host, Pair},
    nft::Nft,
    proc::Directory,
};

/// Patience with a busy machine; the bounds of the verdicts are in the simulation of `health`.
const SOON: Duration = Duration::from_secs(20);
const OLD: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const NEW: &str = "f0e1d2c3b4a5968778695a4b3c2d1e0ff0e1d2c3b4a5968778695a4b3c2d1e0f";
/// All test packets and replies.
const STAMP: &str = "meta l4proto udp";

/// Two agents: the client's calls the other `b`, the server's calls it `a`.
struct Nodes {
    agents: [Agent; 2],
    watches: [Watch; 2],
    keys: [PathBuf; 2],
    _directory: Directory,
}

impl Nodes {
    fn start(pair: &Pair) -> Self {
        let directory = Directory::new();
        let keys = ["a", "b"].map(|name| keys(&directory, name, OLD));
        let node = |host: &Host, keys: &PathBuf, peer: &str, address: &str| {
            let toml = format!(
                "[[peer]]\nname = \"{peer}\"\ncidrs = [\"{address}\"]\n\
                 [stamp]\nlisten = \"[::]:862\"\nkey_file = \"{}\"\n\
                 [[probe]]\nkind = \"stamp\"\ntarget = \"{address}:862\"\ninterval = \"100ms\"\nauthenticated = true",
                keys.display()
            );
            Setup::watching(&[host]).inside(host).config(&toml).start()
        };
        let agents =
            [node(&pair.client, &keys[0], "b", "10.77.0.1"), node(&pair.server, &keys[1], "a", "10.77.0.2")];
        let watches = [Watch::start(&agents[0]), Watch::start(&agents[1])];
        let nodes = Self { agents, watches, keys, _directory: directory };
        nodes.until(["healthy"; 4]);
        nodes
    }

    /// Receive and transmit of the first, receive and transmit of the second.
    fn states(&self) -> [String; 4] {
        let of = |agent: &Agent, direction: &str| {
            let paths: Vec<PathStatus> = agent.status().paths;
            let path = paths.into_iter().find(|path| path.probes.is_some() && path.direction == direction);
            path.map_or("unknown".into(), |path| path.state)
        };
        let [a, b] = &self.agents;
        [of(a, "receive"), of(a, "transmit"), of(b, "receive"), of(b, "transmit")]
    }

    #[track_caller]
    fn until(&self, expected: [&str; 4]) {
        eventually(&format!("{expected:?}"), SOON, || (self.states() == expected).then_some(()));
    }

    /// Conditions that were raised at either, each once: `node name direction blame`.
    fn raised(&self) -> Vec<String> {
        let mut raised = Vec::new();
        for (node, watch) in ["a", "b"].iter().zip(&self.watches) {
            for (to, condition) in watch.transitions() {
                let direction = condition.target.direction.clone().unwrap_or_default();
                let told = format!("{node} {} {direction} {}", condition.name, condition.blame);
                if to == "raised" && !raised.contains(&told) {
                    raised.push(told);
                }
            }
        }
        raised.sort();
        raised
    }

    #[track_caller]
    fn until_nothing_stands(&self) {
        eventually("nothing stands", SOON, || {
            self.agents.iter().all(|agent| agent.conditions().is_empty()).then_some(())
        });
    }
}

fn keys(directory: &Directory, name: &str, text: &str) -> PathBuf {
    let path = directory.write(name, text);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

#[test]
fn d1_exactly_the_direction_that_is_dead_is_down() {
    let pair = Pair::new();
    let nodes = Nodes::start(&pair);
    let (at_server, at_client) = (Nft::new(&pair.server), Nft::new(&pair.client));

    at_server.rule("there", STAMP, "drop");
    nodes.until(["healthy", "down", "down", "unknown"]);
    assert!(at_server.count("there") > 0);
    // It is the sender that knows: it hears the other end, and what that says.
    assert_eq!(nodes.raised(), ["a path_down transmit path_transmit", "b path_down receive unknown"]);
    at_server.heal();
    nodes.until(["healthy"; 4]);
    nodes.until_nothing_stands();

    at_client.rule("back", STAMP, "drop");
    nodes.until(["down", "unknown", "healthy", "down"]);
    at_client.heal();
    nodes.until(["healthy"; 4]);
    nodes.until_nothing_stands();
    let expected = [
        "a path_down receive unknown",
        "a path_down transmit path_transmit",
        "b path_down receive unknown",
        "b path_down transmit path_transmit",
    ];
    assert_eq!(nodes.raised(), expected);
}

#[test]
fn d2_keys_that_disagree_are_neither_loss_nor_an_outage() {
    let pair = Pair::new();
    let nodes = Nodes::start(&pair);
    let change = |text: &str| {
        fs::write(&nodes.keys[1], text).unwrap();
        nodes.agents[1].process.signal(rustix::process::Signal::HUP);
    };
    change(NEW);
    let mismatch = |agent: &Agent| agent.conditions().iter().any(|c| c.name == "auth_mismatch");
    eventually("both ends say so", SOON, || nodes.agents.iter().all(mismatch).then_some(()));
    // Longer than the lease: what does not validate is answered all the same, so nothing is known to be wrong with either way.
    thread::sleep(Duration::from_secs(13));
    assert_eq!(nodes.states(), ["healthy"; 4]);
    assert!(nodes.agents.iter().all(mismatch));
    change(OLD);
    nodes.until(["healthy"; 4]);
    nodes.until_nothing_stands();
    assert_eq!(nodes.raised(), ["a auth_mismatch receive unknown", "b auth_mismatch receive unknown"]);

    // The twin: a rollover in which both keys are good for a while.
    for (file, text) in
        [(1, format!("{OLD}\n{NEW}\n")), (0, format!("{NEW}\n{OLD}\n")), (1, NEW.into()), (0, NEW.into())]
    {
        fs::write(&nodes.keys[file], text).unwrap();
        nodes.agents[file].process.signal(rustix::process::Signal::HUP);
        thread::sleep(Duration::from_secs(2));
    }
    assert_eq!(nodes.states(), ["healthy"; 4]);
    assert_eq!(nodes.raised().len(), 2, "{:?}", nodes.raised());
}

#[test]
fn d3_loss_degrades_and_is_over_when_it_is_over() {
    let pair = Pair::new();
    let nodes = Nodes::start(&pair);
    let at_server = Nft::new(&pair.server);
    at_server.rule("lossy", &format!("{STAMP} numgen random mod 5 == 0"), "drop");
    eventually("both ends say so", SOON, || {
        let states = nodes.states();
        (states[1] == "degraded" && states[2] == "degraded").then_some(())
    });
    thread::sleep(Duration::from_secs(15));
    at_server.heal();
    nodes.until(["healthy"; 4]);
    nodes.until_nothing_stands();
    assert_eq!(nodes.raised(), ["a path_loss transmit path_transmit", "b path_loss receive path_receive"]);
}

#[test]
fn the_twin_a_path_that_is_well_raises_nothing() {
    let pair = Pair::new();
    let nodes = Nodes::start(&pair);
    // What was sent before there was anybody to answer is not the path's.
    let count = |name: &str| nodes.agents[0].scrape().sum(name, &[("graylag.peer.name", "b")]) as u64;
    let fates = || (count("graylag.probe.packet.sent"), count("graylag.probe.packet.lost"));
    let before = fates();
    for _ in 0..150 {
        assert_eq!(nodes.states(), ["healthy"; 4]);
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(nodes.raised(), Vec::<String>::new());
    let scrape = nodes.agents[0].scrape();
    let healthy = [("graylag.peer.name", "b"), ("graylag.state", "healthy")];
    assert_eq!(scrape.sum("graylag.path.state", &healthy) as u64, 2);
    let after = fates();
    assert!(after.0 >= before.0 + 200 && after.1 == before.1, "{before:?} {after:?}");
}

#[test]
fn the_twin_an_agent_that_restarts_is_no_dead_path() {
    let pair = Pair::new();
    let mut nodes = Nodes::start(&pair);
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::KILL] {
        let [a, b] = nodes.agents;
        b.process.signal(signal);
        thread::sleep(Duration::from_secs(3));
        // Its host answers for it.
        let paths = a.status().paths;
        let states: Vec<_> = paths.iter().map(|path| path.state.as_str()).collect();
        assert_eq!(states, ["healthy"; 2], "{paths:?}");
        nodes.agents = [a, b.again()];
        nodes.watches[1] = Watch::start(&nodes.agents[1]);
        nodes.until(["healthy"; 4]);
        assert_eq!(nodes.raised(), Vec::<String>::new());
    }
}
