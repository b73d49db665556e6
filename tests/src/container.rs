//! The image in a container: unpacked by umoci, run by runc (crun refuses hosts that have both hierarchies of cgroups).

use std::{
    fs,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    agent::{Turn, alone},
    eventually,
    http::get,
    layout::Layout,
    metrics::Scrape,
    net::Host,
    proc::{Directory, Process, finish, run},
};

/// The capabilities that the agent is given, in the words of runtimes.
pub const CAPABILITIES: [&str; 3] = ["CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"];

/// A file or directory of this machine that a container sees, read-only unless it is to be written to.
fn mount(source: &Path, destination: &str, writable: bool) -> Value {
    let access = if writable { "rw" } else { "ro" };
    json!({
        "destination": destination,
        "type": "none",
        "source": source,
        "options": ["rbind", access, "nosuid", "nodev", "noexec"],
    })
}

/// An unpacked image.
pub struct Bundle {
    directory: Directory,
}

impl Bundle {
    /// Unpacks a layout's image of that name.
    pub fn unpack(layout: &Layout, name: &str) -> Self {
        crate::require_root();
        let directory = Directory::new();
        let image = format!("{}:{name}", layout.path().display());
        run(Command::new("umoci").args(["unpack", "--image", &image]).arg(directory.path().join("bundle")));
        Self { directory }
    }

    /// A file of its root.
    pub fn file(&self, path: &str) -> PathBuf {
        self.directory.path().join("bundle/rootfs").join(path)
    }

    fn config_path(&self) -> PathBuf {
        self.directory.path().join("bundle/config.json")
    }

    /// What umoci made of the image's configuration (runtime-spec, config.md).
    pub fn config(&self) -> Value {
        serde_json::from_str(&fs::read_to_string(self.config_path()).expect("a bundle")).expect("JSON")
    }
}

/// How a container runs: as this user, in this host's network, with this configuration, under this seccomp profile.
pub struct Container<'a> {
    /// User and group.
    pub uid: u32,
    /// Whose network it is in.
    pub host: &'a Host,
    /// The agent's configuration.
    pub toml: &'a str,
    /// The profile; none lets everything pass.
    pub seccomp: Option<Value>,
}

impl Container<'_> {
    /// Starts it, no other agent of a test beside it, and waits until `/readyz` says yes.
    #[track_caller]
    pub fn start(self, bundle: Bundle) -> Running {
        let turn = alone();
        let directory = bundle.directory.path();
        let socket = directory.join("run");
        fs::create_dir(&socket).expect("the socket's directory");
        chown(&socket, Some(self.uid), Some(self.uid)).expect("owner");
        let settings = directory.join("graylag.toml");
        fs::write(&settings, self.toml).expect("configuration");
        let mut config = bundle.config();
        self.configure(&mut config, &socket, &settings);
        fs::write(bundle.config_path(), config.to_string()).expect("a bundle");
        let name = directory.file_name().expect("a name").to_string_lossy().into_owned();
        let state = directory.join("runc");
        let mut command = Command::new("runc");
        command.arg("--root").arg(&state).args(["run", "--bundle"]);
        let process = Process::start(command.arg(directory.join("bundle")).arg(&name));
        let mut running =
            Running { process, state, name, socket: socket.join("agent.sock"), bundle, _turn: turn };
        eventually("the container is ready", Duration::from_secs(60), || {
            if let Some(status) = running.process.ended() {
                panic!("the container ended with {status}:\n{}", running.process.output().join("\n"));
            }
            (running.get("/readyz")?.0 == 200).then_some(())
        });
        running
    }

    fn configure(&self, config: &mut Value, socket: &Path, settings: &Path) {
        // As uid 0 with "drop: ALL, add: …" Kubernetes gives the bounding, permitted and effective sets; another user's
        // capabilities do not outlive execve without the ambient one (capabilities(7)).
        let ambient: &[&str] = if self.uid == 0 { &[] } else { &CAPABILITIES };
        let process = &mut config["process"];
        process["terminal"] = json!(false);
        process["noNewPrivileges"] = json!(true);
        process["user"] = json!({"uid": self.uid, "gid": self.uid});
        process["capabilities"] = json!({
            "bounding": CAPABILITIES,
            "permitted": CAPABILITIES,
            "effective": CAPABILITIES,
            "inheritable": ambient,
            "ambient": ambient,
        });
        config["root"] = json!({"path": "rootfs", "readonly": true});
        config["mounts"] = json!([
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            mount(Path::new("/sys"), "/sys", false),
            mount(socket, "/run/graylag", true),
            mount(settings, "/etc/graylag/graylag.toml", false),
        ]);
        config["linux"] = json!({
            "namespaces": [
                {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
                {"type": "network", "path": self.host.path()},
            ],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/sys/firmware"],
            "readonlyPaths": ["/proc/sys", "/proc/bus", "/proc/fs", "/proc/irq"],
        });
        if let Some(seccomp) = &self.seccomp {
            config["linux"]["seccomp"] = seccomp.clone();
        }
    }
}

/// A running container.
pub struct Running {
    /// runc, which ends when the container does.
    pub process: Process,
    state: PathBuf,
    name: String,
    socket: PathBuf,
    bundle: Bundle,
    _turn: Turn,
}

impl Running {
    /// One request: status code and body; nothing where nobody answers.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        get(&self.socket, path)
    }

    /// `/metrics`.
    #[track_caller]
    pub fn scrape(&self) -> Scrape {
        let (code, body) = self.get("/metrics").expect("the agent answers");
        assert_eq!(code, 200, "{body}");
        Scrape::parse(&body)
    }

    fn runc(&self) -> Command {
        let mut command = Command::new("runc");
        command.arg("--root").arg(&self.state);
        command
    }

    /// The agent's process on this machine.
    pub fn pid(&self) -> u32 {
        let state = finish(self.runc().args(["state", &self.name]));
        let state: Value = serde_json::from_str(&state.out).unwrap_or_else(|e| panic!("{e}: {state:?}"));
        state["pid"].as_u64().expect("a process") as u32
    }

    /// Whether the agent can write into its root.
    pub fn root_is_read_only(&self) -> bool {
        let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", self.pid())).expect("mounts");
        let root = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/")).expect("a root");
        root.split(' ').nth(5).expect("options").split(',').any(|option| option == "ro")
    }

    /// Ends it as a runtime does.
    #[track_caller]
    pub fn stop(mut self) -> i32 {
        run(self.runc().args(["kill", &self.name, "TERM"]));
        let status = eventually("it ends", Duration::from_secs(20), || self.process.ended());
        assert!(!self.socket.exists(), "no socket is left");
        status.code().expect("an exit code")
    }

    /// The unpacked image.
    pub const fn bundle(&self) -> &Bundle {
        &self.bundle
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the container said:\n{}", self.process.output().join("\n"));
        }
        // runc's own process goes with its container; what a failed start left goes with this.
        let _ = self.runc().args(["delete", "--force", &self.name]).output();
    }
}
