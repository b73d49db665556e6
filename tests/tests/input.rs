//! Bad input: what is wrong is named together with its remedy, the exit code is the documented one, and nothing is lost.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests

use std::{fs, os::unix::net::UnixListener, time::Duration};

use graylag_tests::{
    agent::{Agent, Setup, graylag},
    eventually,
    http::{answer, get, send},
    net::{Pair, address},
    proc::{Directory, Ended},
    traffic::{Echo, ask, connect},
};
use rustix::process::Signal;

/// `graylag --help` documents these.
const FAILED: i32 = 1;
const USAGE: i32 = 2;

#[track_caller]
fn says(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.code, Some(code), "{ended:?}");
    for word in words {
        assert!(ended.err.contains(word), "{word:?} is not in {:?}", ended.err);
    }
    let said: Vec<&str> = ended.err.lines().filter(|line| line.starts_with("graylag: ")).collect();
    assert_eq!(said.len(), 1, "one error, one line: {:?}", ended.err);
}

#[test]
fn a_wrong_configuration_is_refused_with_line_field_and_remedy() {
    let rows: [(&str, &[&str]); 8] = [
        ("[node]\nnmae = \"x\"", &["graylag.toml:2: nmae: unknown key; did you mean `name`?"]),
        ("[nodes]", &["graylag.toml:1: nodes: unknown key; did you mean `node`?"]),
        (
            "[[peer]]\nname = \"lb\"\ncidrs = [\"10.77.1.0/240\"]",
            &["graylag.toml:3: peer.cidrs: `10.77.1.0/240` is no CIDR", "use an address or a prefix such as"],
        ),
        ("[limits]\npaths = 1", &["graylag.toml:2: limits.paths: 1 is out of range; use 64 to 65536"]),
        (
            "[api]\nlisten = \"0.0.0.0:9464\"",
            &["graylag.toml:2: api.listen: 0.0.0.0 is not a loopback address", "use 127.0.0.1 or [::1]"],
        ),
        ("[kernel]\ndisable = [\"nosuch\"]", &["kernel.disable: `nosuch` is no program; use one of adopt, "]),
        (
            "[scope]\nnetwork_namespaces = [\"/run/netns/no such\"]",
            &["scope.network_namespaces: /run/netns/no such: No such file", "name a namespace that exists"],
        ),
        (
            "[scope]\nnetwork_namespaces = [\"/etc/passwd\"]",
            &[
                "scope.network_namespaces: /etc/passwd: not a network namespace",
                "name a namespace that exists",
            ],
        ),
    ];
    for (toml, words) in rows {
        says(&Setup::default().config(toml).refused(), USAGE, words);
    }
}

#[test]
fn config_check_and_print_refuse_what_run_refuses() {
    let directory = Directory::new();
    let bad = directory.write("bad.toml", "[thresholds]\nlease = \"soon\"").display().to_string();
    let missing = directory.path().join("missing.toml").display().to_string();
    for command in [["config", "check"], ["config", "print"]] {
        let of = |path: &str| graylag(&[command[0], command[1], "--config", path]);
        says(&of(&bad), USAGE, &["bad.toml:2: thresholds.lease: `soon`", "use a duration such as \"500ms\""]);
        says(&of(&missing), USAGE, &["missing.toml: cannot be read", "name another file with --config"]);
    }
    says(&graylag(&["check", "--config", &bad]), USAGE, &["thresholds.lease"]);
}

#[test]
fn a_wrong_command_line_is_refused_with_help() {
    for arguments in [&["frobnicate"][..], &["run", "--nosuch"], &["status", "--socket"], &[]] {
        let ended = graylag(arguments);
        assert_eq!(ended.code, Some(USAGE), "{arguments:?}");
        assert!(ended.err.contains("--help") || ended.err.contains("Usage"), "{}", ended.err);
    }
}

#[test]
fn readers_say_that_no_agent_answers() {
    let directory = Directory::new();
    let nowhere = directory.path().join("agent.sock").display().to_string();
    for command in [&["status"][..], &["status", "--json"], &["watch"], &["watch", "--json"], &["top"]] {
        let mut arguments = command.to_vec();
        arguments.extend(["--socket", &nowhere]);
        says(&graylag(&arguments), FAILED, &["no agent answers at", &nowhere, "is `graylag run` running"]);
    }
}

#[test]
fn the_view_needs_a_terminal_and_says_so_before_anything_starts() {
    let ended = Setup::default().argument("--view").refused();
    says(&ended, FAILED, &["--view: the live view needs a terminal", "`graylag status` prints the same"]);
}

#[test]
fn a_socket_in_use_is_not_taken_over() {
    let first = Setup::default().start();
    let socket = first.socket.display().to_string();
    let second = graylag(&["run", "--config", first.config.to_str().unwrap(), "--socket", &socket]);
    says(&second, FAILED, &["another graylag answers at", &socket, "choose another socket with --socket"]);
    assert_eq!(first.get("/healthz").unwrap().0, 200, "the first is undisturbed");
}

#[test]
fn a_socket_that_nobody_answers_on_is_replaced() {
    let directory = Directory::new();
    let socket = directory.path().join("s");
    drop(UnixListener::bind(&socket).unwrap());
    assert!(socket.exists());
    let agent = Setup::default().socket(&socket).start();
    assert_eq!(agent.get("/healthz").unwrap().0, 200);
}

#[test]
fn what_is_no_socket_is_left_alone() {
    let directory = Directory::new();
    let file = directory.write("precious", "do not lose me");
    says(
        &Setup::default().socket(&file).refused(),
        FAILED,
        &["precious exists and is no socket", "--socket"],
    );
    assert_eq!(fs::read_to_string(file).unwrap(), "do not lose me");
}

#[test]
fn a_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = Setup::default().config(&format!("[api]\nlisten = \"{address}\"")).refused();
    // EADDRINUSE; each C library has words of its own for it.
    says(&ended, FAILED, &[&format!("api.listen {address}: "), "(os error 98); choose another"]);
}

/// One counted request on each family.
fn traffic(pair: &Pair, echoes: &[Echo]) {
    for echo in echoes {
        ask(&mut connect(&pair.client, echo.address.ip(), echo.address.port()).unwrap(), 10).unwrap();
    }
}

fn established(agent: &Agent, expected: u64) {
    agent.until(Duration::from_secs(20), &expected, |scrape| {
        scrape.sum("graylag.tcp.handshake.count", &[("graylag.outcome", "established")]) as u64
    });
}

#[test]
fn a_reload_of_a_broken_file_keeps_the_old_configuration_and_every_count() {
    let pair = Pair::new();
    let peer = |name| format!("[[peer]]\nname = \"{name}\"\ncidrs = [\"10.77.0.0/24\", \"fd77::/64\"]\n");
    let setup = || Setup::watching(&[&pair.client]).alone();
    let agent = setup().config(&peer("first")).start();
    let echoes = [address::SERVER_V4, address::SERVER_V6].map(|a| Echo::start(&pair.server, a, 8080));
    traffic(&pair, &echoes);
    established(&agent, 2);

    agent.reload(&format!("{}[limits]\npahts = 3\n", peer("second")));
    let said = agent.said("the configuration is not reloaded");
    assert!(said.contains("graylag.toml:5: pahts: unknown key; did you mean `paths`?"), "{said}");
    fs::remove_file(&agent.config).unwrap();
    agent.process.signal(Signal::HUP);
    agent.said("cannot be read: No such file");
    traffic(&pair, &echoes);
    established(&agent, 4);
    let named = |scrape: &graylag_tests::metrics::Scrape, peer| {
        scrape.sum("graylag.tcp.handshake.count", &[("graylag.peer.name", peer)]) as u64
    };
    assert_eq!(named(&agent.scrape(), "first"), 4);

    // And when it is mended it is taken, from where it was.
    agent.reload(&setup().config(&peer("second")).toml());
    agent.said("configuration reloaded: 1 peers");
    traffic(&pair, &echoes);
    established(&agent, 6);
    assert_eq!((named(&agent.scrape(), "first"), named(&agent.scrape(), "second")), (4, 2));
}

#[test]
fn a_reload_says_what_takes_a_restart() {
    let agent = Setup::default().start();
    agent.reload("[media]\ninterfaces = []\n[limits]\npaths = 100\n[collect]\ninterval = \"300ms\"\n");
    let said = agent.said("take a restart");
    assert!(said.contains("changes of limits, collect take a restart"), "{said}");
}

#[test]
fn wrong_requests_are_answered_and_disturb_nobody() {
    let agent = Setup::default().start();
    let request = |text: &str| answer(send(&agent.socket, text.as_bytes()).unwrap());
    assert_eq!(agent.get("/nosuch").unwrap().0, 404);
    assert_eq!(agent.get("/v1/status/").unwrap().0, 404);
    for method in ["POST", "DELETE", "PUT"] {
        let text = format!(
            "{method} /v1/status HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        );
        assert_eq!(request(&text).unwrap().0, 405, "{method}");
    }
    assert_eq!(request("GET / HTTP/9.9\r\n\r\n").unwrap().0, 400);
    assert_eq!(request("\x01\x02\x03 not http at all \r\n\r\n").unwrap().0, 400);
    let long = format!("GET /{} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n", "x".repeat(1 << 20));
    // It may close before it has read all of it.
    if let Some((code, _)) = send(&agent.socket, long.as_bytes()).and_then(answer) {
        assert!((400..500).contains(&code), "{code}");
    }
    // Half a request, held open, and another that is dropped.
    let held = send(&agent.socket, b"GET /v1/sta").unwrap();
    drop(send(&agent.socket, b"GET /v1/status HTTP/1.1\r\nHost: t\r\nContent-Le").unwrap());
    assert_eq!(get(&agent.socket, "/healthz").unwrap().0, 200);
    assert_eq!(agent.status().stamp.schema, graylag::model::status::SCHEMA);
    drop(held);
}

#[test]
fn an_agent_that_is_full_of_idle_readers_still_ends_when_told() {
    let mut agent = Setup::default().start();
    let _idle: Vec<_> =
        (0..50).filter_map(|_| send(&agent.socket, b"GET /v1/watch HTTP/1.1\r\nHost: t\r\n\r\n")).collect();
    let _silent: Vec<_> = (0..50).filter_map(|_| send(&agent.socket, b"")).collect();
    agent.process.signal(Signal::TERM);
    let status = eventually("it ends", Duration::from_secs(20), || agent.process.ended());
    assert_eq!(status.code(), Some(0));
    assert!(!agent.socket.exists());
}
