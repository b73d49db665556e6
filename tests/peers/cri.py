"""A container runtime that has pods to tell of, and does nothing else.

    cri.py SOCKET PODS [hang]

Serves `ListPodSandbox` and `ListContainers` of `runtime.v1.RuntimeService` on a Unix socket. PODS is JSON:

    [{"sandbox": "ID", "uid": "UID", "name": "web-0", "namespace": "shop", "containers": {"ID": "web"}}, ...]

With `hang` it takes every call and answers none. Says `ready`, and the name of each call, a line each.
"""

import json
import sys
import threading
import time
from concurrent import futures

import grpc

import messages


def main():
    socket, pods = sys.argv[1], json.loads(sys.argv[2])
    hangs = sys.argv[3:] == ["hang"]
    of = messages.classes()
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
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(messages.SERVICE, methods)])
    if server.add_insecure_port(f"unix://{socket}") == 0:
        sys.exit(f"cannot listen on {socket}")
    server.start()
    print("ready", flush=True)
    threading.Event().wait()


main()
