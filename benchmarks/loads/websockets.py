"""A WebSocket client that sends a short text and waits for it to come back, over and over."""

import asyncio
import base64
import os
import time
from dataclasses import dataclass, field

TEXT = b"hello from the load generator"


@dataclass
class Echoes:
    """How long each echo took."""

    elapsed_s: list[float] = field(default_factory=list)


async def echo(host: str, port: int, path: str, until_s: float) -> Echoes:
    """One connection, one message at a time, until the clock says `until_s`."""
    reader, writer = await asyncio.open_connection(host, port)
    echoes = Echoes()
    try:
        key = base64.b64encode(os.urandom(16)).decode()
        writer.write(
            f"GET {path} HTTP/1.1\r\nhost: {host}\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
            f"sec-websocket-version: 13\r\nsec-websocket-key: {key}\r\n\r\n".encode()
        )
        head = await reader.readuntil(b"\r\n\r\n")
        if head[9:12] != b"101":
            raise ConnectionError(f"no WebSocket: {head[:80]!r}")
        message = _masked_text(TEXT)
        expected = bytes([0x81, len(TEXT)]) + TEXT
        while (sent_s := time.monotonic()) < until_s:
            writer.write(message)
            if (answer := await reader.readexactly(len(expected))) != expected:
                raise ConnectionError(f"no echo: {answer!r}")
            echoes.elapsed_s.append(time.monotonic() - sent_s)
        writer.write(bytes([0x88, 0x80]) + bytes(4))
    finally:
        writer.close()
    return echoes


def _masked_text(text: bytes) -> bytes:
    mask = os.urandom(4)
    masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(text))
    return bytes([0x81, 0x80 | len(text)]) + mask + masked
