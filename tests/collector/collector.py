"""A collector for the tests: OTLP over gRPC or HTTP, decoded by Python's opentelemetry-proto.

Says one JSON object a line on standard output for each request it took (or refused), and does what it is told on standard
input, a word a line: `ok`, `retry` (503, UNAVAILABLE), `refuse` (400, INVALID_ARGUMENT), `partial` (one item rejected),
`slow` (answers after five seconds).
"""

import argparse
import gzip
import http.server
import json
import ssl
import sys
import threading
import time
from concurrent import futures

import grpc
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics

MODE = "ok"
LOCK = threading.Lock()
SIGNALS = {
    "metrics": (metrics.ExportMetricsServiceRequest, metrics.ExportMetricsServiceResponse, "rejected_data_points"),
    "logs": (logs.ExportLogsServiceRequest, logs.ExportLogsServiceResponse, "rejected_log_records"),
}
SERVICES = {
    "metrics": "opentelemetry.proto.collector.metrics.v1.MetricsService",
    "logs": "opentelemetry.proto.collector.logs.v1.LogsService",
}


def say(**what):
    with LOCK:
        print(json.dumps(what), flush=True)


def take(signal, request, headers, encoding):
    """Records a request and returns the mode it met, and the answer."""
    mode = MODE
    say(
        signal=signal,
        mode=mode,
        headers={k.lower(): v for k, v in headers},
        encoding=encoding,
        body=MessageToDict(request, preserving_proto_field_name=True),
    )
    if mode == "slow":
        time.sleep(5)
    answer = SIGNALS[signal][1]()
    if mode == "partial":
        setattr(answer.partial_success, SIGNALS[signal][2], 1)
        answer.partial_success.error_message = "one too many"
    return mode, answer


class Http(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        encoding = self.headers.get("content-encoding", "identity")
        if encoding == "gzip":
            body = gzip.decompress(body)
        signal = self.path.rsplit("/", 1)[-1]
        request = SIGNALS[signal][0].FromString(body)
        mode, answer = take(signal, request, self.headers.items(), encoding)
        code = {"retry": 503, "refuse": 400}.get(mode, 200)
        data = answer.SerializeToString() if code == 200 else b"as told"
        self.send_response(code)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *_):
        """A client that does not wait is part of the tests."""


def serve_http(arguments):
    server = Server((arguments.address, arguments.port), Http)
    if arguments.certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(arguments.certificate, arguments.key)
        if arguments.client_authority:
            context.load_verify_locations(arguments.client_authority)
            context.verify_mode = ssl.CERT_REQUIRED
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def handler(signal):
    def export(request, context):
        encoding = dict(context.invocation_metadata()).get("grpc-encoding", "")
        mode, answer = take(signal, request, context.invocation_metadata(), encoding)
        if mode == "retry":
            context.abort(grpc.StatusCode.UNAVAILABLE, "as told")
        if mode == "refuse":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "as told")
        return answer

    request, response, _ = SIGNALS[signal]
    method = grpc.unary_unary_rpc_method_handler(export, request.FromString, response.SerializeToString)
    return grpc.method_handlers_generic_handler(SERVICES[signal], {"Export": method})


def serve_grpc(arguments):
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    server.add_generic_rpc_handlers([handler(signal) for signal in SIGNALS])
    place = f"{arguments.address}:{arguments.port}"
    if arguments.certificate:
        pair = (open(arguments.key, "rb").read(), open(arguments.certificate, "rb").read())
        authority = arguments.client_authority and open(arguments.client_authority, "rb").read()
        credentials = grpc.ssl_server_credentials([pair], authority, bool(authority))
        bound = server.add_secure_port(place, credentials)
    else:
        bound = server.add_insecure_port(place)
    if bound == 0:
        sys.exit(f"cannot listen on {place}")
    server.start()
    return server


def main():
    global MODE
    parser = argparse.ArgumentParser()
    parser.add_argument("protocol", choices=["grpc", "http"])
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--certificate")
    parser.add_argument("--key")
    parser.add_argument("--client-authority")
    arguments = parser.parse_args()
    keep = serve_grpc(arguments) if arguments.protocol == "grpc" else serve_http(arguments)
    say(ready=True)
    for line in sys.stdin:
        MODE = line.strip()
        say(told=MODE)
    del keep


main()
