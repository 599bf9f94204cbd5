"""The proxy over real sockets, with a scripted replica behind it: what a client gets."""

import asyncio
import contextlib
import json

import httpx
import pytest

from slipknot_proto.v1 import replica_pb2
from slipknot_proxy import rest_of_body
from tests.support.scripted_cluster import ScriptedExchange, scripted_proxy

pytestmark = pytest.mark.anyio


# --- requests ---


async def test_small_request_is_one_message_each_way() -> None:
    """A small request rides inside Open, and its response inside ResponseStart."""
    async with scripted_proxy() as cluster:
        client = await cluster.connect()
        client.request("POST", "/a%20b/c?x=1&y", b"body", content_type="text/x", X_Twice="1")
        exchange = await cluster.replica.next_exchange()
        http = exchange.open.http
        assert (http.method, http.http_version, http.scheme) == ("POST", "1.1", "http")
        assert (http.path, http.raw_path, http.query_string) == ("/a b/c", b"/a%20b/c", b"x=1&y")
        assert (http.body, http.end_of_body) == (b"body", True)
        assert http.root_path == ""
        assert http.client_host == "127.0.0.1"
        assert f"{http.server_host}:{http.server_port}" == cluster.proxy.http_address
        assert list(http.headers[:2]) == [b"host", b"test"]
        assert b"x-twice" in http.headers
        assert (exchange.open.app_name, exchange.open.deployment_name) == ("default", "Ingress")
        assert exchange.open.deadline_budget_us == 0
        exchange.respond(201, b"hello", b"x-mine", b"1", b"set-cookie", b"a=1", b"set-cookie", b"b=2")
        response = await client.read()
        assert (response.status, response.body) == (201, b"hello")
        assert response.all("set-cookie") == ["a=1", "b=2"]
        assert response.header("content-length") == "5"
        assert response.header("server") == "uvicorn"
        assert response.header("date")
        assert response.header("x-request-id") == exchange.open.request_id


async def test_connection_and_stream_are_reused() -> None:
    """Requests one after another use one connection and one stream."""
    async with scripted_proxy() as cluster:
        client = await cluster.connect()
        for number in range(5):
            client.get(f"/{number}")
            (await cluster.replica.next_exchange()).respond(200, b"%d" % number)
            assert (await client.read()).body == b"%d" % number
        assert cluster.replica.stream_count == 1


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
async def test_every_method_reaches_the_handler(method: str) -> None:
    """Any method is passed on."""
    async with scripted_proxy() as cluster:
        client = await cluster.connect()
        client.request(method)
        exchange = await cluster.replica.next_exchange()
        assert exchange.open.http.method == method
        exchange.respond(200, b"x")
        assert (await client.read(method)).body == b"x"


async def test_head_has_headers_and_no_body() -> None:
    """HEAD gets the headers of the GET, and the connection goes on."""
    async with scripted_proxy() as cluster:
        client = await cluster.connect()
        for _ in range(2):
            client.request("HEAD")
            exchange = await cluster.replica.next_exchange()
            exchange.start(200, (b"content-length", b"100"), end=True)
            response = await client.read("HEAD")
            assert response.header("content-length") == "100"


@pytest.mark.parametrize("status", [204, 304])
async def test_status_without_body(status: int) -> None:
    """204 and 304 have neither body nor framing."""
    async with scripted_proxy() as cluster:
        client = await cluster.connect()
        for _ in range(2):
            client.get()
            (await cluster.replica.next_exchange()).start(status, body=b"no", end=True)
            response = await client.read()
            assert response.status == status
            assert not response.all("transfer-encoding")


async def test_large_body_arrives_unchanged() -> None:
    """A body larger than any buffer is passed on in bounded chunks as the replica grants credit."""
    body = bytes(range(256)) * 40_000  # 10 MiB
    async with scripted_proxy() as cluster:
        client = await cluster.connect()
        client.request("POST", "/", body)
        exchange = await cluster.replica.next_exchange()
        assert len(exchange.open.http.body) <= 256 * 1024
        exchange.grant(1024 * 1024)
        assert await exchange.read_body() == body
        exchange.respond(200, b"ok")
        assert (await client.read()).body == b"ok"
        client.get()
        (await cluster.replica.next_exchange()).respond(200, b"again")
        assert (await client.read()).body == b"again"


async def test_a_small_body_that_comes_in_parts_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """The request waits for the rest of it; here as long as it takes."""
    monkeypatch.setattr(rest_of_body, "REST_OF_BODY_S", 60.0)
    body = bytes(range(256)) * 400  # 100 KiB
    async with scripted_proxy() as cluster:
        client = await cluster.connect()
        client.send(b"POST / HTTP/1.1\r\nhost: test\r\ncontent-length: %d\r\n\r\n" % len(body))
        for at in range(0, len(body), 40_000):
            client.send(body[at : at + 40_000])
            await client.flush()
            await asyncio.sleep(0)
        exchange = await cluster.replica.next_exchange()
        assert exchange.open.http.end_of_body
        assert exchange.open.http.body == body
        exchange.respond(200, b"ok")
        assert (await client.read()).body == b"ok"


async def test_a_request_does_not_wait_for_a_body_that_does_not_come() -> None:
    """It begins with what there is, and the rest follows."""
    async with scripted_proxy() as cluster:
        client = await cluster.connect()
        client.send(b"POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 6\r\n\r\nabc")
        exchange = await cluster.replica.next_exchange()
        assert (exchange.open.http.body, exchange.open.http.end_of_body) == (b"abc", False)
        exchange.grant(1000)
        client.send(b"def")
        assert await exchange.read_body() == b"abcdef"
        exchange.respond(200, b"ok")
        assert (await client.read()).body == b"ok"


async def test_a_client_that_leaves_before_its_body_came_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its request never begins, and the proxy serves on."""
    monkeypatch.setattr(rest_of_body, "REST_OF_BODY_S", 60.0)
    async with scripted_proxy() as cluster:
        for _ in range(20):
            client = await cluster.connect()
            client.send(b"POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 6\r\n\r\nabc")
            await client.flush()
            client.close()
        client = await cluster.connect()
        client.get("/last")
        exchange = await cluster.replica.next_exchange()
        assert exchange.open.http.path == "/last"
        exchange.respond(200, b"ok")
        assert (await client.read()).body == b"ok"


async def test_chunked_upload_arrives_as_it_comes() -> None:
    """Each part of a chunked upload reaches the replica before the next one was sent."""
    async with scripted_proxy() as cluster:
        client = await cluster.connect()
        client.request("POST", transfer_encoding="chunked")
        exchange = await cluster.replica.next_exchange()
        assert not exchange.open.http.end_of_body
        exchange.grant(1000)
        for part in (b"one", b"two", b"three"):
            client.chunk(part)
            assert (await exchange.next_frame("body")).data == part
        client.chunk(b"")
        assert (await exchange.next_frame("body")).end_of_body
        exchange.respond(200, b"")
        assert (await client.read()).status == 200


async def test_expect_continue() -> None:
    """A client that waits for 100 Continue gets it, and then the answer."""
    async with scripted_proxy() as cluster:
        client = await cluster.connect()
        client.request("POST", content_length="4", expect="100-continue")
        assert (await client.read_head()).status == 100
        client.send(b"body")
        exchange = await cluster.replica.next_exchange()
        exchange.grant(1000)
        assert await exchange.read_body() == b"body"
        exchange.respond(200, b"ok")
        assert (await client.read()).body == b"ok"


@pytest.mark.parametrize("keep_alive", [True, False])
async def test_response_before_the_body_was_read(keep_alive: bool) -> None:
    """A handler may answer without reading: the rest of the body is thrown away, the response is not lost."""
    async with scripted_proxy() as cluster:
        client = await cluster.connect()
        size = 3 * 1024 * 1024
        client.request("POST", content_length=str(size), connection="keep-alive" if keep_alive else "close")
        client.send(b"x" * (size // 2))
        exchange = await cluster.replica.next_exchange()
        exchange.respond(200, b"early")
        assert (await client.read()).body == b"early"
        client.send(b"x" * (size - size // 2))
        await client.flush()
        if keep_alive:
            client.get("/next")
            (await cluster.replica.next_exchange()).respond(200, b"next")
            assert (await client.read()).body == b"next"
        else:
            assert await client.ended()


@pytest.mark.parametrize(("count", "size"), [(1, 3 * 1024 * 1024), (30, 1024 * 1024)])
async def test_last_response_before_requests_that_still_come(count: int, size: int) -> None:
    """What is pipelined behind a response that closes the connection is thrown away: the response is not lost
    in a reset, and the connection ends, however much there is.
    """
    async with scripted_proxy() as cluster:
        client = await cluster.connect()
        client.get("/last")
        exchange = await cluster.replica.next_exchange()
        client.request("POST", "/ignored", b"x" * (size // 2), content_length=str(size))
        await client.flush()
        exchange.respond(200, b"last", b"connection", b"close")
        assert (await client.read()).body == b"last"
        client.send(b"x" * (size - size // 2))
        for _ in range(1, count):
            client.request("POST", "/ignored", b"x" * size)
        async with asyncio.timeout(10):
            await client.flush()
            assert await client.read_to_end() == b""


async def test_pipelined_requests_are_answered_in_order() -> None:
    """Requests sent at once run one after another."""
    async with scripted_proxy() as cluster:
        client = await cluster.connect()
        for path in ("/1", "/2", "/3"):
            client.get(path)
        for path in ("/1", "/2", "/3"):
            exchange = await cluster.replica.next_exchange()
            assert exchange.open.http.path == path
            exchange.respond(200, path.encode())
        assert [(await client.read()).body for _ in range(3)] == [b"/1", b"/2", b"/3"]


async def test_http_1_0_gets_a_plain_body_and_a_closed_connection() -> None:
    """An HTTP/1.0 client gets no chunks."""
    async with scripted_proxy() as cluster:
        client = await cluster.connect()
        client.send(b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
        exchange = await cluster.replica.next_exchange()
        assert exchange.open.http.http_version == "1.0"
        exchange.start(200, body=b"one ")
        exchange.chunk(b"two", end=True)
        response = await client.read()
        assert (response.body, response.chunks) == (b"one two", None)
        assert response.header("connection") == "close"


# --- streaming ---


async def test_chunks_are_passed_on_as_they_come() -> None:
    """Each chunk is a chunk of its own and none is held back."""
    async with scripted_proxy() as cluster:
        client = await cluster.connect()
        client.get()
        exchange = await cluster.replica.next_exchange()
        exchange.start(301, (b"content-type", b"foo/bar"))
        response = await client.read_head()
        assert (response.status, response.header("content-type")) == (301, "foo/bar")
        for part in (b"a", b"bb", b"ccc"):
            exchange.chunk(part)
            assert await client.read_chunk() == part
        exchange.reply_together(
            replica_pb2.ReplyFrame(body={"data": b"d"}),
            replica_pb2.ReplyFrame(body={"data": b"e"}),
            replica_pb2.ReplyFrame(body={"data": b"f", "end_of_body": True}),
        )
        assert [await client.read_chunk() for _ in range(4)] == [b"d", b"e", b"f", b""]


@pytest.mark.parametrize("ends", [False, True], ids=["the end comes by itself", "the end comes along"])
async def test_chunks_that_share_a_frame_are_chunks_of_their_own(ends: bool) -> None:
    """With the last one among them or not."""
    async with scripted_proxy() as cluster:
        client = await cluster.connect()
        client.get()
        exchange = await cluster.replica.next_exchange()
        exchange.start(200)
        exchange.reply(body={"data": b"a", "more": [b"bb", b"ccc"], "end_of_body": ends})
        if not ends:
            exchange.chunk(b"", end=True)
        await client.read_head()
        assert [await client.read_chunk() for _ in range(4)] == [b"a", b"bb", b"ccc", b""]


async def test_slow_reader_holds_the_producer_back() -> None:
    """Credit is granted as the client reads, so a client that does not read stops the producer."""
    async with scripted_proxy() as cluster:
        client = await cluster.connect(receive_buffer=4096)
        client.get()
        exchange = await cluster.replica.next_exchange()
        exchange.start(200)
        credit, chunk, sent = exchange.open.reply_credit_bytes, b"x" * 65_536, 0
        while credit > 0 and sent < 64:
            exchange.chunk(chunk)
            sent += 1
            credit -= len(chunk) + 64
            while not exchange.no_frame_came():
                credit += (await exchange.next_frame("credit")).byte_count
            if credit <= 0:
                break
        await client.read_head()
        assert sent < 64
        for _ in range(sent):
            assert len(await client.read_chunk()) == len(chunk)
        granted = (await exchange.next_frame("credit")).byte_count
        assert granted > 0
        exchange.chunk(b"", end=True)
        assert await client.read_chunk() == b""


@pytest.mark.parametrize("size", [100, 65_536], ids=["small chunks", "large chunks"])
async def test_client_that_never_reads_takes_little(size: int) -> None:
    """Credit is small, and neither proxy nor kernel takes much more: the handler does not work for nobody."""
    async with scripted_proxy() as cluster:
        client = await cluster.connect(receive_buffer=4096)
        client.get()
        exchange = await cluster.replica.next_exchange()
        exchange.start(200)
        credit, sent = exchange.open.reply_credit_bytes, 0
        assert 0 < credit <= 128 * 1024
        while credit > 0:
            while credit > 0:
                exchange.chunk(b"x" * size)
                credit -= size + 64
                sent += size
            assert sent <= 512 * 1024
            with contextlib.suppress(TimeoutError):  # credit comes until the client's side is full
                async with asyncio.timeout(0.5):
                    credit += (await exchange.next_frame("credit")).byte_count
        # Only full, not stuck: as soon as the client reads, more may come.
        await client.read_head()
        for _ in range(sent // size):
            assert len(await client.read_chunk()) == size
        assert (await exchange.next_frame("credit")).byte_count > 0


# --- routing and built-in endpoints ---


async def test_endpoints_before_during_and_after_the_first_application() -> None:
    """/-/healthz and /-/routes follow the route table."""
    async with scripted_proxy(with_app=False) as cluster:
        client = await cluster.connect()

        async def ask(path: str) -> tuple[int, str]:
            client.get(path)
            response = await client.read()
            assert response.header("x-request-id")
            return response.status, response.body.decode()

        populated = (503, "Route table is not populated yet.")
        assert await ask("/-/healthz") == populated
        assert await ask("/-/routes") == populated
        await cluster.deploy(cluster.app("a", "/a"), cluster.app("b", ""))
        assert await ask("/-/healthz") == (200, "success")
        assert await ask("/-/routes") == (200, '{"/a":"a"}')
        await cluster.deploy()
        assert await ask("/-/healthz") == populated
        assert await ask("/-/routes") == (200, "{}")


async def test_unknown_path() -> None:
    """404 names the path without its query; other prefixes do not match in the middle of a segment."""
    async with scripted_proxy(with_app=False) as cluster:
        await cluster.deploy(cluster.app("a", "/hello"))
        async with httpx.AsyncClient(base_url=cluster.url) as client:
            response = await client.get("/hellox?a=1")
        assert response.status_code == 404
        assert response.headers["content-type"] == "text/plain; charset=utf-8"
        assert response.text == "Path '/hellox' not found. Ping http://.../-/routes for available routes."
        assert response.headers["x-request-id"]


async def test_longest_prefix_and_root_path() -> None:
    """The longest prefix wins, and is the handler's root_path; a configured root path stands before it."""
    async with scripted_proxy(with_app=False, root_path="/outer") as cluster:
        await cluster.deploy(cluster.app("root", "/"), cluster.app("chat", "/chat"))
        client = await cluster.connect()
        for path, app, root_path in [("/x", "root", "/outer"), ("/chat/%61", "chat", "/outer/chat")]:
            client.get(path)
            exchange = await cluster.replica.next_exchange()
            http = exchange.open.http
            assert exchange.open.app_name == app
            assert http.root_path == root_path
            assert http.raw_path == b"/outer" + path.encode()
            assert http.path == "/outer" + path.replace("%61", "a")
            exchange.respond(200, b"")
            await client.read()


# --- request ids, headers, metadata ---


@pytest.mark.parametrize(
    ("given", "used"),
    [
        (b"mine", b"mine"),
        (b"with space \xe4\xf6", b"with space"),
        (b"x" * 300, b"x" * 200),
    ],
)
async def test_request_id_is_the_clients(given: bytes, used: bytes) -> None:
    """A given request id is used as it is, but bounded and safe, and comes back exactly once."""
    async with scripted_proxy() as cluster:
        client = await cluster.connect()
        client.send(b"GET / HTTP/1.1\r\nhost: x\r\nX-Request-ID: " + given + b"\r\n\r\n")
        exchange = await cluster.replica.next_exchange()
        assert exchange.open.request_id.encode() == used
        exchange.respond(200, b"", b"x-request-id", b"another")
        assert (await client.read()).header("x-request-id").encode() == used


async def test_metadata_travels_in_open() -> None:
    """Session id, model id in any spelling, and trace context are read from the headers."""
    async with scripted_proxy() as cluster:
        client = await cluster.connect()
        trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        for spelling in ("serve_multiplexed_model_id", "Serve-Multiplexed-Model-Id"):
            client.send(
                f"GET / HTTP/1.1\r\nhost: x\r\n{spelling}: m1\r\n".encode()
                + f"x-session-id: s1\r\ntraceparent: {trace}\r\n\r\n".encode()
            )
            exchange = await cluster.replica.next_exchange()
            assert exchange.open.multiplexed_model_id == "m1"
            assert exchange.open.session_id == "s1"
            assert exchange.open.traceparent == trace
            exchange.respond(200, b"")
            await client.read()


async def test_handlers_headers_win_or_lose_but_never_double() -> None:
    """`date` and `server` of the handler replace ours; hop-by-hop headers are ours alone."""
    async with scripted_proxy() as cluster:
        client = await cluster.connect()
        client.get()
        exchange = await cluster.replica.next_exchange()
        exchange.respond(
            200,
            b"",
            b"server",
            b"mine",
            b"date",
            b"today",
            b"transfer-encoding",
            b"chunked",
            b"keep-alive",
            b"x",
        )
        response = await client.read()
        assert response.header("server") == "mine"
        assert response.header("date") == "today"
        assert not response.all("transfer-encoding")
        assert not response.all("keep-alive")


async def test_handler_may_close_the_connection() -> None:
    """`connection: close` of the handler is honoured."""
    async with scripted_proxy() as cluster:
        client = await cluster.connect()
        client.get()
        (await cluster.replica.next_exchange()).respond(200, b"x", b"connection", b"close")
        response = await client.read()
        assert response.header("connection") == "close"
        assert await client.ended()


# --- failures ---


@pytest.mark.parametrize(
    ("reason", "status", "body"),
    [
        ("USER_EXCEPTION", 500, "Internal Server Error"),
        ("INTERNAL", 500, "Internal Server Error"),
        ("CANCELLED", 500, "Internal Server Error"),
        ("UNAUTHENTICATED", 500, "Internal Server Error"),
        ("NEVER_HEARD_OF", 500, "Internal Server Error"),
        ("BACKPRESSURE", 503, "boom"),
        ("DEPLOYMENT_UNAVAILABLE", 503, "boom"),
        ("DEADLINE_EXCEEDED", 408, "boom"),
    ],
)
async def test_failures_of_the_replica(reason: str, status: int, body: str) -> None:
    """A failed handler is a bare 500; full queues and deadlines further down keep their meaning."""
    async with scripted_proxy() as cluster:
        client = await cluster.connect()
        client.get()
        exchange = await cluster.replica.next_exchange()
        exchange.fail(reason)
        response = await client.read()
        assert (response.status, response.body.decode()) == (status, body)
        assert response.header("content-type") == "text/plain; charset=utf-8"
        assert response.header("x-request-id") == exchange.open.request_id


async def test_failure_in_the_middle_of_a_response() -> None:
    """What was sent arrives, then the connection is cut."""
    async with scripted_proxy() as cluster:
        client = await cluster.connect()
        client.get()
        exchange = await cluster.replica.next_exchange()
        exchange.reply_together(
            replica_pb2.ReplyFrame(response_start={"status": 200, "body": b"first"}),
            replica_pb2.ReplyFrame(failure={"error": {"reason": "USER_EXCEPTION"}}),
        )
        response = await client.read()
        assert (response.status, response.chunks, response.complete) == (200, [b"first"], False)


async def test_failure_in_the_middle_for_http_1_0() -> None:
    """A client that takes the end of the connection for the end of the body gets an error instead."""
    async with scripted_proxy() as cluster:
        client = await cluster.connect()
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        exchange = await cluster.replica.next_exchange()
        exchange.start(200, body=b"first")
        await client.read_head()
        assert await client.reader.readexactly(5) == b"first"
        exchange.fail("USER_EXCEPTION")
        with pytest.raises(ConnectionResetError):
            await client.read_to_end()


@pytest.mark.parametrize("started", [False, True])
async def test_replica_is_lost(started: bool) -> None:
    """A replica that dies is a 500, or a response that is cut; the connection of a 500 goes on."""
    async with scripted_proxy() as cluster:
        client = await cluster.connect()
        client.get()
        exchange = await cluster.replica.next_exchange()
        if started:
            exchange.start(200, body=b"first")
            await client.read_head()
        else:
            exchange.reply(accepted=replica_pb2.Accepted())
        exchange.drop_stream()
        if started:
            assert await client.read_to_end() == b"5\r\nfirst\r\n"
        else:
            response = await client.read()
            assert (response.status, response.body) == (500, b"Internal Server Error")


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ((b"content-length", b"3"), b"four"),
        ((b"content-length", b"5"), b"four"),
        ((b"content-length", b"four"), b"four"),
        ((b"bad name", b"x"), b"four"),
        ((b"x", b"a\r\nb: c"), b"four"),
    ],
)
async def test_response_that_cannot_be_sent(headers: tuple[bytes, ...], body: bytes) -> None:
    """A response that would break HTTP is a 500 and the next request works."""
    async with scripted_proxy() as cluster:
        client = await cluster.connect()
        client.get()
        (await cluster.replica.next_exchange()).start(200, headers, body, end=True)
        assert (await client.read()).status == 500
        client.get()
        (await cluster.replica.next_exchange()).respond(200, b"fine")
        assert (await client.read()).body == b"fine"


@pytest.mark.parametrize("status", [100, 101, 199, 600, 0])
async def test_status_that_cannot_be_sent(status: int) -> None:
    """A status that does not end a request is a 500."""
    async with scripted_proxy() as cluster:
        client = await cluster.connect()
        client.get()
        (await cluster.replica.next_exchange()).start(status, end=True)
        assert (await client.read()).status == 500


@pytest.mark.parametrize("second", [b"too long", b""])
async def test_body_that_differs_from_content_length_later(second: bytes) -> None:
    """If the difference shows after the head was sent, the response is cut and the handler cancelled."""
    async with scripted_proxy() as cluster:
        client = await cluster.connect()
        client.get()
        exchange = await cluster.replica.next_exchange()
        exchange.start(200, (b"content-length", b"6"), b"abc")
        await client.read_head()
        exchange.chunk(second, end=not second)
        assert await client.read_to_end() == b"abc"


async def test_backpressure() -> None:
    """A full queue is 503 with Retry-After, or whatever the deployment chose."""
    async with scripted_proxy(with_app=False) as cluster:
        await cluster.deploy(
            cluster.app(
                max_ongoing_requests=1,
                max_queued_requests=0,
                backpressure_status_code=429,
                backpressure_retry_after_s=7,
            )
        )
        first, second = await cluster.connect(), await cluster.connect()
        first.get()
        exchange = await cluster.replica.next_exchange()
        second.get()
        response = await second.read()
        assert response.status == 429
        assert response.header("retry-after") == "7"
        assert response.body.startswith(b"Request dropped due to backpressure")
        exchange.respond(200, b"ok")
        assert (await first.read()).status == 200


@pytest.mark.parametrize("whole_app", [True, False])
async def test_failed_deployment(whole_app: bool) -> None:
    """What failed to deploy is 503 and says so."""
    async with scripted_proxy(with_app=False) as cluster:
        app = cluster.app(unavailable=not whole_app, replicas=[])
        app.unavailable = whole_app
        await cluster.deploy(app)
        client = await cluster.connect()
        client.get()
        response = await client.read()
        assert response.status == 503
        assert response.body.endswith(b"is unavailable because it failed to deploy.")


async def test_no_controller_no_problem() -> None:
    """Without a controller the proxy goes on with the last snapshot."""
    async with scripted_proxy() as cluster:
        await cluster.stop_controller()
        client = await cluster.connect()
        client.get()
        (await cluster.replica.next_exchange()).respond(200, b"still here")
        assert (await client.read()).body == b"still here"


async def test_controller_knows_the_proxy() -> None:
    """The proxy tells the controller its addresses."""
    async with scripted_proxy(node_id="n1", proxy_id="p1") as cluster:
        proxy = cluster.controller.requests[0].proxy
        assert (proxy.proxy_id, proxy.node_id) == ("p1", "n1")
        assert proxy.http_address == cluster.proxy.http_address


async def test_many_clients_at_once() -> None:
    """Equal request ids do not mix up what belongs to whom."""

    def echo(exchange: ScriptedExchange) -> None:
        exchange.respond(200, exchange.open.http.query_string)

    async with scripted_proxy() as cluster:
        cluster.replica.handler = echo
        clients = [await cluster.connect() for _ in range(20)]
        for round_ in range(5):
            for number, client in enumerate(clients):
                client.get(f"/?{round_}-{number}", x_request_id="same")
            for number, client in enumerate(clients):
                response = await client.read()
                assert response.body.decode() == f"{round_}-{number}"
                assert response.header("x-request-id") == "same"


async def test_routes_are_json() -> None:
    """/-/routes is a JSON object from prefix to application."""
    async with scripted_proxy() as cluster:
        client = await cluster.connect()
        client.get("/-/routes")
        response = await client.read()
        assert response.header("content-type") == "application/json"
        assert json.loads(response.body) == {"/": "default"}
