"""An HTTP/1 client that shows each byte, and can leave in every way there is."""

import asyncio
import socket
import ssl
import struct
from dataclasses import dataclass

WAIT_S = 5.0


@dataclass
class RawResponse:
    """One response. `chunks` as they were framed; None: not chunked."""

    version: str
    status: int
    headers: list[tuple[str, str]]
    body: bytes = b""
    chunks: list[bytes] | None = None
    complete: bool = True

    def header(self, name: str) -> str:
        """The header, which must be there exactly once."""
        values = self.all(name)
        assert len(values) == 1, (name, values)
        return values[0]

    def all(self, name: str) -> list[str]:
        """All headers of that name."""
        return [value for key, value in self.headers if key == name]


class RawClient:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(
        cls, address: str, *, tls: ssl.SSLContext | None = None, receive_buffer: int | None = None
    ) -> "RawClient":
        """Connect; `receive_buffer` makes a client that cannot hold much."""
        host, _, port = address.rpartition(":")
        connection = socket.socket()
        if receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, (host, int(port)))
        limit = receive_buffer or 2**16
        reader, writer = await asyncio.open_connection(
            sock=connection, ssl=tls, server_hostname="localhost" if tls else None, limit=limit
        )
        writer.transport.set_write_buffer_limits(high=0)
        return cls(reader, writer)

    # --- out ---

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self.writer.write(data)

    async def flush(self) -> None:
        """Wait until all was given to the kernel."""
        async with asyncio.timeout(WAIT_S):
            await self.writer.drain()

    def get(self, path: str = "/", **headers: str) -> None:
        """Send a GET."""
        self.request("GET", path, None, **headers)

    def request(self, method: str, path: str = "/", body: bytes | None = None, **headers: str) -> None:
        """Send a request; "_" in header names stands for "-"."""
        if body is not None:
            headers.setdefault("content_length", str(len(body)))
        lines = [f"{method} {path} HTTP/1.1", "host: test"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.send("\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b""))

    def chunk(self, data: bytes) -> None:
        """Send a chunk of a chunked body; empty: its end."""
        self.send(b"%x\r\n%s\r\n" % (len(data), data))

    # --- leaving ---

    def close(self) -> None:
        """Close in order."""
        self.writer.close()

    def close_writing(self) -> None:
        """Close the sending half."""
        self.writer.write_eof()

    def reset(self) -> None:
        """Leave with an RST."""
        connection = self.writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def abort(self) -> None:
        """Close at once, whatever is unsent."""
        self.writer.transport.abort()

    # --- in ---

    async def read(self, method: str = "GET") -> RawResponse:
        """Read one response; `complete` is False if the connection ended in the middle of it."""
        async with asyncio.timeout(WAIT_S):
            response = await self.read_head()
            if method == "HEAD" or response.status in {204, 304}:
                return response
            try:
                await self._read_body(response)
            except (asyncio.IncompleteReadError, ConnectionError) as error:
                response.body += getattr(error, "partial", b"")
                response.complete = False
            return response

    async def read_head(self) -> RawResponse:
        """Read status and headers."""
        async with asyncio.timeout(WAIT_S):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        version, status, _ = lines[0].split(" ", 2)
        pairs = [line.partition(": ") for line in lines[1:] if line]
        return RawResponse(version, int(status), [(name, value) for name, _, value in pairs])

    async def read_chunk(self) -> bytes:
        """Read one chunk of a chunked body; empty at its end."""
        async with asyncio.timeout(WAIT_S):
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            return (await self.reader.readexactly(size + 2))[:-2]

    async def read_to_end(self) -> bytes:
        """All that comes until the connection ends."""
        async with asyncio.timeout(WAIT_S):
            return await self.reader.read()

    async def ended(self) -> bool:
        """Wait for the end of the connection; True if nothing came before it."""
        try:
            return await self.read_to_end() == b""
        except ConnectionError:
            return True

    async def _read_body(self, response: RawResponse) -> None:
        if response.all("transfer-encoding") == ["chunked"]:
            response.chunks = []
            while data := await self.read_chunk():
                response.chunks.append(data)
                response.body += data
        elif response.all("content-length"):
            response.body = await self.reader.readexactly(int(response.header("content-length")))
        else:
            response.body = await self.reader.read()
