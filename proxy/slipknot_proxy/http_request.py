"""One HTTP request: from the client's connection through an exchange with a replica, and back.

Replies of the replica are passed on as they come, by a call from the exchange, without a task; there is one
only while the client does not read as fast as they come, and one that sends a request body that is not
complete when the request begins. The client's leaving needs no listener: the connection calls back.
"""

import asyncio
import contextvars
import logging
import time
from collections.abc import Callable

from slipknot_core.deadline import Deadline
from slipknot_core.errors import SlipknotServeException
from slipknot_core.logs import access_log
from slipknot_core.request_context import RequestContext
from slipknot_core.routing.exchange import Exchange
from slipknot_core.routing.route_table import Route
from slipknot_core.tasks import TaskOwner
from slipknot_proto.v1 import replica_pb2
from slipknot_proto.v1.payload_pb2 import CancelReason

from . import failure_response, request_headers
from .failure_response import FailureResponse
from .http_cycle import CLIENT_CLOSED, HttpCycle
from .metrics import NO_MATCH, ProxyCounts, cancel_reason
from .spans import end_span
from .upload import Upload

logger = logging.getLogger("slipknot.serve")

TOGETHER_BYTES = 64 * 1024
"""Chunks of a response that are there together are written together, up to this."""


class HttpRequest:
    """One request under way. `repr` tells where it stands.

    Args:
        cycle: The client's side.
        timeout_s: From now to the end of the response; None: no limit.
        origin: Who cancels, if somebody has to.
        counts: Is told how it ended.
        tasks: Owner of the task that waits for a slow client.
        on_ended: Called when a request that has begun is over.
    """

    def __init__(
        self,
        cycle: HttpCycle,
        *,
        timeout_s: float | None,
        origin: str,
        counts: ProxyCounts,
        tasks: TaskOwner,
        on_ended: "Callable[[HttpRequest], None]",
    ) -> None:
        self.deadline = Deadline.after(timeout_s)
        self._cycle = cycle
        self._timeout_s = timeout_s
        self._origin = origin
        self.context: RequestContext | None = None
        """What the log and the next hop know of it."""
        self._counts = counts
        self._tasks = tasks
        self._on_ended = on_ended
        self._upload: Upload | None = None
        self._match: Route | None = None
        self._started_s = time.monotonic()
        self._exchange: Exchange | None = None
        self._route = ""
        self._status = 0
        self._has_begun = False
        """The first reply came."""
        self._written: tuple[int, int] | None = None
        """Bytes and chunks that are not granted yet: the client may not have taken them."""

    def __repr__(self) -> str:
        return f"<HttpRequest {self._cycle.request_id}: {self._exchange}>"

    def refuse(self, response: FailureResponse, route: Route | None, path: str) -> None:
        """Answer without asking a replica; the log names the route, or the path if there is none."""
        self._match, self._route = route, path if route is None else route.prefix
        self._fail(response)
        self._log()

    def begin(self, exchange: Exchange, upload: Upload | None, route: Route) -> None:
        """Answer the client as the replies come.

        Args:
            exchange: Just opened.
            upload: Sends the rest of the body; None: Open carried it all.
            route: For the log its prefix, replaced by the template that the application matched.
        """
        self._exchange, self._upload = exchange, upload
        self._match, self._route = route, route.prefix
        self._cycle.on_disconnect = self._on_disconnect
        self._log_context = contextvars.copy_context()
        self._advance()

    def cancel(self, reason: CancelReason) -> None:
        """End the request: the client gets an error, or the end of a response that has begun is missing."""
        if self._exchange is not None:
            self._exchange.cancel(reason, self._origin)

    # --- inside -------------------------------------------------------------------------------------------

    def _on_ready(self) -> None:
        self._log_context.run(self._advance)

    def _advance(self) -> None:
        """Pass on what is there, and see to what comes next: more, the end, or a client that has to read."""
        exchange = self._exchange
        assert exchange is not None
        exchange.on_ready = None  # what we do may end the exchange
        try:
            is_over = self._pass_on(exchange)
        except Exception as error:  # noqa: BLE001 - all of them are answered and logged
            self._on_failure(error)
            is_over = True
        if is_over:
            self._end()
        elif self._has_begun and self._cycle.is_write_paused:
            self._tasks.spawn(self._wait_for_client(), "client")
        else:
            exchange.on_ready = self._on_ready

    async def _wait_for_client(self) -> None:
        try:
            await self._cycle.drain(self.deadline)
        except TimeoutError as error:
            self._on_failure(error)
            self._end()
        except asyncio.CancelledError:  # the proxy ends
            self._end()
            raise
        else:
            self._advance()

    def _pass_on(self, exchange: Exchange) -> bool:
        """Write what is there, as far as the client keeps up; True: nothing follows."""
        if not self._has_begun:
            if not exchange.is_ready:
                return False
            self._has_begun = True
            frame = exchange.try_next()
            if frame is None:
                self._on_error(exchange.error)
                return True
            if self._start_response(frame):
                return True
            self._written = len(frame.response_start.body), 1
        while not self._cycle.is_write_paused:
            if self._written is not None:
                exchange.grant(*self._written)
                self._written = None
            if not exchange.is_ready:
                break
            bodies, last = exchange.take_body(TOGETHER_BYTES)
            if last is not None:
                self._end_response(bodies, last)
                return True
            if not bodies:
                self._on_error(exchange.error)
                return True
            self._cycle.write(bodies, complete=False)
            self._written = sum(map(len, bodies)), len(bodies)
        return False

    def _start_response(self, frame: replica_pb2.ReplyFrame) -> bool:
        """Begin the response with the first reply; False: it goes on."""
        kind = frame.WhichOneof("frame")
        if kind == "failure":
            self._route = frame.failure.route or self._route
            self._fail(self._failure_response(frame))
            return True
        if kind != "response_start":
            logger.error("replica_broke_protocol: %s begins the answer to an HTTP request", kind)
            self._fail(failure_response.INTERNAL_ERROR)
            return True
        start = frame.response_start
        self._status = start.status
        self._route = start.route or self._route
        is_complete = start.end_of_body
        self._cycle.start(start.status, start.headers, start.body, complete=is_complete)
        return is_complete

    def _end_response(self, bodies: list[bytes], last: replica_pb2.ReplyFrame) -> None:
        """End the response with the last reply, or cut it if that is no end of a body."""
        is_complete = last.WhichOneof("frame") == "body"
        if is_complete:
            bodies.append(last.body.data)
        self._cycle.write(bodies, complete=is_complete)
        if not is_complete:
            self._cycle.cut()

    def _end(self) -> None:
        assert self._exchange is not None
        self._cycle.on_disconnect = None
        # A no-op unless we failed above.
        self._exchange.cancel(CancelReason.CANCEL_REASON_REQUESTED, self._origin)
        if self._upload is not None:
            self._upload.stop()
        self._log()
        self._on_ended(self)

    def _on_failure(self, error: Exception) -> None:
        """Something prevents the response."""
        assert self._exchange is not None
        match error:
            case SlipknotServeException():
                self._on_error(error)
            case TimeoutError():
                self._exchange.cancel(CancelReason.CANCEL_REASON_DEADLINE_EXCEEDED, self._origin)
                self._cycle.cut()
            case ValueError():
                logger.error("response_refused %s", error)
                self._give_up()
            case _:
                logger.exception("proxy_failed on a request")
                self._give_up()

    def _give_up(self) -> None:
        self._status = 500
        self._cycle.fail()

    def _failure_response(self, frame: replica_pb2.ReplyFrame) -> FailureResponse:
        return failure_response.of_failure(
            frame.failure.error, request_id=self._cycle.request_id, timeout_s=self._timeout_s
        )

    def _on_error(self, error: Exception | None) -> None:
        assert self._exchange is not None and error is not None
        if self._cycle.disconnected:
            return
        response = failure_response.of_error(
            error,
            request_id=self._cycle.request_id,
            timeout_s=self._timeout_s,
            cancel_reason=self._exchange.cancel_reason,
        )
        if response is failure_response.INTERNAL_ERROR:
            logger.error("request_failed %s: %s", type(error).__name__, error)
        self._fail(response)

    def _fail(self, response: FailureResponse) -> None:
        self._status = response.status
        if self._cycle.response_started:
            self._cycle.cut()
        else:
            self._cycle.respond(response.status, response.text.encode(), *response.headers)

    def _on_disconnect(self) -> None:
        cycle = self._cycle
        # A request that goes on without its client must at least be complete.
        if request_headers.keeps_on_disconnect(cycle.headers) and cycle.is_body_taken:
            return
        if cycle.end_status == CLIENT_CLOSED:
            text = "Client for request %s disconnected, cancelling request."
            # For the log only: what `cancel` calls enters the context itself.
            self._log_context.run(logger.info, text, cycle.request_id)
        self._status = cycle.end_status
        self.cancel(CancelReason.CANCEL_REASON_CLIENT_DISCONNECTED)

    def _log(self) -> None:
        latency_ms = (time.monotonic() - self._started_s) * 1e3
        queue_ms = 0.0 if self._exchange is None else self._exchange.queue_ms
        reason, route, method = cancel_reason(self._exchange), self._match, self._cycle.scope["method"]
        match = NO_MATCH if route is None else (self._route, route.app_name, route.ingress.name)
        if self.context is not None:
            end_span(self.context, method, self._route, self._status, reason)
        self._counts.http_ended(method, self._status, latency_ms, match, reason)
        access_log(
            method,
            self._route,
            self._status,
            latency_ms,
            queue_ms=queue_ms,
            run_ms=latency_ms - queue_ms,
            cancel_reason=reason,
        )
