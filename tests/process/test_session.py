"""Sessions: many streams on one RPC, seen from the calling end of the wire."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from slipknot import serve
from slipknot.testing import Cluster
from slipknot_core.routing import session
from slipknot_core.rpc.channel import new_channel
from slipknot_proto.v1 import replica_pb2, replica_pb2_grpc
from slipknot_proto.v1.payload_pb2 import CancelReason, Payload
from tests.support.cluster_status import application
from tests.support.journal import Gate, Journal, Pen

pytestmark = pytest.mark.anyio

WAIT_S = 30.0


@serve.deployment(max_ongoing_requests=2)
class Held:
    """Notes who comes, waits at the gate, notes who was cancelled."""

    def __init__(self, pen: Pen, gate: Gate) -> None:
        self._pen, self._gate = pen, gate

    async def hold(self, name: str) -> str:
        """Stand at the gate."""
        self._pen.note(f"in {name}")
        try:
            await self._gate.passed()
        except asyncio.CancelledError:
            self._pen.note(f"cancelled {name}")
            raise
        return name

    async def say(self, name: str) -> str:
        """Answer at once."""
        return name


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Journal]:
    """What the handlers note."""
    with Journal(tmp_path_factory.mktemp("journal")) as opened:
        yield opened


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """Holds the handlers of one test."""
    closed = Gate(tmp_path / "gate")
    yield closed
    closed.open()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """All roles in this process."""
    with Cluster() as running:
        yield running


class Caller:
    """A session as a test drives it."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.replies: dict[int, list[replica_pb2.ReplyFrame]] = {}

    async def send(self, *frames: tuple[int, replica_pb2.CallFrame]) -> None:
        """Send frames in one message."""
        ids, sent = [number for number, _ in frames], [frame for _, frame in frames]
        await self.call.write(replica_pb2.SessionRequest(stream_ids=ids, frames=sent))

    async def until(self, is_enough: Callable[["Caller"], bool]) -> None:
        """Read until `is_enough` says so."""
        async with asyncio.timeout(WAIT_S):
            while not is_enough(self):
                message = await self.call.read()
                assert message is not grpc.aio.EOF
                for number, frame in zip(message.stream_ids, message.frames, strict=True):
                    self.replies.setdefault(number, []).append(frame)

    async def reply(self, number: int, kind: str) -> Any:
        """Read until a `kind` came on stream `number`; returns its content."""
        await self.until(lambda me: any(f.WhichOneof("frame") == kind for f in me.replies.get(number, [])))
        return next(getattr(f, kind) for f in self.replies[number] if f.WhichOneof("frame") == kind)


@pytest.fixture
async def caller(cluster: Cluster, journal: Journal, gate: Gate) -> AsyncIterator[Caller]:
    """A session with a replica of `Held`."""
    await asyncio.to_thread(serve.run, Held.bind(journal.pen, gate), route_prefix=None)
    (replica,) = application().deployments[0].replicas
    async with new_channel(replica.address) as channel:
        call = replica_pb2_grpc.ReplicaServiceStub(channel).Session()
        yield Caller(call)
        call.cancel()
    gate.open()
    await asyncio.to_thread(serve.delete, "default")


def open_frame(method: str, name: str) -> replica_pb2.CallFrame:
    """Call a method with a name."""
    call = replica_pb2.MethodCall(
        method_name=method, arguments=Payload(json=f'{{"args": ["{name}"]}}'.encode())
    )
    return replica_pb2.CallFrame(
        open=replica_pb2.Open(
            request_id=name, app_name="default", deployment_name="Held", method=call, wait_for_slot=True
        )
    )


def cancel_frame() -> replica_pb2.CallFrame:
    """Cancel what runs."""
    cancel = replica_pb2.Cancel(reason=CancelReason.CANCEL_REASON_REQUESTED, origin="test")
    return replica_pb2.CallFrame(cancel=cancel)


async def test_streams_do_not_wait_for_each_other(caller: Caller, journal: Journal, gate: Gate) -> None:
    """One stands at the gate; others are answered meanwhile, each on its stream, also again and again."""
    await caller.send((1, open_frame("hold", "first")))
    await journal.wait_for_async("in first")
    for round_ in range(3):
        caller.replies.pop(2, None)
        await caller.send((2, open_frame("say", f"quick {round_}")))
        assert (await caller.reply(2, "result")).value.json == f'"quick {round_}"'.encode()
    gate.open()
    assert (await caller.reply(1, "result")).value.json == b'"first"'


async def test_a_cancel_ends_its_stream_and_no_other(caller: Caller, journal: Journal, gate: Gate) -> None:
    """The handler is told; what comes for the ended stream is ignored; its neighbour finishes."""
    await caller.send((1, open_frame("hold", "leaves")), (2, open_frame("hold", "stays")))
    await journal.wait_for_async("in leaves")
    await journal.wait_for_async("in stays")
    await caller.send((1, cancel_frame()), (1, open_frame("hold", "late")), (1, cancel_frame()))
    await journal.wait_for_async("cancelled leaves")
    await caller.send((3, open_frame("say", "new")))
    assert (await caller.reply(3, "result")).value.json == b'"new"'
    gate.open()
    assert (await caller.reply(2, "result")).value.json == b'"stays"'
    assert "in late" not in journal.notes
    assert "cancelled stays" not in journal.notes


async def test_a_stream_that_waits_for_a_slot_gives_its_ticket_back(
    caller: Caller, journal: Journal, gate: Gate
) -> None:
    """Two run, two wait; one of these is cancelled: the other gets the slot."""
    await caller.send((1, open_frame("hold", "a")), (2, open_frame("hold", "b")))
    await journal.wait_for_async("in b")
    await caller.send((3, open_frame("say", "c")), (4, open_frame("say", "d")))
    for number in (3, 4):
        assert (await caller.reply(number, "refused")).waiting
    await caller.send((3, cancel_frame()), (1, cancel_frame()))
    await caller.reply(4, "slot_reserved")
    await caller.send((4, open_frame("say", "d")))
    assert (await caller.reply(4, "result")).value.json == b'"d"'
    assert {f.WhichOneof("frame") for f in caller.replies[3]} == {"refused"}


async def test_a_session_that_breaks_cancels_all_that_runs_on_it(caller: Caller, journal: Journal) -> None:
    """As if its caller had died."""
    await caller.send((1, open_frame("hold", "x")), (2, open_frame("hold", "y")))
    await journal.wait_for_async("in x")
    await journal.wait_for_async("in y")
    caller.call.cancel()
    await journal.wait_for_async("cancelled x")
    await journal.wait_for_async("cancelled y")


async def test_while_it_drains_a_replica_finishes_and_refuses_in_words(
    caller: Caller, journal: Journal, gate: Gate
) -> None:
    """What runs is answered; what comes is told to go elsewhere, on old streams and new ones."""
    await caller.send((1, open_frame("say", "idle")), (2, open_frame("hold", "busy")))
    await caller.reply(1, "result")
    await journal.wait_for_async("in busy")
    deleting = asyncio.create_task(asyncio.to_thread(serve.delete, "default"))
    while application().deployments[0].replicas[0].state != "STOPPING":
        await asyncio.sleep(0.01)
    for number in (1, 3):
        while not any(f.WhichOneof("frame") == "refused" for f in caller.replies.get(number, [])):
            caller.replies.pop(number, None)
            await caller.send((number, open_frame("say", "late")))
            await caller.until(lambda me, number=number: number in me.replies)
        assert (await caller.reply(number, "refused")).reason == replica_pb2.Refused.REASON_DRAINING
    gate.open()
    assert (await caller.reply(2, "result")).value.json == b'"busy"'
    await deleting


@pytest.mark.parametrize(
    ("request_", "details"),
    [
        (replica_pb2.SessionRequest(stream_ids=[1, 2], frames=[replica_pb2.CallFrame()]), "1 frames for 2"),
        (replica_pb2.SessionRequest(stream_ids=[1], frames=[replica_pb2.CallFrame()]), "unknown kind"),
        (
            replica_pb2.SessionRequest(stream_ids=[1], frames=[replica_pb2.CallFrame(body={"data": b"x"})]),
            "'body' without a running exchange",
        ),
    ],
)
async def test_what_breaks_the_protocol_ends_the_session(
    caller: Caller, request_: replica_pb2.SessionRequest, details: str
) -> None:
    """The status names what was wrong."""
    await caller.call.write(request_)
    async with asyncio.timeout(WAIT_S):
        with pytest.raises(grpc.aio.AioRpcError, match=details) as caught:
            while await caller.call.read() is not grpc.aio.EOF:
                pass
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_what_a_full_session_does_not_take_goes_beside_it(
    cluster: Cluster, journal: Journal, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "MAX_STREAMS", 3)
    app = Held.options(max_ongoing_requests=20).bind(journal.pen, gate)
    handle = serve.run(app, name="full", route_prefix=None)
    try:
        held = [handle.hold.remote(f"full {number}") for number in range(8)]
        for number in range(8):
            await journal.wait_for_async(f"in full {number}")
        gate.open()
        assert [await response for response in held] == [f"full {number}" for number in range(8)]
        assert await handle.say.remote("afterwards") == "afterwards"
    finally:
        serve.delete("full")
