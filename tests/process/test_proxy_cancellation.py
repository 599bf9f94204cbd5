"""The client leaves, or its time is over: the replica hears of it in every phase, with the reason."""

import asyncio
import logging

import pytest

from slipknot_proto.v1 import replica_pb2
from slipknot_proto.v1.payload_pb2 import CancelReason
from tests.support.raw_http import RawClient
from tests.support.scripted_cluster import ScriptedCluster, ScriptedExchange, scripted_proxy

pytestmark = pytest.mark.anyio

DISCONNECTED = CancelReason.CANCEL_REASON_CLIENT_DISCONNECTED
EXPIRED = CancelReason.CANCEL_REASON_DEADLINE_EXCEEDED
MIB = 1024 * 1024
WAYS = ["close", "close_writing", "reset"]


def leave(client: RawClient, way: str) -> None:
    """Leave in one of the ways."""
    getattr(client, way)()


async def still_serves(cluster: ScriptedCluster) -> None:
    """Another client is served."""
    client = await cluster.connect()
    client.get("/other")
    (await cluster.replica.next_exchange()).respond(200, b"fine")
    assert (await client.read()).body == b"fine"


# --- disconnects ---


@pytest.mark.parametrize("way", WAYS)
async def test_while_the_handler_runs(way: str) -> None:
    """A request whose client leaves is cancelled, and only this one."""
    async with scripted_proxy() as cluster:
        client, other = await cluster.connect(), await cluster.connect()
        client.get()
        exchange = await cluster.replica.next_exchange()
        other.get("/other")
        untouched = await cluster.replica.next_exchange()
        leave(client, way)
        assert await exchange.cancelled() == DISCONNECTED
        untouched.respond(200, b"fine")
        assert (await other.read()).body == b"fine"
        assert untouched.cancel is None


async def test_while_queued() -> None:
    """A queued request whose client leaves never reaches a replica; the one behind it does."""
    async with scripted_proxy(with_app=False) as cluster:
        await cluster.deploy(cluster.app(max_ongoing_requests=1))
        running, leaving, waiting = [await cluster.connect() for _ in range(3)]
        running.get("/running")
        exchange = await cluster.replica.next_exchange()
        for client, path in ((leaving, "/leaving"), (waiting, "/waiting")):
            client.get(path)
            await _until_ongoing(cluster, 2 if client is leaving else 3)
        leaving.close()
        await _until_ongoing(cluster, 2)
        exchange.respond(200, b"first")
        exchange = await cluster.replica.next_exchange()
        assert exchange.open.http.path == "/waiting"
        exchange.respond(200, b"second")
        assert (await waiting.read()).body == b"second"
        assert cluster.replica.opened_count == 2


async def test_while_refused_and_queued_again() -> None:
    """A refused request is queued again; its client leaves; it is not sent a second time."""
    async with scripted_proxy() as cluster:
        client = await cluster.connect()
        client.get()
        exchange = await cluster.replica.next_exchange()
        exchange.reply(
            refused=replica_pb2.Refused(
                reason=replica_pb2.Refused.REASON_BUSY, ongoing=1, max_ongoing=1, waiting=True
            )
        )
        await _until_queued(cluster, 1)
        client.close()
        await _until_ongoing(cluster, 0)
        exchange.reply(slot_reserved=replica_pb2.SlotReserved())
        await exchange.next_frame("decline")
        assert cluster.replica.opened_count == 1


async def test_refused_requests_keep_their_order() -> None:
    """Requests that were refused after one another are sent again in the order they came in."""
    async with scripted_proxy() as cluster:
        exchanges = []
        for path in ("/1", "/2", "/3"):
            client = await cluster.connect()
            client.get(path)
            exchanges.append(await cluster.replica.next_exchange())
        for count, exchange in enumerate(exchanges, 1):
            exchange.reply(
                refused=replica_pb2.Refused(
                    reason=replica_pb2.Refused.REASON_BUSY, ongoing=1, max_ongoing=1, waiting=True
                )
            )
            await _until_queued(cluster, count)
        for path, exchange in zip(("/1", "/2", "/3"), exchanges, strict=True):
            exchange.reply(slot_reserved=replica_pb2.SlotReserved())
            again = await cluster.replica.next_exchange()
            assert again.open.http.path == path
            again.respond(200, b"")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [MIB // 2, 6 * MIB], ids=["below the credit", "read ahead"])
async def test_with_an_unread_body(way: str, size: int) -> None:
    """A body that nobody reads does not hide that its client has left."""
    async with scripted_proxy() as cluster:
        client = await cluster.connect()
        client.request("POST", "/", b"x" * size)
        exchange = await cluster.replica.next_exchange()
        await client.flush()
        leave(client, way)
        assert await exchange.cancelled() == DISCONNECTED


@pytest.mark.parametrize("way", ["close", "close_writing", "reset"])
async def test_with_more_unread_than_we_read_ahead(way: str) -> None:
    """Beyond the read-ahead nothing is read any more, and the hang-up is noticed all the same.

    What is sent must fit into the buffers of the kernel: else it holds back the end, too.
    """
    async with scripted_proxy(max_read_ahead_bytes=100_000) as cluster:
        client = await cluster.connect()
        client.request("POST", "/", b"x" * 160_000)
        exchange = await cluster.replica.next_exchange()
        await client.flush()
        leave(client, way)
        assert await exchange.cancelled() == DISCONNECTED


async def test_with_half_a_body() -> None:
    """A truncated upload never looks complete."""
    async with scripted_proxy() as cluster:
        client = await cluster.connect()
        client.request("POST", content_length="1000")
        client.send(b"x" * 400)
        exchange = await cluster.replica.next_exchange()
        exchange.grant(10_000)
        await exchange.read_body(lambda body: len(body) == 400)
        client.close()
        assert await exchange.cancelled() == DISCONNECTED
        assert not exchange.body_complete


async def test_with_half_a_chunked_body() -> None:
    """The same without a content-length."""
    async with scripted_proxy() as cluster:
        client = await cluster.connect()
        client.request("POST", transfer_encoding="chunked")
        client.chunk(b"part")
        exchange = await cluster.replica.next_exchange()
        exchange.grant(10_000)
        await exchange.read_body(lambda body: body == b"part")
        client.close()
        assert await exchange.cancelled() == DISCONNECTED
        assert not exchange.body_complete


@pytest.mark.parametrize("way", WAYS)
async def test_behind_a_pipelined_request(way: str) -> None:
    """A second request on the connection does not hide the disconnect; it never runs."""
    async with scripted_proxy() as cluster:
        client = await cluster.connect()
        client.get("/first")
        client.get("/second")
        exchange = await cluster.replica.next_exchange()
        leave(client, way)
        assert await exchange.cancelled() == DISCONNECTED
        await still_serves(cluster)
        assert cluster.replica.opened_count == 2


async def test_behind_a_flood_of_pipelined_requests() -> None:
    """So many that we stop reading; the disconnect is seen by the kernel."""
    async with scripted_proxy() as cluster:
        client = await cluster.connect()
        client.get("/first")
        exchange = await cluster.replica.next_exchange()
        for _ in range(40):
            client.get("/more")
        await client.flush()
        client.request("POST", "/large", b"x" * 100_000)
        await client.flush()
        client.close()
        assert await exchange.cancelled() == DISCONNECTED


async def test_flood_of_pipelined_requests_is_served() -> None:
    """Reading goes on as the pipelined requests are answered."""
    async with scripted_proxy() as cluster:
        cluster.replica.handler = lambda exchange: exchange.respond(200, exchange.open.http.query_string)
        client = await cluster.connect()
        for number in range(500):
            client.get(f"/?{number}")
        for number in range(500):
            assert (await client.read()).body == b"%d" % number


async def test_flood_of_pipelined_requests_that_the_proxy_answers_itself() -> None:
    """Each is answered at once, but not one inside the other."""
    async with scripted_proxy() as cluster:
        client = await cluster.connect()
        client.send(b"GET /-/healthz HTTP/1.1\r\nhost: test\r\n\r\n" * 1000)
        for _ in range(1000):
            assert (await client.read()).body == b"success"


@pytest.mark.parametrize("way", WAYS)
async def test_while_streaming(way: str) -> None:
    """A stream whose client leaves is cancelled."""
    async with scripted_proxy() as cluster:
        client = await cluster.connect()
        client.get()
        exchange = await cluster.replica.next_exchange()
        exchange.start(200)
        exchange.chunk(b"one")
        await client.read_head()
        assert await client.read_chunk() == b"one"
        leave(client, way)
        assert await exchange.cancelled() == DISCONNECTED


@pytest.mark.parametrize("way", WAYS)
async def test_while_the_reader_is_slow(way: str) -> None:
    """A client that has stopped reading, and then leaves, is noticed while we wait for it."""
    async with scripted_proxy() as cluster:
        client = await cluster.connect(receive_buffer=4096)
        exchange = await _stuck_response(cluster, client)
        leave(client, way)
        assert await exchange.cancelled() == DISCONNECTED


async def test_disconnect_may_be_disabled() -> None:
    """With `x-request-disconnect-disabled: ?1` the request runs to its end without its client."""
    async with scripted_proxy() as cluster:
        client = await cluster.connect()
        client.get(x_request_disconnect_disabled="?1")
        exchange = await cluster.replica.next_exchange()
        client.close()
        await still_serves(cluster)
        exchange.start(200)
        for _ in range(20):
            exchange.chunk(b"x" * 65_536)
        assert (await exchange.next_frame("credit")).byte_count > 0
        exchange.chunk(b"", end=True)
        await _until_ongoing(cluster, 0)
        assert exchange.cancel is None
        assert not exchange.ended.is_set()


async def test_disabled_disconnect_does_not_hold_for_half_a_body() -> None:
    """A request whose body will never be complete is cancelled nevertheless."""
    async with scripted_proxy() as cluster:
        client = await cluster.connect()
        client.request("POST", x_request_disconnect_disabled="?1", content_length="10")
        exchange = await cluster.replica.next_exchange()
        client.close()
        assert await exchange.cancelled() == DISCONNECTED


async def test_disconnect_is_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """A disconnect is an INFO line and status 499 in the access log, nothing else."""
    caplog.set_level(logging.INFO, "slipknot.serve")
    async with scripted_proxy() as cluster:
        client = await cluster.connect()
        client.get("/x", x_request_id="r1")
        exchange = await cluster.replica.next_exchange()
        client.close()
        await exchange.cancelled()
        await _until_ongoing(cluster, 0)
        lines = [r.getMessage() for r in caplog.records if "proxy_" not in r.getMessage()]
    assert lines[0] == "Client for request r1 disconnected, cancelling request."
    assert lines[1].startswith("GET / 499 ")
    assert len(lines) == 2


async def test_a_response_that_is_cut_is_no_disconnect_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """It was not the client that left."""
    caplog.set_level(logging.INFO, "slipknot.serve")
    async with scripted_proxy() as cluster:
        client = await cluster.connect()
        client.get("/x")
        exchange = await cluster.replica.next_exchange()
        exchange.start(200, body=b"one")
        exchange.fail("USER_EXCEPTION")
        assert not (await client.read()).complete
        assert await client.ended()
        await _until_ongoing(cluster, 0)
        lines = [r.getMessage() for r in caplog.records if "proxy_" not in r.getMessage()]
    assert [line.split(" ")[:3] for line in lines] == [["GET", "/", "200"]]


# --- deadlines ---


async def test_deadline_while_the_handler_runs() -> None:
    """A request that takes too long is 408 and cancelled; the connection goes on."""
    async with scripted_proxy(request_timeout_s=0.2) as cluster:
        client = await cluster.connect()
        client.get(x_request_id="r1")
        exchange = await cluster.replica.next_exchange()
        assert 0 < exchange.open.deadline_budget_us <= 200_000
        response = await client.read()
        assert (response.status, response.body) == (408, b"Request r1 timed out after 0.2s.")
        assert await exchange.cancelled() == EXPIRED
        client.get(x_request_timeout_seconds="0")
        exchange = await cluster.replica.next_exchange()
        assert exchange.open.deadline_budget_us == 0
        exchange.respond(200, b"fine")
        assert (await client.read()).body == b"fine"


async def test_deadline_while_queued() -> None:
    """A request that is queued for too long is 408 and never sent."""
    async with scripted_proxy(with_app=False) as cluster:
        await cluster.deploy(cluster.app(max_ongoing_requests=1))
        running, waiting = await cluster.connect(), await cluster.connect()
        running.get()
        exchange = await cluster.replica.next_exchange()
        waiting.get(x_request_timeout_seconds="0.1")
        assert (await waiting.read()).status == 408
        exchange.respond(200, b"ok")
        assert (await running.read()).status == 200
        assert cluster.replica.opened_count == 1


async def test_deadline_with_an_unread_body() -> None:
    """The answer gets through although the body was not read."""
    async with scripted_proxy(request_timeout_s=0.2) as cluster:
        client = await cluster.connect()
        client.request("POST", "/", b"x" * 3 * MIB)
        exchange = await cluster.replica.next_exchange()
        assert (await client.read()).status == 408
        assert await exchange.cancelled() == EXPIRED


async def test_deadline_while_streaming() -> None:
    """A response that has begun is cut: the client sees that it is not complete."""
    async with scripted_proxy(request_timeout_s=0.2) as cluster:
        client = await cluster.connect()
        client.get()
        exchange = await cluster.replica.next_exchange()
        exchange.start(200, body=b"one")
        response = await client.read()
        assert (response.status, response.chunks, response.complete) == (200, [b"one"], False)
        assert await exchange.cancelled() == EXPIRED


async def test_deadline_while_the_reader_is_slow() -> None:
    """A client that does not read cannot keep its request beyond the deadline."""
    async with scripted_proxy() as cluster:
        client = await cluster.connect(receive_buffer=4096)
        exchange = await _stuck_response(cluster, client, x_request_timeout_seconds="0.3")
        assert await exchange.cancelled() == EXPIRED
        await _until_ongoing(cluster, 0)


@pytest.mark.parametrize("value", ["soon", "", "nan", "-1", "0", "inf"])
async def test_timeout_header_that_means_none(value: str) -> None:
    """A malformed wish is ignored; zero, less and infinity mean no deadline."""
    async with scripted_proxy() as cluster:
        client = await cluster.connect()
        client.get(x_request_timeout_seconds=value)
        exchange = await cluster.replica.next_exchange()
        assert exchange.open.deadline_budget_us == 0
        exchange.respond(200, b"")
        await client.read()


async def test_malformed_timeout_header_keeps_the_configured_one() -> None:
    """A malformed wish does not lift the configured timeout."""
    async with scripted_proxy(request_timeout_s=50) as cluster:
        client = await cluster.connect()
        client.get(x_request_timeout_seconds="nan")
        exchange = await cluster.replica.next_exchange()
        assert exchange.open.deadline_budget_us > 0
        exchange.respond(200, b"")
        await client.read()


async def test_replica_cancels_by_itself() -> None:
    """A replica that had to stop says so, and the client gets 503."""
    async with scripted_proxy() as cluster:
        client = await cluster.connect()
        client.get()
        exchange = await cluster.replica.next_exchange()
        exchange.reply(
            cancelled=replica_pb2.Cancelled(reason=CancelReason.CANCEL_REASON_DRAIN_TIMEOUT, origin="r")
        )
        response = await client.read()
        assert response.status == 503
        assert response.body.endswith(b"was cancelled because the server is shutting down.")


# --- many ---


async def test_two_hundred_disconnects_in_random_phases() -> None:
    """Whatever the moment, each request is answered or cancelled, and nothing is left."""
    async with scripted_proxy() as cluster:
        exchanges: list[ScriptedExchange] = []

        def begin(exchange: ScriptedExchange) -> None:
            exchanges.append(exchange)
            if len(exchanges) % 3:
                exchange.start(200)

        cluster.replica.handler = begin
        clients = []
        for number in range(200):
            client = await cluster.connect()
            if number % 2:
                client.get()
            else:
                client.request("POST", "/", b"x" * (number * 1000))
            clients.append(client)
            if number % 5 == 0:
                client.reset()
        for client in clients:
            client.close()
        await _until_ongoing(cluster, 0)
        for exchange in exchanges:
            assert await exchange.cancelled() == DISCONNECTED


# --- helpers ---


async def _until_ongoing(cluster: ScriptedCluster, count: int) -> None:
    """Wait until `count` requests are under way at the proxy."""
    async with asyncio.timeout(5):
        while cluster.proxy.app.ongoing != count:
            await asyncio.sleep(0.001)


async def _until_queued(cluster: ScriptedCluster, count: int) -> None:
    """Wait until `count` requests have no replica."""
    async with asyncio.timeout(5):
        while cluster.proxy.dispatcher.queued != count:
            await asyncio.sleep(0.001)


async def _stuck_response(cluster: ScriptedCluster, client: RawClient, **headers: str) -> ScriptedExchange:
    """Send a response until neither the client nor anything between takes more of it."""
    client.get(**headers)
    exchange = await cluster.replica.next_exchange()
    exchange.start(200)
    credit = exchange.open.reply_credit_bytes
    while credit > 0:
        exchange.chunk(b"x" * 65_536)
        credit -= 65_536 + 64
    # Credit comes as long as the client's side takes chunks.
    while True:
        try:
            async with asyncio.timeout(0.1):
                credit = (await exchange.next_frame("credit")).byte_count
        except TimeoutError:
            return exchange
        while credit > 0:
            exchange.chunk(b"x" * 65_536)
            credit -= 65_536 + 64
