"""Many models in one deployment: loaded once, unloaded when others need their place, and found by routing."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from slipknot import Client, _connection, serve
from slipknot_core.routing.snapshot import Snapshot
from tests.support.journal import Gate, Journal, Pen

from .conftest import RunningCluster, ServeApp

MakeGate = Callable[..., Gate]


class Model:
    def __init__(self, model_id: str, pen: Pen) -> None:
        self.model_id, self._pen = model_id, pen

    def __del__(self) -> None:
        self._pen.note(f"unloaded {self.model_id}")


class AsyncModel(Model):
    async def __del__(self) -> None:  # type: ignore[override]
        await asyncio.sleep(0)
        self._pen.note(f"unloaded {self.model_id}")


@serve.deployment(max_ongoing_requests=20)
class Zoo:
    def __init__(self, pen: Pen, gate: Gate | None = None) -> None:
        self._pen, self._gate = pen, gate

    @serve.multiplexed(max_num_models_per_replica=2)
    async def load(self, model_id: str) -> Any:
        self._pen.note(f"loading {model_id}")
        try:
            if self._gate is not None:
                await self._gate.passed()
        except asyncio.CancelledError:
            self._pen.note(f"cancelled {model_id}")
            raise
        if model_id == "broken":
            raise ValueError("no such weights")
        return AsyncModel(model_id, self._pen) if model_id == "async" else Model(model_id, self._pen)

    async def __call__(self, request: Any = None) -> str:
        model = await self.load(serve.get_multiplexed_model_id())
        return f"{model.model_id} on {serve.get_replica_context().replica_id}"

    async def waits(self) -> str:
        self._pen.note("waits")
        return await self()

    @serve.multiplexed(max_num_models_per_replica=-1)
    async def load_more(self, model_id: str) -> str:
        return model_id

    async def more(self) -> str:
        return await self.load_more(serve.get_multiplexed_model_id())

    async def replica(self) -> str:
        return serve.get_replica_context().replica_id

    async def loads(self, value: Any) -> Any:
        return (await self.load(value)).model_id


def model_of(text: str) -> str:
    return text.partition(" ")[0]


def model_count(snapshot: Snapshot) -> int:
    replicas = snapshot.applications["default"].deployments["Zoo"].replicas
    return sum(len(replica.model_ids) for replica in replicas)


def test_models_are_kept_and_the_least_recently_used_makes_room(
    serve_app: ServeApp, journal: Journal, cluster: RunningCluster
) -> None:
    app = serve_app(Zoo.bind(journal.pen))
    for header in ("serve_multiplexed_model_id", "Serve-Multiplexed-Model-Id"):
        assert model_of(app.client.get("/", headers={header: "a"}).text) == "a"
    assert model_of(app.handle.options(multiplexed_model_id="async").remote().result()) == "async"
    with Client(cluster.gateway_address) as client:
        handle = client.get_app_handle("default").options(multiplexed_model_id="a")
        assert model_of(handle.remote().result()) == "a"
    assert journal.notes == ["loading a", "loading async"]
    assert model_of(app.handle.options(multiplexed_model_id="c").remote().result()) == "c"
    assert journal.notes[2:] == ["unloaded async", "loading c"]
    assert model_of(app.handle.options(multiplexed_model_id="d").remote().result()) == "d"
    assert journal.notes[4:] == ["unloaded a", "loading d"]
    serve.delete("default")
    journal.wait_for("unloaded c")
    journal.wait_for("unloaded d")
    assert len([note for note in journal.notes if note.startswith("unloaded")]) == 4


def test_a_model_is_loaded_once_for_all_and_its_failure_reaches_all(
    serve_app: ServeApp, journal: Journal, make_gate: MakeGate
) -> None:
    gate = make_gate()
    app = serve_app(Zoo.bind(journal.pen, gate))
    good, bad = (app.handle.options(multiplexed_model_id=name).waits for name in ("good", "broken"))
    calls = [handle.remote() for handle in (good, bad) for _ in range(3)]
    journal.wait_for("waits", 6)
    gate.open()
    assert {model_of(call.result()) for call in calls[:3]} == {"good"}
    for call in calls[3:]:
        with pytest.raises(ValueError, match="no such weights"):
            call.result()
    assert journal.notes.count("loading good") == journal.notes.count("loading broken") == 1
    with pytest.raises(ValueError, match="no such weights"):
        bad.remote().result()
    assert journal.notes.count("loading broken") == 2
    with pytest.raises(TypeError, match="must be a string"):
        app.handle.loads.remote(3).result()
    with pytest.raises(ValueError, match="cannot be empty"):
        app.handle.remote().result()


def test_a_loading_is_cancelled_by_the_last_who_waits(
    serve_app: ServeApp, journal: Journal, make_gate: MakeGate
) -> None:
    gate = make_gate()
    app = serve_app(Zoo.bind(journal.pen, gate))
    handle = app.handle.options(multiplexed_model_id="a").waits
    first, second = handle.remote(), handle.remote()
    journal.wait_for("waits", 2)
    journal.wait_for("loading a")
    first.cancel()
    with pytest.raises(serve.exceptions.RequestCancelledError):
        first.result()
    third = handle.remote()
    journal.wait_for("waits", 3)
    assert "cancelled a" not in journal.notes
    second.cancel()
    third.cancel()
    journal.wait_for("cancelled a")
    again = handle.remote()
    gate.open()
    assert model_of(again.result()) == "a"
    assert journal.notes.count("loading a") == 2


@pytest.mark.timeout(60)
def test_requests_follow_their_model_and_their_session(serve_app: ServeApp, journal: Journal) -> None:
    app = serve_app(Zoo.options(num_replicas=2).bind(journal.pen))
    places = {}
    for name in ("a", "b", "c", "d"):
        headers = {"serve_multiplexed_model_id": name, "x-session-id": "s"}
        places[name] = app.client.get("/", headers=headers).text
        assert {app.client.get("/", headers=headers).text for _ in range(5)} == {places[name]}
    assert len({place.partition(" on ")[2] for place in places.values()}) == 2
    assert len([note for note in journal.notes if note.startswith("loading")]) == 4

    # Other callers learn it from the snapshot.
    connection = _connection.current()
    connection.run(connection.dispatcher.wait_for(lambda snapshot: model_count(snapshot) == 4, 10.0))
    for name, place in places.items():
        handle = app.handle.options(multiplexed_model_id=name)
        assert {handle.remote().result() for _ in range(5)} == {place}
    assert len([note for note in journal.notes if note.startswith("loading")]) == 4

    homes = set()
    for number in range(40):  # all of them at one replica: once in 2 ** 39 runs
        handle = app.handle.options(session_id=f"session {number}").replica
        found = {handle.remote().result() for _ in range(2)}
        assert len(found) == 1
        homes |= found
    assert len(homes) == 2


def test_many_models_are_told_in_few_snapshots(serve_app: ServeApp, journal: Journal) -> None:
    app = serve_app(Zoo.bind(journal.pen))
    dispatcher = _connection.current().dispatcher
    begun_s, version = time.monotonic(), dispatcher.snapshot.version
    for number in range(60):
        name = f"model {number}"
        assert app.handle.options(multiplexed_model_id=name).more.remote().result() == name
    connection = _connection.current()
    connection.run(dispatcher.wait_for(lambda snapshot: model_count(snapshot) == 60, 10.0))
    allowed = 3 + (time.monotonic() - begun_s) / 0.25  # twice as many as there can be
    assert dispatcher.snapshot.version - version < allowed
