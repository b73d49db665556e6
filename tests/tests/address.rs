//! TCP and TLS probes end to end: every address of a name, netfilter as fault and as ground truth, haproxy as TLS server.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use graylag_tests::{
    agent::{Setup, binary},
    eventually,
    net::{Host, Pair, address},
    nft::Nft,
    pki::Pki,
    proc::{Ended, finish},
    servers::Haproxy,
};
use serde_json::Value;

const PORT: u16 = 8080;
const TLS_PORT: u16 = 8443;
const NAME: &str = "lb.example";

/// Takes connections on all addresses of a host, for as long as the test runs.
fn server(host: &Host) {
    let listener = host.run(|| TcpListener::bind(("::", PORT))).unwrap();
    thread::spawn(move || while listener.accept().is_ok() {});
}

/// Names of one host: `ip netns exec` puts these files in the place of those in `/etc`.
struct Names(PathBuf);

impl Names {
    fn new(host: &Host, addresses: &[IpAddr]) -> Self {
        let directory = Path::new("/etc/netns").join(host.name());
        fs::create_dir_all(&directory).unwrap();
        let lines: Vec<String> = addresses.iter().map(|address| format!("{address} {NAME}\n")).collect();
        fs::write(directory.join("hosts"), lines.concat()).unwrap();
        fs::write(directory.join("host.conf"), "multi on\n").unwrap();
        Self(directory)
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn command(host: &Host, arguments: &[&str]) -> Command {
    let mut command = host.command("env");
    command.arg(binary()).arg("probe").args(arguments).arg("--json");
    command
}

/// A round from one host; what it came to.
#[track_caller]
fn probe(host: &Host, arguments: &[&str]) -> (Ended, Value) {
    report(&mut command(host, arguments))
}

#[track_caller]
fn report(command: &mut Command) -> (Ended, Value) {
    let ended = finish(command);
    let report = serde_json::from_str(&ended.out).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
    (ended, report)
}

/// Attempts, established, refused, timed out, TLS failed; repeated, and failed again.
fn counts(address: &Value) -> [u64; 7] {
    ["attempts", "established", "refused", "timed_out", "tls_failed", "repeated", "repeated_failed"]
        .map(|field| address[field].as_u64().unwrap_or_else(|| panic!("{field}: {address}")))
}

#[test]
fn two_of_six_addresses_are_named() {
    let pair = Pair::new();
    let all: Vec<Ipv4Addr> = (1..=6).map(|last| Ipv4Addr::new(10, 77, 1, last)).collect();
    pair.add_server_addresses(&all);
    server(&pair.server);
    let addresses: Vec<IpAddr> = all.iter().map(|address| IpAddr::V4(*address)).collect();
    let _names = Names::new(&pair.client, &addresses);
    let target = format!("{NAME}:{PORT}");
    // The kernel repeats a SYN after one second: within 200 ms each attempt is one.
    let arguments = ["tcp", &target, "--count", "10", "--timeout", "200ms"];

    let (ended, healthy) = probe(&pair.client, &arguments);
    let rows = healthy["addresses"].as_array().unwrap();
    assert_eq!((ended.code, rows.len()), (Some(0), 6), "{healthy}");
    assert!(rows.iter().all(|row| counts(row) == [10, 10, 0, 0, 0, 0, 0]), "{healthy}");

    let nft = Nft::new(&pair.server);
    nft.rule("syn", "ip daddr { 10.77.1.2, 10.77.1.5 } tcp dport 8080 tcp flags syn", "drop");
    let (ended, report) = probe(&pair.client, &arguments);
    assert_eq!(ended.code, Some(0), "{report}");
    for row in report["addresses"].as_array().unwrap() {
        let dead = ["10.77.1.2:8080", "10.77.1.5:8080"].contains(&row["address"].as_str().unwrap());
        let expected = if dead { [10, 0, 0, 10, 0, 10, 10] } else { [10, 10, 0, 0, 0, 0, 0] };
        assert_eq!(counts(row), expected, "{row}");
    }
    // Ten attempts and their ten repetitions, to each of the two.
    assert_eq!(nft.count("syn"), 40);
}

#[test]
fn what_hangs_on_the_ports_is_told_from_chance() {
    let pair = Pair::new();
    server(&pair.server);
    // As many ports as attempts: each port once.
    pair.client.sysctl("net.ipv4.ip_local_port_range", "40000 40009");
    for server in [address::SERVER_V4, address::SERVER_V6] {
        let target = std::net::SocketAddr::new(server, PORT).to_string();
        let nft = Nft::new(&pair.server);
        nft.rule("bound", "tcp dport 8080 tcp sport 40000-40004 tcp flags syn", "drop");
        let arguments = ["tcp", &target, "--count", "10", "--timeout", "200ms", "--at-once", "1"];
        let (ended, report) = probe(&pair.client, &arguments);
        let row = &report["addresses"][0];
        assert_eq!((ended.code, counts(row)), (Some(0), [10, 5, 0, 5, 0, 5, 5]), "{report}");
        assert_eq!(nft.count("bound"), 10);
        nft.apply("delete table inet t");
    }
    // Every third SYN, whatever its ports: the second attempt from the same port gets through. These are ports of their own,
    // for the others are in TIME-WAIT.
    pair.client.sysctl("net.ipv4.ip_local_port_range", "41000 41009");
    let nft = Nft::new(&pair.server);
    nft.rule("chance", "tcp dport 8080 tcp flags syn numgen inc mod 3 == 0", "drop");
    let target = format!("{}:{PORT}", address::SERVER_V4);
    let arguments = ["tcp", &target, "--count", "10", "--timeout", "200ms", "--at-once", "1"];
    let (_, report) = probe(&pair.client, &arguments);
    assert_eq!(counts(&report["addresses"][0]), [10, 5, 0, 5, 0, 5, 0], "{report}");
    assert_eq!(nft.count("chance"), 5);
}

#[test]
fn what_refuses_and_what_cannot_be_reached_say_so_themselves() {
    let pair = Pair::new();
    let target = format!("{}:{PORT}", address::SERVER_V6);
    let ended = finish(&mut command(&pair.client, &["tcp", &target]));
    // An IPv6 address takes brackets.
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.err.contains("[2001:db8::1]:443"), "{ended:?}");

    let target = format!("{}:{PORT}", address::SERVER_V4);
    let (ended, report) = probe(&pair.client, &["tcp", &target, "--count", "20"]);
    assert_eq!(
        (ended.code, counts(&report["addresses"][0])),
        (Some(1), [20, 0, 20, 0, 0, 20, 20]),
        "{report}"
    );
    let text = finish(pair.client.command("env").arg(binary()).args(["probe", "tcp", &target]));
    for part in ["TCP to 10.77.0.1:8080", "refused", "again, failed", "20, 20"] {
        assert!(text.out.contains(part), "{part}: {text:?}");
    }

    pair.client.ip(&["route", "add", "unreachable", "10.99.0.1/32"]);
    let (ended, report) = probe(&pair.client, &["tcp", "10.99.0.1:443", "--count", "3"]);
    let row = &report["addresses"][0];
    assert_eq!(
        (ended.code, row["unreachable"].as_u64(), row["unsent"].as_u64()),
        (Some(1), Some(3), Some(0)),
        "{row}"
    );

    let ended = finish(&mut command(&pair.client, &["tcp", "no.such.name.invalid:1"]));
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains("no.such.name.invalid does not resolve"), "{ended:?}");
}

/// An authority, a certificate with its key for [`NAME`], and another authority that signed nothing.
#[test]
fn a_certificate_that_does_not_hold_is_told_with_its_reason() {
    let pair = Pair::new();
    server(&pair.server);
    let pki = Pki::new(&[("server", NAME)]);
    let bind = format!("{}:{TLS_PORT} ssl crt {}", address::SERVER_V4, pki.path("server.both").display());
    let _haproxy = Haproxy::start(&pair.server, &[(bind, format!("{}:{PORT}", address::SERVER_V4))]);
    let _names = Names::new(&pair.client, &[address::SERVER_V4]);
    let by_name = format!("{NAME}:{TLS_PORT}");
    let by_address = format!("{}:{TLS_PORT}", address::SERVER_V4);
    let tls = |target: &str, authority: &str| {
        let mut command = command(&pair.client, &["tls", target, "--count", "10", "--timeout", "5s"]);
        report(command.env("SSL_CERT_FILE", pki.path(authority)))
    };
    eventually("haproxy listens", Duration::from_secs(20), || {
        (probe(&pair.client, &["tcp", &by_address, "--count", "1"]).0.code == Some(0)).then_some(())
    });
    let (ended, good) = tls(&by_name, "ca.pem");
    let row = &good["addresses"][0];
    assert_eq!((ended.code, counts(row)), (Some(0), [10, 10, 0, 0, 0, 0, 0]), "{good}");
    assert!(row["tls"]["p50"].as_f64() > Some(0.0) && row["reason"].is_null(), "{good}");
    for (target, authority, reason) in [
        (&by_name, "other.pem", "the certificate's issuer is not trusted"),
        (&by_address, "ca.pem", "the certificate is for another name"),
    ] {
        let (ended, report) = tls(target, authority);
        let row = &report["addresses"][0];
        assert_eq!((ended.code, counts(row)), (Some(1), [10, 0, 0, 0, 10, 10, 10]), "{report}");
        assert_eq!(row["reason"], reason, "{report}");
        assert!(row["connect"]["p50"].as_f64() > Some(0.0), "TCP is well: {report}");
    }
}

/// The agent probes by itself; what its probes meet, the kernel half sees too.
#[test]
fn an_agent_that_probes_counts_by_address_and_hears_of_the_one_that_hangs() {
    let pair = Pair::new();
    let addresses = [10, 11].map(|last| Ipv4Addr::new(10, 77, 1, last));
    pair.add_server_addresses(&addresses);
    server(&pair.server);
    let drops = Nft::new(&pair.server);
    drops.rule("syn", "ip daddr 10.77.1.11 tcp flags & (syn | ack) == syn", "drop");
    let probe = |address: &Ipv4Addr| {
        format!("[[probe]]\nkind = \"tcp\"\ntarget = \"{address}:{PORT}\"\ninterval = \"100ms\"\n")
    };
    let toml: String = addresses.iter().map(probe).collect();
    let agent = Setup::watching(&[&pair.client]).inside(&pair.client).config(&toml).start();
    let count = |address: &Ipv4Addr, outcome: &str| {
        let address = address.to_string();
        let attributes = [("network.peer.address", address.as_str()), ("graylag.outcome", outcome)];
        agent.scrape().sum("graylag.probe.count", &attributes) as u64
    };
    eventually("both are probed", Duration::from_secs(30), || {
        (count(&addresses[0], "established") >= 20 && count(&addresses[1], "timed_out") >= 10).then_some(())
    });
    assert_eq!((count(&addresses[0], "timed_out"), count(&addresses[1], "established")), (0, 0));
    eventually("the one that hangs is told of", Duration::from_secs(30), || {
        let conditions = agent.conditions();
        let about = |c: &graylag::model::status::ConditionStatus| c.target.peer.clone().unwrap_or_default();
        let found: Vec<_> = conditions.iter().map(|c| (c.name.as_str(), about(c))).collect();
        (found == [("handshake_stall", "10.77.1.11".to_owned())]).then_some(())
    });
}
