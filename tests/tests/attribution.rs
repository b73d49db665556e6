//! Pods and containers: what each does is said under its own resource, and by nobody else.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::MetadataExt,
    path::PathBuf,
    time::Duration,
};

use graylag_tests::{
    agent::{Agent, Setup},
    eventually,
    net::{Host, link},
    nft::Nft,
    otlp::{Collector, Protocol},
    pods::{
        self, Cgroups, Runtime, at, connect, container_id, established, idle, newest, of_containerd, said_by,
        until_counts, until_established,
    },
    proc::{Directory, Process},
    rtp::{self, Stream},
    traffic::{Echo, begin, listen},
    udp,
};
use serde_json::json;

const SOON: Duration = Duration::from_secs(60);
const COLLECTOR: u16 = 14317;
const PORT: u16 = 8080;
/// How the addresses of all servers begin.
const SERVERS: &str = "10.78.";

/// A pod: its namespace, its cgroups and its processes. What lives in it ends before it goes.
struct Pod {
    processes: Vec<Process>,
    cgroup: PathBuf,
    host: Host,
}

/// Tests run beside each other on one kernel, those of another checkout too: no two have the same pods.
#[derive(Clone, Copy)]
struct Names {
    test: u32,
}

impl Names {
    /// Uid of the first pod, or of the second.
    fn uid(self, pod: u32) -> String {
        let process = std::process::id();
        format!("0d8a2c3e-5f60-4a1b-9c7d-{process:08x}{:02x}{pod:02x}", self.test)
    }

    /// Identifier of a container.
    fn container(self, number: u32) -> String {
        container_id(std::process::id() << 16 | (1000 * self.test + number))
    }

    /// Cgroups of two pods of containerd: one with one container, one with two.
    fn pods(self) -> Vec<Vec<String>> {
        let of = |pod: u32, containers: &[u32]| {
            let path = |container: &u32| of_containerd(&self.uid(pod), &self.container(10 * pod + container));
            containers.iter().map(path).collect()
        };
        vec![of(1, &[0, 1]), of(2, &[0, 1, 2])]
    }
}

/// A node with two pods, and a server that both talk to.
struct Node {
    names: Names,
    pods: Vec<Pod>,
    servers: Vec<Echo>,
    own: Host,
    peer: Host,
    collector: Collector,
    directory: Directory,
    cgroups: Cgroups,
}

fn server(pod: u8) -> IpAddr {
    Ipv4Addr::new(10, 78, pod, 1).into()
}

fn address(pod: u8) -> IpAddr {
    Ipv4Addr::new(10, 78, pod, 2).into()
}

impl Node {
    /// `paths` are the cgroups of each pod: the first that of its sandbox, whose process is called `pause`.
    fn new(names: Names, paths: &[Vec<String>]) -> Self {
        let (own, peer, directory, cgroups) =
            (Host::new(), Host::new(), Directory::new(), Cgroups::new(&names.test.to_string()));
        let (mut pods, mut servers) = (Vec::new(), Vec::new());
        for (i, paths) in paths.iter().enumerate() {
            let (host, number) = (Host::new(), i as u8);
            link((&peer, &format!("eth{i}"), server(number)), (&host, "eth0", address(number)));
            let mut cgroup = PathBuf::new();
            let mut processes = Vec::new();
            for (j, path) in paths.iter().enumerate() {
                cgroup = cgroups.make(path);
                processes.push(idle(&host, &cgroup, &directory, if j == 0 { "pause" } else { "app" }));
            }
            servers.push(Echo::on(listen(&peer, server(number), PORT, 128)));
            pods.push(Pod { processes, cgroup, host });
        }
        let collector = Collector::start(&own, Protocol::Grpc, COLLECTOR);
        Self { names, pods, servers, own, peer, collector, directory, cgroups }
    }

    fn agent(&self, config: &str) -> Setup {
        let mut watched: Vec<&Host> = self.pods.iter().map(|pod| &pod.host).collect();
        watched.push(&self.own);
        Setup::watching(&watched)
            .inside(&self.own)
            .alone()
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://127.0.0.1:{COLLECTOR}"))
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", Protocol::Grpc.name())
            .env("OTEL_METRIC_EXPORT_INTERVAL", "500")
            .env("OTEL_RESOURCE_ATTRIBUTES", "k8s.node.name=n1,k8s.pod.name=graylag-x7,k8s.pod.uid=none")
            .config("[node]\nname = \"n1\"")
            .config(config)
    }

    fn work(&self, pod: usize, connections: u32) {
        connect(&self.pods[pod].host, &self.pods[pod].cgroup, at(server(pod as u8), PORT), connections);
    }

    /// Newest count of established handshakes with the servers, by resource, server and role.
    fn established(&self) -> BTreeMap<String, BTreeMap<String, u64>> {
        established(&self.collector, SERVERS)
    }

    #[track_caller]
    fn until_established(&self, expected: &[(String, &[(&str, u64)])]) {
        until_established(&self.collector, SERVERS, expected);
    }

    fn socket(&self) -> String {
        format!("[attribution]\ncri_socket = \"{}\"", self.directory.path().join("cri.sock").display())
    }

    fn runtime(&self, hangs: bool) -> Runtime {
        let names = self.names;
        let pod = |i: u32, name: &str, containers: serde_json::Value| {
            json!({ "sandbox": names.container(10 * i), "uid": names.uid(i), "name": name,
                    "namespace": "shop", "containers": containers })
        };
        let pods = json!([
            pod(1, "web-0", json!({ names.container(11): "web" })),
            pod(2, "api-7f", json!({ names.container(21): "api", names.container(22): "proxy" })),
        ]);
        Runtime::start(&self.directory, &pods, hangs)
    }
}

fn instance(id: &str) -> String {
    format!("service.instance.id=n1/{id}")
}

fn failures(agent: &Agent, source: &str) -> f64 {
    agent.scrape().sum("graylag.agent.attribution.failed", &[("graylag.attribution.source", source)])
}

/// Points have no word of a pod, one request has each resource once, and what is the node's is said by the node.
fn one_resource_each(node: &Node) {
    let points = node.collector.points_by_resource("graylag.tcp.handshake.count");
    for (resource, point) in &points {
        assert_eq!(resource.get("host.name").map(String::as_str), Some("n1"), "{resource:?}");
        assert!(
            !point.attributes.keys().any(|name| name.starts_with("k8s.") || name.starts_with("container."))
        );
    }
    for metric in
        ["graylag.condition", "graylag.node.state", "graylag.agent.coverage", "graylag.packet.dropped"]
    {
        for (resource, _) in node.collector.points_by_resource(metric) {
            assert_eq!(resource.get("service.instance.id").map(String::as_str), Some("n1"), "{metric}");
            assert_eq!(resource.get("k8s.pod.name").map(String::as_str), Some("graylag-x7"), "its own");
        }
    }
    for request in node.collector.taken("metrics") {
        let said: Vec<String> = request.body["resource_metrics"]
            .as_array()
            .unwrap()
            .iter()
            .map(|of| said_by(&graylag_tests::otlp::attributes(&of["resource"])))
            .collect();
        let mut once = said.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), said.len(), "one ResourceMetrics for each: {said:?}");
    }
}

/// What happens to one pod only is told by that one, from beginning to end.
fn what_happens_to_one_pod_is_told_by_it(node: &Node, agent: &Agent, pod: &str) {
    {
        let nft = Nft::new(&node.peer);
        nft.rule("syn", &format!("ip saddr {} tcp flags syn / syn,ack", address(0)), "drop");
        let sockets: Vec<_> = (0..20).map(|_| begin(&node.pods[0].host, server(0), PORT)).collect();
        eventually("the stall is found", SOON, || (!agent.conditions().is_empty()).then_some(()));
        assert_eq!(agent.conditions()[0].pod.as_ref().and_then(|pod| pod.name.clone()), Some("web-0".into()));
        drop(sockets);
    }
    eventually("it is over, and both were told", Duration::from_secs(120), || {
        let mut phases = Vec::new();
        for [resource, attributes] in node.collector.events_by_resource("graylag.condition.changed") {
            assert_eq!(said_by(&resource), pod, "{attributes:?}");
            phases.push(attributes["graylag.condition.to"].clone());
        }
        (phases.first()? == "raised" && phases.last()? == "cleared").then_some(())
    });
}

#[test]
fn each_pod_speaks_for_itself_and_is_forgotten_when_it_goes() {
    let names = Names { test: 1 };
    let mut node = Node::new(names, &names.pods());
    let runtime = node.runtime(false);
    let agent = node.agent(&node.socket()).start();
    node.work(0, 7);
    node.work(1, 11);
    let (first, second) = (
        format!(
            "container.id={} k8s.container.name=web k8s.namespace.name=shop k8s.node.name=n1 k8s.pod.name=web-0 k8s.pod.uid={} {}",
            names.container(11),
            names.uid(1),
            instance(&names.uid(1))
        ),
        format!(
            "k8s.namespace.name=shop k8s.node.name=n1 k8s.pod.name=api-7f k8s.pod.uid={} {}",
            names.uid(2),
            instance(&names.uid(2))
        ),
    );
    node.until_established(&[
        (first.clone(), &[("10.78.0.1 client", 7)]),
        (second.clone(), &[("10.78.1.1 client", 11)]),
    ]);
    // A server's half, and what comes later.
    let echo = Echo::on(listen(&node.pods[0].host, address(0), PORT, 128));
    node.peer.run(|| {
        for _ in 0..5 {
            std::net::TcpStream::connect(at(address(0), PORT)).expect("a connection");
        }
    });
    node.work(1, 4);
    node.until_established(&[
        (first.clone(), &[("10.78.0.0/24 server", 5), ("10.78.0.1 client", 7)]),
        (second.clone(), &[("10.78.1.1 client", 15)]),
    ]);
    drop(echo);

    one_resource_each(&node);
    assert_eq!(runtime.calls() % 2, 0, "two calls each time");
    assert!(runtime.calls() <= 12, "{} calls", runtime.calls());

    // The node as a whole, in the status and for Prometheus; and who is told apart.
    let status = agent.status();
    let netns = |pod: &Pod| fs::metadata(pod.host.path()).unwrap().ino() as u32;
    let shown: Vec<_> =
        status.pods.iter().map(|pod| (pod.name.clone().unwrap(), pod.namespaces.clone())).collect();
    assert_eq!(
        shown,
        [("web-0".to_owned(), vec![netns(&node.pods[0])]), ("api-7f".to_owned(), vec![netns(&node.pods[1])])]
    );
    let peers: Vec<&str> = status.subjects.iter().map(|subject| subject.peer.as_str()).collect();
    assert!(peers.contains(&"10.78.0.1") && peers.contains(&"10.78.1.1"), "{peers:?}");
    assert_eq!(failures(&agent, "cri").to_bits(), 0f64.to_bits());

    what_happens_to_one_pod_is_told_by_it(&node, &agent, &first);

    // It goes: its series end, and nobody speaks of it any more.
    let gone = node.pods.remove(0);
    node.servers.remove(0);
    drop(gone.processes);
    drop(gone.host);
    eventually("it is forgotten", SOON, || (agent.status().pods.len() == 1).then_some(()));
    eventually("its series have ended", SOON, || {
        let points = node.collector.points_by_resource("graylag.tcp.handshake.count");
        let last = points.iter().rfind(|(resource, _)| said_by(resource) == first)?;
        (last.1.integer("flags") == 1).then_some(())
    });
    node.pods.insert(0, Pod { processes: Vec::new(), cgroup: PathBuf::new(), host: Host::new() });
    node.work(1, 1);
    eventually("the other goes on", SOON, || {
        (node.established().get(&second)?.get("10.78.1.1 client") == Some(&16)).then_some(())
    });
    agent.until(SOON, &1.0, |scrape| scrape.sum("graylag.agent.pod.count", &[]));
}

/// The resource of the pod that has one container, by its cgroup alone.
fn without_names(names: Names) -> String {
    let (container, uid) = (names.container(11), names.uid(1));
    format!("container.id={container} k8s.node.name=n1 k8s.pod.uid={uid} {}", instance(&uid))
}

#[test]
fn without_the_runtime_there_are_uid_and_container_whatever_capabilities_it_has() {
    // As the DaemonSet has it: user 0 with three capabilities.
    const DAEMON_SET: &str = "-all,+cap_39,+cap_38,+cap_12";
    let names = Names { test: 2 };
    let node = Node::new(names, &names.pods());
    let setup = node.agent(&node.socket()).through(&[
        "setpriv",
        &format!("--bounding-set={DAEMON_SET}"),
        &format!("--inh-caps={DAEMON_SET}"),
    ]);
    let agent = setup.start();
    agent.said("is not there: pods have no names until it is");
    node.work(0, 3);
    node.work(1, 5);
    node.until_established(&[
        (without_names(names), &[("10.78.0.1 client", 3)]),
        (
            format!("k8s.node.name=n1 k8s.pod.uid={} {}", names.uid(2), instance(&names.uid(2))),
            &[("10.78.1.1 client", 5)],
        ),
    ]);
    // A runtime that starts later is heard.
    let _runtime = node.runtime(false);
    eventually("it has names", SOON, || {
        agent.status().pods.iter().all(|pod| pod.name.is_some()).then_some(())
    });
    assert!(agent.status().agent.attribution.unwrap().source.starts_with("cgroups and "));
}

#[test]
fn a_runtime_that_hangs_delays_nobody() {
    let names = Names { test: 3 };
    let node = Node::new(names, &names.pods());
    let runtime = node.runtime(true);
    let agent = node.agent(&node.socket()).start();
    node.work(0, 3);
    eventually("the runtime is asked", SOON, || (runtime.calls() > 0).then_some(()));
    // It is being waited for, or was just given up: rounds of metrics come all the same, and looks are not late.
    let rounds =
        || node.collector.points("graylag.agent.coverage").iter().map(graylag_tests::otlp::Point::time).max();
    for _ in 0..3 {
        let before = rounds();
        eventually("another round", SOON, || (rounds() > before).then_some(()));
    }
    node.until_established(&[(without_names(names), &[("10.78.0.1 client", 3)])]);
    assert!(failures(&agent, "cri") >= 1.0);
    let source = agent.status().agent.attribution.unwrap().source;
    assert!(source.starts_with("cgroups; ") && source.ends_with("no answer within 2s"), "{source}");
    agent.said("pods have no names: ");
    assert!(runtime.calls() <= 4, "{} calls: it is left in peace", runtime.calls());
}

#[test]
fn containers_without_a_pod_are_told_apart_as_far_as_there_is_room() {
    let names = Names { test: 4 };
    let docker = |n: u32| vec![format!("system.slice/docker-{}.scope", names.container(n))];
    let node = Node::new(names, &[docker(31), docker(32)]);
    let agent = node.agent("[attribution]\nsource = \"cgroup\"\n[limits]\npods = 1").start();
    node.work(0, 3);
    let first =
        format!("container.id={} k8s.node.name=n1 {}", names.container(31), instance(&names.container(31)));
    node.until_established(&[(first.clone(), &[("10.78.0.1 client", 3)])]);
    node.work(1, 5);
    let host = "k8s.node.name=n1 k8s.pod.name=graylag-x7 k8s.pod.uid=none service.instance.id=n1".to_owned();
    node.until_established(&[(first, &[("10.78.0.1 client", 3)]), (host, &[("10.78.1.1 client", 5)])]);
    agent.until(SOON, &[1.0, 1.0], |scrape| {
        ["graylag.agent.pod.count", "graylag.agent.pod.folded"].map(|name| scrape.sum(name, &[]))
    });
}

/// A pod of the host's own network (`hostNetwork`) has no namespace that tells it from the host. Its processes do.
#[test]
fn a_relay_speaks_for_its_pod_whatever_network_it_has() {
    const PACKETS: u64 = 400;
    const MEDIA: u16 = 7000;
    let names = Names { test: 6 };
    let node = Node::new(names, &names.pods()[..1]);
    let _runtime = node.runtime(false);
    let _agent = node.agent(&node.socket()).config("[media]\ninterfaces = [\"*\"]").start();
    let paths = &names.pods()[1];
    let cgroups: Vec<PathBuf> = paths.iter().map(|path| node.cgroups.make(path)).collect();
    let _pause = idle(&node.own, &cgroups[0], &node.directory, "pause");
    let on_the_host = [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2)].map(IpAddr::from);
    let with_a_network = (&node.pods[0].host, &*node.pods[0].cgroup, &node.peer, [address(0), server(0)]);
    let without = (&node.own, &*cgroups[1], &node.own, on_the_host);
    let mut running = Vec::new();
    for (i, (host, cgroup, peer, [here, there])) in [with_a_network, without].into_iter().enumerate() {
        let (listens, sends_to) = (here.to_string(), there.to_string());
        let relay = pods::start(host, cgroup, &[env!("CARGO_BIN_EXE_relay"), &listens, &sends_to, "1"]);
        let sink = udp::bind(peer, there, MEDIA, 1 << 20);
        eventually("it listens", SOON, || {
            let said = fs::read_to_string(format!("/proc/{}/net/udp", relay.id())).unwrap_or_default();
            said.contains(&format!(":{MEDIA:04X} ")).then_some(())
        });
        let order: Vec<u64> = (0..PACKETS).collect();
        rtp::send(&udp::sender(peer, at(here, MEDIA)), &Stream::audio(i as u32 + 1), &order);
        running.push((relay, sink));
    }
    let relayed = || {
        newest(&node.collector, "graylag.relay.packet.count", |point| {
            let is_its = point.attributes["graylag.process"] == "relay";
            is_its.then(|| point.attributes["network.io.direction"].clone())
        })
    };
    let both: BTreeMap<String, u64> =
        ["receive", "transmit"].map(|direction| (direction.to_owned(), PACKETS)).into();
    let pod = |uid: u32, container: &str, name: &str| {
        let uid = names.uid(uid);
        let of = format!(
            "k8s.namespace.name=shop k8s.node.name=n1 k8s.pod.name={name} k8s.pod.uid={uid} {}",
            instance(&uid)
        );
        format!("{container}{of}")
    };
    // Of each one container has been seen.
    let container = |number: u32, name: &str| {
        format!("container.id={} k8s.container.name={name} ", names.container(number))
    };
    let expected = BTreeMap::from([
        (pod(1, &container(11, "web"), "web-0"), both.clone()),
        (pod(2, &container(21, "api"), "api-7f"), both),
    ]);
    until_counts(&expected, relayed);
}

#[test]
fn what_is_not_wanted_is_not_done() {
    let names = Names { test: 5 };
    let node = Node::new(names, &names.pods()[..1]);
    let agent = node.agent("[attribution]\nsource = \"off\"").start();
    node.work(0, 3);
    let host = "k8s.node.name=n1 k8s.pod.name=graylag-x7 k8s.pod.uid=none service.instance.id=n1".to_owned();
    node.until_established(&[(host, &[("10.78.0.1 client", 3)])]);
    let status = agent.status();
    assert!(status.pods.is_empty() && status.agent.attribution.is_none());
    assert!(!status.signals.iter().any(|signal| signal.name == "attribution"));
}
