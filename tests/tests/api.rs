//! The local API as its readers see it: health endpoints, the status, the stream of conditions, and what becomes of readers that
//! are too many or too slow.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    thread,
    time::{Duration, Instant},
};

use graylag::model::status::{Message, SCHEMA, Status};
use graylag_tests::{
    agent::{Agent, Setup, Watch},
    eventually,
    http::{answer, send},
    net::{Host, Pair, address},
    nft::Nft,
    schema::Described,
    traffic::{Echo, ask, begin, connect},
};
use rustix::process::Signal;
use serde_json::Value;

const PORT: u16 = 8080;
const SOON: Duration = Duration::from_secs(20);

fn echoes(pair: &Pair) -> [Echo; 2] {
    [address::SERVER_V4, address::SERVER_V6].map(|server| Echo::start(&pair.server, server, PORT))
}

/// Connections with one request each.
fn calls(pair: &Pair, echo: &Echo, n: usize) {
    for _ in 0..n {
        ask(&mut connect(&pair.client, echo.address.ip(), PORT).unwrap(), 10).unwrap();
    }
}

#[test]
fn health_and_readiness_tell_two_things() {
    let agent =
        Setup::default().config("[kernel]\ndisable = [\"inet_sock_set_state\"]").start_until("/healthz");
    eventually("it is alive", SOON, || (agent.get("/healthz")? == (200, "ok\n".into())).then_some(()));
    let reason = "inet_sock_set_state: disabled in the configuration\n".to_owned();
    eventually("it is not ready, and says why", SOON, || {
        (agent.get("/readyz")? == (503, reason.clone())).then_some(())
    });
    agent.said("handshake_client is not available: inet_sock_set_state: disabled in the configuration");
    let missing = agent.signal("handshake_client");
    assert_eq!((missing.available, missing.coverage), (false, Some(0.0)));
    let other = agent.signal("udp_receive_buffer");
    assert!(other.available && other.reason.is_none(), "{other:?}");
}

#[test]
fn a_stopped_agent_is_neither_alive_nor_ready_when_it_goes_on() {
    let agent = Setup::default().start();
    assert_eq!(agent.get("/readyz").unwrap(), (200, "ready\n".into()));
    agent.process.signal(Signal::STOP);
    thread::sleep(Duration::from_secs(3));
    agent.process.signal(Signal::CONT);
    // It says how late it was, and lowers its confidence; then it is as before.
    eventually("it recovers", SOON, || (agent.get("/readyz")?.0 == 200).then_some(()));
    eventually("it is on time again", SOON, || (agent.status().agent.late < 0.25).then_some(()));
}

#[test]
fn the_status_has_everything_about_both_families() {
    let pair = Pair::new();
    let toml = "[node]\nname = \"media-3\"\n[limits]\nconnections = 300\nhalf_open = 400\npaths = 500\n";
    let agent = Setup::watching(&[&pair.client, &pair.server]).config(toml).start();
    for echo in &echoes(&pair) {
        calls(&pair, echo, 10);
    }
    let subjects = [
        ("10.77.0.1", "tcp/8080", "client"),
        ("fd77::1", "tcp/8080", "client"),
        ("10.77.0.0/24", "tcp/8080", "server"),
        ("fd77::/48", "tcp/8080", "server"),
    ];
    let status = eventually("all subjects are there", SOON, || {
        let status = agent.status();
        let done = subjects.iter().all(|(peer, service, role)| {
            status.subjects.iter().any(|s| {
                (s.peer.as_str(), s.service.as_str(), s.role.as_str()) == (*peer, *service, *role)
                    && s.handshake.established == 10
                    && s.response.latency.p99.is_some()
                    && !s.trend.is_empty()
            })
        });
        done.then_some(status)
    });
    assert_eq!((status.node.as_str(), status.stamp.schema), ("media-3", SCHEMA));
    assert_eq!(status.version, env!("CARGO_PKG_VERSION"));
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(status.kernel, release.trim());
    assert!(status.uptime > 0.0 && status.stamp.valid_until > status.stamp.time);
    for subject in &status.subjects {
        assert_eq!(subject.handshake.stalled + subject.first_byte.stalled, 0, "{subject:?}");
        let (half, most) = (subject.handshake.latency.p50.unwrap(), subject.handshake.latency.p99.unwrap());
        assert!(0.0 < half && half <= most && most < 1.0, "{subject:?}");
        assert!(subject.window > 0.0, "{subject:?}");
    }
    let limits: Vec<_> = status.maps.iter().map(|map| (map.name.as_str(), map.limit, map.evicted)).collect();
    assert_eq!(limits, [("PATHS", 500, 0), ("CONNS", 300, 0), ("HALF_OPEN", 400, 0)]);
    assert_eq!(
        status.signals.len(),
        graylag::kernel::programs::Signal::ALL.len() - 2,
        "media has to be asked for"
    );
    assert_eq!(status.conditions, []);

    // The command line shows the same.
    let json = agent.ask(&["status", "--json"]);
    let shown: Status = serde_json::from_str(&json.out).unwrap();
    assert_eq!((json.code, shown.stamp.epoch, shown.subjects.len()), (Some(0), status.stamp.epoch, 4));
    let text = agent.ask(&["status"]);
    assert_eq!(text.code, Some(0));
    for word in ["media-3", "10.77.0.1", "fd77::1", "tcp/8080"] {
        assert!(text.out.contains(word), "{word} is not in\n{}", text.out);
    }
}

#[test]
fn the_same_is_served_on_a_loopback_port_where_asked_for() {
    let pair = Pair::new();
    let agent =
        Setup::watching(&[]).inside(&pair.client).config("[api]\nlisten = \"127.0.0.1:9464\"").start();
    let answer = pair.client.run(|| {
        let mut stream = TcpStream::connect("127.0.0.1:9464").unwrap();
        stream.write_all(b"GET /v1/status HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK") && head.contains("application/json"), "{head}");
    let status: Status = serde_json::from_str(body).unwrap();
    assert_eq!(status.stamp.epoch, agent.status().stamp.epoch);
}

/// Seven attempts that hang raise a stall at once (see docs/verdicts.md); 168 that do not clear it.
fn stall(pair: &Pair, nft: &Nft<'_>) -> Vec<socket2::Socket> {
    nft.rule("syn", "tcp flags syn", "drop");
    (0..12).map(|_| begin(&pair.client, address::SERVER_V4, PORT)).collect()
}

#[test]
fn the_stream_begins_with_the_state_and_then_tells_every_transition_in_order() {
    let pair = Pair::new();
    let agent = Setup::watching(&[&pair.client]).config("[thresholds]\nlease = \"2s\"").start();
    let first = Watch::start(&agent);
    let echoes = echoes(&pair);
    calls(&pair, &echoes[0], 5);
    let nft = Nft::new(&pair.server);
    let hanging = stall(&pair, &nft);
    let raised = eventually("it is raised", SOON, || first.transitions().into_iter().next());
    assert_eq!((raised.0.as_str(), raised.1.name.as_str()), ("raised", "handshake_stall"));

    // Who comes later begins with what stands.
    let second = Watch::start(&agent);
    let Message::State { conditions, node, .. } = second.messages().remove(0) else {
        panic!("a state first")
    };
    assert_eq!(node, agent.status().node);
    assert_eq!(conditions.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["handshake_stall"]);

    drop(hanging);
    nft.heal();
    eventually("it clears", Duration::from_secs(60), || {
        calls(&pair, &echoes[0], 20);
        agent.conditions().is_empty().then_some(())
    });
    let cleared = |watch: &Watch| watch.transitions().iter().any(|(to, _)| to == "cleared");
    eventually("both have heard", SOON, || (cleared(&first) && cleared(&second)).then_some(()));

    let epoch = agent.status().stamp.epoch;
    for (watch, begins) in [(&first, 0), (&second, 1)] {
        let (mut sequence, mut phase) = (begins, None);
        for message in watch.messages() {
            let stamp = message.stamp().clone();
            assert_eq!((stamp.schema, stamp.epoch), (SCHEMA, epoch));
            assert!(stamp.valid_until > stamp.time, "{stamp:?}");
            if let Message::Transition { from, to, condition, .. } = message {
                sequence += 1;
                assert!(phase.is_none_or(|phase| phase == from), "{from} after another");
                assert_eq!(condition.phase, to);
                phase = Some(to);
            }
            assert_eq!(stamp.sequence, sequence, "no gap, and heartbeats repeat the last");
        }
        assert_eq!(phase.as_deref(), Some("cleared"));
        assert!(watch.messages().iter().any(|message| matches!(message, Message::Heartbeat { .. })));
    }
}

/// The raw stream, as a reader of server-sent events gets it.
fn stream(agent: &Agent) -> BufReader<UnixStream> {
    BufReader::new(send(&agent.socket, b"GET /v1/watch HTTP/1.1\r\nHost: t\r\n\r\n").unwrap())
}

#[test]
fn the_stream_is_well_formed_and_beats_while_nothing_happens() {
    let quiet = Host::new();
    let agent = Setup::watching(&[&quiet]).start();
    let mut reader = stream(&agent);
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    };
    let mut head = Vec::new();
    loop {
        match line() {
            end if end.is_empty() => break,
            field => head.push(field.to_ascii_lowercase()),
        }
    }
    assert_eq!(head[0], "http/1.1 200 ok");
    assert!(head.contains(&"content-type: text/event-stream".to_owned()), "{head:?}");
    let mut kinds = Vec::new();
    let start = Instant::now();
    while kinds.len() < 3 {
        assert!(start.elapsed() < SOON, "{kinds:?}");
        let field = line();
        if let Some(kind) = field.strip_prefix("event: ") {
            kinds.push(kind.to_owned());
        } else if let Some(id) = field.strip_prefix("id: ") {
            assert_eq!(id, format!("{}-0", agent.status().stamp.epoch));
        }
    }
    assert_eq!(kinds, ["state", "heartbeat", "heartbeat"]);
}

#[test]
fn more_readers_than_allowed_are_told_so_and_a_place_becomes_free() {
    const WATCHERS: usize = 256;
    let agent = Setup::default().start();
    let mut readers: Vec<_> = (0..WATCHERS)
        .map(|_| {
            let mut reader = stream(&agent);
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            assert!(line.starts_with("HTTP/1.1 200"), "{line}");
            reader
        })
        .collect();
    let refused = agent.ask(&["watch"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("503 Service Unavailable: 256 readers are watching already"), "{refused:?}");
    assert_eq!(agent.get("/v1/status").unwrap().0, 200, "others are not affected");
    readers.pop();
    eventually("a place is free", SOON, || {
        let mut line = String::new();
        stream(&agent).read_line(&mut line).ok()?;
        line.starts_with("HTTP/1.1 200").then_some(())
    });
}

/// What every face says is what docs/schema.json says it is, by a validator that is not ours.
#[test]
fn what_is_said_is_as_the_published_schema_has_it() {
    let pair = Pair::new();
    let agent = Setup::watching(&[&pair.client, &pair.server]).start();
    let watch = Watch::start(&agent);
    let echoes = echoes(&pair);
    calls(&pair, &echoes[0], 30);
    let nft = Nft::new(&pair.server);
    let _hanging = stall(&pair, &nft);
    eventually("it is raised", SOON, || watch.transitions().into_iter().next());
    let status: Value = serde_json::from_str(&agent.get("/v1/status").unwrap().1).unwrap();
    let by = |name: &str, value: &Value| Described::new(name).problems(value);
    assert_eq!(by("Status", &status), Vec::<String>::new());
    assert!(!status["conditions"].as_array().unwrap().is_empty());
    let message = Described::new("Message");
    let mut types = Vec::new();
    for line in watch.lines() {
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(message.problems(&value), Vec::<String>::new(), "{line}");
        types.push(value["type"].as_str().unwrap().to_owned());
    }
    assert!(types.iter().any(|t| t == "state") && types.iter().any(|t| t == "transition"), "{types:?}");
    // It would tell.
    let mut wrong = status.clone();
    wrong["conditions"][0]["evidence"]["n"] = Value::from("many");
    assert_eq!(by("Status", &wrong).len(), 1);
    wrong["node"].take();
    assert!(by("Status", &wrong).len() >= 2);
}

#[test]
fn a_hundred_readers_hear_the_same() {
    let pair = Pair::new();
    let agent = Setup::watching(&[&pair.client]).start();
    let readers: Vec<BufReader<UnixStream>> = (0..100).map(|_| stream(&agent)).collect();
    let nft = Nft::new(&pair.server);
    let _hanging = stall(&pair, &nft);
    for mut reader in readers {
        let mut line = String::new();
        while !line.starts_with("event: transition") {
            line.clear();
            assert!(reader.read_line(&mut line).unwrap() > 0, "the stream has ended");
        }
    }
}

#[test]
fn connections_that_ask_nothing_cannot_take_what_the_collector_needs() {
    let agent = Setup::default().through(&["prlimit", "--nofile=1024:1024"]).start();
    let idle: Vec<_> = (0..1200).filter_map(|_| UnixStream::connect(&agent.socket).ok()).collect();
    // More than there are places for: the last hear why.
    let refused = idle.into_iter().next_back().and_then(answer).unwrap();
    assert_eq!(refused, (503, "too many connections are open already\n".into()));
    eventually("it answers again", SOON, || (agent.get("/healthz")?.0 == 200).then_some(()));
    let said = agent.process.output();
    assert!(!said.iter().any(|line| line.contains("failed")), "{said:?}");
}

#[test]
fn a_reader_hears_the_end_of_the_agent() {
    let mut agent = Setup::default().start();
    let mut watch = Watch::start(&agent);
    agent.process.signal(Signal::TERM);
    let status = eventually("the agent ends", SOON, || agent.process.ended());
    assert_eq!(status.code(), Some(0));
    let status = eventually("the reader ends", SOON, || watch.ended());
    assert_eq!(status.code(), Some(0));
}
