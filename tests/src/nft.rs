//! Faults, and the exact number of packets each took.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use crate::net::Host;

/// An nftables table of one host.
pub struct Nft<'a> {
    host: &'a Host,
}

impl<'a> Nft<'a> {
    /// An empty table with chains `in` and `out`. Faults go to `in`: what is dropped in `out` the sender hears of.
    pub fn new(host: &'a Host) -> Self {
        let nft = Self { host };
        nft.apply(
            "table inet t {
                chain in { type filter hook input priority 0; }
                chain out { type filter hook output priority 0; }
            }",
        );
        nft
    }

    /// Adds a rule to chain `in`, with a named counter before its verdict, e.g. `("syn", "tcp flags syn", "drop")`.
    pub fn rule(&self, counter: &str, matching: &str, verdict: &str) {
        self.apply(&format!(
            "add counter inet t {counter}
             add rule inet t in {matching} counter name \"{counter}\" {verdict}"
        ));
    }

    /// Packets that a rule took.
    pub fn count(&self, counter: &str) -> u64 {
        let output = self.host.command("nft").args(["-j", "list", "counter", "inet", "t", counter]).output();
        let output = output.expect("nft");
        assert!(output.status.success(), "nft: {}", String::from_utf8_lossy(&output.stderr));
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("nft's JSON");
        let objects = json["nftables"].as_array().expect("objects");
        objects.iter().find_map(|o| o["counter"]["packets"].as_u64()).expect("a counter")
    }

    /// Removes all rules; counters stay.
    pub fn heal(&self) {
        self.apply("flush chain inet t in\nflush chain inet t out");
    }

    /// Runs an nft script.
    pub fn apply(&self, script: &str) {
        let mut command: Command = self.host.command("nft");
        let mut child = command
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("nft must be installed: cargo xtask setup");
        child.stdin.take().expect("stdin").write_all(script.as_bytes()).expect("nft");
        let output = child.wait_with_output().expect("nft");
        assert!(output.status.success(), "nft: {}\n{script}", String::from_utf8_lossy(&output.stderr));
    }
}
