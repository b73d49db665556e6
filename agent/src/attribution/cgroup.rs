//! Whose a cgroup is, by its path: every runtime and both of the kubelet's cgroup drivers write it there.

/// Length of a container's identifier: 32 bytes, hexadecimal.
const CONTAINER_ID: usize = 64;

/// What a path tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupOwner {
    /// Uid of the pod.
    pub pod: Option<String>,
    /// Identifier of the container.
    pub container: Option<String>,
}

/// Reads a path from the root of the hierarchy on; nothing where it is the host's.
///
/// What runs containers in a container (Docker in a pod, kind) nests such paths: the outermost pod counts, and the
/// outermost container in it.
pub fn owner(path: &str) -> Option<CgroupOwner> {
    // containerd with the systemd driver's form of a path and without systemd: `kubepods-….slice:cri-containerd:ID`.
    let parts: Vec<&str> = path.split(['/', ':']).filter(|part| !part.is_empty()).collect();
    let pod = parts.iter().enumerate().find_map(|(i, part)| {
        let in_kubepods = || parts[..i].iter().any(|part| part.contains("kubepods"));
        Some((i, pod_of_slice(part).or_else(|| in_kubepods().then(|| pod_of_directory(part))?)?))
    });
    let inside = pod.as_ref().map_or(0, |(i, _)| i + 1);
    let container = parts[inside..].iter().find_map(|part| container_of(part));
    let pod = pod.map(|(_, uid)| uid);
    (pod.is_some() || container.is_some()).then_some(CgroupOwner { pod, container })
}

/// `kubepods-burstable-pod0d8a…_….slice`: systemd's names have `-` for `/`, so uids have `_` for `-`.
fn pod_of_slice(part: &str) -> Option<String> {
    let name = part.strip_suffix(".slice").filter(|name| name.contains("kubepods"))?;
    let (_, uid) = name.rsplit_once("-pod")?;
    pod_uid(&uid.replace('_', "-"))
}

/// `pod0d8a…-…` below `kubepods`.
fn pod_of_directory(part: &str) -> Option<String> {
    pod_uid(part.strip_prefix("pod")?)
}

/// A UUID; of static pods a digest of their manifest.
fn pod_uid(text: &str) -> Option<String> {
    let digits = text.bytes().filter(u8::is_ascii_hexdigit).count();
    let rest = text.bytes().filter(|byte| *byte == b'-').count();
    let fits = digits + rest == text.len() && matches!((digits, rest), (32, 0 | 4));
    fits.then(|| text.to_owned())
}

/// `cri-containerd-ID.scope`, `crio-ID.scope`, `docker-ID.scope`, `libpod-ID.scope`; `ID` without systemd, `crio-ID` too.
fn container_of(part: &str) -> Option<String> {
    let name = part.strip_suffix(".scope").unwrap_or(part);
    let (prefix, id) = name.rsplit_once('-').unwrap_or(("", name));
    // The monitor of a container lives beside it (`crio-conmon-ID.scope`).
    let fits = id.len() == CONTAINER_ID
        && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        && !prefix.ends_with("conmon");
    fits.then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4c1c2b8dd8a9b1d3a0f0e7a6c5b4d3e2f1a0b9c8d7e6f5a4b3c2d1e0f9a8b7c6";
    const UID: &str = "0d8a2c3e-5f60-4a1b-9c7d-8e9f0a1b2c3d";
    const DIGEST: &str = "5d1c3b2a4f6e8d7c9b0a1f2e3d4c5b6a";

    #[test]
    fn real_forms_are_read() {
        let escaped = UID.replace('-', "_");
        let (pod, digest) = (Some(UID), Some(DIGEST));
        let rows = [
            // The kubelet with the systemd driver: guaranteed, burstable, best effort.
            (format!("/kubepods.slice/kubepods-pod{escaped}.slice/cri-containerd-{ID}.scope"), pod, Some(ID)),
            (
                format!(
                    "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{escaped}.slice/cri-containerd-{ID}.scope"
                ),
                pod,
                Some(ID),
            ),
            (
                format!(
                    "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{escaped}.slice/crio-{ID}.scope"
                ),
                pod,
                Some(ID),
            ),
            (
                format!(
                    "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{escaped}.slice/crio-{ID}.scope/container"
                ),
                pod,
                Some(ID),
            ),
            (
                format!(
                    "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{escaped}.slice/docker-{ID}.scope"
                ),
                pod,
                Some(ID),
            ),
            // A static pod.
            (
                format!(
                    "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{DIGEST}.slice/cri-containerd-{ID}.scope"
                ),
                digest,
                Some(ID),
            ),
            // The pod's own cgroup.
            (format!("/kubepods.slice/kubepods-pod{escaped}.slice"), pod, None),
            // The cgroupfs driver.
            (format!("/kubepods/besteffort/pod{UID}/{ID}"), pod, Some(ID)),
            (format!("/kubepods/pod{UID}/{ID}"), pod, Some(ID)),
            (format!("/kubepods/burstable/pod{UID}/crio-{ID}"), pod, Some(ID)),
            (format!("/kubepods/burstable/pod{DIGEST}/{ID}"), digest, Some(ID)),
            // `--cgroup-root`, k3s, and a node of kind, which is a container itself.
            (format!("/podruntime/kubepods/burstable/pod{UID}/{ID}"), pod, Some(ID)),
            (
                format!(
                    "/system.slice/docker-{}.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod{escaped}.slice/cri-containerd-{ID}.scope",
                    "f".repeat(64)
                ),
                pod,
                Some(ID),
            ),
            // containerd without systemd below a slice's name.
            (
                format!(
                    "/system.slice/containerd.service/kubepods-burstable-pod{escaped}.slice:cri-containerd:{ID}"
                ),
                pod,
                Some(ID),
            ),
            // A container's own cgroups, and a container in it.
            (format!("/kubepods/burstable/pod{UID}/{ID}/init.scope"), pod, Some(ID)),
            (format!("/kubepods/burstable/pod{UID}/{ID}/docker/{}", "e".repeat(64)), pod, Some(ID)),
            // Without Kubernetes.
            (format!("/system.slice/docker-{ID}.scope"), None, Some(ID)),
            (format!("/docker/{ID}"), None, Some(ID)),
            (format!("/machine.slice/libpod-{ID}.scope/container"), None, Some(ID)),
            (
                format!(
                    "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container"
                ),
                None,
                Some(ID),
            ),
            (format!("/ecs/0123456789abcdef0123456789abcdef/{ID}"), None, Some(ID)),
        ];
        for (path, pod, container) in rows {
            let expected = CgroupOwner { pod: pod.map(Into::into), container: container.map(Into::into) };
            assert_eq!(owner(&path), Some(expected), "{path}");
        }
    }

    #[test]
    fn what_is_the_hosts_is_nobodys() {
        for path in [
            "/".to_owned(),
            String::new(),
            "/init.scope".into(),
            "/system.slice/ssh.service".into(),
            "/system.slice/kubelet.service".into(),
            "/kubepods.slice".into(),
            "/kubepods.slice/kubepods-burstable.slice".into(),
            "/kubepods/burstable".into(),
            format!("/system.slice/crio-conmon-{ID}.scope"),
            format!("/machine.slice/libpod-conmon-{ID}.scope"),
            format!("/user.slice/pod{UID}"),
            "/kubepods/burstable/podium".into(),
            "/system.slice/docker-4c1c2b8d.scope".into(),
            "/user.slice/user-0.slice/session-1.scope".into(),
        ] {
            assert_eq!(owner(&path), None, "{path}");
        }
    }
}
