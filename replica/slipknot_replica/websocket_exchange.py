"""A WebSocket on the replica. A client that closes is news for `receive`, not a cancellation; a lost caller
is one.
"""

import asyncio
import enum
from collections import deque
from typing import Any

from slipknot_core.errors import ProtocolError
from slipknot_core.request_context import RequestContext
from slipknot_core.routing.exchange import MESSAGE_COST_BYTES
from slipknot_core.websocket_pieces import Assembly, pieces
from slipknot_proto.v1 import replica_pb2

from .exchange import Replica, ServerExchange, wake
from .http_exchange import Message, address, flat_headers, seen_headers
from .server_stream import ServerStream
from .user_code import matched_route

MESSAGE_CREDIT_BYTES = 1024 * 1024
"""How much the client may send ahead of the handler."""

NORMAL_CLOSURE = 1000
NO_STATUS = 1005
POLICY_STATUS = 403


class Phase(enum.Enum):
    """Where the handshake stands."""

    CONNECTING = "connecting"
    REJECTING = "rejecting"
    OPEN = "open"
    CLOSED = "closed"


class WebSocketExchange(ServerExchange):
    """One WebSocket."""

    error_status = "1011"

    def __init__(self, replica: Replica, open_: replica_pb2.Open, stream: ServerStream) -> None:
        super().__init__(replica, open_, stream)
        self._scope = _scope(open_.websocket, self.request)
        self._phase = Phase.CONNECTING
        self._incoming: deque[tuple[Message, int]] = deque([({"type": "websocket.connect"}, 0)])
        """With what is granted when one is taken."""
        self._assembly = Assembly()
        self._whole = asyncio.Lock()
        """Messages of several tasks of the application do not mix their pieces."""
        self._incoming_waiter: asyncio.Future[None] | None = None
        self._client_has_closed = False
        self._end = replica_pb2.WebSocketClose(code=NO_STATUS)
        """How the socket was closed, by whoever closed it first."""
        self._uncredited = 0
        self._rejection = replica_pb2.WebSocketReject(status=POLICY_STATUS)

    def on_frame(self, kind: str, frame: replica_pb2.CallFrame) -> None:
        """Take a frame of the caller."""
        if kind == "ws_message":
            if self._client_has_closed:
                raise ProtocolError("frame 'ws_message' after 'ws_close'")
            self._on_piece(frame.ws_message)
        elif kind == "ws_close":
            self._client_has_closed = True
            if self._phase is not Phase.CLOSED:
                self._end = frame.ws_close
            wake(self._incoming_waiter)
        else:
            super().on_frame(kind, frame)

    # --- ASGI ---------------------------------------------------------------------------------------

    async def receive(self) -> Message:
        """The next event of the client; after the last one, its disconnect again."""
        while not self._incoming:
            if self._client_has_closed or self._phase is Phase.CLOSED or self.request.is_cancelled:
                return {"type": "websocket.disconnect", "code": self._end.code, "reason": self._end.reason}
            self._incoming_waiter = self._loop.create_future()
            await self._incoming_waiter
        message, cost_bytes = self._incoming.popleft()
        self._grant(cost_bytes)
        return message

    async def send(self, message: Message) -> None:
        """Take an event of the application.

        Raises:
            OSError: The client has gone.
            RuntimeError: The application broke the ASGI protocol.
        """
        kind = message["type"]
        if self.request.is_cancelled or (self._client_has_closed and kind == "websocket.send"):
            raise self._hung_up("the WebSocket client has gone")
        if self._phase is Phase.CONNECTING and kind == "websocket.accept":
            self._accept(message)
        elif self._phase is Phase.CONNECTING and kind == "websocket.close":
            self._reject(self._rejection)
        elif self._phase is Phase.CONNECTING and kind == "websocket.http.response.start":
            self._phase = Phase.REJECTING
            self._rejection.status = message["status"]
            self._rejection.headers[:] = flat_headers(message.get("headers", ()))
        elif self._phase is Phase.REJECTING and kind == "websocket.http.response.body":
            self._rejection.body += message.get("body", b"")
            if not message.get("more_body", False):
                self._reject(self._rejection)
        elif self._phase is Phase.OPEN and kind == "websocket.send":
            await self._send(message)
        elif self._phase is Phase.OPEN and kind == "websocket.close":
            self._finish(message.get("code", NORMAL_CLOSURE), message.get("reason") or "")
        else:
            raise RuntimeError(
                f"ASGI message {kind!r} is not legal while the WebSocket is {self._phase.value}"
            )

    # --- inside -------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        try:
            await self._user_code.handle_websocket(self._scope, self.receive, self.send)
        except Exception:
            if not self._client_has_closed:
                raise
            # A handler that only reads ends like this, with its framework's exception for a closed WebSocket.
        if self._phase in (Phase.CONNECTING, Phase.REJECTING):
            raise RuntimeError("the application returned without accepting or refusing the WebSocket")
        self._finish(NORMAL_CLOSURE, "")

    def _label(self) -> tuple[str, str]:
        return "WS", matched_route(self._scope) or self.request.route

    def _on_cancelled(self) -> None:
        wake(self._incoming_waiter)

    def _on_piece(self, piece: replica_pb2.WebSocketMessage) -> None:
        data, size = self._assembly.add(piece)
        cost_bytes = size + MESSAGE_COST_BYTES
        if data is None:
            self._grant(cost_bytes)  # or a message that is larger than the credit would never be complete
        else:
            kind = "text" if isinstance(data, str) else "bytes"
            self._put({"type": "websocket.receive", kind: data}, cost_bytes)

    def _put(self, message: Message, cost_bytes: int) -> None:
        self._incoming.append((message, cost_bytes))
        wake(self._incoming_waiter)

    def _grant(self, cost_bytes: int) -> None:
        self._uncredited += cost_bytes
        if self._uncredited * 2 >= MESSAGE_CREDIT_BYTES:
            self._reply(replica_pb2.ReplyFrame(credit=replica_pb2.Credit(byte_count=self._uncredited)))
            self._uncredited = 0

    def _accept(self, message: Message) -> None:
        self._phase = Phase.OPEN
        accept = replica_pb2.WebSocketAccept(
            subprotocol=message.get("subprotocol") or "",
            headers=flat_headers(message.get("headers", ())),
            route=matched_route(self._scope),
        )
        self._reply(replica_pb2.ReplyFrame(ws_accept=accept))
        self._reply(replica_pb2.ReplyFrame(credit=replica_pb2.Credit(byte_count=MESSAGE_CREDIT_BYTES)))

    async def _send(self, message: Message) -> None:
        text = message.get("text")
        async with self._whole:
            for piece in pieces(message.get("bytes") or b"" if text is None else text):
                await self._spend(len(piece.text) + len(piece.binary), MESSAGE_COST_BYTES)
                self._reply(replica_pb2.ReplyFrame(ws_message=piece))
        await self._breathe()

    def _reject(self, rejection: replica_pb2.WebSocketReject) -> None:
        self._phase = Phase.CLOSED
        self._status = str(rejection.status)
        rejection.route = matched_route(self._scope)
        self._close(replica_pb2.ReplyFrame(ws_reject=rejection))

    def _finish(self, code: int, reason: str) -> None:
        if self._phase is not Phase.OPEN:
            return
        self._phase = Phase.CLOSED
        self._status = str(code)
        close = replica_pb2.WebSocketClose(code=code, reason=reason)
        if not self._client_has_closed:
            self._end = close
        self._close(replica_pb2.ReplyFrame(ws_close=close))


def _scope(websocket: replica_pb2.WebSocketRequest, request: RequestContext) -> dict[str, Any]:
    return {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": websocket.http_version,
        "scheme": websocket.scheme,
        "path": websocket.path,
        "raw_path": websocket.raw_path,
        "query_string": websocket.query_string,
        "root_path": websocket.root_path,
        "headers": seen_headers(websocket.headers, request),
        "client": address(websocket.client_host, websocket.client_port),
        "server": address(websocket.server_host, websocket.server_port),
        "subprotocols": list(websocket.subprotocols),
        "extensions": {"websocket.http.response": {}},
    }
