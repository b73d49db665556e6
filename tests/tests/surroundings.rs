//! What a host may lack, or have in another place: types, the cgroup hierarchy. Each costs what it must and no more, and is
//! said aloud.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests

use std::time::Duration;

use graylag_tests::{
    agent::{Setup, graylag},
    net::{Pair, address},
    proc::{Directory, Ended, finish},
    traffic::{Echo, ask, connect, listen},
};

const IMPOSSIBLE: i32 = 4;
const DEGRADED: i32 = 3;

/// Runs the agent in a mount namespace of its own, after a script has changed it.
fn changed(script: &str) -> [String; 6] {
    let script = format!("set -e; {script}; exec \"$@\"");
    ["unshare", "--mount", "sh", "-c", &script, "sh"].map(str::to_owned)
}

fn words(command: &[String]) -> Vec<&str> {
    command.iter().map(String::as_str).collect()
}

const NO_BTF: &str = "mount -t tmpfs none /sys/kernel/btf";
const NO_CGROUP2: &str =
    "awk '$3 == \"cgroup2\" { print $2 }' /proc/self/mounts | while read -r m; do umount -l \"$m\"; done";

#[test]
fn without_types_it_does_not_guess() {
    let Ended { code, err, .. } = Setup::default().through(&words(&changed(NO_BTF))).refused();
    assert_eq!(code, Some(IMPOSSIBLE), "{err}");
    assert!(err.contains("graylag: this kernel has no BTF at /sys/kernel/btf/vmlinux"), "{err}");
    assert!(err.contains("use a kernel built with CONFIG_DEBUG_INFO_BTF=y"), "{err}");
}

#[test]
fn check_says_the_same() {
    let command = changed(NO_BTF);
    let mut check = std::process::Command::new(&command[0]);
    check.args(&command[1..]).arg(graylag_tests::agent::binary()).args(["check", "--json"]);
    let ended = finish(&mut check);
    assert_eq!(ended.code, Some(IMPOSSIBLE), "{ended:?}");
    let report: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    assert!(report["error"].as_str().unwrap().starts_with("this kernel has no BTF"), "{report}");
    assert_eq!(graylag(&["check"]).code, Some(0), "and here nothing is missing");
}

/// Both roles of some connections, and a listener that is full: what the cgroup program alone sees.
fn seen(script: &str) -> (Vec<String>, u64, u64, u64) {
    let pair = Pair::new();
    let agent =
        Setup::watching(&[&pair.client, &pair.server]).alone().through(&words(&changed(script))).start();
    for server in [address::SERVER_V4, address::SERVER_V6] {
        let _echo = Echo::start(&pair.server, server, 8080);
        for _ in 0..5 {
            ask(&mut connect(&pair.client, server, 8080).unwrap(), 10).unwrap();
        }
    }
    let _full = listen(&pair.server, address::SERVER_V4, 8081, 0);
    let begin = || graylag_tests::traffic::begin(&pair.client, address::SERVER_V4, 8081);
    let _first = begin();
    std::thread::sleep(Duration::from_millis(200));
    let _others = [begin(), begin()];
    let established = |scrape: &graylag_tests::metrics::Scrape, role| {
        let labels = [("graylag.role", role), ("graylag.outcome", "established")];
        scrape.sum("graylag.tcp.handshake.count", &labels) as u64
    };
    agent.until(Duration::from_secs(20), &(11, 11), |s| (established(s, "client"), established(s, "server")));
    std::thread::sleep(Duration::from_millis(700));
    let scrape = agent.scrape();
    let overflow = scrape.sum("graylag.tcp.accept_queue.overflow", &[]) as u64;
    assert!(pair.server.tcp_ext("ListenOverflows") >= 2);
    (agent.process.output(), established(&scrape, "client"), established(&scrape, "server"), overflow)
}

#[test]
fn a_cgroup_hierarchy_mounted_elsewhere_is_found() {
    let directory = Directory::new();
    let place = directory.path().display();
    let (said, _, _, overflow) = seen(&format!("{NO_CGROUP2}; mount -t cgroup2 none {place}"));
    assert!(overflow >= 2, "the program at the listener is attached");
    assert!(!said.iter().any(|line| line.contains("available")), "{said:?}");
}

#[test]
fn without_a_cgroup_hierarchy_one_signal_is_partial_and_says_why() {
    let (said, client, server, overflow) = seen(NO_CGROUP2);
    assert_eq!((client, server, overflow), (11, 11, 0), "handshakes are still seen from both ends");
    let line = said.iter().find(|line| line.contains("handshake_server is only partly available")).unwrap();
    assert!(line.contains("no cgroup2 hierarchy is mounted; mount one: mount -t cgroup2"), "{line}");
    assert_eq!(said.iter().filter(|line| line.contains("available")).count(), 1, "{said:?}");

    let command = changed(NO_CGROUP2);
    let mut check = std::process::Command::new(&command[0]);
    check.args(&command[1..]).arg(graylag_tests::agent::binary()).arg("check");
    let ended = finish(&mut check);
    assert_eq!(ended.code, Some(DEGRADED), "{ended:?}");
    assert!(ended.out.contains("mount one: mount -t cgroup2 none /sys/fs/cgroup"), "{}", ended.out);
}
