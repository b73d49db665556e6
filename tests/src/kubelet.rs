//! What a kubelet makes of a pod's description before it asks the container runtime: volumes, environment, security, probes
//! (kubernetes, `pkg/kubelet/kuberuntime`, `pkg/kubelet/container`). As much of it as `deploy/kubernetes` uses; what it does not know
//! it refuses.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

use serde_json::{Value, json};

use crate::{containerd::Containerd, eventually, proc::Directory};

/// A namespace is the node's, and not the pod's.
const NODE: u64 = 2;
const NAME: &str = "graylag-x7k2p";
const NAMESPACE: &str = "graylag";

/// The pod of a `DaemonSet` with one container, on one node.
pub struct Kubelet<'a> {
    containerd: &'a Containerd,
    pod: Value,
    image: String,
    node: String,
    uid: String,
    /// Volumes by name: where they are on the node.
    volumes: BTreeMap<String, PathBuf>,
    _directory: Directory,
}

/// A container of it that runs.
pub struct Running {
    sandbox: String,
    attempt: u32,
    /// Its identifier.
    pub container: String,
}

impl<'a> Kubelet<'a> {
    /// Takes a rendered description: its pod, the `ConfigMap`s, and Secrets (files by name) that somebody made.
    pub fn new(
        containerd: &'a Containerd,
        documents: &[Value],
        secrets: &BTreeMap<&str, BTreeMap<&str, &str>>,
        (image, node, uid): (&str, &str, String),
    ) -> Self {
        let of_kind = |kind| documents.iter().filter(move |document: &&Value| document["kind"] == kind);
        let set = of_kind("DaemonSet").next().expect("a DaemonSet");
        let pod = set["spec"]["template"]["spec"].clone();
        let directory = Directory::new();
        let mut volumes = BTreeMap::new();
        for volume in list(&pod["volumes"]) {
            let name = text(&volume["name"]);
            let place = directory.path().join(name);
            let kept = if let Some(host) = volume.get("hostPath") {
                let path = text(&host["path"]);
                let seen = containerd.place(path);
                match text(&host["type"]) {
                    "DirectoryOrCreate" => fs::create_dir_all(&seen).expect("a directory of the node"),
                    "Directory" => assert!(seen.is_dir(), "{path} is no directory of the node"),
                    other => panic!("hostPath of type {other}"),
                }
                PathBuf::from(path)
            } else if let Some(map) = volume.get("configMap") {
                let named = |document: &&Value| document["metadata"]["name"] == map["name"];
                let map = of_kind("ConfigMap").find(named).expect("a ConfigMap");
                let data = map["data"].as_object().expect("data");
                project(&place, data.iter().map(|(name, value)| (name.as_str(), text(value))), 0o644);
                place
            } else if let Some(secret) = volume.get("secret") {
                let files = secrets.get(text(&secret["secretName"]));
                assert!(
                    files.is_some() || secret["optional"] == true,
                    "a pod without {secret} does not start"
                );
                let files = files.into_iter().flatten().map(|(name, value)| (*name, *value));
                project(&place, files, secret["defaultMode"].as_u64().unwrap_or(0o644) as u32);
                place
            } else {
                panic!("a volume of a kind that is not known here: {volume}");
            };
            volumes.insert(name.to_owned(), kept);
        }
        let (image, node) = (image.to_owned(), node.to_owned());
        Self { containerd, pod, image, node, uid, volumes, _directory: directory }
    }

    fn only(&self) -> &Value {
        let containers = self.pod["containers"].as_array().expect("containers");
        assert_eq!(containers.len(), 1);
        &containers[0]
    }

    fn namespaces(&self) -> Value {
        let of_the_node = |is: &str| if self.pod[is] == true { NODE } else { 0 };
        json!({"network": of_the_node("hostNetwork"), "pid": of_the_node("hostPID"), "ipc": of_the_node("hostIPC")})
    }

    fn sandbox(&self) -> Value {
        json!({
            "metadata": {"name": NAME, "uid": self.uid, "namespace": NAMESPACE, "attempt": 0},
            "dns_config": {"servers": ["192.0.2.53"]},
            "linux": {
                "cgroup_parent": format!("/{}/kubepods/burstable/pod{}", self.containerd.cgroups().name(), self.uid),
                "security_context": {"namespace_options": self.namespaces(), "seccomp": self.seccomp()},
            },
        })
    }

    fn seccomp(&self) -> Value {
        assert_eq!(self.pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        json!({"profile_type": 0})
    }

    /// The environment, the Downward API's values and references to earlier variables filled in.
    fn environment(&self) -> Vec<Value> {
        let mut known: BTreeMap<&str, String> = BTreeMap::new();
        let mut variables = Vec::new();
        for variable in list(&self.only()["env"]) {
            let name = text(&variable["name"]);
            let value = if let Some(value) = variable.get("value") {
                known.iter().fold(text(value).to_owned(), |value, (name, known)| {
                    value.replace(&format!("$({name})"), known)
                })
            } else {
                match text(&variable["valueFrom"]["fieldRef"]["fieldPath"]) {
                    "spec.nodeName" => self.node.clone(),
                    "metadata.namespace" => NAMESPACE.into(),
                    "metadata.name" => NAME.into(),
                    "metadata.uid" => self.uid.clone(),
                    other => panic!("fieldPath {other}"),
                }
            };
            variables.push(json!({"key": name, "value": value}));
            known.insert(name, value);
        }
        variables
    }

    fn mounts(&self) -> Vec<Value> {
        let mount = |mount: &Value| {
            let place = self.volumes.get(text(&mount["name"])).unwrap_or_else(|| panic!("{mount}"));
            let readonly = mount["readOnly"] == true;
            json!({"container_path": mount["mountPath"], "host_path": place, "readonly": readonly})
        };
        list(&self.only()["volumeMounts"]).map(mount).collect()
    }

    fn security(&self) -> Value {
        let context = &self.only()["securityContext"];
        json!({
            "capabilities": {
                "add_capabilities": context["capabilities"]["add"],
                "drop_capabilities": context["capabilities"]["drop"],
            },
            "privileged": context["privileged"],
            "namespace_options": self.namespaces(),
            "run_as_user": {"value": context["runAsUser"]},
            "run_as_group": {"value": context["runAsGroup"]},
            "readonly_rootfs": context["readOnlyRootFilesystem"],
            "no_new_privs": context["allowPrivilegeEscalation"] == false,
            "seccomp": self.seccomp(),
        })
    }

    /// Starts the pod, and waits for its container as its startup probe says.
    #[track_caller]
    pub fn start(&self) -> Running {
        let sandbox = self.containerd.ask("RunPodSandbox", &json!({"config": self.sandbox()}));
        let sandbox = text(&sandbox["pod_sandbox_id"]).to_owned();
        let container = self.container(&sandbox, 0);
        Running { sandbox, attempt: 0, container }
    }

    #[track_caller]
    fn container(&self, sandbox: &str, attempt: u32) -> String {
        let only = self.only();
        let mut config = json!({
            "metadata": {"name": only["name"], "attempt": attempt},
            "image": {"image": self.image},
            "envs": self.environment(),
            "mounts": self.mounts(),
            "linux": {
                "resources": {"memory_limit_in_bytes": bytes(text(&only["resources"]["limits"]["memory"]))},
                "security_context": self.security(),
            },
        });
        for (ours, theirs) in [("command", "command"), ("args", "args")] {
            if let Some(given) = only.get(theirs) {
                config[ours] = given.clone();
            }
        }
        let request = json!({"pod_sandbox_id": sandbox, "config": config, "sandbox_config": self.sandbox()});
        let answer = self.containerd.ask("CreateContainer", &request);
        let container = text(&answer["container_id"]).to_owned();
        self.containerd.ask("StartContainer", &json!({"container_id": container}));
        let probe = &only["startupProbe"];
        let seconds = |field: &str| probe[field].as_u64().unwrap_or(1);
        let patience = Duration::from_secs(seconds("periodSeconds") * seconds("failureThreshold"));
        eventually("the startup probe succeeds", patience, || self.probe(&container, "startupProbe").ok());
        container
    }

    /// Runs a probe of the container's; what it said where it failed.
    #[track_caller]
    pub fn probe(&self, container: &str, probe: &str) -> Result<(), String> {
        let probe = &self.only()[probe];
        let command: Vec<&str> = list(&probe["exec"]["command"]).map(text).collect();
        self.containerd.exec(container, &command, probe["timeoutSeconds"].as_u64().expect("a timeout"))
    }

    /// Ends the container as `terminationGracePeriodSeconds` says: what the runtime says of its end, `Completed` where it ended
    /// by itself and well.
    #[track_caller]
    pub fn stop(&self, container: &str) -> String {
        let timeout = self.pod["terminationGracePeriodSeconds"].as_u64().expect("a time");
        self.containerd.ask("StopContainer", &json!({"container_id": container, "timeout": timeout}));
        let answer = self.containerd.ask("ContainerStatus", &json!({"container_id": container}));
        text(&answer["status"]["reason"]).to_owned()
    }

    /// Starts a container in the place of one that has ended.
    #[track_caller]
    pub fn again(&self, ended: &Running) -> Running {
        let attempt = ended.attempt + 1;
        let container = self.container(&ended.sandbox, attempt);
        Running { sandbox: ended.sandbox.clone(), attempt, container }
    }
}

/// Files of a volume.
fn project<'a>(directory: &PathBuf, files: impl Iterator<Item = (&'a str, &'a str)>, mode: u32) {
    fs::create_dir(directory).expect("a volume");
    for (name, content) in files {
        let path = directory.join(name);
        fs::write(&path, content).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its mode");
    }
}

/// A quantity of memory.
fn bytes(quantity: &str) -> u64 {
    let number = quantity.strip_suffix("Mi").unwrap_or_else(|| panic!("{quantity}: in Mi"));
    number.parse::<u64>().expect("a number") << 20
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[track_caller]
fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}
