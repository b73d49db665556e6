"""Messages of the Container Runtime Interface, for cri.py, which answers as a runtime does, and kubelet.py, which asks one.

Written down from kubernetes/cri-api, `pkg/apis/runtime/v1/api.proto`, with more fields than graylag reads.
"""

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

F = descriptor_pb2.FieldDescriptorProto
PACKAGE = "runtime.v1"
SERVICE = f"{PACKAGE}.RuntimeService"
# Of each message: (number, name, type, message type where it is one, whether it is repeated).
MESSAGES = {
    "PodSandboxMetadata": [
        (1, "name", F.TYPE_STRING, None, False),
        (2, "uid", F.TYPE_STRING, None, False),
        (3, "namespace", F.TYPE_STRING, None, False),
        (4, "attempt", F.TYPE_UINT32, None, False),
    ],
    "Label": [(1, "key", F.TYPE_STRING, None, False), (2, "value", F.TYPE_STRING, None, False)],
    "PodSandbox": [
        (1, "id", F.TYPE_STRING, None, False),
        (2, "metadata", F.TYPE_MESSAGE, "PodSandboxMetadata", False),
        (3, "state", F.TYPE_INT32, None, False),
        (4, "created_at", F.TYPE_INT64, None, False),
        (5, "labels", F.TYPE_MESSAGE, "Label", True),
        (7, "runtime_handler", F.TYPE_STRING, None, False),
    ],
    "ListPodSandboxRequest": [],
    "ListPodSandboxResponse": [(1, "items", F.TYPE_MESSAGE, "PodSandbox", True)],
    "ContainerMetadata": [(1, "name", F.TYPE_STRING, None, False), (2, "attempt", F.TYPE_UINT32, None, False)],
    "Container": [
        (1, "id", F.TYPE_STRING, None, False),
        (2, "pod_sandbox_id", F.TYPE_STRING, None, False),
        (3, "metadata", F.TYPE_MESSAGE, "ContainerMetadata", False),
        (5, "image_ref", F.TYPE_STRING, None, False),
        (6, "state", F.TYPE_INT32, None, False),
        (7, "created_at", F.TYPE_INT64, None, False),
        (8, "labels", F.TYPE_MESSAGE, "Label", True),
    ],
    "ListContainersRequest": [],
    "ListContainersResponse": [(1, "containers", F.TYPE_MESSAGE, "Container", True)],
    "VersionRequest": [(1, "version", F.TYPE_STRING, None, False)],
    "VersionResponse": [
        (1, "version", F.TYPE_STRING, None, False),
        (2, "runtime_name", F.TYPE_STRING, None, False),
        (3, "runtime_version", F.TYPE_STRING, None, False),
        (4, "runtime_api_version", F.TYPE_STRING, None, False),
    ],
    # Whose a namespace is: 0 the pod's, 1 the container's, 2 the node's.
    "NamespaceOption": [
        (1, "network", F.TYPE_INT32, None, False),
        (2, "pid", F.TYPE_INT32, None, False),
        (3, "ipc", F.TYPE_INT32, None, False),
    ],
    "DNSConfig": [(1, "servers", F.TYPE_STRING, None, True)],
    # 0: the runtime's default profile.
    "SecurityProfile": [(1, "profile_type", F.TYPE_INT32, None, False)],
    "LinuxSandboxSecurityContext": [
        (1, "namespace_options", F.TYPE_MESSAGE, "NamespaceOption", False),
        (9, "seccomp", F.TYPE_MESSAGE, "SecurityProfile", False),
    ],
    "LinuxPodSandboxConfig": [
        (1, "cgroup_parent", F.TYPE_STRING, None, False),
        (2, "security_context", F.TYPE_MESSAGE, "LinuxSandboxSecurityContext", False),
    ],
    "PodSandboxConfig": [
        (1, "metadata", F.TYPE_MESSAGE, "PodSandboxMetadata", False),
        (2, "hostname", F.TYPE_STRING, None, False),
        (4, "dns_config", F.TYPE_MESSAGE, "DNSConfig", False),
        (8, "linux", F.TYPE_MESSAGE, "LinuxPodSandboxConfig", False),
    ],
    "RunPodSandboxRequest": [(1, "config", F.TYPE_MESSAGE, "PodSandboxConfig", False)],
    "RunPodSandboxResponse": [(1, "pod_sandbox_id", F.TYPE_STRING, None, False)],
    "StopPodSandboxRequest": [(1, "pod_sandbox_id", F.TYPE_STRING, None, False)],
    "StopPodSandboxResponse": [],
    "RemovePodSandboxRequest": [(1, "pod_sandbox_id", F.TYPE_STRING, None, False)],
    "RemovePodSandboxResponse": [],
    "ImageSpec": [(1, "image", F.TYPE_STRING, None, False)],
    "Image": [(1, "id", F.TYPE_STRING, None, False), (2, "repo_tags", F.TYPE_STRING, None, True)],
    "ImageStatusRequest": [(1, "image", F.TYPE_MESSAGE, "ImageSpec", False)],
    "ImageStatusResponse": [(1, "image", F.TYPE_MESSAGE, "Image", False)],
    "Capability": [
        (1, "add_capabilities", F.TYPE_STRING, None, True),
        (2, "drop_capabilities", F.TYPE_STRING, None, True),
    ],
    "Int64Value": [(1, "value", F.TYPE_INT64, None, False)],
    "LinuxContainerSecurityContext": [
        (1, "capabilities", F.TYPE_MESSAGE, "Capability", False),
        (2, "privileged", F.TYPE_BOOL, None, False),
        (3, "namespace_options", F.TYPE_MESSAGE, "NamespaceOption", False),
        (5, "run_as_user", F.TYPE_MESSAGE, "Int64Value", False),
        (7, "readonly_rootfs", F.TYPE_BOOL, None, False),
        (11, "no_new_privs", F.TYPE_BOOL, None, False),
        (12, "run_as_group", F.TYPE_MESSAGE, "Int64Value", False),
        (15, "seccomp", F.TYPE_MESSAGE, "SecurityProfile", False),
    ],
    "LinuxContainerResources": [(4, "memory_limit_in_bytes", F.TYPE_INT64, None, False)],
    "LinuxContainerConfig": [
        (1, "resources", F.TYPE_MESSAGE, "LinuxContainerResources", False),
        (2, "security_context", F.TYPE_MESSAGE, "LinuxContainerSecurityContext", False),
    ],
    "KeyValue": [(1, "key", F.TYPE_STRING, None, False), (2, "value", F.TYPE_STRING, None, False)],
    "Mount": [
        (1, "container_path", F.TYPE_STRING, None, False),
        (2, "host_path", F.TYPE_STRING, None, False),
        (3, "readonly", F.TYPE_BOOL, None, False),
    ],
    "ContainerConfig": [
        (1, "metadata", F.TYPE_MESSAGE, "ContainerMetadata", False),
        (2, "image", F.TYPE_MESSAGE, "ImageSpec", False),
        (3, "command", F.TYPE_STRING, None, True),
        (4, "args", F.TYPE_STRING, None, True),
        (6, "envs", F.TYPE_MESSAGE, "KeyValue", True),
        (7, "mounts", F.TYPE_MESSAGE, "Mount", True),
        (15, "linux", F.TYPE_MESSAGE, "LinuxContainerConfig", False),
    ],
    "CreateContainerRequest": [
        (1, "pod_sandbox_id", F.TYPE_STRING, None, False),
        (2, "config", F.TYPE_MESSAGE, "ContainerConfig", False),
        (3, "sandbox_config", F.TYPE_MESSAGE, "PodSandboxConfig", False),
    ],
    "CreateContainerResponse": [(1, "container_id", F.TYPE_STRING, None, False)],
    "StartContainerRequest": [(1, "container_id", F.TYPE_STRING, None, False)],
    "StartContainerResponse": [],
    "StopContainerRequest": [
        (1, "container_id", F.TYPE_STRING, None, False),
        (2, "timeout", F.TYPE_INT64, None, False),
    ],
    "StopContainerResponse": [],
    "ContainerStatus": [(1, "id", F.TYPE_STRING, None, False), (10, "reason", F.TYPE_STRING, None, False)],
    "ContainerStatusRequest": [(1, "container_id", F.TYPE_STRING, None, False)],
    "ContainerStatusResponse": [(1, "status", F.TYPE_MESSAGE, "ContainerStatus", False)],
    "ExecSyncRequest": [
        (1, "container_id", F.TYPE_STRING, None, False),
        (2, "cmd", F.TYPE_STRING, None, True),
        (3, "timeout", F.TYPE_INT64, None, False),
    ],
    "ExecSyncResponse": [
        (1, "stdout", F.TYPE_BYTES, None, False),
        (2, "stderr", F.TYPE_BYTES, None, False),
        (3, "exit_code", F.TYPE_INT32, None, False),
    ],
}


def classes():
    """A class for each message, by its name."""
    file = descriptor_pb2.FileDescriptorProto(name="cri.proto", package=PACKAGE, syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, field, kind, of, repeated in fields:
            label = F.LABEL_REPEATED if repeated else F.LABEL_OPTIONAL
            added = message.field.add(name=field, number=number, type=kind, label=label)
            if of:
                added.type_name = f".{PACKAGE}.{of}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in MESSAGES}
