//! What a kernel cannot give is said aloud: by `graylag check`, with its exit code, and by the running agent.
//!
//! The guests of `cargo xtask kernels` say what their kernel is known to lack (`GRAYLAG_WITHOUT`): the agent has to miss
//! exactly that. Elsewhere only the two are compared with each other.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests

use std::{collections::BTreeSet, process::Command};

use graylag_tests::{
    agent::{Setup, binary},
    net::Pair,
    require_root,
};
use serde_json::Value;

/// Exit codes of `graylag check`.
const ALL_THERE: i32 = 0;
const DEGRADED: i32 = 3;

/// What `graylag check --json` says, and its exit code.
fn check() -> (Value, i32) {
    let output = Command::new(binary()).args(["check", "--json"]).output().expect("graylag check");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let report = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    (report, output.status.code().expect("an exit code"))
}

/// Names of the signals that are not fully there; each has to say why.
fn missing(signals: &Value) -> BTreeSet<String> {
    let signals = signals.as_array().expect("signals");
    assert!(!signals.is_empty());
    let text = |item: &Value, field: &str| item[field].as_str().unwrap_or_default().to_owned();
    let missing = signals.iter().filter(|item| text(item, "state") != "available");
    missing
        .map(|item| {
            assert!(text(item, "detail").len() > 20, "no reason: {item}");
            text(item, "name")
        })
        .collect()
}

#[test]
fn check_names_what_this_kernel_lacks_and_why() {
    require_root();
    let (report, code) = check();
    let missing = missing(&report["signals"]);
    assert_eq!(code, if missing.is_empty() { ALL_THERE } else { DEGRADED }, "{report:#}");
    if let Ok(listed) = std::env::var("GRAYLAG_WITHOUT") {
        let listed: BTreeSet<String> =
            listed.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        assert_eq!(missing, listed, "{report:#}");
    }
    // Attached, or one that is: what costs no signal is not left out silently either.
    for program in report["programs"].as_array().expect("programs") {
        let said = program["state"] == "attached" || program["detail"].is_string();
        assert!(said, "{program}");
    }
}

#[test]
fn the_running_agent_says_the_same() {
    let pair = Pair::new();
    let agent =
        Setup::watching(&[&pair.client]).inside(&pair.client).config("[media]\ninterfaces = [\"*\"]").start();
    let status = agent.status();
    let limited = status.signals.iter().filter(|signal| signal.reason.is_some());
    let limited: BTreeSet<String> = limited.map(|signal| signal.name.clone()).collect();
    let missing = missing(&check().0["signals"]);
    assert_eq!(limited, missing);
    let coverage = agent.scrape();
    for name in missing {
        // A signal that is there in part has no figure: nobody can put a number on it.
        assert!(coverage.sum("graylag.agent.coverage", &[("graylag.signal", &name)]) < 1.0, "{name}");
    }
}
