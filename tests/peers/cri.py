"""A container runtime that has pods to tell of, and does nothing else.

    cri.py SOCKET PODS [hang]

Serves `ListPodSandbox` and `ListContainers` of `runtime.v1.RuntimeService` on a Unix socket. PODS is JSON:

    [{"sandbox": "ID", "uid": "UID", "name": "web-0", "namespace": "shop", "containers": {"ID": "web"}}, ...]

With `hang` it takes every call and answers none. The messages are written down from kubernetes/cri-api,
`pkg/apis/runtime/v1/api.proto`, with more fields than graylag reads. Says `ready`, and the name of each call, a line each.
"""

import json
import sys
import threading
import time
from concurrent import futures

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

F = descriptor_pb2.FieldDescriptorProto
PACKAGE = "runtime.v1"
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
    "ListContainersResponse": [(1, "containers", F.TYPE_MESSAGE, "Container", True)],
}


def classes():
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


def main():
    socket, pods = sys.argv[1], json.loads(sys.argv[2])
    hangs = sys.argv[3:] == ["hang"]
    of = classes()
    lock = threading.Lock()

    def label(key, value):
        return of["Label"](key=key, value=value)

    def sandboxes():
        answer = of["ListPodSandboxResponse"]()
        for pod in pods:
            item = answer.items.add(id=pod["sandbox"], state=0, created_at=1700000000000000000, runtime_handler="runc")
            item.metadata.name, item.metadata.uid = pod["name"], pod["uid"]
            item.metadata.namespace, item.metadata.attempt = pod["namespace"], 2
            item.labels.append(label("io.kubernetes.pod.uid", pod["uid"]))
        return answer

    def containers():
        answer = of["ListContainersResponse"]()
        for pod in pods:
            for identifier, name in pod["containers"].items():
                one = answer.containers.add(id=identifier, pod_sandbox_id=pod["sandbox"], state=1, image_ref="sha256:00")
                one.metadata.name, one.metadata.attempt = name, 1
                one.labels.append(label("io.kubernetes.container.name", name))
        return answer

    def method(name, answer):
        def call(_request, _context):
            with lock:
                print(name, flush=True)
            while hangs:
                time.sleep(60)
            return answer()

        return grpc.unary_unary_rpc_method_handler(call, None, lambda message: message.SerializeToString())

    methods = {"ListPodSandbox": method("ListPodSandbox", sandboxes), "ListContainers": method("ListContainers", containers)}
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(f"{PACKAGE}.RuntimeService", methods)])
    if server.add_insecure_port(f"unix://{socket}") == 0:
        sys.exit(f"cannot listen on {socket}")
    server.start()
    print("ready", flush=True)
    threading.Event().wait()


main()
