"""Asks a container runtime as the kubelet does: one call of `runtime.v1.RuntimeService` or `runtime.v1.ImageService`.

    kubelet.py SOCKET METHOD REQUEST

REQUEST is the request message as JSON, with the fields' own names; so is the answer, on standard output.
"""

import json
import sys

import grpc
from google.protobuf import json_format

import messages

# The kubelet's own is two minutes; nothing here takes a tenth of this.
PATIENCE = 50


def main():
    socket, method, request = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    of = messages.classes()
    service = f"{messages.PACKAGE}.ImageService" if method.startswith("Image") else messages.SERVICE
    with grpc.insecure_channel(f"unix://{socket}") as channel:
        call = channel.unary_unary(
            f"/{service}/{method}",
            lambda message: message.SerializeToString(),
            of[f"{method}Response"].FromString,
        )
        try:
            answer = call(json_format.ParseDict(request, of[f"{method}Request"]()), timeout=PATIENCE)
        except grpc.RpcError as error:
            sys.exit(f"{method}: {error.code().name}: {error.details()}")
    print(json_format.MessageToJson(answer, preserving_proto_field_name=True, indent=None))


main()
