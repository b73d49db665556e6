//! What Kubernetes is given (deploy/kubernetes, deploy/collector): built by kustomize, held to the strict schemas of Kubernetes, and
//! to what an agent of this host may have.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{collections::BTreeSet, fs, process::Command};

use graylag_tests::{
    agent::binary,
    deploy::{file, kubernetes, kustomize, kustomize_with, said},
    proc::Directory,
};
use serde_json::Value;

/// Kubernetes versions that the manifests are for: the oldest and the newest with schemas at hand.
const VERSIONS: [&str; 2] = ["1.27", "1.37"];
const BUILDS: [&str; 4] = ["base", "overlays/collector", "overlays/media", "overlays/otlp"];

fn valid(path: &str) -> Vec<Value> {
    let (documents, errors) = kubernetes(&kustomize(path), &VERSIONS);
    assert_eq!(errors, Vec::<String>::new(), "{path}");
    documents
}

fn of_kind<'a>(documents: &'a [Value], kind: &str) -> Vec<&'a Value> {
    documents.iter().filter(|document| document["kind"] == kind).collect()
}

/// The pod of the one `DaemonSet`.
fn pod(documents: &[Value]) -> &Value {
    let sets = of_kind(documents, "DaemonSet");
    assert_eq!(sets.len(), 1);
    &sets[0]["spec"]["template"]["spec"]
}

fn environment(container: &Value) -> Vec<(&str, &Value)> {
    let variables = container["env"].as_array().expect("variables").iter();
    variables.map(|variable| (variable["name"].as_str().expect("a name"), variable)).collect()
}

#[test]
fn everything_is_valid_and_a_typing_error_is_not() {
    for path in BUILDS {
        let documents = valid(path);
        assert!(documents.len() >= 4, "{path}: {}", documents.len());
    }
    let text = kustomize("base");
    for (right, wrong) in [
        ("hostNetwork:", "hostNetwrok:"),
        ("readOnlyRootFilesystem: true", "readOnlyRootFilesystem: yess"),
        ("allowPrivilegeEscalation:", "allowPrivilegeEscalations:"),
        ("maxUnavailable:", "maxUnavailible:"),
        ("fieldPath: spec.nodeName", "fieldpath: spec.nodeName"),
        ("apiVersion: apps/v1", "apiVersion: apps/v1beta7"),
    ] {
        assert!(text.contains(right), "{right}");
        let (_, errors) = kubernetes(&text.replace(right, wrong), &VERSIONS);
        assert_eq!(errors.len(), VERSIONS.len(), "{wrong}: {errors:?}");
    }
}

#[test]
fn the_agent_has_what_it_needs_and_no_more() {
    for path in BUILDS {
        let documents = valid(path);
        let pod = pod(&documents);
        assert_eq!(pod["hostNetwork"], true);
        assert_eq!(pod["hostPID"], true);
        assert_eq!(pod["automountServiceAccountToken"], false);
        assert_eq!(pod["priorityClassName"], "system-node-critical");
        assert_eq!(pod["tolerations"][0]["operator"], "Exists");
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        let containers = pod["containers"].as_array().expect("containers");
        assert_eq!(containers.len(), 1);
        let security = &containers[0]["securityContext"];
        assert_eq!(security["privileged"], false);
        assert_eq!(security["allowPrivilegeEscalation"], false);
        assert_eq!(security["readOnlyRootFilesystem"], true);
        assert_eq!(security["capabilities"]["drop"], serde_json::json!(["ALL"]));
        let mut capabilities = vec!["BPF", "PERFMON", "NET_ADMIN"];
        if path == "overlays/media" {
            // The reflector's port is 862.
            capabilities.push("NET_BIND_SERVICE");
        }
        assert_eq!(security["capabilities"]["add"], serde_json::json!(capabilities));
        assert_eq!(of_kind(&documents, "DaemonSet")[0]["spec"]["updateStrategy"]["type"], "RollingUpdate");

        let image = containers[0]["image"].as_str().expect("an image");
        assert_eq!(image, format!("graylag:{}", env!("CARGO_PKG_VERSION")));
    }
}

#[test]
fn directories_of_the_host_are_those_that_it_names() {
    for path in BUILDS {
        let documents = valid(path);
        let pod = pod(&documents);
        let volumes = pod["volumes"].as_array().expect("volumes");
        let host: BTreeSet<&str> = volumes.iter().filter_map(|v| v["hostPath"]["path"].as_str()).collect();
        assert_eq!(host, ["/run/graylag", "/sys/fs/bpf", "/sys/fs/cgroup"].into());
        let mounts = pod["containers"][0]["volumeMounts"].as_array().expect("mounts");
        let writable: BTreeSet<&str> = mounts
            .iter()
            .filter(|mount| mount["readOnly"] != true)
            .map(|mount| mount["mountPath"].as_str().expect("a path"))
            .collect();
        assert_eq!(writable, ["/bpf", "/run/graylag"].into());
        let names =
            |of: &[Value]| -> BTreeSet<String> { of.iter().map(|one| one["name"].to_string()).collect() };
        assert_eq!(names(mounts), names(volumes));
    }
}

/// The runtime's socket comes with a component, and with nothing else.
#[test]
fn names_of_pods_have_to_be_asked_for() {
    for (overlay, name) in [("base", "graylag"), ("overlays/media", "graylag-media")] {
        let built = kustomize_with(overlay, "components/cri");
        let (documents, errors) = kubernetes(&built, &VERSIONS);
        assert_eq!(errors, Vec::<String>::new(), "{overlay}");
        assert_eq!(of_kind(&documents, "DaemonSet")[0]["metadata"]["name"], name);
        let pod = pod(&documents);
        let volume = pod["volumes"].as_array().expect("volumes").iter();
        let mut volume = volume.filter(|volume| volume["hostPath"]["path"] == "/run/containerd");
        assert_eq!(volume.next().expect("a volume")["name"], "container-runtime");
        let mounts = pod["containers"][0]["volumeMounts"].as_array().expect("mounts");
        let mount = mounts.iter().find(|mount| mount["name"] == "container-runtime").expect("a mount");
        assert_eq!((&mount["mountPath"], &mount["readOnly"]), (&"/run/containerd".into(), &true.into()));
        // It is where graylag looks of itself.
        assert_eq!(
            pod["containers"][0]["securityContext"]["capabilities"]["drop"],
            serde_json::json!(["ALL"])
        );
    }
}

/// Probes are commands of the program in the image, and their words are words that it knows.
#[test]
fn probes_are_what_graylag_can_be_asked() {
    let documents = valid("base");
    let container = &pod(&documents)["containers"][0];
    for (probe, word) in
        [("startupProbe", "--healthy"), ("livenessProbe", "--healthy"), ("readinessProbe", "--ready")]
    {
        let command = &container[probe]["exec"]["command"];
        assert_eq!(*command, serde_json::json!(["/usr/bin/graylag", "status", word]), "{probe}");
        // Without an agent it says so, with the exit code of a failure and not of a wrong command line.
        let ended =
            Command::new(binary()).args(["status", word, "--socket", "/nowhere"]).output().expect("graylag");
        assert_eq!(ended.status.code(), Some(1), "{}", String::from_utf8_lossy(&ended.stderr));
    }
}

#[test]
fn telemetry_names_node_and_pod_and_goes_where_the_overlay_says() {
    for path in BUILDS {
        let documents = valid(path);
        let container = &pod(&documents)["containers"][0];
        let variables = environment(container);
        let names: BTreeSet<&str> = variables.iter().map(|(name, _)| *name).collect();
        let find =
            |wanted: &str| variables.iter().find(|(name, _)| *name == wanted).map(|(_, variable)| *variable);
        let attributes =
            find("OTEL_RESOURCE_ATTRIBUTES").expect("attributes")["value"].as_str().expect("text");
        for (attribute, reference, field) in [
            ("k8s.node.name", "K8S_NODE_NAME", "spec.nodeName"),
            ("k8s.namespace.name", "K8S_NAMESPACE_NAME", "metadata.namespace"),
            ("k8s.pod.name", "K8S_POD_NAME", "metadata.name"),
            ("k8s.pod.uid", "K8S_POD_UID", "metadata.uid"),
        ] {
            assert!(attributes.contains(&format!("{attribute}=$({reference})")), "{attributes}");
            let variable = find(reference).expect("a variable");
            assert_eq!(variable["valueFrom"]["fieldRef"]["fieldPath"], field);
            // Only what stands before it is filled in.
            let place = |name: &str| variables.iter().position(|(found, _)| *found == name);
            assert!(place(reference) < place("OTEL_RESOURCE_ATTRIBUTES"));
        }
        let known = fs::read_to_string(file("docs/operations.md")).expect("operations.md");
        for name in names.iter().filter(|name| name.starts_with("OTEL_")) {
            assert!(known.contains(&format!("`{name}`")), "{name} is no variable of graylag's");
        }
        let exports = names.contains("OTEL_EXPORTER_OTLP_ENDPOINT");
        assert_eq!(exports, matches!(path, "overlays/collector" | "overlays/otlp"), "{path}");
    }
}

/// The name that agents export to is that of a Service, whose ports are those of the Collector.
#[test]
fn the_collector_is_where_agents_look_for_it() {
    let documents = valid("overlays/collector");
    let container = &pod(&documents)["containers"][0];
    let endpoint =
        environment(container).into_iter().find(|(name, _)| *name == "OTEL_EXPORTER_OTLP_ENDPOINT");
    let endpoint = endpoint.expect("an endpoint").1["value"].as_str().expect("a URL");
    let service = of_kind(&documents, "Service")[0];
    let host = format!(
        "{}.{}.svc",
        service["metadata"]["name"].as_str().unwrap(),
        service["metadata"]["namespace"].as_str().unwrap()
    );
    let port = &service["spec"]["ports"][0];
    assert_eq!(endpoint, format!("http://{host}:{}", port["port"]));
    let collector = &of_kind(&documents, "Deployment")[0]["spec"]["template"];
    assert_eq!(
        service["spec"]["selector"]["app.kubernetes.io/name"],
        collector["metadata"]["labels"]["app.kubernetes.io/name"]
    );
    let ports = collector["spec"]["containers"][0]["ports"].as_array().expect("ports");
    assert!(ports.iter().any(|found| found["name"] == port["targetPort"] && found["containerPort"] == 4317));
}

/// The `ConfigMap` that each build carries can be used, and that of the base is the annotated file.
#[test]
fn configurations_are_valid_and_the_bases_is_the_annotated_one() {
    let annotated = fs::read_to_string(file("deploy/graylag.toml")).expect("graylag.toml");
    for path in BUILDS {
        let documents = valid(path);
        let maps = of_kind(&documents, "ConfigMap");
        let toml = maps.iter().find_map(|map| map["data"]["graylag.toml"].as_str()).expect("graylag.toml");
        let directory = Directory::new();
        // Keys are in a Secret, which is not here.
        let keys = directory.write("stamp.keys", &"ab".repeat(32));
        said(Command::new("chmod").arg("0400").arg(&keys));
        let here =
            toml.replace("\"/etc/graylag-keys/stamp.keys\"", &format!("{:?}", keys.display().to_string()));
        let config = directory.write("graylag.toml", &here);
        said(Command::new(binary()).args(["config", "check", "--config"]).arg(config));
        if path != "overlays/media" {
            let media = annotated.replace("\ninterfaces = [\"*\"]\n", "\ninterfaces = []\n");
            assert_ne!(media, annotated);
            assert!(
                toml == media,
                "deploy/kubernetes/base/graylag.toml differs from deploy/graylag.toml in more than media"
            );
        }
    }
}
