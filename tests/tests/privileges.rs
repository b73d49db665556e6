//! An ordinary user with three capabilities is enough, fewer are named, and what is no longer needed is given up.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests

use std::{collections::BTreeMap, fs, net::SocketAddr, time::Duration};

use graylag::kernel::version_of;
use graylag_tests::{
    agent::{Agent, Setup},
    net::{Pair, address},
    proc::Ended,
    rtp,
    traffic::{Echo, ask, connect},
    udp,
};

/// `nobody`.
const UID: u32 = 65534;
const IMPOSSIBLE: i32 = 4;
/// Numbers of `include/uapi/linux/capability.h`: not every setpriv knows the younger names.
const NET_ADMIN: u32 = 12;
const PERFMON: u32 = 38;
const BPF: u32 = 39;

/// Starts as `nobody` with exactly these capabilities.
fn with(setup: Setup, capabilities: &[u32]) -> Setup {
    let list = |word: &str| {
        let names = capabilities.iter().map(|number| format!("+cap_{number}"));
        format!("--{word}={}", ["-all".to_owned()].into_iter().chain(names).collect::<Vec<_>>().join(","))
    };
    let (user, group) = (format!("--reuid={UID}"), format!("--regid={UID}"));
    setup.for_user(UID).through(&[
        "setpriv",
        &user,
        &group,
        "--clear-groups",
        &list("inh-caps"),
        &list("ambient-caps"),
    ])
}

/// The capability sets of every thread.
fn capabilities(agent: &Agent) -> BTreeMap<String, Vec<(String, u64)>> {
    let tasks = format!("/proc/{}/task", agent.process.id());
    let mut sets: BTreeMap<String, Vec<(String, u64)>> = BTreeMap::new();
    for task in fs::read_dir(tasks).unwrap().flatten() {
        let status = fs::read_to_string(task.path().join("status")).unwrap();
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            let bits = u64::from_str_radix(field(&format!("{set}:")), 16).unwrap();
            sets.entry(set.into()).or_default().push((field("Name:").to_owned(), bits));
        }
    }
    sets
}

/// What attaching to interfaces that come takes.
const MEDIA: u64 = 1 << BPF | 1 << NET_ADMIN;

/// What `kernel::privileges` says is kept without media: nothing, or on kernels before 5.19 what reading maps takes.
fn little() -> u64 {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    if version_of(&release) >= (5, 19) { 0 } else { 1 << BPF }
}

fn gave_up_the_rest(agent: &Agent, kept: u64) {
    let sets = capabilities(agent);
    assert!(sets["CapEff"].len() >= 3, "the collector, the faces and the main thread: {sets:?}");
    for (set, expected) in [("CapEff", kept), ("CapPrm", kept), ("CapInh", 0), ("CapAmb", 0)] {
        for (thread, bits) in &sets[set] {
            assert_eq!(*bits, expected, "{set} of thread {thread}");
        }
    }
}

#[test]
fn an_ordinary_user_with_three_capabilities_sees_every_handshake() {
    let pair = Pair::new();
    let setup = Setup::watching(&[&pair.client, &pair.server]).inside(&pair.server).alone();
    let media = "[media]\ninterfaces = [\"*\"]\n[limits]\nflows = 256";
    let agent = with(setup.config(media), &[BPF, PERFMON, NET_ADMIN]).start();
    let status = fs::read_to_string(format!("/proc/{}/status", agent.process.id())).unwrap();
    assert!(
        status.lines().any(|line| line.split_whitespace().eq(["Uid:", "65534", "65534", "65534", "65534"]))
    );
    gave_up_the_rest(&agent, MEDIA);
    // What takes more is said, and is no more than it takes: entering other namespaces to find old connections.
    agent.said("adoption is only partly available");
    let partial: Vec<_> =
        agent.status().signals.into_iter().filter(|signal| signal.reason.is_some()).collect();
    assert_eq!(partial.iter().map(|signal| signal.name.as_str()).collect::<Vec<_>>(), ["adoption"]);
    assert!(partial[0].reason.as_deref().unwrap().contains("needs CAP_SYS_ADMIN"), "{partial:?}");

    for server in [address::SERVER_V4, address::SERVER_V6] {
        let _echo = Echo::start(&pair.server, server, 8080);
        for _ in 0..10 {
            ask(&mut connect(&pair.client, server, 8080).unwrap(), 10).unwrap();
        }
    }
    agent.until(Duration::from_secs(20), &[(20, 20); 2], |scrape| {
        ["client", "server"].map(|role| {
            let role = ("graylag.role", role);
            let established = [role, ("graylag.outcome", "established")];
            (
                scrape.sum("graylag.tcp.handshake.count", &established) as u64,
                scrape.count("graylag.tcp.response.duration", &[role]) as u64,
            )
        })
    });
    // It attaches to interfaces after that, and finds out whose a socket is.
    let peer = SocketAddr::new(address::SERVER_V4, 5004);
    let _received = udp::bind(&pair.server, peer.ip(), peer.port(), 1 << 20);
    let sender = udp::sender(&pair.client, peer);
    rtp::send(&sender, &rtp::Stream::audio(1), &(0..50).collect::<Vec<_>>());
    agent.until(Duration::from_secs(20), &(50, 50), |scrape| {
        let received = [("network.io.direction", "receive")];
        let of = |name: &str| scrape.sum(name, &received) as u64;
        (of("graylag.rtp.packet.count"), of("graylag.relay.packet.count"))
    });
    // Nothing that it does later takes what it gave up.
    agent.reload(&fs::read_to_string(&agent.config).unwrap());
    agent.said("configuration reloaded");
    let said = agent.process.output();
    assert!(!said.iter().any(|line| line.contains("ERROR")), "{said:?}");
}

#[test]
fn root_gives_up_everything_too() {
    let agent = Setup::default().start();
    gave_up_the_rest(&agent, little());
    assert!(!agent.process.output().iter().any(|line| line.contains("WARN")), "{:?}", agent.process.output());
}

#[test]
fn missing_capabilities_are_named_with_what_grants_them() {
    let refused = |held: &[u32], missing: &str| {
        let Ended { code, err, .. } = with(Setup::default(), held).refused();
        assert_eq!(code, Some(IMPOSSIBLE), "{err}");
        assert!(
            err.contains(&format!("graylag: missing {missing}: run as root, or grant them with")),
            "{err}"
        );
        assert!(err.contains("setcap cap_bpf,cap_perfmon,cap_net_admin+ep graylag"), "{err}");
    };
    refused(&[], "CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN");
    refused(&[BPF], "CAP_PERFMON, CAP_NET_ADMIN");
    refused(&[BPF, PERFMON], "CAP_NET_ADMIN");
    refused(&[PERFMON, NET_ADMIN], "CAP_BPF");
}
