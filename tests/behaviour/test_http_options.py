"""Options of the HTTP proxy: in a cluster of this process, and in a script with an embedded one."""

import asyncio
import json
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, WebSocket
from starlette.requests import Request
from websockets.asyncio.client import connect

from slipknot import serve
from slipknot.testing import Cluster
from tests.support.raw_http import RawClient

PASSWORD = "of the key"


@serve.deployment(max_ongoing_requests=20)
def describe(request: Request) -> Any:
    """What the handler sees."""
    scope = request.scope
    return {
        "scheme": scope["scheme"],
        "client": scope["client"][0],
        "path": scope["path"],
        "root_path": scope["root_path"],
    }


# --- TLS ---


class Certificates:
    """An authority, and certificates that it has signed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.ca = self._path("ca.pem")
        self._run("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test -keyout ca.key -out ca.pem")
        for name in ("server", "client"):
            self._run(f"req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr")
            (directory / "ext").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1")
            self._run(
                f"x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext "
                f"-out {name}.pem"
            )
        os.environ["SLIPKNOT_TEST_PASSWORD"] = PASSWORD
        self._run("rsa -aes128 -in server.key -out locked.key -passout env:SLIPKNOT_TEST_PASSWORD")

    def server(self, *, locked: bool = False) -> dict[str, str]:
        """Options of the proxy."""
        options = {
            "ssl_certfile": self._path("server.pem"),
            "ssl_keyfile": self._path("locked.key" if locked else "server.key"),
        }
        return options | ({"ssl_keyfile_password": PASSWORD} if locked else {})

    def context(self, *, with_client: bool = False) -> ssl.SSLContext:
        """What a client trusts, and who it is."""
        context = ssl.create_default_context(cafile=self.ca)
        if with_client:
            context.load_cert_chain(self._path("client.pem"), self._path("client.key"))
        return context

    def _path(self, name: str) -> str:
        return str(self._directory / name)

    def _run(self, command: str) -> None:
        subprocess.run(["openssl", *command.split()], check=True, capture_output=True, cwd=self._directory)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Certificates]:
    """Made once."""
    yield Certificates(tmp_path_factory.mktemp("tls"))
    os.environ.pop("SLIPKNOT_TEST_PASSWORD", None)


@pytest.mark.anyio
async def test_tls(certificates: Certificates) -> None:
    """HTTPS and WSS are served, plain HTTP is not; the handler sees the scheme."""
    api = FastAPI()

    @serve.deployment
    @serve.ingress(api)
    class Api:
        @api.get("/scheme")
        async def scheme(self, request: Request) -> str:
            return request.url.scheme

        @api.post("/size")
        async def size(self, request: Request) -> int:
            return len(await request.body())

        @api.websocket("/ws")
        async def websocket(self, websocket: WebSocket) -> None:
            await websocket.accept()
            await websocket.send_text(f"{websocket.url.scheme} {await websocket.receive_text()}")

    with Cluster(http_options=certificates.server()) as cluster:
        await asyncio.to_thread(cluster.run, Api.bind())
        assert cluster.url.startswith("https://")
        async with httpx.AsyncClient(base_url=cluster.url, verify=certificates.context()) as client:
            assert (await client.get("/scheme")).json() == "https"
            assert (await client.post("/size", content=b"x" * 1_000_000)).json() == 1_000_000
        async with connect(cluster.websocket_url + "/ws", ssl=certificates.context()) as websocket:
            await websocket.send("hello")
            assert await websocket.recv() == "wss hello"
        async with httpx.AsyncClient() as client:
            with pytest.raises(httpx.TransportError):
                await client.get(cluster.url.replace("https://", "http://"))


def test_tls_with_a_password_and_client_certificates(certificates: Certificates) -> None:
    """An encrypted key works, and clients must prove themselves if there is an authority for them."""
    options = certificates.server(locked=True) | {"ssl_ca_certs": certificates.ca}
    with Cluster(http_options=options) as cluster:
        cluster.run(describe.bind())
        with httpx.Client(verify=certificates.context(with_client=True)) as client:
            assert client.get(cluster.url).json()["scheme"] == "https"
        with httpx.Client(verify=certificates.context()) as client, pytest.raises(httpx.TransportError):
            client.get(cluster.url)


# --- others ---


@pytest.mark.anyio
async def test_too_many_connections() -> None:
    """Above `max_connections` a client gets 503 at once; when another leaves there is room again."""
    with Cluster(http_options={"max_connections": 2}) as cluster:
        address = cluster.url.removeprefix("http://")
        clients = [await RawClient.connect(address) for _ in range(2)]
        for client in clients:
            client.get("/-/healthz")
            await client.read()
        third = await RawClient.connect(address)
        response = await third.read()
        assert (response.status, response.body) == (503, b"Too many connections.")
        assert await third.ended()
        third.close()
        clients[1].close()
        async with asyncio.timeout(10):
            while True:
                again = await RawClient.connect(address)
                again.get("/-/routes")
                response = await again.read()
                again.close()
                if response.body != b"Too many connections.":
                    break
        clients[0].close()


def test_root_path() -> None:
    """What stands before the proxy is known to the handler but not part of what arrives."""
    with Cluster(http_options={"root_path": "/outer"}) as cluster:
        cluster.run(describe.bind(), route_prefix="/app")
        seen = httpx.get(cluster.url + "/app/x").json()
        assert (seen["path"], seen["root_path"]) == ("/outer/app/x", "/outer/app")
        assert httpx.get(cluster.url + "/outer/app/x").status_code == 404


@pytest.mark.parametrize(("allowed", "believed"), [("127.0.0.1", True), ("", False)])
def test_forwarded_headers(allowed: str, believed: bool) -> None:
    """A peer that is trusted says who the client is; any other does not."""
    with Cluster(http_options={"forwarded_allow_ips": allowed}) as cluster:
        cluster.run(describe.bind())
        headers = {"x-forwarded-for": "192.0.2.7", "x-forwarded-proto": "https"}
        seen = httpx.get(cluster.url, headers=headers).json()
        expected = ("https", "192.0.2.7") if believed else ("http", "127.0.0.1")
        assert (seen["scheme"], seen["client"]) == expected


@pytest.mark.parametrize("port", ["99999999999", "-5", "65536"])
def test_forwarded_port_that_is_none(port: str) -> None:
    """What a peer calls the client's port may be anything: the request is served, the host is the client."""
    with Cluster() as cluster:
        cluster.run(describe.bind())
        seen = httpx.get(cluster.url, headers={"x-forwarded-for": f"192.0.2.7:{port}"})
        assert (seen.status_code, seen.json()["client"]) == (200, "192.0.2.7")


@pytest.mark.anyio
async def test_forwarded_port_that_is_none_of_a_websocket() -> None:
    """The same for a handshake."""
    app = FastAPI()

    @serve.deployment
    @serve.ingress(app)
    class Tells:
        @app.websocket("/")
        async def tell(self, socket: WebSocket) -> None:
            await socket.accept()
            await socket.send_json(socket.scope["client"])
            await socket.close()

    with Cluster() as cluster:
        cluster.run(Tells.bind())
        headers = {"x-forwarded-for": "192.0.2.7:99999999999"}
        url = cluster.url.replace("http", "ws", 1)
        async with connect(url, additional_headers=headers) as socket, asyncio.timeout(10):
            assert json.loads(await socket.recv()) == ["192.0.2.7", 0]


# --- an embedded cluster, as scripts have it ---

SCRIPT = """
import json, sys
import httpx
from slipknot import serve

@serve.deployment
async def handler(request):
    import asyncio
    if request.url.path == "/slow":
        await asyncio.Event().wait()
    return "hello"

if __name__ == "__main__":
    serve.start(http_options=json.loads(sys.argv[1]))
    serve.run(handler.bind())
    url = serve.http_url()
    print("url", url)
    with httpx.Client(base_url=url, verify=False, timeout=30) as client:
        print("get", client.get("/").text)
        response = client.get("/slow", headers={"x-request-id": "r1"})
        print("slow", response.status_code, response.text)
    with httpx.Client(base_url=url, verify=False, timeout=30) as client:
        client.get("/")
        connection = client._transport._pool.connections[0]
        import time
        since = time.monotonic()
        while not connection.has_expired() and not connection._connection._network_stream.get_extra_info(
            "is_readable"
        ):
            time.sleep(0.01)
        print("idle", round(time.monotonic() - since))
"""


def _run(directory: Path, options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    script = directory / "script.py"
    script.write_text(SCRIPT)
    return subprocess.run(
        [sys.executable, str(script), options],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | environment,
    )


def test_options_of_an_embedded_cluster(tmp_path: Path, certificates: Certificates) -> None:
    """TLS, timeout and keep-alive, the last from the environment, which wins."""
    import json

    options = certificates.server() | {"port": 0, "request_timeout_s": 0.2, "keep_alive_timeout_s": 3600}
    done = _run(tmp_path, json.dumps(options), SLIPKNOT_SERVE_HTTP_KEEP_ALIVE_TIMEOUT_S="1")
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stdout.splitlines() if line.split()[0] in {"url", "get", "slow", "idle"}]
    assert said[0].startswith("url https://127.0.0.1:")
    assert said[1:] == ["get hello", "slow 408 Request r1 timed out after 0.2s.", "idle 1"]


def test_port_that_is_taken_of_an_embedded_cluster(tmp_path: Path) -> None:
    """The script fails, and says which address."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = _run(tmp_path, f'{{"port": {port}}}')
    assert done.returncode != 0
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert "OSError" in done.stderr
