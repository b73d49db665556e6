//! Pods and containers as the kernel sees them: a network namespace, cgroups with the names that runtimes give them, and
//! processes that live in both.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use crate::{
    eventually,
    net::Host,
    proc::{Directory, Process},
};

/// Where the hierarchy of version 2 is mounted.
pub fn cgroup_root() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
    let of_two = |line: &str| {
        let mut fields = line.split(' ').skip(1);
        let (path, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(path))
    };
    mounts.lines().find_map(of_two).expect("a cgroup2 hierarchy")
}

/// A part of the hierarchy that is removed, with everything below it, when it goes out of scope.
pub struct Cgroups(PathBuf);

impl Cgroups {
    /// Of this test program and this test.
    pub fn new(test: &str) -> Self {
        let path = cgroup_root().join(format!("glt-{}-{test}", std::process::id()));
        fs::create_dir_all(&path).expect("a cgroup");
        Self(path)
    }

    /// A cgroup below it.
    pub fn make(&self, below: &str) -> PathBuf {
        let path = self.0.join(below);
        fs::create_dir_all(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        path
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        // A process that has just ended may still be there for a moment.
        for _ in 0..100 {
            remove(&self.0);
            if !self.0.exists() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        eprintln!("{} is left", self.0.display());
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
        command.arg(root.join("peers/cri.py")).arg(&socket).arg(pods.to_string());
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

/// An address and a port.
pub fn at(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address, port)
}
