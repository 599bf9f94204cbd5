"""WebSockets: from the handshake to the last close, with a real client."""

import json
import logging
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from socket import SO_LINGER, SOL_SOCKET
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from slipknot import serve
from slipknot.testing import Cluster
from tests.support.journal import Gate, Journal

from .conftest import RunningCluster, ServeApp
from .websocket_apps import Doubler, Sockets, plain

WAIT_S = 30.0
PREFIX = "/sockets/v1"


@dataclass
class Running:
    """The sockets, where they run."""

    cluster: RunningCluster
    journal: Journal
    gate: Gate

    def connect(self, path: str, **options: Any) -> ClientConnection:
        return connect(f"{self.cluster.websocket_url}{PREFIX}{path}", open_timeout=WAIT_S, **options)


@pytest.fixture(scope="module")
def sockets(cluster: RunningCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Deployed once for all tests of a mode."""
    directory = tmp_path_factory.mktemp("ws")
    gate = Gate(directory / "gate")
    with Journal(directory) as journal:
        app = Sockets.bind(journal.pen, gate, Doubler.bind())
        serve.run(app, name="sockets", route_prefix=PREFIX)
        yield Running(cluster, journal, gate)
        gate.open()
        serve.delete("sockets")


def end_of(websocket: ClientConnection) -> tuple[int, str]:
    """Wait for the close of the server."""
    with pytest.raises(ConnectionClosed) as caught:
        websocket.recv(WAIT_S)
    assert caught.value.rcvd is not None, "the connection ended without a close frame"
    return caught.value.rcvd.code, caught.value.rcvd.reason


def refusal(sockets: Running, path: str, **options: Any) -> Any:
    """The HTTP response to a handshake that fails."""
    with pytest.raises(InvalidStatus) as caught:
        sockets.connect(path, **options)
    return caught.value.response


# --- messages ---


@pytest.mark.parametrize(
    "message",
    [
        "Eureka!",
        "",
        "äöü €𝄞 \x00",
        b"\x00\xff",
        b"",
        "x" * 3_000_000,
        "a€𝄞" * 50_000,
        bytes(range(250)) * 12_000,
    ],
    ids=["text", "empty text", "unicode", "bytes", "empty bytes", "long text", "long unicode", "many bytes"],
)
def test_echo(sockets: Running, message: str | bytes) -> None:
    with sockets.connect("/echo/quiet", max_size=None) as websocket:
        for _ in range(2):
            websocket.send(message)
            assert websocket.recv(WAIT_S) == message


def test_fragments_become_one_message(sockets: Running) -> None:
    with sockets.connect("/echo/quiet") as websocket:
        websocket.send(["Eu", "re", "ka!"])
        assert websocket.recv(WAIT_S) == "Eureka!"


def test_ping(sockets: Running) -> None:
    with sockets.connect("/echo/quiet") as websocket:
        assert websocket.ping().wait(WAIT_S)


def test_more_messages_than_the_credit(sockets: Running) -> None:
    """All arrive, in order, also if the client reads nothing for as long as they are sent."""
    count, size = 64, 100_000
    with sockets.connect(f"/numbers?count={count}&size={size}", max_size=None) as websocket:
        received = [websocket.recv(WAIT_S) for _ in range(count)]
        assert [(len(m), m[:4], m[-4:]) for m in received] == [
            (size, n.to_bytes(4, "big"), n.to_bytes(4, "big")) for n in range(count)
        ]
        assert end_of(websocket) == (1000, "")
    with sockets.connect("/echo/quiet", max_size=None) as websocket:
        sent = [bytes([number]) * size for number in range(30)]
        for message in sent:
            websocket.send(message)
        assert [websocket.recv(WAIT_S) for _ in sent] == sent


def test_messages_of_several_tasks_stay_whole(sockets: Running) -> None:
    with sockets.connect("/chorus", max_size=None) as websocket:
        received = [websocket.recv(WAIT_S) for _ in range(10)]
        assert sorted(received) == sorted(letter * count for letter in "abcde" for count in (1, 200_000))
        assert end_of(websocket) == (1000, "")


def test_a_message_whose_sending_is_cancelled_leaves_nothing(sockets: Running) -> None:
    with sockets.connect("/thinks-better-of-it", max_size=None) as websocket:
        assert websocket.recv(WAIT_S) == "instead"
        assert end_of(websocket) == (1000, "")


def test_sockets_side_by_side(sockets: Running) -> None:
    with sockets.connect("/echo/quiet") as one, sockets.connect("/echo/quiet") as two:
        one.send("to one")
        two.send("to two")
        assert (two.recv(WAIT_S), one.recv(WAIT_S)) == ("to two", "to one")


def test_handle_calls_from_a_handler(sockets: Running) -> None:
    with sockets.connect("/double") as websocket:
        for text in ("a", "b"):
            websocket.send(text)
            assert websocket.recv(WAIT_S) == text * 2


def test_beside_other_routes(sockets: Running) -> None:
    base = sockets.cluster.url + PREFIX
    with sockets.connect("/echo/quiet") as websocket:
        assert httpx.get(base + "/unary").json() == "one"
        assert httpx.get(base + "/stream").text == "ab"
        websocket.send("still here")
        assert websocket.recv(WAIT_S) == "still here"


# --- the client leaves ---


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "bye"), (4002, "wäre gern noch da")])
def test_client_closes(sockets: Running, code: int, reason: str) -> None:
    """The handler gets the client's code and reason."""
    name = f"closer{code}"
    for path, verb in (("echo", "left"), ("reader", "disconnected")):
        with sockets.connect(f"/{path}/{name}") as websocket:
            websocket.close(code, reason)
        sockets.journal.wait_for(f"{name} {verb} {code} {reason!r}")


@pytest.mark.parametrize("is_reset", [False, True], ids=["FIN", "RST"])
def test_connection_drops(sockets: Running, is_reset: bool) -> None:
    """Without a close frame there is no code: 1005."""
    name = f"dropped{is_reset}"
    with sockets.connect(f"/echo/{name}") as websocket:
        if is_reset:
            websocket.socket.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        websocket.close_socket()
    sockets.journal.wait_for(f"{name} left 1005 ''")


def test_a_handler_that_does_not_read_goes_on(sockets: Running) -> None:
    """The disconnect is no cancellation; `receive` tells it afterwards."""
    with sockets.connect("/busy/steady") as websocket:
        sockets.journal.wait_for("steady began")
        websocket.close(1001)
    assert "steady ended 1001" not in sockets.journal.notes
    sockets.gate.open()
    sockets.journal.wait_for("steady ended 1001")


def test_a_handler_that_only_sends_hears_of_it(sockets: Running) -> None:
    with sockets.connect("/talk/talker") as websocket:
        assert websocket.recv(WAIT_S) == "x" * 10_000
        websocket.close_socket()
    sockets.journal.wait_until(
        lambda notes: any(note.startswith("talker stopped ") for note in notes), "talker stopped"
    )


# --- the server closes ---


@pytest.mark.parametrize(
    ("code", "reason"), [(1000, ""), (1001, ""), (1011, "broken"), (4002, "why"), (3000, "w" * 123)]
)
def test_server_closes(sockets: Running, code: int, reason: str) -> None:
    """The client gets the code, and the handler finds it when it goes on reading."""
    with sockets.connect(f"/close/{code}?reason={reason}") as websocket:
        assert end_of(websocket) == (code, reason)
    sockets.journal.wait_for(f"closed {code} {reason!r}")


def test_handler_returns(sockets: Running) -> None:
    with sockets.connect("/return") as websocket:
        assert websocket.recv(WAIT_S) == "last words"
        assert end_of(websocket) == (1000, "")


def test_handler_crashes(sockets: Running) -> None:
    """What was sent before still arrives; the error's text does not."""
    with sockets.connect("/crash") as websocket:
        assert websocket.recv(WAIT_S) == "before"
        assert end_of(websocket) == (1011, "")


def test_error_of_a_handle_call(sockets: Running) -> None:
    """It ends the WebSocket as an error, not as if the handler had come to its end."""
    with sockets.connect("/too-much") as websocket:
        code, reason = end_of(websocket)
    assert code == 1011
    assert reason.startswith("Request dropped due to backpressure")


# --- the handshake ---


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/refuse", 403),
        ("/no-such-route", 403),
        ("/unary", 403),
        ("/number/three", 403),
        ("/describe/no-header", 403),
        ("/crash-early", 500),
        ("/forget", 500),
    ],
)
def test_refused_handshake(sockets: Running, path: str, status: int) -> None:
    response = refusal(sockets, path)
    assert response.status_code == status
    assert len(response.headers.get_all("x-request-id")) == 1
    assert b"secret" not in response.body


def test_denial_response(sockets: Running) -> None:
    response = refusal(sockets, "/deny")
    assert (response.status_code, response.headers["x-price"], response.body) == (402, "3", b"pay first")


def test_unknown_application_and_plain_deployment(serve_app: ServeApp, sockets: Running) -> None:
    with pytest.raises(InvalidStatus) as caught:
        connect(sockets.cluster.websocket_url + "/nobody/here")
    assert caught.value.response.status_code == 404
    app = serve_app(plain.bind(), name="plain", route_prefix="/plain")
    with pytest.raises(InvalidStatus) as caught:
        connect(app.websocket_url)
    assert caught.value.response.status_code == 403
    assert app.client.get("").text == "GET"


@pytest.mark.parametrize(("offered", "chosen"), [(None, None), (["a"], "a"), (["a", "b"], "b")])
def test_subprotocol_and_headers(sockets: Running, offered: Any, chosen: str | None) -> None:
    with sockets.connect(
        "/agree", subprotocols=offered, additional_headers={"x-request-id": "mine"}
    ) as websocket:
        assert websocket.subprotocol == chosen
        assert websocket.response is not None
        headers = websocket.response.headers
        assert (headers.get_all("x-mine"), headers.get_all("x-request-id")) == (["1", "2"], ["mine"])


def test_what_the_handler_sees(sockets: Running) -> None:
    path = "/describe/a%20b?limit=7&word=loud"
    with sockets.connect(path, additional_headers={"x-mine": "yes", "cookie": "tasty=1"}) as websocket:
        seen = json.loads(websocket.recv(WAIT_S))
        assert websocket.response is not None
        request_id = websocket.response.headers["x-request-id"]
    assert seen == {
        "request_id": request_id,
        "item": "a b",
        "limit": 7,
        "word": "LOUD",
        "x_mine": "yes",
        "path": f"{PREFIX}/describe/a b",
        "root_path": PREFIX,
        "scheme": "ws",
        "cookie": "1",
        "url": f"{sockets.cluster.websocket_url}{PREFIX}/close/3",
    }


def test_too_long_a_message(sockets: Running) -> None:
    if sockets.cluster.mode == "embedded":
        pytest.skip("needs a cluster with an option of its own, and a process has one at most")
    with Cluster(http_options={"max_ws_message_bytes": 1000}) as cluster:
        cluster.run(Sockets.bind(sockets.journal.pen, sockets.gate, Doubler.bind()))
        with connect(f"{cluster.websocket_url}/echo/long") as websocket:
            websocket.send("x" * 1000)
            assert len(websocket.recv(WAIT_S)) == 1000
            websocket.send("x" * 1001)
            assert end_of(websocket)[0] == 1009
        sockets.journal.wait_until(lambda notes: any(note.startswith("long left") for note in notes))


def test_access_log(sockets: Running, caplog: pytest.LogCaptureFixture) -> None:
    """Method WS and the close code; and the route, from replica and proxy."""
    if sockets.cluster.mode == "embedded":
        pytest.skip("the roles log in their own processes; here their records can be looked at")
    logger = logging.getLogger("slipknot.serve")
    if not logger.propagate:
        logger.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.INFO, "slipknot.serve"), sockets.connect("/close/4002") as websocket:
            assert end_of(websocket) == (4002, "")
            deadline_s = time.monotonic() + WAIT_S
            while len(logged := [line for line in caplog.messages if line.startswith("WS ")]) < 2:
                assert time.monotonic() < deadline_s, caplog.messages
                time.sleep(0.002)
    finally:
        logger.removeHandler(caplog.handler)
    begins = {line.partition(" 4002 ")[0] for line in logged}
    assert (len(logged), begins) == (2, {f"WS {PREFIX}/close/{{code}}"}), logged
