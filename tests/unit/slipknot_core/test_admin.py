"""The admin port: what it answers, to whom, and that it is bounded."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from slipknot_core.admin import MAX_CONNECTIONS, AdminServer, check_admin_address, fetch, fetch_readings
from slipknot_core.metrics import Reading, gauge

pytestmark = pytest.mark.anyio
WAIT_S = 30.0


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def read() -> list[Reading]:
    return [gauge("slipknot_test", "help", 7.0)]


@pytest.fixture
async def server() -> AsyncIterator[AdminServer]:
    admin = AdminServer(read, token="secret")
    await admin.start("127.0.0.1:0")
    yield admin
    await admin.stop()
    await admin.stop()


async def test_readers_with_the_token(server: AdminServer) -> None:
    """Text for Prometheus, JSON for ourselves, a word for a health check that needs no token."""
    assert b"slipknot_test 7.0" in await fetch(server.address, "/metrics", WAIT_S, token="secret")
    (reading,) = await fetch_readings(server.address, WAIT_S, token="secret")
    assert reading.name == "slipknot_test"
    assert await fetch(server.address, "/-/healthz", WAIT_S) == b"success"


@pytest.mark.parametrize("token", ["", "wrong", "sécret"])
async def test_without_the_token(server: AdminServer, token: str) -> None:
    with pytest.raises(OSError, match="401"):
        await fetch(server.address, "/metrics", WAIT_S, token=token)


async def test_other_paths_and_methods(server: AdminServer) -> None:
    with pytest.raises(OSError, match="404"):
        await fetch(server.address, "/", WAIT_S, token="secret")
    for request, status in ((b"POST /metrics HTTP/1.1\r\n\r\n", b"405"), (b"\r\n\r\n", b"405")):
        assert status in await _exchange(server, request)
    assert await _exchange(server, b"x" * 100_000) == b""


async def test_connections_are_bounded(server: AdminServer) -> None:
    """Those above the bound are closed; when the others have gone it answers again."""
    host, _, port = server.address.rpartition(":")
    held = [await asyncio.open_connection(host, int(port)) for _ in range(MAX_CONNECTIONS)]
    reader, writer = await asyncio.open_connection(host, int(port))
    assert await asyncio.wait_for(reader.read(), WAIT_S) == b""
    writer.close()
    for _, held_writer in held:
        held_writer.close()
        await held_writer.wait_closed()
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                assert await fetch(server.address, "/-/healthz", WAIT_S) == b"success"
                return
            except OSError:
                await asyncio.sleep(0)


async def test_a_unix_socket_that_was_left_behind(tmp_path: Path) -> None:
    """A role that was killed starts again at the same path."""
    address = f"unix:{tmp_path}/admin.sock"
    first, second = AdminServer(read), AdminServer(read)
    await first.start(address)
    await second.start(address)
    assert b"slipknot_test" in await fetch(address, "/metrics", WAIT_S)
    await first.stop()
    await second.stop()


@pytest.mark.parametrize(
    "address", ["0.0.0.0:9100", "[::]:9100", "example.org:1", "9100", "127.0.0.1:x", ":1"]
)
def test_addresses_that_are_refused(address: str) -> None:
    """Others could read there; or it is none."""
    with pytest.raises(ValueError, match="admin_address"):
        check_admin_address(address, "")


@pytest.mark.parametrize(
    ("address", "token"),
    [("127.0.0.1:0", ""), ("[::1]:0", ""), ("localhost:1", ""), ("unix:/x", ""), ("0.0.0.0:9100", "secret")],
)
def test_addresses_that_are_fine(address: str, token: str) -> None:
    check_admin_address(address, token)


async def _exchange(server: AdminServer, data: bytes) -> bytes:
    host, _, port = server.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(data)
        async with asyncio.timeout(WAIT_S):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()
