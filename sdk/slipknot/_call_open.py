"""What a handle call carries to the replica: the handle's options, and what the request at hand passes on."""

import os
from dataclasses import dataclass

from slipknot_core.ids import DeploymentId
from slipknot_core.request_context import RequestContext
from slipknot_core.tracing import Span, Tracer
from slipknot_proto.v1 import replica_pb2

from .serve import context as serve_context


@dataclass(frozen=True, slots=True)
class HandleOptions:
    """What `DeploymentHandle.options` sets."""

    method_name: str = "__call__"
    multiplexed_model_id: str = ""
    session_id: str = ""
    stream: bool = False
    detached: bool = False


def new_call(request_id: str, options: HandleOptions, parent: RequestContext | None) -> replica_pb2.CallFrame:
    """Make the frame with the Open of a call, still without arguments.

    Args:
        request_id: The same at every hop.
        options: Of the handle.
        parent: The request in whose context the call is made, whether or not the call belongs to it.
    """
    frame = replica_pb2.CallFrame(
        open={
            "request_id": request_id,
            "multiplexed_model_id": options.multiplexed_model_id,
            "session_id": options.session_id,
            "method": {"method_name": options.method_name, "stream": options.stream},
        }
    )
    open_ = frame.open
    if parent is not None:
        open_.route = parent.route
        open_.traceparent, open_.tracestate = parent.traceparent, parent.tracestate
        open_.caller_chain.extend(parent.caller_chain)
        open_.caller_chain.append(f"{parent.app_name}/{parent.deployment_name}")
    return frame


def begin_span(tracer: Tracer, open_: replica_pb2.Open, deployment_id: DeploymentId) -> Span:
    """Begin the span of a call below that of the running code, and tell the replica of it."""
    span = tracer.start(
        f"call {deployment_id}.{open_.method.method_name}",
        "client",
        traceparent=open_.traceparent,
        tracestate=open_.tracestate,
        attributes={
            "slipknot.application": deployment_id.app_name,
            "slipknot.deployment": deployment_id.name,
            "slipknot.method": open_.method.method_name,
            "slipknot.request_id": open_.request_id,
        },
    )
    open_.traceparent, open_.tracestate = span.traceparent, span.tracestate
    return span


def origin() -> str:
    """This hop, as the origin of a cancellation."""
    replica = serve_context._replica_context_or_none()
    if replica is None:
        return f"driver:{os.getpid()}"
    return f"replica:{replica.app_name}/{replica.deployment}#{replica.replica_id.rpartition('#')[2]}"
