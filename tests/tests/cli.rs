//! Commands that need no agent: what they print is complete, parses, and agrees with what an agent does.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests

use std::collections::BTreeSet;

use graylag_tests::{
    agent::{Setup, binary, graylag},
    eventually,
    net::{Host, Pair, address},
    proc::Directory,
    traffic::{Echo, ask, connect},
};
use serde_json::Value;

fn json(arguments: &[&str]) -> (Option<i32>, Value) {
    let ended = graylag(arguments);
    let value = serde_json::from_str(&ended.out).unwrap_or_else(|e| panic!("{e}: {ended:?}"));
    (ended.code, value)
}

/// `(name, state, detail)` of the items of one part of the report.
fn items(report: &Value, part: &str) -> Vec<(String, String, String)> {
    let text = |item: &Value, field: &str| item[field].as_str().unwrap_or_default().to_owned();
    let item = |item: &Value| (text(item, "name"), text(item, "state"), text(item, "detail"));
    report[part].as_array().unwrap().iter().map(item).collect()
}

#[test]
fn check_names_what_this_kernel_has_not_without_that_costing_a_signal() {
    let (code, report) = json(&["check", "--json"]);
    let signals = items(&report, "signals");
    assert_eq!(signals.len(), graylag::kernel::programs::Signal::ALL.len());
    assert!(signals.iter().all(|(_, state, _)| state == "available"), "{signals:?}");
    assert_eq!(code, Some(0));
    let environment = items(&report, "environment");
    let find = |name: &str| environment.iter().find(|(found, ..)| found == name).unwrap();
    assert_eq!((find("BTF").1.as_str(), find("cgroup2").1.as_str()), ("available", "available"));
    for name in ["fentry", "kprobes"] {
        let (_, state, detail) = find(name);
        match state.as_str() {
            "available" => assert_eq!(detail, "not used"),
            "refused" | "absent" => assert!(detail.starts_with("not used, costs no signal"), "{detail}"),
            other => panic!("{name} is {other}"),
        }
    }
    let programs = items(&report, "programs");
    let known: Vec<_> = graylag::kernel::programs::PROGRAMS.iter().map(|program| program.name).collect();
    assert_eq!(programs.iter().map(|(name, ..)| name.as_str()).collect::<Vec<_>>(), known);
    assert!(report["map_memory_bytes"].as_u64().unwrap() > 1 << 20);

    // The same for a person.
    let text = graylag(&["check"]);
    assert_eq!(text.code, Some(0));
    let signals = graylag::kernel::programs::Signal::ALL.len();
    for line in [format!("{signals} of {signals} signals fully available"), "maps take ".into()] {
        assert!(text.out.contains(&line), "{line} is not in\n{}", text.out);
    }
}

#[test]
fn check_says_what_a_configuration_costs() {
    let directory = Directory::new();
    let toml =
        "[kernel]\ndisable = [\"kfree_skb\", \"tcp_retransmit_synack\"]\n[limits]\nconnections = 256\n";
    let path = directory.write("graylag.toml", toml).display().to_string();
    let (code, report) = json(&["check", "--json", "--config", &path]);
    assert_eq!(code, Some(3), "it works, with signals missing");
    let lost: Vec<_> =
        items(&report, "signals").into_iter().filter(|(_, state, _)| state != "available").collect();
    let expected = [
        (
            "syn_retransmit",
            "partial",
            "SYN-ACKs are not counted; tcp_retransmit_synack: disabled in the configuration",
        ),
        ("drops", "missing", "kfree_skb: disabled in the configuration"),
    ];
    assert_eq!(lost, expected.map(|(name, state, detail)| (name.into(), state.into(), detail.into())));
    let (_, usual) = json(&["check", "--json"]);
    assert!(report["map_memory_bytes"].as_u64() < usual["map_memory_bytes"].as_u64());

    let path = directory.write("graylag.toml", "[media]\ninterfaces = []\n").display().to_string();
    let (code, without) = json(&["check", "--json", "--config", &path]);
    assert_eq!(code, Some(0), "what is not wanted is not missing");
    let names: Vec<_> = items(&without, "signals").into_iter().map(|(name, ..)| name).collect();
    assert!(!names.iter().any(|name| name == "media" || name == "relay"), "{names:?}");
    assert!(without["map_memory_bytes"].as_u64() < usual["map_memory_bytes"].as_u64());
}

#[test]
fn check_says_which_interfaces_would_be_watched() {
    let directory = Directory::new();
    let path = directory.write("graylag.toml", "[media]\ninterfaces = [\"eth*\"]\n").display().to_string();
    let host = Host::new();
    host.ip(&["link", "add", "eth7", "type", "veth", "peer", "name", "other7"]);
    for interface in ["eth7", "other7"] {
        host.ip(&["link", "set", interface, "up"]);
    }
    let output =
        host.command(&binary().display().to_string()).args(["check", "--json", "--config", &path]).output();
    let report: Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
    let signals = items(&report, "signals");
    assert_eq!(signals.len(), graylag::kernel::programs::Signal::ALL.len());
    let media = signals.iter().find(|(name, ..)| name == "media").unwrap();
    assert_eq!(media.1, "available", "{media:?}");
    let interfaces: Vec<_> = items(&report, "environment")
        .into_iter()
        .filter(|(name, ..)| name.starts_with("interface"))
        .collect();
    assert_eq!(interfaces.len(), 1, "{interfaces:?}");
    assert_eq!((interfaces[0].0.as_str(), interfaces[0].1.as_str()), ("interface eth7", "available"));
}

#[test]
fn namespaces_that_come_and_go_cost_nothing() {
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let churn = std::thread::spawn(move || {
        while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            let _ = std::process::Command::new("unshare").args(["--net", "true"]).status();
        }
    });
    for _ in 0..5 {
        let (code, report) = json(&["check", "--json"]);
        assert_eq!(code, Some(0), "{:?}", items(&report, "signals"));
    }
    drop(stop);
    churn.join().unwrap();
}

#[test]
fn the_catalog_lists_everything_that_an_agent_publishes() {
    let (code, catalog) = json(&["catalog", "--json"]);
    assert_eq!(code, Some(0));
    let metrics = catalog["metrics"].as_array().unwrap();
    let names: BTreeSet<String> =
        metrics.iter().map(|m| m["name"].as_str().unwrap().replace('.', "_")).collect();
    assert_eq!(names.len(), metrics.len(), "no name twice");
    let plain = graylag(&["catalog"]).out;
    for metric in metrics {
        assert!(plain.contains(metric["name"].as_str().unwrap()));
        assert!(
            metric["unit"].is_string() && !metric["description"].as_str().unwrap().is_empty(),
            "{metric}"
        );
    }

    let pair = Pair::new();
    let agent = Setup::watching(&[&pair.client, &pair.server]).start();
    for server in [address::SERVER_V4, address::SERVER_V6] {
        let _echo = Echo::start(&pair.server, server, 8080);
        ask(&mut connect(&pair.client, server, 8080).unwrap(), 10).unwrap();
    }
    let families = eventually("traffic is counted", std::time::Duration::from_secs(20), || {
        let families = exposition(&agent.get("/metrics")?.1);
        families.iter().any(|(name, _)| name.starts_with("graylag_tcp_rtt")).then_some(families)
    });
    for (name, _) in &families {
        let bare = ["_total", "_seconds", "_ratio"].iter().fold(name.as_str(), |n, s| n.trim_end_matches(s));
        assert!(names.contains(bare), "{name} is not in the catalog");
    }
    assert!(families.len() > names.len() / 2, "{families:?}");
}

/// Reads the text format strictly (exposition format 0.0.4); returns the families and their types.
fn exposition(text: &str) -> Vec<(String, String)> {
    let mut families: Vec<(String, String)> = Vec::new();
    let mut series = BTreeSet::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let name = help.split(' ').next().unwrap().to_owned();
            let kind = lines.next().and_then(|l| l.strip_prefix(&format!("# TYPE {name} "))).expect("a type");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{kind}");
            assert!(!families.iter().any(|(n, _)| *n == name), "{name} comes twice");
            families.push((name, kind.to_owned()));
            continue;
        }
        let (name, kind) = families.last().expect("a family first");
        let (key, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok_and(f64::is_finite), "{line}");
        assert!(series.insert(key.to_owned()), "{key} comes twice");
        let bare = key.split('{').next().unwrap();
        let suffixes: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        assert!(suffixes.iter().any(|s| bare == format!("{name}{s}")), "{bare} under {name}");
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
        assert!(bare.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'), "{bare}");
    }
    families
}

#[test]
fn a_printed_configuration_is_complete_and_can_be_used() {
    let directory = Directory::new();
    let toml = "[[peer]]\nname = \"lb\"\ncidrs = [\"10.77.1.0/24\"]\nper_address = true\n\
                [[service]]\nname = \"api\"\nremote_ports = [443, \"8000-8100\"]\n[thresholds]\nlease = \"5s\"\n";
    let path = directory.write("graylag.toml", toml).display().to_string();
    let printed = graylag(&["config", "print", "--config", &path]);
    assert_eq!(printed.code, Some(0));
    let again = directory.write("again.toml", &printed.out).display().to_string();
    assert_eq!(graylag(&["config", "print", "--config", &again]).out, printed.out);
    let check = graylag(&["config", "check", "--config", &again]);
    assert_eq!(check.code, Some(0), "{check:?}");
    assert!(check.out.starts_with("fine: peers 1, services 1"), "{}", check.out);
    let sections =
        ["[node]", "[scope]", "[paths]", "[thresholds]", "[limits]", "[kernel]", "[collect]", "[api]"];
    for section in sections {
        assert!(printed.out.contains(section), "{section} is not in\n{}", printed.out);
    }
}

#[test]
fn help_states_the_exit_codes_and_every_command() {
    let help = graylag(&["--help"]);
    assert_eq!(help.code, Some(0));
    for word in
        ["Exit codes: 0 done", "2 wrong arguments", "3 (check)", "4 not possible", "OTEL_*", "RUST_LOG"]
    {
        assert!(help.out.contains(word), "{word} is not in\n{}", help.out);
    }
    for command in ["run", "top", "status", "watch", "check", "probe", "catalog", "config"] {
        assert_eq!(graylag(&[command, "--help"]).code, Some(0), "{command}");
    }
    for kind in ["stamp", "tcp", "tls"] {
        assert_eq!(graylag(&["probe", kind, "--help"]).code, Some(0), "{kind}");
    }
    assert_eq!(graylag(&["--version"]).out.trim(), format!("graylag {}", env!("CARGO_PKG_VERSION")));
}
