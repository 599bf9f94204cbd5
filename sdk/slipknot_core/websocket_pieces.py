"""WebSocket messages travel in pieces, so that a large one holds up nobody beside it. Pure.

Invariant: the pieces of a message follow one another; a piece that continues nothing begins a message, and
what was not finished before it is dropped: its sender was cancelled in the middle.
"""

from collections.abc import Iterable, Iterator

from slipknot_proto.v1 import replica_pb2

from .errors import ProtocolError

PIECE_BYTES = 64 * 1024
PIECE_CHARS = PIECE_BYTES // 4
"""A character has at most four bytes."""


def pieces(data: str | bytes) -> Iterable[replica_pb2.WebSocketMessage]:
    """Cut one message."""
    if isinstance(data, str):
        if len(data) <= PIECE_CHARS:
            return (replica_pb2.WebSocketMessage(text=data),)
    elif len(data) <= PIECE_BYTES:
        return (replica_pb2.WebSocketMessage(binary=data),)
    return _cut(data)


def _cut(data: str | bytes) -> Iterator[replica_pb2.WebSocketMessage]:
    step = PIECE_CHARS if isinstance(data, str) else PIECE_BYTES
    for start in range(0, len(data), step):
        part, more = data[start : start + step], start + step < len(data)
        piece = replica_pb2.WebSocketMessage(more=more, continued=start > 0)
        if isinstance(part, str):
            piece.text = part
        else:
            piece.binary = part
        yield piece


class Assembly:
    """Puts messages together. `repr` tells how many pieces wait."""

    def __init__(self) -> None:
        self._parts: list[str | bytes] = []

    def __repr__(self) -> str:
        return f"<Assembly {len(self._parts)} pieces>"

    def add(self, piece: replica_pb2.WebSocketMessage) -> tuple[str | bytes | None, int]:
        """Take a piece; returns the message if this is the last piece of it, and the length of the piece.

        Raises:
            ProtocolError: It continues nothing, or a message of another kind.
        """
        data = piece.binary if piece.WhichOneof("data") == "binary" else piece.text
        size = len(data)
        if not piece.continued:
            self._parts.clear()
            if not piece.more:
                return data, size
        elif not self._parts or type(self._parts[0]) is not type(data):
            raise ProtocolError("a piece of a WebSocket message continues no message of its kind")
        self._parts.append(data)
        if piece.more:
            return None, size
        parts, self._parts = self._parts, []
        return type(data)().join(parts), size  # type: ignore[arg-type]  # all parts are of one kind
