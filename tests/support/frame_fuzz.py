"""Random and mutated HTTP/2 frames, gRPC calls and HTTP/1 requests: reproducible by a seed, and without a
library that would keep us from sending what is wrong.
"""

import random
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS = 0, 1, 4
END_STREAM, END_HEADERS = 1, 4
MAX_FRAMES = 24
"""Of one connection."""
READ_TIMEOUT_S = 5.0
"""A server that has seen the end of a connection closes it sooner; a bound, not an expectation."""

HTTP1_SEEDS = (
    b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
    b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n1234",
    b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\nx: y\r\n\r\n",
    b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\x81\x85abcdefghi",
)


@dataclass(frozen=True)
class CallSeed:
    """A call that would be right, before it is mutated."""

    method: str
    message: bytes
    token: str = ""


class FrameFuzz:
    """Makes what connections send. The same seed gives the same bytes.

    Args:
        seed: Of the random generator.
        calls: What is sent, mutated or as it is.
    """

    def __init__(self, seed: int, calls: Sequence[CallSeed] = ()) -> None:
        self._random = random.Random(seed)
        self._calls = calls

    def http2(self) -> tuple[bytes, int]:
        """The bytes of one connection to a gRPC port, and how many frames they are."""
        kind = self._random.choice(("noise", "frames", "frames", "calls", "calls", "calls", "calls"))
        if kind == "noise":
            start = self._random.choice((b"", PREFACE, PREFACE[:10], b"\x16\x03\x01"))
            return start + self._bytes(2000), 1
        count = self._random.randint(1, MAX_FRAMES)
        frames = [frame(SETTINGS, 0, 0, b"")]
        for number in range(count):
            frames.append(self._any_frame() if kind == "frames" else self._call(2 * number + 1))
        data = PREFACE + b"".join(frames)
        # Calls are mutated field by field, so that they get further.
        return (data if kind == "calls" else self._sometimes_mutated(data, 0.1)), count

    def http1(self) -> tuple[bytes, int]:
        """The same for an HTTP port."""
        count = self._random.randint(1, MAX_FRAMES)
        seeds = self._random.choices(HTTP1_SEEDS, k=count)
        if self._random.random() < 0.1:
            return self._bytes(4000), 1
        return b"".join(self._sometimes_mutated(seed, 0.3) for seed in seeds), count

    # --- inside -------------------------------------------------------------------------------------

    def _any_frame(self) -> bytes:
        payload = self._bytes(self._random.choice((0, 5, 64, 400)))
        kind, flags = self._random.randint(0, 12), self._random.randint(0, 255)
        stream = self._random.choice((0, 1, 3, 2, 2**31 - 1, self._random.getrandbits(32)))
        length = self._random.getrandbits(24) if self._random.random() < 0.05 else len(payload)
        return struct.pack(">I", length)[1:] + struct.pack(">BBI", kind, flags, stream & 0xFFFFFFFF) + payload

    def _call(self, stream: int) -> bytes:
        call = self._random.choice(self._calls)
        headers = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":authority", b"x"),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
        ]
        if call.token:
            headers.append((b"slipknot-token", call.token.encode()))
        path = literal(b":path", f"/{call.method}".encode())
        block = self._sometimes_mutated(path, 0.02)
        block += self._sometimes_mutated(b"".join(literal(*header) for header in headers), 0.1)
        message = self._sometimes_mutated(call.message, 0.7)
        length = self._random.getrandbits(32) if self._random.random() < 0.05 else len(message)
        body = (
            self._random.choice((b"\0", b"\0", b"\0", b"\1", b"\xff")) + struct.pack(">I", length) + message
        )
        flags = END_STREAM if self._random.random() < 0.7 else 0
        return frame(HEADERS, END_HEADERS, stream, block) + frame(DATA, flags, stream, body)

    def _sometimes_mutated(self, data: bytes, probability: float) -> bytes:
        if self._random.random() >= probability or not data:
            return data
        mutated = bytearray(data)
        for _ in range(self._random.randint(1, 4)):
            at = self._random.randrange(len(mutated) + 1)
            match self._random.randrange(5):
                case 0 if at < len(mutated):
                    mutated[at] = self._random.getrandbits(8)
                case 1:
                    mutated[at:at] = self._bytes(8)
                case 2:
                    del mutated[at : at + self._random.randint(1, 16)]
                case 3:
                    mutated[at:at] = mutated[at : at + self._random.randint(1, 64)]
                case _:
                    del mutated[at + self._random.randint(0, 64) :]
        return bytes(mutated)

    def _bytes(self, limit: int) -> bytes:
        return self._random.randbytes(self._random.randint(0, limit))


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """An HTTP/2 frame as it should be."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def odd_path() -> bytes:
    """A connection with seven calls; the path of the one in the middle is not UTF-8, which ends a server of
    grpcio's.
    """
    common = ((b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"x"), (b"te", b"trailers"))
    rest = b"".join(literal(*field) for field in (*common, (b"content-type", b"application/grpc")))
    paths = [b"/a/b"] * 3 + [b"/\xff\xfe"] + [b"/a/b"] * 3
    calls = [
        frame(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, literal(b":path", path) + rest)
        for number, path in enumerate(paths)
    ]
    return PREFACE + frame(SETTINGS, 0, 0, b"") + b"".join(calls)


def literal(name: bytes, value: bytes) -> bytes:
    """A header field for HPACK that nobody needs to remember."""
    return b"\x00" + _hpack_string(name) + _hpack_string(value)


def _hpack_string(text: bytes) -> bytes:
    if len(text) < 127:
        return bytes([len(text)]) + text
    rest, prefix = len(text) - 127, b"\x7f"
    while rest >= 128:
        prefix += bytes([rest % 128 + 128])
        rest //= 128
    return prefix + bytes([rest]) + text


def throw(address: str, data: bytes) -> bytes:
    """Open a connection, send, say that this was all, and wait until the server closes; what it answered.

    Raises:
        TimeoutError: It did not close.
        ConnectionRefusedError: Nobody listens any more.
    """
    host, _, port = address.rpartition(":")
    answer = b""
    with socket.create_connection((host, int(port)), timeout=READ_TIMEOUT_S) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while chunk := connection.recv(65536):
                answer += chunk
        except (ConnectionError, OSError) as error:
            if isinstance(error, TimeoutError):
                raise
    return answer
