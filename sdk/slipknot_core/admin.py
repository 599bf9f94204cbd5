"""The admin port of a role: a few small GET requests of people and of Prometheus, answered one by one.

    /metrics        Prometheus's text (or OpenMetrics, if the reader accepts it)
    /metrics.json   the same as JSON; a node agent reads its replicas so
    /-/healthz      200 for as long as the role's event loop comes round

It is no part of the service: it has its own socket, is bounded, and says nothing of what users send.
"""

import asyncio
import hmac
import ipaddress
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus

from .exposition import expose
from .metrics import Reading, merged

logger = logging.getLogger("slipknot.serve")

MAX_HEAD_BYTES = 16 * 1024
MAX_CONNECTIONS = 16
"""At one time; those above it are closed."""
REQUEST_TIMEOUT_S = 10.0
"""From the connection to the end of the answer."""
MAX_READINGS_BYTES = 32 * 1024 * 1024

Read = Callable[[], Awaitable[Sequence[Reading]]]
"""Tells what there is to see now."""

TEXT = "text/plain; charset=utf-8"


def check_admin_address(address: str, token: str) -> None:
    """Refuse an address that others could read from without credentials.

    Raises:
        ValueError: Names the address and what to do.
    """
    if address.startswith("unix:"):
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"admin_address={address!r} is no address; use 'host:port' or 'unix:/path'")
    host = host.strip("[]")
    try:
        is_loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback and not token:
        raise ValueError(
            f"refusing to listen on admin_address={address!r} without credentials: set "
            "SLIPKNOT_ADMIN_TOKEN, which readers send as 'Authorization: Bearer …', or use a loopback address"
        )


class AdminServer:
    """Belongs to the loop `start` is called on. `repr` tells the address.

    Args:
        read: What to show.
        token: Readers must send it as a bearer token; empty: everybody who can connect may read.
    """

    def __init__(self, read: Read, *, token: str = "") -> None:
        self.address = ""
        """Once started: "host:port" or "unix:/path"."""
        self._read = read
        self._token = token
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<AdminServer {self.address or 'not started'}>"

    async def start(self, address: str) -> str:
        """Listen; returns the address with its real port.

        Raises:
            ValueError: The address is none, or needs a token.
            OSError: It is taken or not ours.
        """
        check_admin_address(address, self._token)
        if address.startswith("unix:"):
            path = address.removeprefix("unix:")
            self._server = await asyncio.start_unix_server(self._accept, path, limit=MAX_HEAD_BYTES)
            self.address = address
        else:
            host, _, port = address.rpartition(":")
            self._server = await asyncio.start_server(
                self._accept, host.strip("[]"), int(port), limit=MAX_HEAD_BYTES
            )
            self.address = f"{host}:{self._server.sockets[0].getsockname()[1]}"
        return self.address

    async def stop(self) -> None:
        """Close everything; twice and before `start` is fine."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for task in tuple(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(tuple(self._tasks), timeout=1.0)

    # --- inside -------------------------------------------------------------------------------------

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) >= MAX_CONNECTIONS:
            writer.close()
            return
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
                status, content_type, body = await self._answer(head)
                writer.write(_response(status, content_type, body))
                await writer.drain()
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            pass  # a reader that left, is too slow or speaks something else
        except Exception:  # a bug in a reading must not leave the reader without an end
            logger.exception("admin_failed")
        finally:
            writer.close()

    async def _answer(self, head: bytes) -> tuple[int, str, bytes]:
        request_line, *lines = head.decode("latin-1").split("\r\n")
        method, _, rest = request_line.partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)
        }
        if method != "GET":
            return 405, TEXT, b"Only GET is served here.\n"
        if path in ("/-/healthz", "/healthz"):
            return 200, TEXT, b"success"
        if not self._may_read(headers.get("authorization", "")):
            return 401, TEXT, b"Send the admin token: 'Authorization: Bearer ...'.\n"
        if path == "/metrics":
            return 200, *expose(await self._read(), headers.get("accept", ""))
        if path == "/metrics.json":
            plain = [reading.to_plain() for reading in merged(await self._read())]
            return 200, "application/json", json.dumps(plain).encode()
        return 404, TEXT, b"There is /metrics, /metrics.json and /-/healthz.\n"

    def _may_read(self, authorization: str) -> bool:
        if not self._token:
            return True
        kind, _, token = authorization.partition(" ")
        return kind.lower() == "bearer" and hmac.compare_digest(token.strip().encode(), self._token.encode())


async def fetch(address: str, path: str, timeout_s: float, *, token: str = "") -> bytes:
    """Read from an admin port.

    Args:
        address: "unix:/path" or "host:port".
        path: For example "/metrics".
        timeout_s: For all of it.
        token: The admin token, if it wants one.

    Raises:
        OSError: It cannot be reached, or did not answer in time; or it refused.
    """
    async with asyncio.timeout(timeout_s):
        if address.startswith("unix:"):
            reader, writer = await asyncio.open_unix_connection(address.removeprefix("unix:"))
        else:
            host, _, port = address.rpartition(":")
            reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        try:
            bearer = f"Authorization: Bearer {token}\r\n" if token else ""
            writer.write(f"GET {path} HTTP/1.1\r\nHost: admin\r\n{bearer}\r\n".encode())
            answer = bytearray()
            while chunk := await reader.read(256 * 1024):
                answer += chunk
                if len(answer) > MAX_READINGS_BYTES:
                    raise OSError(f"the answer of {address} is too long")
        finally:
            writer.close()
    head, _, body = bytes(answer).partition(b"\r\n\r\n")
    status_line = head.partition(b"\r\n")[0].decode("latin-1")
    if " 200 " not in f"{status_line} ":
        raise OSError(
            f"{address} answered {status_line or 'nothing'!r}: {body[:200].decode(errors='replace')}"
        )
    return body


async def fetch_readings(address: str, timeout_s: float, *, token: str = "") -> list[Reading]:
    """Read the metrics of another member.

    Raises:
        OSError: As `fetch`.
        ValueError: The answer is none.
    """
    body = await fetch(address, "/metrics.json", timeout_s, token=token)
    try:
        return [Reading.from_plain(plain) for plain in json.loads(body)]
    except (KeyError, TypeError) as error:
        raise ValueError(f"the answer of {address} has no metrics in it: {error!r}") from error


def _response(status: int, content_type: str, body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
