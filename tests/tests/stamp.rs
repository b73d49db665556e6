//! STAMP end to end: graylag's reflector and one-shot probe in two namespaces, netfilter as fault and as ground truth, and a
//! stranger's implementation (stamp-suite) at either end.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use graylag_tests::{
    agent::{Agent, Setup, binary},
    eventually,
    net::{Host, Pair, address},
    nft::Nft,
    proc::{Directory, Ended, Process, finish},
};
use serde_json::Value;

const OLD: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const NEW: &str = "f0e1d2c3b4a5968778695a4b3c2d1e0ff0e1d2c3b4a5968778695a4b3c2d1e0f";
/// What the server answers.
const PEERS: &str = "[[peer]]\nname = \"client\"\ncidrs = [\"10.77.0.0/24\", \"fd77::/64\"]\n";

/// The stranger: `cargo xtask setup` installs it.
fn stranger() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/bin/stamp-suite");
    assert!(path.exists(), "{} is missing: cargo xtask setup", path.display());
    path
}

/// A file of keys that only its owner can read.
fn keys(directory: &Directory, name: &str, text: &str) -> PathBuf {
    let path = directory.write(name, text);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

fn toml(key_file: Option<&Path>) -> String {
    let key_file = key_file.map_or(String::new(), |path| format!("key_file = \"{}\"\n", path.display()));
    format!("{PEERS}[stamp]\nlisten = \"[::]:862\"\n{key_file}")
}

/// graylag's reflector on the pair's server.
fn reflector(pair: &Pair, key_file: Option<&Path>) -> Agent {
    Setup::watching(&[&pair.server]).inside(&pair.server).config(&toml(key_file)).start()
}

fn probe_command(host: &Host, target: &str, count: u32, key_file: Option<&Path>) -> Command {
    let mut command = host.command(&binary().display().to_string());
    command.args(["probe", "stamp", target, "--json", "--interval", "10ms", "--count", &count.to_string()]);
    if let Some(path) = key_file {
        command.arg("--key-file").arg(path);
    }
    command
}

/// A round from one host; what it came to.
#[track_caller]
fn probe(host: &Host, target: &str, count: u32, key_file: Option<&Path>) -> (Ended, Value) {
    let ended = finish(&mut probe_command(host, target, count, key_file));
    let report = serde_json::from_str(&ended.out).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
    (ended, report)
}

/// Sent, answered, lost out, lost back, lost in an unknown direction, not valid.
fn fates(report: &Value) -> [u64; 6] {
    ["sent", "answered", "lost_out", "lost_back", "lost_unknown", "auth_mismatch"]
        .map(|field| report[field].as_u64().unwrap_or_else(|| panic!("{field}: {report}")))
}

#[test]
fn loss_is_told_in_its_direction_to_the_packet() {
    let pair = Pair::new();
    let _reflector = reflector(&pair, None);
    for target in [address::SERVER_V4.to_string(), address::SERVER_V6.to_string()] {
        let (ended, healthy) = probe(&pair.client, &target, 100, None);
        assert_eq!((ended.code, fates(&healthy)), (Some(0), [100, 100, 0, 0, 0, 0]), "{healthy}");

        let there = Nft::new(&pair.server);
        there.rule("out", "udp dport 862 numgen inc mod 10 == 0", "drop");
        let (_, report) = probe(&pair.client, &target, 100, None);
        let lost = there.count("out");
        assert_eq!((lost, fates(&report)), (10, [100, 90, lost, 0, 0, 0]), "{report}");
        there.apply("delete table inet t");

        let back = Nft::new(&pair.client);
        back.rule("back", "udp sport 862 numgen inc mod 10 == 0", "drop");
        let (_, report) = probe(&pair.client, &target, 100, None);
        let lost = back.count("back");
        assert_eq!((lost, fates(&report)), (10, [100, 90, 0, lost, 0, 0]), "{report}");
        back.apply("delete table inet t");
    }
}

#[test]
fn silence_has_no_direction_and_no_answer() {
    let pair = Pair::new();
    let nft = Nft::new(&pair.server);
    nft.rule("dead", "udp dport 862", "drop");
    let (ended, report) = probe(&pair.client, &address::SERVER_V4.to_string(), 20, None);
    assert_eq!((ended.code, fates(&report)), (Some(1), [20, 0, 0, 0, 20, 0]), "{report}");
    assert_eq!((nft.count("dead"), report["refused"].as_u64()), (20, Some(0)), "{report}");
}

#[test]
fn a_host_without_a_reflector_refuses_and_loses_nothing() {
    let pair = Pair::new();
    let targets = [address::SERVER_V4.to_string(), address::SERVER_V6.to_string()];
    // As hosts are: after a few at once, one port unreachable a second. Between two of them all is refused; what comes
    // after the last one nobody knows.
    for target in &targets {
        let (ended, report) = probe(&pair.client, target, 250, None);
        let [sent, answered, out, back, unknown, mismatch] = fates(&report);
        let refused = report["refused"].as_u64().unwrap();
        assert_eq!((ended.code, sent, answered, out, back, mismatch), (Some(1), 250, 0, 0, 0, 0), "{report}");
        assert!(refused >= 100 && refused + unknown == 250, "{report}");
    }
    // One that tells of each.
    pair.server.sysctl("net.ipv4.icmp_ratelimit", "0");
    pair.server.sysctl("net.ipv6.icmp.ratelimit", "0");
    for target in &targets {
        let (ended, report) = probe(&pair.client, target, 20, None);
        assert_eq!((ended.code, fates(&report)), (Some(1), [20, 0, 0, 0, 0, 0]), "{report}");
        assert_eq!(report["refused"].as_u64(), Some(20), "{report}");
    }
}

#[test]
fn a_key_that_does_not_fit_is_a_mismatch_and_not_loss() {
    let pair = Pair::new();
    let directory = Directory::new();
    let (old, new) = (keys(&directory, "old", OLD), keys(&directory, "new", NEW));
    let _reflector = reflector(&pair, Some(&old));
    let target = address::SERVER_V4.to_string();
    let (ended, report) = probe(&pair.client, &target, 50, Some(&old));
    assert_eq!((ended.code, fates(&report)), (Some(0), [50, 50, 0, 0, 0, 0]), "{report}");
    let (ended, report) = probe(&pair.client, &target, 50, Some(&new));
    assert_eq!((ended.code, fates(&report)), (Some(1), [50, 0, 0, 0, 0, 50]), "{report}");

    // A file that everybody can read is refused before anything is sent.
    fs::set_permissions(&new, fs::Permissions::from_mode(0o644)).unwrap();
    let ended = finish(&mut probe_command(&pair.client, &target, 1, Some(&new)));
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.err.contains("chmod 0640"), "{ended:?}");
}

#[test]
fn an_authenticated_probe_of_an_open_reflector_is_a_mismatch() {
    let pair = Pair::new();
    let directory = Directory::new();
    let old = keys(&directory, "old", OLD);
    let _reflector = reflector(&pair, None);
    let (_, report) = probe(&pair.client, &address::SERVER_V4.to_string(), 50, Some(&old));
    assert_eq!(fates(&report), [50, 0, 0, 0, 0, 50], "{report}");
}

#[test]
fn keys_change_without_a_lost_packet() {
    let pair = Pair::new();
    let directory = Directory::new();
    let (old, new) = (keys(&directory, "old", OLD), keys(&directory, "new", NEW));
    let served = keys(&directory, "served", OLD);
    let agent = reflector(&pair, Some(&served));
    let target = address::SERVER_V4.to_string();
    let change = |text: &str| {
        fs::write(&served, text).unwrap();
        agent.reload(&toml(Some(&served)));
    };
    // While one of the peer's sessions goes on with the old key, this end learns the new one and makes it the first.
    let (_, report) = thread::scope(|scope| {
        let probing = scope.spawn(|| probe(&pair.client, &target, 300, Some(&old)));
        thread::sleep(Duration::from_millis(500));
        change(&format!("{OLD}\n{NEW}\n"));
        thread::sleep(Duration::from_millis(500));
        change(&format!("{NEW}\n{OLD}\n"));
        probing.join().unwrap()
    });
    assert_eq!(fates(&report), [300, 300, 0, 0, 0, 0], "{report}");
    let (_, report) = probe(&pair.client, &target, 50, Some(&new));
    assert_eq!(fates(&report), [50, 50, 0, 0, 0, 0], "{report}");
    change(NEW);
    let (_, report) = probe(&pair.client, &target, 50, Some(&new));
    assert_eq!(fates(&report), [50, 50, 0, 0, 0, 0], "{report}");
    let (_, report) = probe(&pair.client, &target, 50, Some(&old));
    assert_eq!(fates(&report), [50, 0, 0, 0, 0, 50], "{report}");
}

#[test]
fn only_peers_are_answered() {
    let pair = Pair::new();
    let toml = "[[peer]]\nname = \"other\"\ncidrs = [\"10.99.0.0/24\"]\n[stamp]\nlisten = \"0.0.0.0:862\"\n";
    let _reflector = Setup::watching(&[&pair.server]).inside(&pair.server).config(toml).start();
    let (_, report) = probe(&pair.client, &address::SERVER_V4.to_string(), 20, None);
    assert_eq!(fates(&report), [20, 0, 0, 0, 20, 0], "{report}");
}

#[test]
fn a_reply_comes_from_the_address_that_was_asked() {
    let pair = Pair::new();
    pair.add_server_addresses(&["10.77.9.9".parse().unwrap()]);
    let _reflector = reflector(&pair, None);
    let (_, report) = probe(&pair.client, "10.77.9.9", 20, None);
    assert_eq!(fates(&report), [20, 20, 0, 0, 0, 0], "{report}");
}

#[test]
fn a_port_in_use_is_named_with_the_remedy() {
    let pair = Pair::new();
    let _first = reflector(&pair, None);
    let ended = Setup::watching(&[&pair.server]).inside(&pair.server).config(&toml(None)).refused();
    assert!(ended.err.contains("`[stamp] listen`: another program has [::]:862"), "{ended:?}");
}

/// The stranger's reflector on the pair's server.
fn stranger_reflects(pair: &Pair, arguments: &[&str]) -> Process {
    let mut command = pair.server.command(&stranger().display().to_string());
    command.args(["-i", "--local-addr", &address::SERVER_V4.to_string(), "--local-port", "862"]);
    let process = Process::start(command.args(arguments));
    eventually("the stranger listens", Duration::from_secs(20), || {
        process.output().iter().any(|line| line.contains("listening")).then_some(())
    });
    process
}

#[test]
fn a_strangers_reflector_answers_our_probe() {
    let directory = Directory::new();
    let key_file = keys(&directory, "keys", OLD);
    let key_path = key_file.display().to_string();
    let target = address::SERVER_V4.to_string();
    for tlv_mode in ["echo", "ignore"] {
        for authenticated in [false, true] {
            let pair = Pair::new();
            let mut arguments = vec!["--stateful-reflector", "--tlv-mode", tlv_mode];
            if authenticated {
                arguments.extend(["--auth-mode", "A", "--hmac-key-file", &key_path]);
            }
            let _stranger = stranger_reflects(&pair, &arguments);
            let key_file = authenticated.then_some(key_file.as_path());
            let (_, report) = probe(&pair.client, &target, 50, key_file);
            assert_eq!(fates(&report), [50, 50, 0, 0, 0, 0], "{arguments:?}: {report}");
            assert!(report["round_trip"]["median"].as_f64().is_some_and(|ms| ms > 0.0), "{report}");

            let nft = Nft::new(&pair.server);
            nft.rule("out", "udp dport 862 numgen inc mod 10 == 0", "drop");
            let (_, report) = probe(&pair.client, &target, 50, key_file);
            let lost = nft.count("out");
            assert_eq!((lost, fates(&report)), (5, [50, 45, lost, 0, 0, 0]), "{arguments:?}: {report}");
        }
    }
}

#[test]
fn a_strangers_stateless_reflector_tells_no_direction() {
    let pair = Pair::new();
    let _stranger = stranger_reflects(&pair, &[]);
    let nft = Nft::new(&pair.server);
    nft.rule("out", "udp dport 862 numgen inc mod 10 == 0", "drop");
    let (_, report) = probe(&pair.client, &address::SERVER_V4.to_string(), 50, None);
    assert_eq!(fates(&report), [50, 45, 0, 0, nft.count("out"), 0], "{report}");
}

#[test]
fn a_strangers_sender_is_answered_by_our_reflector() {
    let directory = Directory::new();
    let key_file = keys(&directory, "keys", OLD);
    let pair = Pair::new();
    for authenticated in [false, true] {
        let _reflector = reflector(&pair, authenticated.then_some(&key_file));
        let mut command = pair.client.command(&stranger().display().to_string());
        command.args([
            "--remote-addr",
            &address::SERVER_V4.to_string(),
            "--count",
            "50",
            "--send-delay",
            "10ms",
        ]);
        command.args(["--timeout", "1", "--output-format", "json", "--ssid", "77"]);
        if authenticated {
            command.args(["--auth-mode", "A", "--hmac-key-file"]).arg(&key_file);
        }
        let ended = finish(&mut command);
        let report: Value = serde_json::from_str(ended.out.lines().last().unwrap_or_default())
            .unwrap_or_else(|error| panic!("{error}: {ended:?}"));
        let measured = &report["measurements"];
        let count = |field: &str| measured[field].as_u64().unwrap_or_else(|| panic!("{field}: {report}"));
        assert_eq!((count("answered_probes"), count("unique_replies")), (50, 50), "{report}");
        assert_eq!((count("duplicate_replies"), count("unknown_replies")), (0, 0), "{report}");
        assert_eq!(count("last_reflector_sequence"), 49, "{report}");
    }
}
