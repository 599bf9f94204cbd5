"""The gateway: requests and method calls of programs outside the cluster, over gRPC.

Nothing here reads pickle, and nothing of user code but an exception's type and text goes out.
"""

import asyncio
import json
import logging
from typing import Any

import grpc
import grpc.aio

from slipknot_core.deadline import Deadline
from slipknot_core.errors import (
    BY_REASON,
    ApplicationNotFoundError,
    DeploymentUnavailableError,
    SerializationError,
    SlipknotServeException,
)
from slipknot_core.failures import USER_EXCEPTION, to_error_info
from slipknot_core.ids import DeploymentId
from slipknot_core.routing.dispatcher import Dispatcher
from slipknot_core.routing.exchange import Exchange
from slipknot_core.rpc.channel import ERROR_KEY
from slipknot_core.rpc.server import add_health_and_reflection
from slipknot_core.settings import rpc_settings
from slipknot_proto.v1 import gateway_pb2, gateway_pb2_grpc, replica_pb2
from slipknot_proto.v1.payload_pb2 import CancelReason, ErrorInfo, Payload

from . import request_headers
from .app import ProxyApp
from .gateway_http import GatewayCycle
from .http_cycle import EXTENSION

logger = logging.getLogger("slipknot.serve")

SERVICE = "slipknot.v1.GatewayService"

NO_DEADLINE_S = 1e8
"""A gRPC deadline further away is none."""
MAX_MESSAGE_BYTES = 1500
"""Longer texts of errors are cut: gRPC limits what travels beside a status."""


def add_gateway(server: grpc.aio.Server, dispatcher: Dispatcher, app: ProxyApp) -> None:
    """Serve the gateway, health and reflection on `server`, which has not been started."""
    gateway_pb2_grpc.add_GatewayServiceServicer_to_server(Gateway(dispatcher, app), server)
    add_health_and_reflection(server, [SERVICE])


class Gateway(gateway_pb2_grpc.GatewayServiceServicer):
    """GatewayService. `repr` tells how many HTTP-like requests run."""

    def __init__(self, dispatcher: Dispatcher, app: ProxyApp) -> None:
        self._dispatcher = dispatcher
        self._app = app
        self._requests: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Gateway {len(self._requests)} requests>"

    # --- HTTP-like ----------------------------------------------------------------------------------------

    async def SendHttpRequest(
        self, request: gateway_pb2.SendHttpRequestRequest, context: Any
    ) -> gateway_pb2.SendHttpRequestResponse:
        """Answer with the whole response."""
        head: gateway_pb2.StreamHttpRequestResponse | None = None
        body, limit = bytearray(), rpc_settings().max_message_bytes

        async def take(message: gateway_pb2.StreamHttpRequestResponse) -> None:
            nonlocal head
            head = message if head is None else head
            body.extend(message.body)
            if len(body) > limit:
                text = f"the response is larger than {limit} bytes; use StreamHttpRequest"
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, text)

        await self._run_http(request, context, take)
        assert head is not None
        response = gateway_pb2.SendHttpRequestResponse(status=head.status, headers=head.headers)
        try:
            response.text = body.decode()
        except UnicodeDecodeError:
            response.body = bytes(body)
        return response

    async def StreamHttpRequest(self, request: gateway_pb2.StreamHttpRequestRequest, context: Any) -> None:
        """Answer chunk for chunk."""
        await self._run_http(request.request, context, context.write)

    async def _run_http(self, request: gateway_pb2.SendHttpRequestRequest, context: Any, take: Any) -> None:
        """Run one request through the proxy's application and hand over what it answers."""
        left_s = _left_s(context)
        deadline = Deadline.after(left_s)
        try:
            cycle = GatewayCycle(request, peer=context.peer(), left_s=left_s)
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            raise
        cycle.scope["extensions"][EXTENSION] = cycle
        # A task of its own: a request may ask to go on without its client.
        task = asyncio.get_running_loop().create_task(cycle.run(self._app), name="gateway request")
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)
        try:
            while (message := await cycle.next()) is not None:
                if message.status and deadline.has_expired():
                    break
                await take(message)
        finally:
            cycle.disconnect()
        if deadline.has_expired() and not (cycle.response_complete and message is None):
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, f"Request {cycle.request_id} timed out.")
        if cycle.is_cut:
            await context.abort(
                grpc.StatusCode.INTERNAL, f"the response to request {cycle.request_id} is not complete"
            )

    # --- method calls -------------------------------------------------------------------------------------

    async def CallMethod(
        self, request: gateway_pb2.CallMethodRequest, context: Any
    ) -> gateway_pb2.CallMethodResponse:
        """Call a method and answer with its result."""
        exchange = await self._open(request.target, context, stream=False)
        try:
            frame = await exchange.next()
            value = await _value_of(frame, "result", context)
        except SlipknotServeException as error:
            raise await _abort(context, to_error_info(error, with_pickle=False)) from None
        finally:
            exchange.cancel(CancelReason.CANCEL_REASON_CLIENT_DISCONNECTED, self._app.origin)
        response = gateway_pb2.CallMethodResponse(request_id=exchange.open.request_id)
        if value.WhichOneof("encoding") == "json":
            response.result_json = value.json.decode()
        else:
            response.result.CopyFrom(value)
        return response

    async def StreamMethod(self, request: gateway_pb2.StreamMethodRequest, context: Any) -> None:
        """Call a generator method and answer item for item."""
        exchange = await self._open(request.target, context, stream=True)
        try:
            while (frame := await exchange.next()).WhichOneof("frame") != "end":
                value = await _value_of(frame, "item", context)
                if value.WhichOneof("encoding") == "json":
                    item = gateway_pb2.StreamMethodResponse(item_json=value.json.decode())
                else:
                    item = gateway_pb2.StreamMethodResponse(item=value)
                await context.write(item)
                exchange.grant(value.ByteSize())
        except SlipknotServeException as error:
            raise await _abort(context, to_error_info(error, with_pickle=False)) from None
        finally:
            exchange.cancel(CancelReason.CANCEL_REASON_CLIENT_DISCONNECTED, self._app.origin)

    async def _open(self, target: gateway_pb2.MethodTarget, context: Any, *, stream: bool) -> Exchange:
        try:
            deployment_id = self._find(target)
            arguments = _arguments(target)
        except SlipknotServeException as error:
            raise await _abort(context, to_error_info(error, with_pickle=False)) from None
        open_ = replica_pb2.Open(
            request_id=_request_id(target),
            multiplexed_model_id=target.multiplexed_model_id,
            method=replica_pb2.MethodCall(
                method_name=target.method_name or "__call__", arguments=arguments, stream=stream
            ),
        )
        return self._dispatcher.open(deployment_id, open_, Deadline.after(_left_s(context)))

    def _find(self, target: gateway_pb2.MethodTarget) -> DeploymentId:
        """Whom to call; unlike members of the cluster, strangers do not wait for an application to come."""
        snapshot = self._dispatcher.snapshot
        applications = snapshot.applications
        if snapshot.epoch == 0:
            raise DeploymentUnavailableError("This proxy does not know any application yet.")
        name = target.app_name or (next(iter(applications)) if len(applications) == 1 else "default")
        application = applications.get(name)
        if application is None:
            known = ", ".join(sorted(applications)) or "none"
            raise ApplicationNotFoundError(f"There is no application {name!r}; the applications: {known}.")
        deployment = target.deployment_name or application.ingress_deployment
        if deployment not in application.deployments and not application.unavailable:
            known = ", ".join(sorted(application.deployments)) or "none"
            raise ApplicationNotFoundError(
                f"Application {name!r} has no deployment {deployment!r}; its deployments: {known}."
            )
        return DeploymentId(name, deployment)

    # --- about the cluster --------------------------------------------------------------------------------

    async def ListApplications(
        self, request: gateway_pb2.ListApplicationsRequest, context: Any
    ) -> gateway_pb2.ListApplicationsResponse:
        """Name the applications of the present snapshot."""
        snapshot = self._dispatcher.snapshot
        return gateway_pb2.ListApplicationsResponse(
            application_names=sorted(snapshot.applications),
            epoch=snapshot.epoch,
            snapshot_version=snapshot.version,
        )

    async def Healthz(self, request: gateway_pb2.HealthzRequest, context: Any) -> gateway_pb2.HealthzResponse:
        """Say "success", or UNAVAILABLE and why."""
        refusal = self._app.healthz()
        if refusal is not None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, refusal.text)
        return gateway_pb2.HealthzResponse(message="success")


def _left_s(context: Any) -> float | None:
    left_s: float | None = context.time_remaining()
    return None if left_s is None or left_s > NO_DEADLINE_S else left_s


def _request_id(target: gateway_pb2.MethodTarget) -> str:
    wish = target.request_id.encode("latin-1", "ignore")
    return request_headers.request_id({request_headers.REQUEST_ID: wish} if wish else {})


def _arguments(target: gateway_pb2.MethodTarget) -> Payload:
    """The arguments as a payload; the replica reads what is inside."""
    encoding = target.arguments.WhichOneof("encoding")
    if encoding == "pickle":
        raise SerializationError("the gateway does not read pickle; send json or msgpack")
    if encoding is not None:
        if target.args_json or target.kwargs_json:
            raise SerializationError("send either args_json and kwargs_json, or arguments; not both")
        return target.arguments
    args = _json_of(target.args_json or "[]", list, "args_json must be a JSON list")
    kwargs = _json_of(target.kwargs_json or "{}", dict, "kwargs_json must be a JSON object")
    return Payload(json=f'{{"args":{args},"kwargs":{kwargs}}}'.encode())


def _json_of(text: str, kind: type, rule: str) -> str:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SerializationError(f"{rule}: {error}") from None
    if not isinstance(value, kind):
        raise SerializationError(f"{rule}, not {type(value).__name__}")
    return text


async def _value_of(frame: replica_pb2.ReplyFrame, expected: str, context: Any) -> Payload:
    kind = frame.WhichOneof("frame")
    if kind == "failure":
        raise await _abort(context, frame.failure.error)
    if kind != expected:
        logger.error("replica_broke_protocol: %s in the answer to a method call", kind)
        raise await _abort(context, ErrorInfo(reason="INTERNAL", message="Internal Server Error"))
    return frame.result.value if kind == "result" else frame.item.value


async def _abort(context: Any, info: ErrorInfo) -> Exception:
    """End the RPC with what may be known outside; never returns."""
    public = ErrorInfo(
        reason=info.reason,
        message=_bounded(info.message),
        type_name=_bounded(info.type_name),
        http_status=info.http_status,
        retry_after_s=info.retry_after_s if info.HasField("retry_after_s") else None,
    )
    if info.reason == USER_EXCEPTION:
        code = grpc.StatusCode.INTERNAL
        details = f"{public.type_name.rpartition('.')[2]}: {public.message}"
    else:
        code = BY_REASON.get(info.reason, SlipknotServeException).grpc_code
        details = public.message
    await context.abort(code, details, ((ERROR_KEY, public.SerializeToString()),))
    return RuntimeError("an aborted RPC went on")


def _bounded(text: str) -> str:
    data = text.encode()
    return (
        text if len(data) <= MAX_MESSAGE_BYTES else data[:MAX_MESSAGE_BYTES].decode("utf-8", "ignore") + "…"
    )
