"""The proxy's application: built-in endpoints, routing, and one exchange for each request.

A request is an `HttpCycle`, not ASGI's scope, `receive` and `send`: most are over without a task of their
own, and it says exactly when the client leaves. WebSockets are plain ASGI.
"""

import asyncio
import json
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from slipknot_core import request_context, tracing
from slipknot_core.deadline import Deadline
from slipknot_core.errors import BackPressureError
from slipknot_core.ids import DeploymentId
from slipknot_core.request_context import RequestContext
from slipknot_core.routing.exchange import Exchange
from slipknot_core.routing.retry import IDEMPOTENT_METHODS
from slipknot_core.routing.route_table import Route, RouteTable
from slipknot_core.routing.snapshot import Snapshot
from slipknot_core.tasks import TaskOwner
from slipknot_proto.v1 import replica_pb2
from slipknot_proto.v1.payload_pb2 import CancelReason

from . import failure_response, request_headers
from .config import ProxyConfig
from .failure_response import FailureResponse
from .forwarded import client_address
from .http_cycle import FIRST_BODY_BYTES, HttpCycle
from .http_request import HttpRequest
from .metrics import ProxyCounts
from .spans import begin_span
from .upload import Upload
from .websocket import WebSocket

logger = logging.getLogger("slipknot.serve")

NOT_POPULATED = FailureResponse(503, "Route table is not populated yet.")
DRAINING = FailureResponse(503, "This node is being drained.")

MAX_LOGGED_PATH_CHARS = 200

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Cancellable(Protocol):
    """A request under way."""

    def cancel(self, reason: CancelReason) -> None:
        """End it."""


class OpenExchange(Protocol):
    """`Dispatcher.open`."""

    def __call__(
        self,
        deployment_id: Any,
        first: replica_pb2.CallFrame,
        deadline: Deadline,
        *,
        repeatable: bool = False,
    ) -> Exchange:
        """Begin an exchange."""


class ProxyApp:
    """Serves requests. `repr` tells the routes and how many requests are under way.

    Args:
        config: The proxy's options.
        open_exchange: Sends a request to a deployment.
        drop: Refuses a request to a deployment whose queue is full.
    """

    def __init__(
        self,
        config: ProxyConfig,
        open_exchange: OpenExchange,
        drop: Callable[[DeploymentId], BackPressureError | None],
    ) -> None:
        self.routes = RouteTable({})
        self.is_draining = False
        self.counts = ProxyCounts()
        self.origin = f"proxy:{config.node_id or 'local'}:{os.getpid()}"
        """Who cancels, if the proxy does."""
        self._config = config
        self._open = open_exchange
        self._drop = drop
        self._has_had_routes = self._has_snapshot = False
        self._tasks = TaskOwner("proxy")
        self._ongoing: set[Cancellable] = set()
        self._idle_waiters: list[asyncio.Future[None]] = []

    def __repr__(self) -> str:
        return f"<ProxyApp {len(self.routes.routes)} routes, {len(self._ongoing)} ongoing>"

    @property
    def ongoing(self) -> int:
        """Requests and WebSockets under way."""
        return len(self._ongoing)

    def on_snapshot(self, snapshot: Snapshot) -> None:
        """Route by `snapshot` from now on."""
        self._has_snapshot = True
        self.routes = RouteTable.from_snapshot(snapshot)
        self._has_had_routes = self._has_had_routes or bool(self.routes.routes)

    def cancel_all(self, reason: CancelReason) -> None:
        """Cancel what is under way."""
        for request in tuple(self._ongoing):
            request.cancel(reason)

    async def idle(self) -> None:
        """Wait until nothing is under way."""
        while self._ongoing:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._idle_waiters.append(waiter)
            await waiter

    async def stop(self) -> None:
        """End the tasks that are left; twice is fine."""
        await self._tasks.stop()

    def healthz(self) -> FailureResponse | None:
        """Why this proxy should get no requests; None if it should."""
        if self.is_draining:
            return DRAINING
        return None if self.routes.routes else NOT_POPULATED

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Serve one WebSocket."""
        await self._websocket(scope, receive, send)

    def serve(self, cycle: HttpCycle) -> None:
        """Answer an HTTP request, now or as the replies of a replica come. Call it in a context of the
        request's own."""
        try:
            self._http(cycle)
        except Exception:
            logger.exception("proxy_failed on a request")
            cycle.fail()

    # --- HTTP ---------------------------------------------------------------------------------------------

    def _http(self, cycle: HttpCycle) -> None:
        scope, headers = cycle.scope, cycle.headers
        cycle.request_id = request_headers.request_id(headers)
        path = scope["path"]
        if path == "/-/healthz":
            _respond(cycle, self.healthz() or FailureResponse(200, "success"))
            return
        if path == "/-/routes":
            self._list_routes(cycle)
            return
        timeout_s = request_headers.timeout_s(headers, self._config.request_timeout_s)
        request = HttpRequest(
            cycle,
            timeout_s=timeout_s,
            origin=self.origin,
            counts=self.counts,
            tasks=self._tasks,
            on_ended=self._ended,
        )
        route = self.routes.match(path)
        context = request.context = self._enter(cycle.request_id, route, request.deadline, headers)
        if route is None:
            request.refuse(self._no_route(path), None, _logged_path(scope))
            return
        if tracing.active is not None:
            begin_span(tracing.active, context, scope["method"])
        if route.unavailable:
            request.refuse(failure_response.app_unavailable(route.app_name), route, path)
            return
        dropped = self._drop(route.ingress)
        if dropped is not None:
            response = failure_response.of_error(
                dropped, request_id=context.request_id, timeout_s=timeout_s, cancel_reason=None
            )
            request.refuse(response, route, path)
            return
        first = _first_frame(context, headers, http=self._http_request(cycle, route))
        repeatable = self._config.retry_idempotent and scope["method"] in IDEMPOTENT_METHODS
        exchange = self._open(route.ingress, first, request.deadline, repeatable=repeatable)
        upload = None if cycle.is_body_taken else Upload(cycle, exchange, self._tasks)
        self._ongoing.add(request)
        request.begin(exchange, upload, route)

    def _ended(self, request: Cancellable) -> None:
        self._ongoing.discard(request)
        if not self._ongoing:
            waiters, self._idle_waiters = self._idle_waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def _list_routes(self, cycle: HttpCycle) -> None:
        if self.is_draining:
            _respond(cycle, DRAINING)
        elif not self._has_had_routes:
            _respond(cycle, NOT_POPULATED)
        else:
            routes = {route.prefix: route.app_name for route in self.routes.routes.values()}
            body = json.dumps(routes, separators=(",", ":")).encode()
            headers = (b"content-type", b"application/json", b"content-length", b"%d" % len(body))
            cycle.start(200, headers, body, complete=True)

    def _http_request(self, cycle: HttpCycle, route: Route) -> dict[str, Any]:
        """The fields of a `replica_pb2.HttpRequest`."""
        fields = self._request_fields(cycle.scope, route, cycle.headers, cycle.request_id)
        fields["method"] = cycle.scope["method"]
        fields["body"] = cycle.take_body(FIRST_BODY_BYTES)
        fields["end_of_body"] = cycle.is_body_taken
        return fields

    # --- WebSocket ----------------------------------------------------------------------------------------

    async def _websocket(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        headers = request_headers.of_interest(scope["headers"])
        request_id = request_headers.request_id(headers)
        socket = WebSocket(
            receive,
            send,
            request_id=request_id,
            handshake_timeout_s=self._config.request_timeout_s,
            timeout_s=request_headers.timeout_s(headers, None),
            origin=self.origin,
            counts=self.counts,
        )
        route = self.routes.match(scope["path"])
        context = socket.context = self._enter(request_id, route, socket.deadline, headers)
        if route is None:
            await socket.refuse(self._no_route(scope["path"]), None, _logged_path(scope))
            return
        if tracing.active is not None:
            begin_span(tracing.active, context, "WS")
        if route.unavailable:
            await socket.refuse(failure_response.app_unavailable(route.app_name), route, scope["path"])
            return
        fields = self._request_fields(scope, route, headers, request_id)
        fields["subprotocols"] = scope["subprotocols"]
        first = _first_frame(context, headers, websocket=fields)
        exchange = self._open(route.ingress, first, socket.deadline)
        self._ongoing.add(socket)
        try:
            await socket.run(exchange, self._tasks, route)
        finally:
            self._ended(socket)

    # --- both ---------------------------------------------------------------------------------------------

    def _no_route(self, path: str) -> FailureResponse:
        """A proxy that has not heard of the controller yet does not know that there is nothing."""
        return failure_response.not_found(path) if self._has_snapshot else NOT_POPULATED

    def _request_fields(
        self, scope: dict[str, Any], route: Route, headers: dict[bytes, bytes], request_id: str
    ) -> dict[str, Any]:
        """The fields that HTTP requests and WebSockets share; handlers find the request id among the headers,
        whoever made it."""
        client, server = client_address(scope), scope["server"] or ("", 0)
        root_path = self._config.root_path
        parts = [part for pair in scope["headers"] for part in pair]
        if request_headers.REQUEST_ID not in headers:
            parts += (request_headers.REQUEST_ID, request_id.encode())
        return {
            "http_version": scope["http_version"],
            "scheme": scope["scheme"],
            "path": root_path + scope["path"],
            "raw_path": root_path.encode() + scope["raw_path"],
            "query_string": scope["query_string"],
            "root_path": self._root_path(route),
            "headers": parts,
            "client_host": client[0],
            "client_port": client[1],
            "server_host": server[0],
            "server_port": server[1] or 0,
        }

    def _root_path(self, route: Route) -> str:
        return self._config.root_path + ("" if route.prefix == "/" else route.prefix)

    def _enter(
        self, request_id: str, route: Route | None, deadline: Deadline, headers: dict[bytes, bytes]
    ) -> RequestContext:
        """Tell the log who we are."""
        context = RequestContext(request_id, deadline=deadline)
        if route is not None:
            context.route, context.app_name = route.prefix, route.app_name
            context.deployment_name = route.ingress.name
        if request_headers.TRACEPARENT in headers:
            context.traceparent, context.tracestate = tracing.trace_context(
                request_headers.text(headers, request_headers.TRACEPARENT),
                request_headers.text(headers, request_headers.TRACESTATE),
            )
        request_context.current.set(context)
        return context


def _first_frame(
    context: RequestContext, headers: dict[bytes, bytes], **request: dict[str, Any]
) -> replica_pb2.CallFrame:
    """The frame with the Open of a request; the whole is made in one go, so that no part is copied."""
    return replica_pb2.CallFrame(
        open={
            "request_id": context.request_id,
            "route": context.route,
            "multiplexed_model_id": request_headers.model_id(headers),
            "session_id": request_headers.text(headers, request_headers.SESSION_ID),
            "traceparent": context.traceparent,
            "tracestate": context.tracestate,
            **request,
        }
    )


def _respond(cycle: HttpCycle, response: FailureResponse) -> None:
    cycle.respond(response.status, response.text.encode(), *response.headers)


def _logged_path(scope: dict[str, Any]) -> str:
    """The path as received, which is one line."""
    path: bytes = scope["raw_path"]
    return path[:MAX_LOGGED_PATH_CHARS].decode("ascii", "replace")
