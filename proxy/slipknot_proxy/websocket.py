"""One WebSocket: between a client (plain ASGI) and an exchange with a replica.

Rules:
- the client's messages go to the replica in one task, the replica's to the client in another, each with its
  own credit;
- a client that closes is news for the handler, which may go on; only before the handshake is complete, while
  nobody could tell the handler, does it cancel the exchange;
- a handler or a replica that fails ends the WebSocket with 1011, or the handshake with an HTTP error;
- the configured timeout is for the handshake; an established WebSocket has a deadline only if its client
  asked for one.
"""

import asyncio
import itertools
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from slipknot_core.deadline import Deadline
from slipknot_core.errors import RequestTimeoutError, SlipknotServeException
from slipknot_core.logs import access_log
from slipknot_core.request_context import RequestContext
from slipknot_core.routing.exchange import MESSAGE_COST_BYTES, Exchange, State
from slipknot_core.routing.route_table import Route
from slipknot_core.tasks import TaskOwner
from slipknot_core.websocket_pieces import Assembly, pieces
from slipknot_proto.v1 import replica_pb2
from slipknot_proto.v1.payload_pb2 import CancelReason

from . import failure_response
from .failure_response import FailureResponse
from .metrics import NO_MATCH, ProxyCounts, cancel_reason
from .spans import end_span

logger = logging.getLogger("slipknot.serve")

NORMAL = 1000
NO_STATUS = 1005
SERVER_ERROR = 1011
GOING_AWAY = 1001

MESSAGES_A_TURN = 16
"""After so many messages that were there already, others on the loop have their turn."""

MAX_REASON_BYTES = 123
"""Room for a reason in a close frame."""

_LIBRARY_CODES = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014})


class WebSocket:
    """One WebSocket under way. `repr` tells where it stands.

    Args:
        receive: From the client.
        send: To the client.
        request_id: Goes back with the handshake.
        handshake_timeout_s: How long the handler may take to accept; None: as long as it likes.
        timeout_s: For the whole WebSocket; None: no limit.
        origin: Who cancels, if somebody has to.
        counts: Is told how it ended.
    """

    def __init__(
        self,
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
        *,
        request_id: str,
        handshake_timeout_s: float | None,
        timeout_s: float | None,
        origin: str,
        counts: ProxyCounts,
    ) -> None:
        self.deadline = Deadline.after(timeout_s)
        self._receive = receive
        self._send_to_client = send
        self._request_id = request_id
        self._handshake_timeout_s = timeout_s or handshake_timeout_s
        self._timeout_s = timeout_s
        self._origin = origin
        self.context: RequestContext | None = None
        """What the log and the next hop know of it."""
        self._counts = counts
        self._match: Route | None = None
        self._route = ""
        self._started_s = time.monotonic()
        self._exchange: Exchange | None = None
        self._assembly = Assembly()
        self._is_accepted = False
        self._client_has_left = False
        self._status = 0

    def __repr__(self) -> str:
        return f"<WebSocket {self._request_id}: {self._exchange}>"

    async def refuse(self, response: FailureResponse, route: Route | None, path: str) -> None:
        """Answer the handshake without asking a replica; the log names the route, or the path if there is
        none.
        """
        self._match, self._route = route, path if route is None else route.prefix
        await self._receive()
        await self._deny(response)
        self._log()

    async def run(self, exchange: Exchange, tasks: TaskOwner, route: Route) -> None:
        """Carry messages both ways until the exchange is over."""
        self._exchange = exchange
        self._match, self._route = route, route.prefix
        await self._receive()  # "websocket.connect"
        reader = tasks.spawn(self._read_client(exchange), f"websocket {self._request_id}")
        try:
            async with asyncio.timeout(self._handshake_timeout_s):
                frame = await exchange.next()
            await self._answer(exchange, frame)
        except TimeoutError as error:  # ours, or the exchange's deadline, which is one too
            exchange.cancel(CancelReason.CANCEL_REASON_DEADLINE_EXCEEDED, self._origin)
            timed_out = error if isinstance(error, RequestTimeoutError) else RequestTimeoutError()
            await self._on_error(exchange, timed_out)
        except SlipknotServeException as error:
            await self._on_error(exchange, error)
        finally:
            exchange.cancel(
                CancelReason.CANCEL_REASON_REQUESTED, self._origin
            )  # a no-op unless we failed above
            reader.cancel()
            self._log()

    def cancel(self, reason: CancelReason) -> None:
        """End the WebSocket."""
        if self._exchange is not None:
            self._exchange.cancel(reason, self._origin)

    # --- client to replica --------------------------------------------------------------------------------

    async def _read_client(self, exchange: Exchange) -> None:
        while not exchange.closed:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                await self._on_client_closed(exchange, message)
                return
            text = message.get("text")
            for piece in pieces(message["bytes"] if text is None else text):
                await exchange.send_ws(piece)

    async def _on_client_closed(self, exchange: Exchange, message: dict[str, Any]) -> None:
        code = message.get("code") or NO_STATUS
        if exchange.closed:
            return
        self._client_has_left = True
        self._status = NO_STATUS if code == 1006 else code
        if exchange.state is State.ADMITTED:
            await exchange.send_ws_close(self._status, message.get("reason") or "")
        else:
            exchange.cancel(CancelReason.CANCEL_REASON_CLIENT_DISCONNECTED, self._origin)

    # --- replica to client --------------------------------------------------------------------------------

    async def _answer(self, exchange: Exchange, frame: replica_pb2.ReplyFrame) -> None:
        for turn in itertools.count(1):
            if turn % MESSAGES_A_TURN == 0:
                await asyncio.sleep(0)
            match frame.WhichOneof("frame"):
                case "ws_accept":
                    await self._accept(frame.ws_accept)
                case "ws_message":
                    exchange.grant(await self._pass_on(frame.ws_message), cost_bytes=MESSAGE_COST_BYTES)
                case "ws_close":
                    await self._close(frame.ws_close.code, frame.ws_close.reason)
                    return
                case "ws_reject":
                    await self._reject(frame.ws_reject)
                    return
                case "failure":
                    self._route = frame.failure.route or self._route
                    await self._fail(
                        failure_response.of_failure(
                            frame.failure.error, request_id=self._request_id, timeout_s=self._timeout_s
                        )
                    )
                    return
                case kind:
                    logger.error("replica_broke_protocol: %s answers a WebSocket", kind)
                    await self._fail(failure_response.INTERNAL_ERROR)
                    return
            frame = exchange.try_next() or await exchange.next()

    async def _accept(self, accept: replica_pb2.WebSocketAccept) -> None:
        self._is_accepted = True
        self._route = accept.route or self._route
        headers = [*_pairs(accept.headers), (b"x-request-id", self._request_id.encode("latin-1"))]
        await self._send(
            {"type": "websocket.accept", "subprotocol": accept.subprotocol or None, "headers": headers}
        )

    async def _pass_on(self, piece: replica_pb2.WebSocketMessage) -> int:
        data, size = self._assembly.add(piece)
        if isinstance(data, str):
            await self._send({"type": "websocket.send", "text": data})
        elif data is not None:
            await self._send({"type": "websocket.send", "bytes": data})
        return size

    async def _close(self, code: int, reason: str) -> None:
        if self._client_has_left:
            return
        self._status = code if code in _LIBRARY_CODES or 3000 <= code <= 4999 else NORMAL
        reason = reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore")
        await self._send({"type": "websocket.close", "code": self._status, "reason": reason})

    async def _reject(self, reject: replica_pb2.WebSocketReject) -> None:
        self._status = reject.status or 403
        self._route = reject.route or self._route
        await self._send_denial(self._status, _pairs(reject.headers), reject.body)

    async def _deny(self, response: FailureResponse) -> None:
        flat = (b"content-type", b"text/plain; charset=utf-8", *response.headers)
        self._status = response.status
        await self._send_denial(response.status, _pairs(flat), response.text.encode())

    async def _send_denial(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        headers.append((b"x-request-id", self._request_id.encode("latin-1")))
        await self._send({"type": "websocket.http.response.start", "status": status, "headers": headers})
        await self._send({"type": "websocket.http.response.body", "body": body})

    async def _fail(self, response: FailureResponse) -> None:
        if self._is_accepted:
            await self._close(SERVER_ERROR, "" if response.status == 500 else response.text)
        else:
            await self._deny(response)

    async def _on_error(self, exchange: Exchange, error: SlipknotServeException) -> None:
        if self._client_has_left:
            return
        reason = exchange.cancel_reason
        if self._is_accepted and reason == CancelReason.CANCEL_REASON_DRAIN_TIMEOUT:
            await self._close(GOING_AWAY, "the server is shutting down")
            return
        timeout_s = self._timeout_s if self._is_accepted else self._handshake_timeout_s
        response = failure_response.of_error(
            error, request_id=self._request_id, timeout_s=timeout_s, cancel_reason=reason
        )
        if response is failure_response.INTERNAL_ERROR:
            logger.error("request_failed %s: %s", type(error).__name__, error)
        await self._fail(response)

    async def _send(self, message: dict[str, Any]) -> None:
        """To the client, unless it has left; the handler learns of that from `_read_client`."""
        if not self._client_has_left:
            try:
                await self._send_to_client(message)
            except OSError:
                logger.debug("the WebSocket client left while %s was on its way", message["type"])

    def _log(self) -> None:
        exchange, route, reason = self._exchange, self._match, cancel_reason(self._exchange)
        duration_ms = (time.monotonic() - self._started_s) * 1e3
        match = NO_MATCH if route is None else (self._route, route.app_name, route.ingress.name)
        if self.context is not None:
            end_span(self.context, "WS", self._route, self._status, reason)
        self._counts.websocket_ended(self._status, duration_ms, match, reason)
        access_log(
            "WS",
            self._route,
            self._status,
            duration_ms,
            queue_ms=0 if exchange is None else exchange.queue_ms,
            cancel_reason=reason,
        )


def _pairs(flat: Any) -> list[tuple[bytes, bytes]]:
    """Name, value, name, value … as pairs, without a request id: that is ours."""
    return [
        (name, value) for name, value in zip(flat[::2], flat[1::2], strict=True) if name != b"x-request-id"
    ]
