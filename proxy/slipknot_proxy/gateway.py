"""`GatewayService`: gRPC for programs and people outside the cluster. Protobuf, JSON, MessagePack; no pickle.

An HTTP-like request takes the way of any HTTP request. A method call takes that of a handle call, except that
what the user's code raised travels as its type's name and text. When the client cancels its RPC, the request
is cancelled.
"""

import asyncio
import contextlib
import contextvars
import json
import os
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc

from slipknot_core import request_context, tracing
from slipknot_core.deadline import Deadline
from slipknot_core.errors import (
    BY_REASON,
    ApplicationNotFoundError,
    DeploymentUnavailableError,
    ProtocolError,
    SlipknotServeException,
)
from slipknot_core.ids import MAX_REQUEST_ID_LENGTH, DeploymentId, new_request_id
from slipknot_core.logs import access_log
from slipknot_core.request_context import RequestContext
from slipknot_core.routing.dispatcher import Dispatcher
from slipknot_core.routing.exchange import Exchange
from slipknot_core.rpc.channel import ERROR_KEY
from slipknot_core.rpc.lasting_server import LastingServer
from slipknot_core.rpc.server import add_health_and_reflection
from slipknot_proto.v1 import gateway_pb2, gateway_pb2_grpc, replica_pb2
from slipknot_proto.v1.payload_pb2 import CancelReason, ErrorInfo, Payload

from . import request_headers
from .app import ProxyApp
from .gateway_cycle import GatewayCycle
from .metrics import cancel_reason
from .spans import begin_span, end_span

SERVICE_NAME = "slipknot.v1.GatewayService"
MAX_DETAILS_BYTES = 600
"""Of an error's text; gRPC bounds trailing metadata to 8 KiB, and writes non-ASCII threefold."""


def add_gateway(server: LastingServer, dispatcher: Dispatcher, app: ProxyApp) -> None:
    """Serve the gateway, health and reflection on a server that has not been started."""
    gateway_pb2_grpc.add_GatewayServiceServicer_to_server(GatewayService(dispatcher, app), server)
    add_health_and_reflection(server, (SERVICE_NAME,))


class GatewayService(gateway_pb2_grpc.GatewayServiceServicer):
    """Documented in gateway.proto."""

    def __init__(self, dispatcher: Dispatcher, app: ProxyApp) -> None:
        self._dispatcher = dispatcher
        self._app = app
        self._origin = f"gateway:{os.getpid()}"

    async def SendHttpRequest(self, request: Any, context: Any) -> Any:
        """As documented in gateway.proto."""
        response = gateway_pb2.SendHttpRequestResponse()
        body = bytearray()
        async with self._http(request, context) as cycle:
            async for status, headers, data in cycle.parts():
                if status:
                    response.status = status
                    response.headers.extend(_headers(headers))
                body += data
        try:
            response.text = body.decode()
        except UnicodeDecodeError:
            response.body = bytes(body)
        return response

    async def StreamHttpRequest(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """As documented in gateway.proto."""
        async with self._http(request.request, context) as cycle:
            async for status, headers, data in cycle.parts():
                yield gateway_pb2.StreamHttpRequestResponse(
                    status=status, headers=_headers(headers), body=data
                )

    async def CallMethod(self, request: Any, context: Any) -> Any:
        """As documented in gateway.proto."""
        async with self._call(request.target, context, stream=False) as exchange:
            frame = await exchange.next()
            await _refuse_failure(frame, context)
            if frame.WhichOneof("frame") != "result":
                raise ProtocolError("the replica's answer is no result")
            value = frame.result.value
        response = gateway_pb2.CallMethodResponse(request_id=exchange.open.request_id)
        if value.WhichOneof("encoding") == "msgpack":
            response.result.CopyFrom(value)
        else:
            response.result_json = value.json.decode()
        return response

    async def StreamMethod(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """As documented in gateway.proto."""
        async with self._call(request.target, context, stream=True) as exchange:
            while True:
                frame = await exchange.next()
                await _refuse_failure(frame, context)
                if frame.WhichOneof("frame") != "item":
                    return
                value = frame.item.value
                if value.WhichOneof("encoding") == "msgpack":
                    yield gateway_pb2.StreamMethodResponse(item=value)
                else:
                    yield gateway_pb2.StreamMethodResponse(item_json=value.json.decode())
                exchange.grant(value.ByteSize())

    async def ListApplications(self, request: Any, context: Any) -> Any:
        """As documented in gateway.proto."""
        snapshot = self._dispatcher.snapshot
        return gateway_pb2.ListApplicationsResponse(
            application_names=sorted(snapshot.applications),
            epoch=snapshot.epoch,
            snapshot_version=snapshot.version,
        )

    async def Healthz(self, request: Any, context: Any) -> Any:
        """As documented in gateway.proto."""
        problem = self._app.healthz()
        if problem is not None:
            raise DeploymentUnavailableError(problem.text)
        return gateway_pb2.HealthzResponse(message="success")

    # --- inside -----------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _http(self, request: Any, context: Any) -> AsyncIterator[GatewayCycle]:
        """Run the request through the application; leaving early is the client's disconnect."""
        try:
            cycle = GatewayCycle(request, context.time_remaining())
        except (UnicodeEncodeError, ValueError) as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"this is no HTTP request: {error}")
        if request_headers.TRACEPARENT not in cycle.headers:
            cycle.headers |= _trace_headers(context)
        contextvars.copy_context().run(self._app.serve, cycle)
        try:
            yield cycle
        finally:
            cycle.disconnect()

    @contextlib.asynccontextmanager
    async def _call(self, target: Any, context: Any, *, stream: bool) -> AsyncIterator[Exchange]:
        """Begin a method call; leaving it early is the client's cancellation."""
        started_s = time.monotonic()
        deployment_id = self._deployment_id(target)
        try:
            arguments = _arguments(target)
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        method_name = target.method_name or "__call__"
        first = replica_pb2.CallFrame(
            open={
                "request_id": target.request_id[:MAX_REQUEST_ID_LENGTH] or new_request_id(),
                "multiplexed_model_id": target.multiplexed_model_id,
                "method": {"method_name": method_name, "arguments": arguments, "stream": stream},
            }
        )
        caller = self._enter(first.open, deployment_id, context)
        deadline = Deadline.after(context.time_remaining())
        exchange = self._dispatcher.open(deployment_id, first, deadline)
        counts, status = self._app.counts, "ERROR"
        counts.grpc_ongoing += 1
        try:
            yield exchange
            status = "OK"
        except asyncio.CancelledError:
            status = "CANCELLED"
            raise
        finally:
            counts.grpc_ongoing -= 1
            exchange.cancel(CancelReason.CANCEL_REASON_CLIENT_DISCONNECTED, self._origin)
            latency_ms = (time.monotonic() - started_s) * 1e3
            method = f"{deployment_id}.{method_name}"
            end_span(caller, "CALL", method, status, cancel_reason(exchange))
            counts.grpc_ended("StreamMethod" if stream else "CallMethod", status, latency_ms, exchange)
            access_log("CALL", method, status, latency_ms, queue_ms=exchange.queue_ms)

    def _enter(self, open_: replica_pb2.Open, deployment_id: DeploymentId, context: Any) -> RequestContext:
        """Tell the log who calls, and the replica to which trace that belongs."""
        headers = _trace_headers(context)
        traceparent, tracestate = tracing.trace_context(
            request_headers.text(headers, request_headers.TRACEPARENT),
            request_headers.text(headers, request_headers.TRACESTATE),
        )
        caller = RequestContext(
            open_.request_id,
            app_name=deployment_id.app_name,
            deployment_name=deployment_id.name,
            traceparent=traceparent,
            tracestate=tracestate,
        )
        if tracing.active is not None:
            begin_span(tracing.active, caller, "CALL")
        open_.traceparent, open_.tracestate = caller.traceparent, caller.tracestate
        request_context.current.set(caller)
        return caller

    def _deployment_id(self, target: Any) -> DeploymentId:
        applications = self._dispatcher.snapshot.applications
        app_name = target.app_name or (next(iter(applications)) if len(applications) == 1 else "default")
        application = applications.get(app_name)
        if application is None:
            known = ", ".join(sorted(applications)) or "none"
            raise ApplicationNotFoundError(
                f"There is no application {app_name!r}; the applications are: {known}."
            )
        return DeploymentId(app_name, target.deployment_name or application.ingress_deployment)


def _trace_headers(context: Any) -> dict[bytes, bytes]:
    """The client's trace context, which gRPC clients send as metadata."""
    names = {name.decode(): name for name in (request_headers.TRACEPARENT, request_headers.TRACESTATE)}
    return {
        names[key]: value.encode()
        for key, value in context.invocation_metadata() or ()
        if key in names and isinstance(value, str)
    }


def _arguments(target: Any) -> Payload:
    """The arguments as they travel to the replica, which answers in the same encoding.

    Raises:
        ValueError: They are pickled, or no JSON of the right shape.
    """
    encoding = target.arguments.WhichOneof("encoding")
    if encoding == "pickle":
        raise ValueError("the gateway takes no pickled arguments; send JSON or MessagePack")
    if encoding is not None:
        payload: Payload = target.arguments
        return payload
    args = _parsed(target.args_json, "args_json", list)
    kwargs = _parsed(target.kwargs_json, "kwargs_json", dict)
    return Payload(json=json.dumps({"args": args, "kwargs": kwargs}).encode())


def _parsed(text: str, name: str, kind: type) -> Any:
    if not text:
        return kind()
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{name} is not JSON: {error}") from None
    if not isinstance(value, kind):
        word = "list" if kind is list else "object"
        raise ValueError(f"{name} must be a JSON {word}, not {text[:80]!r}")
    return value


async def _refuse_failure(frame: replica_pb2.ReplyFrame, context: Any) -> None:
    """End the RPC if the reply is a failure; what is the cluster's own stays inside."""
    if frame.WhichOneof("frame") != "failure":
        return
    info = ErrorInfo()
    info.CopyFrom(frame.failure.error)
    info.traceback, info.pickled_exception = "", b""
    info.message = _cut(info.message)
    kind = BY_REASON.get(info.reason, SlipknotServeException)
    name = f"{info.type_name.removeprefix('builtins.')}: " if info.type_name else ""
    await context.abort(
        kind.grpc_code, _cut(f"{name}{info.message}"), ((ERROR_KEY, info.SerializeToString()),)
    )


def _cut(text: str) -> str:
    return text.encode()[:MAX_DETAILS_BYTES].decode(errors="ignore")


def _headers(flat: Any) -> list[gateway_pb2.HttpHeader]:
    return [
        gateway_pb2.HttpHeader(name=name.decode("latin-1"), value=value.decode("latin-1"))
        for name, value in zip(flat[::2], flat[1::2], strict=True)
    ]
