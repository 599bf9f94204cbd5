"""What is no proper HTTP gets a clear answer, and whoever comes next is served."""

import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request

from slipknot import serve
from slipknot.testing import Cluster
from tests.support.raw_http import RawClient, RawResponse

from .conftest import RunningCluster

pytestmark = pytest.mark.anyio

TEXT = "text/plain; charset=utf-8"


@serve.deployment(max_ongoing_requests=20)
async def describe(request: Request) -> Any:
    """The path, and how long the body is."""
    raw: bytes = request.scope["raw_path"]
    return {"path": request.scope["path"], "raw": raw.decode("latin-1"), "size": len(await request.body())}


@pytest.fixture(scope="module")
def url(cluster: RunningCluster) -> Iterator[str]:
    """Of a cluster that serves."""
    serve.run(describe.bind(), name="describe", route_prefix="/")
    yield cluster.url
    serve.delete("describe")


async def _exchange(url: str, data: bytes) -> tuple[RawResponse, bool]:
    """Send bytes; the response, and whether the connection was closed after it."""
    client = await RawClient.connect(url.removeprefix("http://"))
    client.send(data)
    response = await client.read()
    closed = response.all("connection") == ["close"] and await client.ended()
    client.close()
    return response, closed


async def _still_serves(url: str) -> None:
    async with httpx.AsyncClient() as client:
        assert (await client.post(url + "/next", content=b"1234")).json()["size"] == 4


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"hello\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nbad name: 1\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: four\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nnot a size\r\n",
        b"GET / HTTP/1.1\r\nhost: x\x00y\r\n\r\n",
        b"GET /\x01 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
async def test_malformed(url: str, data: bytes) -> None:
    """400 and a closed connection."""
    response, closed = await _exchange(url, data)
    assert (response.status, response.header("content-type")) == (400, TEXT)
    assert response.body == b"Invalid HTTP request received."
    assert response.header("x-request-id")
    assert closed
    await _still_serves(url)


@pytest.mark.parametrize("body", [b"", b"1234"])
async def test_upgrade_that_we_do_not_know(url: str, body: bytes) -> None:
    """The offer of another protocol is ignored, the request is served."""
    head = (
        b"POST /up HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: h2c\r\ncontent-length: %d\r\n\r\n"
    )
    response, _ = await _exchange(url, head % len(body) + body)
    assert response.status == 200
    assert httpx.Response(200, content=response.body).json()["size"] == len(body)
    await _still_serves(url)


async def test_upgrades_that_we_do_not_know_in_a_row(url: str) -> None:
    """Each is served, in order, and the body of none is taken for a request."""
    client = await RawClient.connect(url.removeprefix("http://"))
    head = b"POST /%d HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: h2c\r\ncontent-length: 4\r\n\r\n"
    client.send(b"".join(head % number + b"1234" for number in range(10)))
    for number in range(10):
        body = httpx.Response(200, content=(await client.read()).body).json()
        assert (body["path"], body["size"]) == (f"/{number}", 4)
    client.close()


async def test_connect(url: str) -> None:
    """We are no tunnel: CONNECT is refused, and what follows it is not taken for anything."""
    data = b"CONNECT example.com:443 HTTP/1.1\r\nhost: x\r\n\r\nGET / HTTP/1.1\r\nhost: x\r\n\r\n"
    response, closed = await _exchange(url, data)
    assert (response.status, closed) == (400, True)


async def test_garbage_behind_a_good_request(url: str) -> None:
    """The good one is answered first."""
    client = await RawClient.connect(url.removeprefix("http://"))
    client.send(b"GET /good HTTP/1.1\r\nhost: x\r\n\r\nutter garbage\r\n\r\n")
    assert (await client.read()).status == 200
    assert (await client.read()).status == 400
    assert await client.ended()
    client.close()


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        ("/%ff%fe", "/\ufffd\ufffd"),
        ("/a%2Fb", "/a/b"),
        ("/%", "/%"),
        ("/%zz", "/%zz"),
        ("/%00", "/\x00"),
        ("//double", "//double"),
        ("/../up", "/../up"),
    ],
)
async def test_odd_paths(url: str, raw: str, path: str) -> None:
    """Any path is a path; what is no UTF-8 is replaced in `path` and stays in `raw_path`."""
    response, _ = await _exchange(url, f"GET {raw} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
    assert response.status == 200
    body = httpx.Response(200, content=response.body).json()
    assert (body["path"], body["raw"]) == (path, raw)


async def test_bytes_beyond_ascii_in_the_target(url: str) -> None:
    """A target that is not even ASCII is answered, not dropped."""
    response, _ = await _exchange(url, b"GET /\xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n")
    assert response.status in {200, 400}
    await _still_serves(url)


async def test_header_of_the_largest_size_is_served(url: str) -> None:
    """Just below the bound everything is passed on."""
    head = b"GET / HTTP/1.1\r\nhost: x\r\nx-large: " + b"x" * (60 * 1024) + b"\r\n\r\n"
    assert (await _exchange(url, head))[0].status == 200


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nhost: x\r\nx-large: " + b"x" * 70_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\n" + b"x-many: 12345678\r\n" * 5000 + b"\r\n",
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nx-endless: " + b"x" * 200_000,
    ],
)
async def test_head_that_is_too_large(url: str, head: bytes) -> None:
    """431 before the handler starts, even if the head never ends."""
    response, closed = await _exchange(url, head)
    assert (response.status, response.header("content-type"), closed) == (431, TEXT, True)
    assert response.body == b"The request's head is too large."
    await _still_serves(url)


# --- other options ---


@pytest.fixture(scope="module")
def bounded() -> Iterator[str]:
    """A cluster with a bound for bodies and a smaller one for heads."""
    with Cluster(http_options={"max_body_bytes": 1000, "max_header_bytes": 2048}) as cluster:
        cluster.run(describe.bind())
        yield cluster.url


async def test_body_that_is_too_large(bounded: str) -> None:
    """413 by its length or once it has grown too large; the largest one is served."""
    async with httpx.AsyncClient(base_url=bounded) as client:
        assert (await client.post("/", content=b"x" * 1000)).json()["size"] == 1000
        response = await client.post("/", content=b"x" * 1001)
        assert (response.status_code, response.text) == (413, "The request's body is too large.")
    head = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    response_, closed = await _exchange(bounded, head + b"3e9\r\n" + b"x" * 1001 + b"\r\n0\r\n\r\n")
    assert (response_.status, closed) == (413, True)
    await _still_serves(bounded)


async def test_configured_bound_of_the_head(bounded: str) -> None:
    """The bound of the head is an option too."""
    head = b"GET / HTTP/1.1\r\nhost: x\r\nx-large: " + b"x" * 3000 + b"\r\n\r\n"
    assert (await _exchange(bounded, head))[0].status == 431
    await _still_serves(bounded)


def test_port_that_is_taken() -> None:
    """The start fails, and names the address."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"127.0.0.1:{port}"):
            Cluster(http_options={"port": port}).start()


def test_host_that_is_not_ours() -> None:
    """The same for an address of somebody else."""
    with pytest.raises(OSError, match=r"192\.0\.2\.1"):
        Cluster(http_options={"host": "192.0.2.1"}).start()


def test_two_clusters_on_one_machine() -> None:
    """Each has its own port and its own applications."""
    with Cluster() as first, Cluster() as second:
        second.run(describe.bind())
        assert first.url != second.url
        assert httpx.get(second.url + "/x").json()["path"] == "/x"
        assert httpx.get(first.url + "/x").status_code == 404


# --- TLS ---


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Key and certificate of localhost."""
    directory = tmp_path_factory.mktemp("tls")
    key, cert = directory / "key.pem", directory / "cert.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*command, *names, "-keyout", key, "-out", cert], check=True, capture_output=True)
    return key, cert


def test_tls(certificate: tuple[Path, Path]) -> None:
    """HTTPS is served, plain HTTP is not; the handler sees the scheme."""
    key, cert = certificate

    @serve.deployment
    def scheme(request: Request) -> str:
        return str(request.url.scheme)

    with Cluster(http_options={"ssl_keyfile": str(key), "ssl_certfile": str(cert)}) as cluster:
        cluster.run(scheme.bind())
        assert cluster.url.startswith("https://")
        context = ssl.create_default_context(cafile=str(cert))
        with httpx.Client(base_url=cluster.url, verify=context) as client:
            assert client.get("/").text == "https"
            assert client.post("/", content=b"x" * 500_000).text == "https"
        with pytest.raises(httpx.TransportError):
            httpx.get(cluster.url.replace("https://", "http://"))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"ssl_keyfile": "key.pem"}, "ssl_certfile"),
        ({"ssl_certfile": "cert.pem"}, "ssl_keyfile"),
        ({"ssl_keyfile": "no.pem", "ssl_certfile": "no.pem"}, "no.pem"),
        ({"request_timeout_s": 0}, "request_timeout_s"),
        ({"keep_alive_timeout_s": -1}, "keep_alive_timeout_s"),
        ({"port": 70_000}, "port"),
        ({"max_header_bytes": 0}, "max_header_bytes"),
        ({"root_path": "no-slash"}, "root_path"),
        ({"middlewares": [object()]}, "middlewares"),
    ],
)
def test_options_that_are_wrong(options: dict[str, Any], text: str) -> None:
    """The start fails, and names the option."""
    with pytest.raises(ValueError, match=text):
        Cluster(http_options=options).start()
