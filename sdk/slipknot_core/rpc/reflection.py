"""Server reflection under both names: v1alpha, which grpcio serves, and v1, which newer tools ask for."""

from collections.abc import Sequence

import grpc
from grpc_reflection.v1alpha import _async as reflection_async
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from .lasting_server import LastingServer

V1ALPHA = "grpc.reflection.v1alpha.ServerReflection"
V1 = "grpc.reflection.v1.ServerReflection"


def add_reflection(server: LastingServer, service_names: Sequence[str]) -> None:
    """Describe `service_names` to grpcurl and its like."""
    servicer = reflection_async.ReflectionServicer((*service_names, V1ALPHA))
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)
    # The two versions have the same messages on the wire; only the service's name differs.
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(V1, {"ServerReflectionInfo": handler}),)
    )
