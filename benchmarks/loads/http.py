"""A small HTTP/1.1 client on keep-alive connections."""

import asyncio
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Response:
    """What came back, and how long it took."""

    status: int
    body: bytes
    elapsed_s: float


class Pool:
    """Connections to one server, made as they are needed and kept."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def get(self, path: str) -> Response:
        """One request; the connection is thrown away unless the answer was read to its end."""
        begun_s = time.monotonic()
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof() and not writer.is_closing():
                break
            writer.close()
        else:
            reader, writer = await asyncio.open_connection(self._host, self._port)
        is_kept = False
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nhost: {self._host}\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            body = await _body(reader, head)
            is_kept = b"\r\nconnection: close\r\n" not in head
        finally:
            if is_kept:
                self._idle.append((reader, writer))
            else:
                writer.close()
        return Response(int(head[9:12]), body, time.monotonic() - begun_s)

    def close(self) -> None:
        """End the idle connections."""
        while self._idle:
            self._idle.pop()[1].close()


async def _body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    _, found, rest = head.partition(b"\r\ncontent-length:")
    if found:
        return await reader.readexactly(int(rest.partition(b"\r\n")[0]))
    if b"\r\ntransfer-encoding: chunked\r\n" not in head:
        raise ValueError(f"no length: {head[:200]!r}")
    body = b""
    while size := int(await reader.readline(), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readexactly(2)
    return body
