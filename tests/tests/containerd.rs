//! A real containerd: what its pods do is said under their own resources, by the names that it gives them.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use graylag_tests::{
    agent::{Agent, Setup, graylag},
    containerd::{Containerd, Pod, connections},
    eventually,
    net::Host,
    otlp::{Collector, Protocol},
    pods::{said_by, until_established},
    traffic::{Echo, listen},
};

const SOON: Duration = Duration::from_secs(40);
const COLLECTOR: u16 = 14317;
const PORT: u16 = 8080;

/// A node with containerd, and a server on it that its pods talk to.
struct Node {
    test: u8,
    containerd: Containerd,
    collector: Collector,
    _server: Echo,
    own: Host,
}

/// A pod that runs: the identifiers of its sandbox and of its containers.
struct Running {
    pod: Pod,
    sandbox: String,
    containers: Vec<String>,
}

impl Node {
    /// Tests run beside each other on one kernel, and each of their agents sees all of it: no two have the same addresses or pods.
    fn new(test: u8) -> Self {
        let own = Host::new();
        let containerd = Containerd::start(&own, &format!("cri{test}"), Ipv4Addr::new(10, 79, test, 0));
        println!("{}", containerd.version());
        // The gateway's address comes with the first pod.
        let server = Echo::on(listen(&own, IpAddr::V4(Ipv4Addr::UNSPECIFIED), PORT, 128));
        let collector = Collector::start(&own, Protocol::Grpc, COLLECTOR);
        Self { test, containerd, collector, _server: server, own }
    }

    fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 79, self.test, 1)
    }

    fn agent(&self, attribution: &str) -> Agent {
        // Namespaces that come later are watched too, as on a node.
        Setup::watching(&[])
            .inside(&self.own)
            .alone()
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://127.0.0.1:{COLLECTOR}"))
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", Protocol::Grpc.name())
            .env("OTEL_METRIC_EXPORT_INTERVAL", "500")
            .config("[node]\nname = \"n1\"")
            .config(&format!("[attribution]\n{attribution}"))
            .start()
    }

    /// A new pod, with containers of these names.
    fn pod(&self, number: u32, name: &'static str, class: &'static str, containers: &[&str]) -> Running {
        let uid = format!("c1d8a2c3-{:04x}-{number:04x}-9c7d-{:012x}", self.test, std::process::id());
        let pod = Pod { name, uid, class };
        let sandbox = self.containerd.sandbox(&pod);
        let start = |name: &&str| self.containerd.container(&pod, &sandbox, name, 0, ":");
        let containers = containers.iter().map(start).collect();
        Running { pod, sandbox, containers }
    }

    /// Connections of a container's, to the server.
    fn work(&self, container: &str, number: u32) {
        self.containerd.run(container, &connections(self.gateway(), PORT, number));
    }

    /// How the names of this test's peers begin.
    fn peers(&self) -> String {
        format!("10.79.{}.", self.test)
    }

    /// What is established, by resource: of these the clients, and of the host all of it, as their server.
    #[track_caller]
    fn until_established(&self, clients: &[(String, u64)]) {
        let (client, server) = (format!("{} client", self.gateway()), format!("{}0/24 server", self.peers()));
        let host = [(server.as_str(), clients.iter().map(|(_, number)| number).sum())];
        let of_pods: Vec<_> =
            clients.iter().map(|(said, number)| (said.clone(), [(client.as_str(), *number)])).collect();
        let mut expected: Vec<(String, &[(&str, u64)])> =
            of_pods.iter().map(|(said, series)| (said.clone(), series.as_slice())).collect();
        expected.push(("service.instance.id=n1".into(), &host));
        until_established(&self.collector, &self.peers(), &expected);
    }

    /// The newest resource of a pod's and the newest count of its connections, from whichever of its containers.
    fn newest(&self, pod: &Pod) -> Option<(String, u64)> {
        let points = self.collector.points_by_resource("graylag.tcp.handshake.count");
        let (resource, point) = points.into_iter().rfind(|(resource, point)| {
            resource.get("k8s.pod.uid") == Some(&pod.uid)
                && point.attributes.get("graylag.outcome").is_some_and(|outcome| outcome == "established")
        })?;
        Some((said_by(&resource), point.integer("as_int")))
    }
}

impl Running {
    /// Its resource, where the runtime was asked; of one container where it has one only.
    fn named(&self, container: Option<(&str, &str)>) -> String {
        let Pod { name, uid, .. } = &self.pod;
        let container = container.map(|(id, name)| format!("container.id={id} k8s.container.name={name} "));
        format!(
            "{}k8s.namespace.name=shop k8s.pod.name={name} k8s.pod.uid={uid} service.instance.id=n1/{uid}",
            container.unwrap_or_default()
        )
    }
}

#[test]
fn its_pods_have_their_names_whatever_becomes_of_them() {
    let node = Node::new(1);
    let web = node.pod(1, "web-0", "kubepods/burstable", &["web"]);
    let api = node.pod(2, "api-7f", "kubepods", &["api", "proxy"]);
    let agent = node.agent(&format!("cri_socket = {:?}", node.containerd.socket()));
    node.work(&web.containers[0], 7);
    node.work(&api.containers[0], 5);
    node.work(&api.containers[1], 6);
    node.until_established(&[
        (web.named(Some((&web.containers[0], "web"))), 7),
        // Two containers share its namespace: neither is named.
        (api.named(None), 11),
    ]);
    let source = agent.status().agent.attribution.unwrap().source;
    assert!(source.starts_with("cgroups and "), "{source}");

    // The kubelet starts a container that has ended anew, in the same sandbox. The runtime goes on telling of the first.
    node.containerd.stop(&web.containers[0]);
    let again = node.containerd.container(&web.pod, &web.sandbox, "web", 1, ":");
    node.work(&again, 3);
    let expected = Some((web.named(Some((&again, "web"))), 10));
    eventually("its successor is named", SOON, || (node.newest(&web.pod) == expected).then_some(()));

    // A pod that begins to talk as soon as it runs.
    let job = node.pod(3, "job-1", "kubepods/besteffort", &[]);
    let script = connections(node.gateway(), PORT, 4);
    let container = node.containerd.container(&job.pod, &job.sandbox, "job", 0, &script);
    let expected = Some((job.named(Some((&container, "job"))), 4));
    eventually("nothing of it is missed", SOON, || (node.newest(&job.pod) == expected).then_some(()));

    let names = || {
        let pods = agent.status().pods.into_iter();
        let ours = pods.filter(|pod| pod.namespace.as_deref() == Some("shop"));
        ours.filter_map(|pod| pod.name).collect::<BTreeSet<_>>()
    };
    assert_eq!(names(), BTreeSet::from(["api-7f", "job-1", "web-0"].map(String::from)));
    node.containerd.remove(&api.sandbox);
    eventually("it is forgotten", SOON, || (!names().contains("api-7f")).then_some(()));
    let unanswered = ("graylag.attribution.source", "cri");
    assert_eq!(agent.scrape().sum("graylag.agent.attribution.failed", &[unanswered]) as u64, 0);
    let check = graylag(&["check", "--config", agent.config.to_str().unwrap()]).out;
    let pods = format!("cgroups and {}, which has 2 pods\n", node.containerd.socket().display());
    assert!(check.contains(&pods), "{check}");
}

#[test]
fn their_cgroups_alone_tell_pod_and_container() {
    let node = Node::new(2);
    let web = node.pod(1, "web-0", "kubepods/burstable", &["web"]);
    let agent = node.agent("source = \"cgroup\"");
    node.work(&web.containers[0], 7);
    // The sandbox is known for what its process is called: as Kubernetes' own is.
    let (id, uid) = (&web.containers[0], &web.pod.uid);
    let said = format!("container.id={id} k8s.pod.uid={uid} service.instance.id=n1/{uid}");
    node.until_established(&[(said, 7)]);
    assert_eq!(agent.status().agent.attribution.unwrap().source, "cgroups");
}
