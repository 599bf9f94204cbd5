"""The gRPC messages that carry frames, put together from the bytes of the frames. Pure.

protobuf would copy every frame into the message, and all of it once more into bytes, which is most of what
a large body costs. What is written here is what protobuf writes; see docs/decisions/0032.
"""

from typing import Final

from slipknot_proto.v1 import replica_pb2

MAX_FRAMES = 128
MAX_MESSAGE_BYTES = 64 * 1024
"""Frames travel in one message of a session up to so many and so much, so that none waits for a very large
one to be put together, and so that one that waits for a slow reader keeps little else in memory: a message is
freed as a whole.
"""

Buffer = bytes | bytearray | memoryview
"""What a chunk of a body may be until it is written; its length is that in bytes."""


def _varint(number: int) -> bytes:
    """`number`, which is not negative, as protobuf writes it: seven bits a byte, the lowest first."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


_LENGTH_DELIMITED = 2
_KNOWN: Final = tuple(map(_varint, range(1024)))
"""Most lengths and numbers of streams are small."""


def _number(number: int) -> bytes:
    return _KNOWN[number] if number < 1024 else _varint(number)


def _tag(message: type, field: str) -> bytes:
    """What stands before the length of a field of bytes or messages."""
    number = message.DESCRIPTOR.fields_by_name[field].number  # type: ignore[attr-defined]
    return _varint(number << 3 | _LENGTH_DELIMITED)


_CALL_FRAMES = _tag(replica_pb2.CallRequest, "frames")
_SESSION_IDS = _tag(replica_pb2.SessionRequest, "stream_ids")
_SESSION_FRAMES = _tag(replica_pb2.SessionRequest, "frames")
_REQUEST_BODY = _tag(replica_pb2.CallFrame, "body")
_RESPONSE_BODY = _tag(replica_pb2.ReplyFrame, "body")
_DATA = _tag(replica_pb2.BodyChunk, "data")
_MORE = _tag(replica_pb2.BodyChunk, "more")
_END_OF_BODY = replica_pb2.BodyChunk(end_of_body=True).SerializeToString()


class BodyFrame:
    """A frame with a BodyChunk, of a CallFrame or of a ReplyFrame, that takes its data without a copy.

    Args:
        is_reply: It is a ReplyFrame.
        chunks: At least one; only the first may be empty, and only if it is the last of the body.
        end_of_body: Nothing of the body follows.
    """

    __slots__ = ("_chunks", "_end_of_body", "_tag")

    def __init__(self, *, is_reply: bool, chunks: list[Buffer], end_of_body: bool = False) -> None:
        self._tag = _RESPONSE_BODY if is_reply else _REQUEST_BODY
        self._chunks = chunks
        self._end_of_body = end_of_body

    def add(self, chunk: Buffer) -> None:
        """Let a chunk that is not empty travel behind the others."""
        self._chunks.append(chunk)

    def parts(self) -> list[Buffer]:
        """Its bytes, in pieces."""
        tag = _DATA
        parts: list[Buffer] = []
        for chunk in self._chunks:
            parts += (tag, _number(len(chunk)), chunk)
            tag = _MORE
        if self._end_of_body:
            parts.append(_END_OF_BODY)
        return [self._tag, _number(sum(map(len, parts))), *parts]


CallFrame = replica_pb2.CallFrame | BodyFrame
ReplyFrame = replica_pb2.ReplyFrame | BodyFrame
Frame = CallFrame | ReplyFrame


def is_open(frame: Frame) -> bool:
    """It begins an exchange."""
    return isinstance(frame, replica_pb2.CallFrame) and frame.HasField("open")


def call_message(frames: list[Frame]) -> bytes:
    """A CallRequest, or a CallResponse: both look the same."""
    parts: list[Buffer] = []
    for frame in frames:
        pieces = _parts(frame)
        parts += (_CALL_FRAMES, _number(sum(map(len, pieces))), *pieces)
    return b"".join(parts)


def session_message(posted: list[tuple[int, Frame]]) -> bytes:
    """Take what should travel in the next message from the beginning of `posted`, which is not empty.

    Returns:
        A SessionRequest, or a SessionResponse: both look the same.
    """
    ids: list[bytes] = []
    parts: list[Buffer] = [b""]
    size = 0
    for stream_id, frame in posted[:MAX_FRAMES]:
        pieces = _parts(frame)
        length = sum(map(len, pieces))
        size += length
        if ids and size > MAX_MESSAGE_BYTES:
            break
        ids.append(_number(stream_id))
        parts += (_SESSION_FRAMES, _number(length), *pieces)
    del posted[: len(ids)]
    packed = b"".join(ids)
    parts[0] = b"".join((_SESSION_IDS, _number(len(packed)), packed))
    return b"".join(parts)


def _parts(frame: Frame) -> list[Buffer]:
    return frame.parts() if isinstance(frame, BodyFrame) else [frame.SerializeToString()]
