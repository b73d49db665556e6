//! The image of this machine's architecture: what is in it, and that it runs with no more than it is said to need.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests

use std::{collections::BTreeSet, fs, path::Path, process::Command, time::Duration};

use graylag_tests::{
    agent::binary,
    container::{Bundle, Container},
    layout::{Layout, VERSION, here},
    net::{Pair, address},
    proc::finish,
    traffic::{Echo, ask, connect},
};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(20);

/// The configuration of an agent that sees the network it is in and no other.
const TOML: &str =
    "[scope]\nnetwork_namespaces = [\"host\"]\n[media]\ninterfaces = []\n[collect]\ninterval = \"200ms\"\n";

#[test]
fn it_holds_the_program_that_all_tests_try_and_what_it_is_made_of() {
    let program = Layout::tested().holds_the_program(here());
    assert!(program == fs::read(binary()).unwrap(), "the image has another program than was tested");
}

/// Runs it as a user with the three capabilities and no other, on a read-only root, and shows it traffic.
fn runs(uid: u32, seccomp: Option<Value>) {
    let pair = Pair::new();
    let bundle = Bundle::unpack(&Layout::tested(), &format!("{VERSION}-{}", here()));
    let arguments = bundle.config()["process"]["args"].clone();
    assert_eq!(arguments, json!(["/usr/bin/graylag", "run"]));
    let running = Container { uid, host: &pair.server, toml: TOML, seccomp }.start(bundle);
    assert!(running.root_is_read_only());
    let status = fs::read_to_string(format!("/proc/{}/status", running.pid())).unwrap();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
    assert_eq!(field("Uid:").split_whitespace().next(), Some(uid.to_string().as_str()));
    // CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF (include/uapi/linux/capability.h).
    let three = 1u64 << 12 | 1 << 38 | 1 << 39;
    assert_eq!(u64::from_str_radix(field("CapBnd:"), 16).unwrap(), three);
    assert_eq!(field("NoNewPrivs:"), "1");

    for server in [address::SERVER_V4, address::SERVER_V6] {
        let _echo = Echo::start(&pair.server, server, 8080);
        for _ in 0..10 {
            ask(&mut connect(&pair.client, server, 8080).unwrap(), 10).unwrap();
        }
    }
    let seen = || {
        let role = ("graylag.role", "server");
        let scrape = running.scrape();
        let established =
            scrape.sum("graylag.tcp.handshake.count", &[role, ("graylag.outcome", "established")]);
        (established as u64, scrape.count("graylag.tcp.response.duration", &[role]) as u64)
    };
    graylag_tests::eventually("it has seen every handshake and every answer", SOON, || {
        (seen() == (20, 20)).then_some(())
    });
    assert_eq!(running.stop(), 0);
}

#[test]
fn as_root_with_three_capabilities_it_sees_every_handshake() {
    runs(0, None);
}

#[test]
fn as_nobody_with_three_capabilities_it_sees_every_handshake() {
    runs(65534, None);
}

/// What the unit's `SystemCallFilter` lets pass, as systemd resolves it, in the form that runtimes take.
fn units_filter() -> Value {
    let unit =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd/graylag.service"))
            .unwrap();
    let mut allowed = BTreeSet::new();
    for line in unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let (words, remove) = line.strip_prefix('~').map_or((line, false), |words| (words, true));
        for word in words.split_whitespace() {
            for call in calls(word) {
                if remove {
                    allowed.remove(&call)
                } else {
                    allowed.insert(call)
                };
            }
        }
    }
    // systemd allows what it needs itself between filter and program (systemd.exec(5): execve, exit, rt_sigreturn, …).
    allowed.extend(calls("@default"));
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": [if cfg!(target_arch = "x86_64") { "SCMP_ARCH_X86_64" } else { "SCMP_ARCH_AARCH64" }],
        "syscalls": [{"names": allowed, "action": "SCMP_ACT_ALLOW"}],
    })
}

/// The system calls of a group, or the one that is named.
fn calls(word: &str) -> Vec<String> {
    if !word.starts_with('@') {
        return vec![word.to_owned()];
    }
    let listed = finish(Command::new("systemd-analyze").args(["syscall-filter", word]));
    assert_eq!(listed.code, Some(0), "{listed:?}");
    let lines = listed.out.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.skip(1).flat_map(calls).collect()
}

#[test]
fn under_the_units_system_call_filter_it_sees_every_handshake() {
    runs(65534, Some(units_filter()));
}
