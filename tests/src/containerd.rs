//! containerd as it comes from Debian, with runc and the reference plugins for networks, and what a kubelet asks of it.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    deploy::{file, said, tool},
    eventually,
    inside::Inside,
    net::Host,
    pods::Cgroups,
    proc::{Directory, run},
};

/// The only image; there is no registry.
const IMAGE: &str = "graylag.test/pod:1";
const SOON: Duration = Duration::from_secs(20);
/// Runs until it is killed, under a name of its own: a file that is called otherwise than busybox's programs is busybox all the
/// same, by its first argument.
const SANDBOX: &str = "exec -a busybox /bin/pause sleep 100000";

/// A pod, as the kubelet describes it.
#[derive(Clone)]
pub struct Pod {
    /// Its name.
    pub name: &'static str,
    /// Its uid.
    pub uid: String,
    /// The cgroup that the kubelet makes for pods of its class of service, below its own: `kubepods/burstable`.
    pub class: &'static str,
}

/// A running containerd. It, its shims and its containers live in process and mount namespaces that end with it, so that whatever it
/// mounts and starts ends with it too; only cgroups are removed one by one.
pub struct Containerd {
    inside: Inside,
    socket: PathBuf,
    cgroups: Cgroups,
    directory: Directory,
}

impl Containerd {
    /// Starts it on a host, which its pods reach by the first address of `network`/24.
    pub fn start(host: &Host, test: &str, network: Ipv4Addr) -> Self {
        // Mounts of its own are where it, runc and the plugins always write.
        const SCRIPT: &str = "mount -t tmpfs run /run && mount -t tmpfs lib /var/lib && mount -t bpf bpf /sys/fs/bpf && \
                              mkdir /run/containerd && mount --bind \"$2\" /run/containerd && \
                              exec \"$0\" --config \"$1\"";
        let (directory, cgroups) = (Directory::new(), Cgroups::new(test));
        let programs = file("target/tools/containerd/usr").canonicalize();
        let programs = programs.unwrap_or_else(|e| panic!("containerd: {e}: cargo xtask setup"));
        // Where every containerd has it, to what runs in its pods.
        let run_directory = directory.path().join("run");
        fs::create_dir(&run_directory).expect("a directory");
        let socket = run_directory.join("containerd.sock");
        let config = configure(&directory, &socket, &programs.join("lib/cni"), network);
        let path = std::env::var("PATH").unwrap_or_default();
        // Where it finds its shim, and the shim runc.
        let own = ["bin", "sbin"].map(|of| programs.join(of).display().to_string()).join(":");
        let inside = Inside::start(host, |command| {
            command.args(["unshare", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child"]);
            command
                .args(["sh", "-c", SCRIPT])
                .arg(programs.join("bin/containerd"))
                .arg(config)
                .arg(run_directory);
            command.env("PATH", format!("{own}:{path}"))
        });
        let mut this = Self { inside, socket, cgroups, directory };
        eventually("containerd answers", SOON, || {
            this.inside.must_run();
            this.asked("Version", &json!({})).ok()
        });
        this.add(&busybox(this.directory.path()), IMAGE);
        this
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What it calls itself, and its version.
    pub fn version(&self) -> String {
        let answer = self.ask("Version", &json!({}));
        format!("{} {}", text(&answer, "runtime_name"), text(&answer, "runtime_version"))
    }

    /// Gives it an image by this name, a file in the form of `docker save` or a layout of which the name's tag is one.
    pub fn add(&self, image: &Path, name: &str) {
        let mut ctr = tool("tools/containerd/usr/bin/ctr");
        ctr.arg("--address").arg(&self.socket).args(["--namespace", "k8s.io", "images", "import"]);
        let (base, _) = name.rsplit_once(':').expect("a name with a tag");
        ctr.args(["--base-name", base]).arg(image);
        run(&mut ctr);
        // It hears of its own images by events.
        eventually("the image is known to it", SOON, || {
            let status = self.ask("ImageStatus", &json!({"image": {"image": name}}));
            status.get("image").map(drop)
        });
    }

    /// Its part of the tree of cgroups, where a kubelet has `/kubepods`.
    pub fn cgroups(&self) -> &Cgroups {
        &self.cgroups
    }

    /// A place in its file system, in which `/run` and `/sys/fs/bpf` are its own.
    pub fn place(&self, path: &str) -> PathBuf {
        self.inside.place(path)
    }

    /// What it had runc do for a container (runtime-spec, config.md).
    pub fn spec(&self, container: &str) -> Value {
        let of_tasks = self.directory.path().join("state/io.containerd.runtime.v2.task/k8s.io");
        let text = fs::read_to_string(of_tasks.join(container).join("config.json")).expect("a bundle");
        serde_json::from_str(&text).expect("JSON")
    }

    /// One call, as the kubelet makes it.
    fn asked(&self, method: &str, request: &Value) -> Result<Value, String> {
        // Without a directory of bytecode beside it.
        let mut kubelet = tool("venv/bin/python");
        kubelet.arg("-B").arg(file("tests/peers/kubelet.py")).arg(&self.socket);
        let output = kubelet.args([method, &request.to_string()]).output().expect("python");
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        Ok(serde_json::from_slice(&output.stdout).expect("JSON"))
    }

    /// The same; fails where it is refused.
    #[track_caller]
    pub fn ask(&self, method: &str, request: &Value) -> Value {
        self.asked(method, request)
            .unwrap_or_else(|error| panic!("{error}\ncontainerd said:\n{}", self.inside.said()))
    }

    fn config(&self, pod: &Pod) -> Value {
        let parent = format!("/{}/{}/pod{}", self.cgroups.name(), pod.class, pod.uid);
        json!({
            "metadata": {"name": pod.name, "uid": pod.uid, "namespace": "shop", "attempt": 0},
            "hostname": pod.name,
            // The host's would be copied, which may be a link into /run.
            "dns_config": {"servers": ["192.0.2.53"]},
            "linux": {"cgroup_parent": parent, "security_context": {"namespace_options": {"pid": 1}}},
        })
    }

    /// A pod without containers: the identifier of its sandbox.
    #[track_caller]
    pub fn sandbox(&self, pod: &Pod) -> String {
        let answer = self.ask("RunPodSandbox", &json!({"config": self.config(pod)}));
        text(&answer, "pod_sandbox_id")
    }

    /// A container that runs a shell's script and then nothing, and how often there was one of this name before; its identifier.
    #[track_caller]
    pub fn container(&self, pod: &Pod, sandbox: &str, name: &str, attempt: u32, script: &str) -> String {
        let request = json!({
            "pod_sandbox_id": sandbox,
            "config": {
                "metadata": {"name": name, "attempt": attempt},
                "image": {"image": IMAGE},
                "command": ["/bin/sh", "-c", format!("{script}; exec /bin/sleep 100000")],
                "linux": {"security_context": {"namespace_options": {"pid": 1}}},
            },
            "sandbox_config": self.config(pod),
        });
        let container = text(&self.ask("CreateContainer", &request), "container_id");
        self.ask("StartContainer", &json!({"container_id": container}));
        container
    }

    /// Runs a command in a container, to its end: what became of it where it did not end well.
    #[track_caller]
    pub fn exec(&self, container: &str, command: &[&str], timeout: u64) -> Result<(), String> {
        let answer =
            self.ask("ExecSync", &json!({"container_id": container, "cmd": command, "timeout": timeout}));
        // Of a message what is zero is not written.
        if answer.get("exit_code").is_none() { Ok(()) } else { Err(answer.to_string()) }
    }

    /// Runs a shell's script in a container, to its end.
    #[track_caller]
    pub fn run(&self, container: &str, script: &str) {
        assert_eq!(self.exec(container, &["/bin/sh", "-c", script], 20), Ok(()), "{script}");
    }

    /// Ends a container, of which the runtime goes on telling.
    #[track_caller]
    pub fn stop(&self, container: &str) {
        self.ask("StopContainer", &json!({"container_id": container}));
    }

    /// Ends and removes a pod.
    #[track_caller]
    pub fn remove(&self, sandbox: &str) {
        for method in ["StopPodSandbox", "RemovePodSandbox"] {
            self.ask(method, &json!({"pod_sandbox_id": sandbox}));
        }
    }
}

/// A script that makes so many connections, one after another, and hears its own word on each.
pub fn connections(to: Ipv4Addr, port: u16, number: u32) -> String {
    format!("for i in $(seq {number}); do [ \"$(echo x | nc {to} {port})\" = x ] || exit 1; done")
}

fn text(answer: &Value, field: &str) -> String {
    answer[field].as_str().unwrap_or_else(|| panic!("no {field} in {answer}")).to_owned()
}

/// Its configuration, and that of its pods' network: each has a link of its own to the host.
fn configure(directory: &Directory, socket: &Path, plugins: &Path, network: Ipv4Addr) -> PathBuf {
    let below = |name: &str| directory.path().join(name);
    fs::create_dir(below("net.d")).expect("a directory");
    let addresses = json!({
        "type": "host-local",
        "dataDir": below("addresses"),
        "ranges": [[{"subnet": format!("{network}/24")}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    });
    let plugin = json!({"type": "ptp", "ipam": addresses});
    directory.write(
        "net.d/10-pods.conflist",
        &json!({"cniVersion": "0.4.0", "name": "pods", "plugins": [plugin]}).to_string(),
    );
    // Lowering `oom_score_adj` takes a capability that not every root has.
    let text = format!(
        "version = 2\nroot = '{root}'\nstate = '{state}'\n\
         disabled_plugins = ['io.containerd.internal.v1.opt']\n\
         [grpc]\naddress = '{socket}'\n\
         [plugins.'io.containerd.grpc.v1.cri']\nsandbox_image = '{IMAGE}'\nrestrict_oom_score_adj = true\n\
         [plugins.'io.containerd.grpc.v1.cri'.cni]\nbin_dir = '{plugins}'\nconf_dir = '{conf}'\n",
        root = below("root").display(),
        state = below("state").display(),
        conf = below("net.d").display(),
        socket = socket.display(),
        plugins = plugins.display(),
    );
    directory.write("containerd.toml", &text)
}

/// An image of busybox; it is a sandbox's unless it is told otherwise.
fn busybox(directory: &Path) -> PathBuf {
    let root = directory.join("busybox");
    fs::create_dir_all(root.join("bin")).expect("a directory");
    run(Command::new("cp").arg("/bin/busybox").arg(root.join("bin")));
    for name in ["sh", "seq", "nc", "sleep", "pause"] {
        fs::hard_link(root.join("bin/busybox"), root.join("bin").join(name)).expect("a link");
    }
    image(&root, IMAGE, &json!({"Env": ["PATH=/bin"], "Cmd": ["/bin/sh", "-c", SANDBOX]}))
}

/// An image of the files below `root`, beside it, in the form of `docker save` (moby, image/spec/spec.md).
fn image(root: &Path, name: &str, config: &Value) -> PathBuf {
    let parts = root.with_extension("parts");
    fs::create_dir_all(&parts).expect("a directory");
    let layer = parts.join("layer.tar");
    run(Command::new("tar").arg("-C").arg(root).arg("-cf").arg(&layer).arg("."));
    let digest = said(Command::new("sha256sum").arg(&layer));
    let digest = digest.split_whitespace().next().expect("a digest");
    let config = json!({
        "architecture": if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" },
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]);
    for (name, content) in [("config.json", config), ("manifest.json", manifest)] {
        fs::write(parts.join(name), content.to_string()).expect("a part of the image");
    }
    let archive = root.with_extension("tar");
    run(Command::new("tar").arg("-C").arg(&parts).arg("-cf").arg(&archive).arg("."));
    archive
}
