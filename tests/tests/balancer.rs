//! Incident C behind a real balancer: haproxy asks the nodes' agents, a gray node is left alone by new sessions, and is given them
//! back, with nobody's help.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests

use std::{
    fmt::Write as _,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    thread,
    time::{Duration, Instant},
};

use graylag_tests::{
    agent::{Agent, Setup, Watch},
    calls::{Answerer, call_through},
    eventually,
    net::{Host, link},
    nft::Nft,
    proc::{Directory, Process},
};

const SIGNALLING: u16 = 7001;
const HEALTH: u16 = 9180;
const AGENT_CHECK: u16 = 9181;
const FRONT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7000);
/// The server's flight from node A, wherever it stands in a datagram.
const FLIGHT_OF_A: &str = "ip saddr 10.77.1.1 meta l4proto udp @th,64,8 22";
const SOON: Duration = Duration::from_secs(30);

/// A media node: its address is 10.77.NUMBER.1, and the balancer's on the same link .2.
struct Node {
    address: IpAddr,
    agent: Agent,
    answerer: Answerer,
    _host: Host,
}

impl Node {
    fn start(balancer: &Host, number: u8) -> Self {
        let host = Host::new();
        let address = IpAddr::from([10, 77, number, 1]);
        let other = IpAddr::from([10, 77, number, 2]);
        link((&host, "eth0", address), (balancer, &format!("eth{number}"), other));
        let config = format!(
            "[media]\ninterfaces = [\"eth0\"]\n[limits]\nflows = 1024\npaths = 64\n\
             [node_health]\nlisten = \"{address}:{HEALTH}\"\nagent_check = \"{address}:{AGENT_CHECK}\""
        );
        let agent = Setup::watching(&[&host]).inside(&host).config(&config).start();
        let answerer = Answerer::at(&host, SocketAddr::new(address, SIGNALLING));
        Self { address, agent, answerer, _host: host }
    }

    fn state(&self) -> (String, u8) {
        let health = self.agent.status().health;
        (health.state, health.weight)
    }

    /// What `/health/node` answers: its status and its body's first word.
    fn health(&self, balancer: &Host) -> (String, String) {
        let text = self.ask(balancer, HEALTH, "GET /health/node HTTP/1.0\r\n\r\n");
        let (head, body) = text.split_once("\r\n\r\n").expect("an answer");
        let code = head.split_whitespace().nth(1).expect("a status").to_owned();
        (code, body.split(',').next().unwrap_or_default().to_owned())
    }

    fn ask(&self, balancer: &Host, port: u16, question: &str) -> String {
        balancer.run(|| {
            let mut stream = TcpStream::connect((self.address, port)).unwrap();
            stream.write_all(question.as_bytes()).unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text
        })
    }
}

/// Both ways of docs/operations.md: calls go by the agent-check, and beside it the same nodes are asked for `/health/node`.
struct Haproxy {
    _process: Process,
    directory: Directory,
}

impl Haproxy {
    fn start(host: &Host, nodes: &[&Node]) -> Self {
        let directory = Directory::new();
        let socket = directory.path().join("haproxy.sock");
        let mut config = format!(
            "global\n  log stderr format raw local0 warning\n  stats socket {} mode 600 level user\ndefaults\n  mode tcp\n  \
             timeout connect 5s\n  timeout client 60s\n  timeout server 60s\nlisten calls\n  bind {FRONT}\n  balance roundrobin\n",
            socket.display()
        );
        for (i, Node { address, .. }) in nodes.iter().enumerate() {
            let _ = writeln!(
                config,
                "  server node{i} {address}:{SIGNALLING} weight 100 agent-check agent-port {AGENT_CHECK} agent-inter 500ms"
            );
        }
        config.push_str("backend asked\n  option httpchk GET /health/node\n  http-check expect status 200\n");
        for (i, Node { address, .. }) in nodes.iter().enumerate() {
            let _ =
                writeln!(config, "  server node{i} {address}:{SIGNALLING} check port {HEALTH} inter 500ms");
        }
        let path = directory.write("haproxy.cfg", &config);
        Self { _process: Process::start(host.command("haproxy").arg("-db").arg("-f").arg(path)), directory }
    }

    /// What it thinks of each node, by the answers of `/health/node`.
    fn asked(&self) -> Option<Vec<String>> {
        let mut stream = UnixStream::connect(self.directory.path().join("haproxy.sock")).ok()?;
        stream.write_all(b"show stat\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let mut lines = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
        let status = lines.next()?.iter().position(|name| *name == "status")?;
        let asked = lines.filter(|line| line.first() == Some(&"asked") && line[1].starts_with("node"));
        Some(asked.map(|line| line[status].to_owned()).collect())
    }

    #[track_caller]
    fn until(&self, expected: [&str; 2]) {
        eventually(&format!("{expected:?}"), SOON, || (self.asked()? == expected).then_some(()));
    }
}

#[test]
fn a_balancer_leaves_a_gray_node_alone_and_comes_back_to_it() {
    let balancer = Host::new();
    let (a, b) = (Node::start(&balancer, 1), Node::start(&balancer, 2));
    let haproxy = Haproxy::start(&balancer, &[&a, &b]);
    // An agent takes sessions of its first seconds for older than it is.
    thread::sleep(Duration::from_secs(21));
    let watch = Watch::start(&a.agent);
    let begun = || (a.answerer.begun(), b.answerer.begun());
    let nobody_used_it = (a.state(), a.health(&balancer), a.ask(&balancer, AGENT_CHECK, ""));
    let unknown = (("unknown".into(), 100), ("200".into(), "unknown".into()), "ready up 100%\n".into());
    assert_eq!(nobody_used_it, unknown);

    // The twin: all is well.
    call_through(&balancer, FRONT, 24, 24, 1).ended();
    let healthy = ("healthy".to_owned(), 100);
    eventually("both are healthy", SOON, || (a.state() == healthy && b.state() == healthy).then_some(()));
    haproxy.until(["UP", "UP"]);
    let shared = begun();
    assert!(shared.0 >= 10 && shared.1 >= 10, "{shared:?}");
    assert_eq!(watch.raised().len(), 0, "{:?}", watch.raised());

    let nft = Nft::new(&balancer);
    nft.rule("flight", FLIGHT_OF_A, "drop");
    let calls = call_through(&balancer, FRONT, 100_000, 60, 1);
    eventually("the first that fails", SOON, || (begun().0 > shared.0).then_some(()));
    let first = Instant::now();
    eventually("it is gray", Duration::from_secs(15), || (a.state() == ("gray".into(), 5)).then_some(()));
    let found = first.elapsed();
    assert!(nft.count("flight") > 0);
    assert_eq!(a.health(&balancer), ("503".into(), "gray".into()));
    assert_eq!(a.ask(&balancer, AGENT_CHECK, ""), "ready up 5%\n");
    haproxy.until(["DOWN", "UP"]);
    thread::sleep(Duration::from_secs(15).saturating_sub(first.elapsed()));
    let before = begun();
    thread::sleep(Duration::from_secs(15));
    let (to_a, to_b) = (begun().0 - before.0, begun().1 - before.1);
    // One in twenty-one is its share; calls that hang keep nobody waiting.
    assert!(to_b >= 20 && to_a * 6 <= to_b, "{to_a} to the gray node, {to_b} to the other");
    assert_eq!(b.state(), healthy);

    nft.heal();
    let healed = Instant::now();
    eventually("it comes back", Duration::from_secs(180), || (a.state() == healthy).then_some(()));
    println!(
        "gray {found:.1?} after the first session that failed had begun; then {to_a} to it and {to_b} to the other in 15 s; all \
         of its load back {:.1?} after the fault",
        healed.elapsed()
    );
    let before = begun();
    thread::sleep(Duration::from_secs(10));
    let (to_a, to_b) = (begun().0 - before.0, begun().1 - before.1);
    assert!(to_a * 2 >= to_b, "{to_a} to the node that is well again, {to_b} to the other");
    drop(calls);
    assert_eq!(watch.node_states(), ["healthy", "gray", "recovering", "healthy"]);
    assert_eq!(a.health(&balancer), ("200".into(), "healthy".into()));
    haproxy.until(["UP", "UP"]);
    assert_eq!(b.agent.status().health.reasons, Vec::<String>::new());
}
