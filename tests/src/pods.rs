//! Pods and containers as the kernel sees them: a network namespace, cgroups with the names that runtimes give them, and
//! processes that live in both.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    sync::Once,
    thread,
    time::{Duration, Instant},
};

use crate::{
    eventually,
    net::Host,
    otlp::{Collector, Point},
    proc::{Directory, Process},
};

/// Where hierarchies of cgroups are mounted, by the version that the kernel calls them: `cgroup`, `cgroup2`.
fn hierarchies(version: &str) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
    let of_it = |line: &str| {
        let mut fields = line.split(' ').skip(1);
        let (path, kind) = (fields.next()?, fields.next()?);
        (kind == version).then(|| PathBuf::from(path))
    };
    mounts.lines().filter_map(of_it).collect()
}

/// Where the hierarchy of version 2 is mounted.
pub fn cgroup_root() -> PathBuf {
    hierarchies("cgroup2").into_iter().next().expect("a cgroup2 hierarchy")
}

/// A part of the hierarchy that is removed, with everything below it, when it goes out of scope.
pub struct Cgroups {
    name: String,
}

impl Cgroups {
    /// Of this test program and this test.
    pub fn new(test: &str) -> Self {
        static SWEEP: Once = Once::new();
        SWEEP.call_once(sweep);
        let this = Self { name: format!("glt-{}-{test}", std::process::id()) };
        this.make("");
        this
    }

    /// Its name, from the root of the hierarchy on.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A cgroup below it.
    pub fn make(&self, below: &str) -> PathBuf {
        let path = cgroup_root().join(&self.name).join(below);
        fs::create_dir_all(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        path
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        let mut left: Vec<PathBuf> = every_hierarchy().map(|root| root.join(&self.name)).collect();
        // A process that has just ended may still be there for a moment.
        for _ in 0..100 {
            left.retain(|path| {
                remove(path);
                path.exists()
            });
            if left.is_empty() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        eprintln!("{left:?} is left");
    }
}

/// A runtime makes the same cgroups below all of them, where those of version 1 are there beside that of version 2.
fn every_hierarchy() -> impl Iterator<Item = PathBuf> {
    hierarchies("cgroup2").into_iter().chain(hierarchies("cgroup"))
}

/// Removes what a crashed run left: cgroups whose process is gone.
fn sweep() {
    for entry in every_hierarchy().filter_map(|root| fs::read_dir(root).ok()).flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name.strip_prefix("glt-").and_then(|rest| rest.split('-').next());
        if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            remove(&entry.path());
        }
    }
}

fn remove(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let _ = fs::remove_dir(directory);
}

/// Sixty-four hexadecimal digits, others for each number.
pub fn container_id(number: u32) -> String {
    format!("{number:08x}").repeat(8)
}

/// Path of a container's cgroup, as containerd makes it with the kubelet's systemd driver.
pub fn of_containerd(uid: &str, container: &str) -> String {
    let uid = uid.replace('-', "_");
    format!(
        "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid}.slice/cri-containerd-{container}.scope"
    )
}

/// A command that runs in a cgroup and in a host's network namespace.
fn inside(host: &Host, cgroup: &Path, words: &[&str]) -> Command {
    // The shell enters the cgroup, and becomes what it starts.
    const SCRIPT: &str = "echo $$ > \"$0\" && net=\"$1\" && shift && exec nsenter --net=\"$net\" -- \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", SCRIPT]).arg(cgroup.join("cgroup.procs")).arg(host.path()).args(words);
    command
}

/// A process that lives in a pod.
pub fn start(host: &Host, cgroup: &Path, words: &[&str]) -> Process {
    Process::start(&mut inside(host, cgroup, words))
}

/// A process that lives in a pod and does nothing, under a name of its own.
pub fn idle(host: &Host, cgroup: &Path, directory: &Directory, name: &str) -> Process {
    let program = directory.path().join(name);
    if !program.exists() {
        crate::proc::run(Command::new("cp").arg("/bin/sleep").arg(&program));
    }
    let process = start(host, cgroup, &[program.to_str().expect("a path"), "100000"]);
    eventually("it lives in its cgroup", Duration::from_secs(20), || {
        let command = fs::read_to_string(format!("/proc/{}/comm", process.id())).unwrap_or_default();
        (command.trim() == name).then_some(())
    });
    process
}

/// Makes so many connections, one after another, from a process that lives in a pod.
pub fn connect(host: &Host, cgroup: &Path, to: SocketAddr, connections: u32) {
    const SCRIPT: &str = "import socket, sys\n\
        for _ in range(int(sys.argv[3])):\n    \
            s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 20)\n    \
            s.sendall(b'x' * 10)\n    \
            assert s.recv(10)\n    \
            s.close()\n";
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/venv/bin/python");
    let (ip, port, n) = (to.ip().to_string(), to.port().to_string(), connections.to_string());
    let python = python.to_str().expect("a path");
    crate::proc::run(&mut inside(host, cgroup, &[python, "-c", SCRIPT, &ip, &port, &n]));
}

/// A container runtime that tells of pods (tests/peers/cri.py).
pub struct Runtime {
    process: Process,
    /// Where it listens.
    pub socket: PathBuf,
}

impl Runtime {
    /// Starts it; one that `hangs` takes calls and answers none.
    pub fn start(directory: &Directory, pods: &serde_json::Value, hangs: bool) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let socket = directory.path().join("cri.sock");
        let mut command = Command::new(root.join("../target/venv/bin/python"));
        // Without a directory of bytecode beside it.
        command.arg("-B").arg(root.join("peers/cri.py")).arg(&socket).arg(pods.to_string());
        if hangs {
            command.arg("hang");
        }
        let process = Process::start(&mut command);
        eventually("the runtime listens", Duration::from_secs(60), || {
            process.output().iter().any(|line| line == "ready").then_some(())
        });
        Self { process, socket }
    }

    /// How often it was called.
    pub fn calls(&self) -> usize {
        self.process.output().iter().filter(|line| line.starts_with("List")).count()
    }
}

/// A resource, as far as it tells one pod from another.
pub fn said_by(resource: &BTreeMap<String, String>) -> String {
    let is_of_a_pod = |name: &str| {
        name.starts_with("k8s.") || name.starts_with("container.") || name == "service.instance.id"
    };
    let of_a_pod = resource.iter().filter(|(name, _)| is_of_a_pod(name));
    of_a_pod.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

/// Counts by resource, as [`said_by`] tells it, and by series.
pub type Counts = BTreeMap<String, BTreeMap<String, u64>>;

/// Newest counts of a metric, of the points that `series` has a name for.
pub fn newest(collector: &Collector, metric: &str, series: impl Fn(&Point) -> Option<String>) -> Counts {
    let mut latest = Counts::new();
    for (resource, point) in collector.points_by_resource(metric) {
        if let Some(series) = series(&point) {
            latest.entry(said_by(&resource)).or_default().insert(series, point.integer("as_int"));
        }
    }
    latest
}

/// Newest count of established handshakes with peers whose names begin so, by resource, peer and role.
pub fn established(collector: &Collector, peers: &str) -> Counts {
    newest(collector, "graylag.tcp.handshake.count", |point| {
        let of = |name: &str| point.attributes.get(name).map_or("", String::as_str);
        let (outcome, peer) = (of("graylag.outcome"), of("graylag.peer.name"));
        let is_one = outcome == "established" && peer.starts_with(peers);
        is_one.then(|| format!("{peer} {}", of("graylag.role")))
    })
}

/// Waits until these are the counts.
#[track_caller]
pub fn until_counts(expected: &Counts, counts: impl Fn() -> Counts) {
    const PATIENCE: Duration = Duration::from_secs(60);
    let begun = Instant::now();
    while counts() != *expected {
        assert!(begun.elapsed() < PATIENCE, "{:#?}, expected {expected:#?}", counts());
        thread::sleep(Duration::from_millis(200));
    }
}

/// Waits until these are the newest counts, by resource, of [`established`].
#[track_caller]
pub fn until_established(collector: &Collector, peers: &str, expected: &[(String, &[(&str, u64)])]) {
    let series = |all: &[(&str, u64)]| all.iter().map(|(s, n)| ((*s).to_owned(), *n)).collect();
    let expected = expected.iter().map(|(resource, all)| (resource.clone(), series(all))).collect();
    until_counts(&expected, || established(collector, peers));
}

/// An address and a port.
pub fn at(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address, port)
}
