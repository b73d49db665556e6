//! The `DaemonSet` of deploy/kubernetes and the image that is shipped, started as a kubelet starts it: by a real containerd, under its default seccomp profile, with
//! the volumes, capabilities and probes that are written there.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::MetadataExt,
    path::PathBuf,
    process::Command,
    time::Duration,
};

use graylag::model::status::Status;
use graylag_tests::{
    agent::alone,
    containerd::{Containerd, Pod, connections},
    deploy::{kubernetes, kustomize, kustomize_with},
    eventually,
    http::get,
    kubelet::{Kubelet, Running},
    layout::{Layout, VERSION, here},
    metrics::Scrape,
    net::{Host, link},
    path_map::Reader,
    proc::{Directory, run},
    traffic::{Echo, ask, connect, listen},
};
use serde_json::json;

const SOON: Duration = Duration::from_secs(20);
/// What the image is called here; there is no registry.
const IMAGE: &str = "graylag.test/graylag";
const PORT: u16 = 8080;
const KEYS: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// A node with containerd, a server, and a host that is its client.
struct Node {
    test: u8,
    containerd: Containerd,
    image: String,
    _server: Echo,
    client: Host,
    own: Host,
}

impl Node {
    fn new(test: u8) -> Self {
        let (own, client) = (Host::new(), Host::new());
        link((&own, "eth0", address(test, 1)), (&client, "eth0", address(test, 2)));
        let containerd = Containerd::start(&own, &format!("ds{test}"), Ipv4Addr::new(10, 80, test, 0));
        let (directory, layout) = (Directory::new(), Layout::tested());
        let archive = directory.path().join("image.tar");
        run(Command::new("tar").arg("-C").arg(layout.path()).arg("-cf").arg(&archive).arg("."));
        let image = format!("{IMAGE}:{VERSION}-{}", here());
        containerd.add(&archive, &image);
        let server = Echo::on(listen(&own, IpAddr::V4(Ipv4Addr::UNSPECIFIED), PORT, 128));
        Self { test, containerd, image, _server: server, client, own }
    }

    /// The pod of a rendered overlay, as this node's kubelet has it.
    fn kubelet(&self, rendered: &str, secrets: &BTreeMap<&str, BTreeMap<&str, &str>>) -> Kubelet<'_> {
        let (documents, errors) = kubernetes(rendered, &["1.37"]);
        assert_eq!(errors, Vec::<String>::new());
        let uid = format!("d5e0a7b1-{:04x}-4c1f-9d2e-{:012x}", self.test, std::process::id());
        Kubelet::new(&self.containerd, &documents, secrets, (&self.image, "node-1", uid))
    }

    /// Where the pod's socket is on the node.
    fn socket(&self) -> PathBuf {
        self.containerd.place("/run/graylag/agent.sock")
    }

    fn connections(&self, number: u32) {
        for _ in 0..number {
            ask(&mut connect(&self.client, address(self.test, 1), PORT).unwrap(), 10).unwrap();
        }
    }

    fn status(&self) -> Option<Status> {
        let (code, body) = get(&self.socket(), "/v1/status")?;
        (code == 200).then(|| serde_json::from_str(&body).unwrap())
    }

    /// A pod that connects to the server from a network of its own.
    fn shop(&self) {
        let uid = format!("c1d8a2c3-{:04x}-4a51-9c7d-{:012x}", self.test, std::process::id());
        let pod = Pod { name: "web-0", uid, class: "kubepods" };
        let sandbox = self.containerd.sandbox(&pod);
        let (gateway, script) = (Ipv4Addr::new(10, 80, self.test, 1), |to| connections(to, PORT, 7));
        self.containerd.container(&pod, &sandbox, "web", 0, &script(gateway));
    }

    /// Handshakes of the client with the server that the agent has seen established, as the server's host.
    fn established(&self) -> Option<u64> {
        let (code, body) = get(&self.socket(), "/metrics")?;
        let peer = format!("10.79.{}.0/24", self.test);
        let labels = [
            ("graylag.peer.name", peer.as_str()),
            ("graylag.role", "server"),
            ("graylag.outcome", "established"),
        ];
        (code == 200).then(|| Scrape::parse(&body).sum("graylag.tcp.handshake.count", &labels) as u64)
    }

    #[track_caller]
    fn until_established(&self, number: u64) {
        eventually("every handshake is counted, once", SOON, || {
            (self.established() == Some(number)).then_some(())
        });
    }

    /// What the runtime made of it is what the description says, and no more.
    #[track_caller]
    fn is_confined(&self, running: &Running, capabilities: &[&str]) {
        let spec = self.containerd.spec(&running.container);
        let process = &spec["process"];
        assert_eq!(process["args"], json!(["/usr/bin/graylag", "run"]));
        assert_eq!((&process["user"]["uid"], &process["noNewPrivileges"]), (&json!(0), &json!(true)));
        assert_eq!(spec["root"]["readonly"], true);
        for set in ["bounding", "effective", "permitted"] {
            let mut given: Vec<&str> = process["capabilities"][set]
                .as_array()
                .unwrap()
                .iter()
                .map(|c| c.as_str().unwrap())
                .collect();
            given.sort_unstable();
            assert_eq!(given, capabilities, "{set}");
        }
        // It is closed by default, and `perf_event_open` is not needed.
        assert_eq!(spec["linux"]["seccomp"]["defaultAction"], "SCMP_ACT_ERRNO");
        // New ones have no path: these are joined, and were the node's for its sandbox.
        let namespaces = spec["linux"]["namespaces"].as_array().unwrap();
        for kind in ["network", "pid"] {
            let of_it = namespaces.iter().find(|namespace| namespace["type"] == kind);
            let of_it = of_it
                .map(|namespace| fs::metadata(self.containerd.place(namespace["path"].as_str().unwrap())));
            let file = if kind == "pid" { "pid" } else { "net" };
            let nodes = fs::metadata(self.containerd.place(&format!("/proc/1/ns/{file}"))).unwrap();
            assert!(of_it.is_none_or(|found| found.unwrap().ino() == nodes.ino()), "{kind}: {namespaces:?}");
        }
    }
}

fn address(test: u8, end: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 79, test, end))
}

#[test]
fn the_base_becomes_ready_sees_every_handshake_knows_pods_by_name_and_ends_at_once() {
    let _alone = alone();
    let node = Node::new(3);
    let kubelet = node.kubelet(&kustomize_with("base", "components/cri"), &BTreeMap::new());
    let pod = kubelet.start();
    node.is_confined(&pod, &["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"]);
    eventually("it is ready", SOON, || kubelet.probe(&pod.container, "readinessProbe").ok());
    assert_eq!(kubelet.probe(&pod.container, "livenessProbe"), Ok(()));
    node.connections(20);
    node.until_established(20);
    let environment = node.containerd.spec(&pod.container)["process"]["env"].to_string();
    assert!(
        environment.contains("k8s.node.name=node-1,k8s.namespace.name=graylag,k8s.pod.name="),
        "{environment}"
    );
    // The component's socket: pods have their names.
    node.shop();
    let ours = || {
        let pods = node.status()?.pods.into_iter();
        pods.filter_map(|pod| pod.name).find(|name| name == "web-0")
    };
    eventually("its pods have their names", SOON, ours);
    let source = node.status().unwrap().agent.attribution.unwrap().source;
    assert_eq!(source, "cgroups and /run/containerd/containerd.sock");
    assert_eq!(kubelet.stop(&pod.container), "Completed");
    assert!(!node.socket().exists(), "its socket is left");
}

#[test]
fn on_a_media_host_its_successor_counts_on_and_the_map_is_there_for_data_planes() {
    let _alone = alone();
    let node = Node::new(4);
    let keys = BTreeMap::from([("graylag-keys", BTreeMap::from([("stamp.keys", KEYS)]))]);
    let kubelet = node.kubelet(&kustomize("overlays/media"), &keys);
    let pod = kubelet.start();
    node.is_confined(&pod, &["CAP_BPF", "CAP_NET_ADMIN", "CAP_NET_BIND_SERVICE", "CAP_PERFMON"]);
    eventually("it is ready", SOON, || kubelet.probe(&pod.container, "readinessProbe").ok());
    let sockets = node.own.run(|| fs::read_to_string("/proc/thread-self/net/udp").unwrap());
    assert!(sockets.contains(" 00000000:035E "), "nothing listens on port 862:\n{sockets}");
    Reader::open(&node.containerd.place("/sys/fs/bpf/graylag/path_state")).unwrap();
    node.connections(20);
    node.until_established(20);
    // A rolling update: the kernel half goes on counting in between.
    assert_eq!(kubelet.stop(&pod.container), "Completed");
    node.connections(30);
    let pod = kubelet.again(&pod);
    node.connections(10);
    node.until_established(60);
    assert_eq!(kubelet.stop(&pod.container), "Completed");
}
