import asyncio

import pytest

from benchmarks.loads.http import Pool, Response

pytestmark = pytest.mark.anyio

ANSWERS = {
    "/length": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "/chunks": b"HTTP/1.1 503 Busy\r\ntransfer-encoding: chunked\r\n\r\n2\r\nno\r\n1\r\n!\r\n0\r\n\r\n",
}


async def test_connections_are_kept_and_answers_read() -> None:
    """By length and by chunks."""
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                writer.write(ANSWERS[head.split()[1].decode()])
        except asyncio.IncompleteReadError:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        pool = Pool("127.0.0.1", server.sockets[0].getsockname()[1])
        answers: list[Response] = [await pool.get(path) for path in ("/length", "/chunks", "/length")]
        pool.close()
    assert [(its.status, its.body) for its in answers] == [(200, b"ok"), (503, b"no!"), (200, b"ok")]
    assert connections == 1
