"""Handles and responses: how calls begin, what they give, and which errors they raise."""

import asyncio
import contextvars
import functools
import pickle
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from slipknot import serve
from slipknot.serve.exceptions import DeploymentUnavailableError, SlipknotServeException
from tests.support.journal import Gate, Journal

from .conftest import RunningCluster, ServeApp

MakeGate = Callable[..., Gate]


class OddError(ValueError):
    """An error of the user's own."""


@serve.deployment(max_ongoing_requests=20)
class Kit:
    async def __call__(self, value: Any = None) -> Any:
        return value

    def double(self, value: int) -> int:
        return value * 2

    async def fail(self) -> None:
        raise OddError("odd value")

    def count(self, end: int) -> Iterator[int]:
        yield from range(end)

    async def count_async(self, end: int) -> AsyncIterator[int]:
        for number in range(end):
            yield number

    def makes_generator(self, end: int) -> Any:
        return (number for number in range(end))

    async def through(self, handle: Any, value: int) -> int:
        doubled: int = await handle.double.remote(value)
        return doubled

    async def blocks(self, handle: Any) -> str:
        try:
            handle.double.remote(1).result()
        except RuntimeError as error:
            return str(error)
        return "no error"

    def from_thread(self, handle: Any) -> int:
        doubled: int = handle.double.remote(4).result()
        return doubled

    def from_a_pool(self, handle: Any) -> int:
        with ThreadPoolExecutor(1) as pool:
            doubled: int = pool.submit(lambda: handle.double.remote(4).result()).result()
        return doubled

    def where_a_pool_is(self) -> tuple[str, int]:
        with ThreadPoolExecutor(1) as pool:
            context = pool.submit(serve.get_replica_context).result()
            handle = pool.submit(serve.get_deployment_handle, "Kit").result()
            return context.deployment, pool.submit(lambda: handle.double.remote(5).result()).result()


@pytest.fixture
def kit(serve_app: ServeApp) -> Any:
    return serve_app(Kit.bind()).handle


def test_results_may_be_asked_for_again_and_by_any_loop_or_thread(kit: Any) -> None:
    response = kit.double.remote(2)
    assert [response.result(), response.result()] == [4, 4]

    async def awaits() -> list[int]:
        fresh = kit.double.remote(3)
        return [await fresh, await fresh, await response]

    assert asyncio.run(awaits()) == [6, 6, 4]
    assert asyncio.run(awaits()) == [6, 6, 4]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda n: kit.double.remote(n).result(), range(8))) == [
            0,
            2,
            4,
            6,
            8,
            10,
            12,
            14,
        ]


def test_streams_are_iterated_with_and_without_a_loop(kit: Any) -> None:
    for method in ("count", "count_async", "makes_generator"):
        stream = kit.options(method_name=method, stream=True)
        assert list(stream.remote(3)) == [0, 1, 2]
        assert list(stream.remote(0)) == []

        async def collect(stream: Any = stream) -> list[int]:
            return [item async for item in stream.remote(600)]

        assert asyncio.run(collect()) == list(range(600))


def test_each_misuse_has_its_error(kit: Any) -> None:
    with pytest.raises(TypeError, match=r"'count' is a generator function.*stream=True"):
        kit.count.remote(1).result()
    with pytest.raises(TypeError, match="returned a generator"):
        kit.makes_generator.remote(1).result()
    with pytest.raises(TypeError, match="did not return a generator"):
        next(kit.double.options(stream=True).remote(1))
    with pytest.raises(TypeError, match="unexpected keyword argument 'wrong'"):
        kit.double.remote(wrong=1).result()
    with pytest.raises(SlipknotServeException, match=r"'does_not_exist'.*Available methods: \["):
        kit.does_not_exist.remote().result()
    stream = kit.count.options(stream=True).remote(1)
    with pytest.raises(TypeError):
        stream.result()
    with pytest.raises(TypeError, match="DeploymentResponseGenerator"):
        kit.remote(stream)
    with pytest.raises(SlipknotServeException, match="not serializable"):
        kit.remote([kit.double.remote(1)]).result()

    async def on_a_loop() -> None:
        with pytest.raises(RuntimeError, match="asyncio event loop"):
            kit.double.remote(1).result()
        with pytest.raises(RuntimeError, match="asyncio event loop"):
            next(kit.count.options(stream=True).remote(1))
        with pytest.raises(TypeError):
            await kit.count.options(stream=True).remote(1)

    asyncio.run(on_a_loop())
    assert "asyncio event loop" in kit.blocks.remote(kit).result()


def test_a_users_error_keeps_its_type_and_tells_where_it_was_raised(kit: Any) -> None:
    response = kit.fail.remote()
    for _ in range(2):
        with pytest.raises(OddError, match="odd value") as caught:
            response.result()
    assert "in fail" in str(caught.value.__cause__)
    downstream = kit.double.remote(kit.fail.remote())
    with pytest.raises(OddError):
        downstream.result()
    assert kit.double.remote(1).result() == 2


def test_methods_may_be_made_at_run_time(serve_app: ServeApp) -> None:
    class Model:
        def predict(self, x: int) -> int:
            return x + 1

    @serve.deployment
    class Delegates:
        part = functools.partialmethod(lambda self, a, b: [a, b], 1)
        constant = 3

        def __init__(self) -> None:
            self.double = lambda x: 2 * x
            self._hidden = self.double
            self._model = Model()

        def __getattr__(self, name: str) -> Any:
            return getattr(self._model, name)

    handle = serve_app(Delegates.bind()).handle
    assert handle.double.remote(2).result() == 4
    assert handle.predict.remote(2).result() == 3
    assert handle.part.remote(2).result() == [1, 2]
    for name in ("constant", "_hidden", "unknown"):
        with pytest.raises(SlipknotServeException, match=f"no method '{name}'"):
            handle.options(method_name=name).remote(1).result()


def test_responses_as_arguments_are_passed_on_by_value(kit: Any) -> None:
    first = kit.double.remote(1)
    second = kit.double.remote(value=first)
    third = kit.double.remote(second)
    assert kit.remote(value=first).result() == 2
    assert [third.result(), second.result(), first.result()] == [8, 4, 2]


def test_handles_are_values(kit: Any) -> None:
    copy = pickle.loads(pickle.dumps(kit.double))
    assert copy == kit.double and copy.remote(5).result() == 10
    assert kit.through.remote(kit, 6).result() == 12
    assert kit.from_thread.remote(kit).result() == 8
    assert kit.from_a_pool.remote(kit).result() == 8
    stream = kit.options(stream=True)
    assert list(stream.options(method_name="count").remote(2)) == [0, 1]
    assert kit.remote("untouched").result() == "untouched"
    with pytest.raises(TypeError):
        kit.options(stream="yes")


def test_threads_of_a_replica_know_where_they_are(kit: Any, cluster: RunningCluster) -> None:
    """Where several replicas share a process, a thread does not know whose it is."""
    if cluster.mode == "in_process":
        pytest.skip("the test's own process has several replicas")
    assert kit.where_a_pool_is.remote().result() == ("Kit", 10)


def test_handles_are_found_by_name(kit: Any) -> None:
    assert serve.get_app_handle("default").double.remote(1).result() == 2
    assert serve.get_deployment_handle("Kit", "default").double.remote(2).result() == 4
    with pytest.raises(SlipknotServeException, match="Application 'nowhere' does not exist"):
        serve.get_app_handle("nowhere")
    with pytest.raises(SlipknotServeException):
        serve.get_deployment_handle("Kit")
    with pytest.raises(KeyError):
        serve.get_deployment_handle("Nothing", "default")
    with pytest.raises(KeyError):
        serve.get_deployment_handle("Kit", "nowhere")
    with pytest.raises(SlipknotServeException):
        serve.get_replica_context()
    serve.delete("default")
    with pytest.raises(DeploymentUnavailableError):
        kit.double.remote(1).result()


def test_calls_begin_at_once_and_wait_no_longer_than_asked(
    serve_app: ServeApp, journal: Journal, make_gate: MakeGate
) -> None:
    pen, gate = journal.pen, make_gate()

    # One slot: what gets two at the same moment travels on two streams, and either may arrive first.
    @serve.deployment(max_ongoing_requests=1)
    class Held:
        async def __call__(self, tag: Any) -> Any:
            pen.note(f"in {tag}")
            await gate.passed()
            return tag

    app = serve_app(Held.bind())
    first = app.handle.remote(0)
    journal.wait_for("in 0")
    with pytest.raises(TimeoutError):
        first.result(timeout_s=0)
    others = [serve.get_app_handle("default").remote(tag) for tag in range(1, 6)]
    assert journal.notes == ["in 0"]
    gate.open()
    assert [response.result() for response in (first, *others)] == list(range(6))
    assert journal.notes == [f"in {tag}" for tag in range(6)]
    assert not first.cancelled()


def test_callers_of_all_kinds_share_one_limit(
    serve_app: ServeApp, journal: Journal, make_gate: MakeGate
) -> None:
    pen, gate = journal.pen, make_gate()

    @serve.deployment(max_ongoing_requests=3)
    class Sync:
        def __init__(self) -> None:
            self._lock = threading.Lock()
            self._running = self._most = 0
            self._seen: contextvars.ContextVar[str] = contextvars.ContextVar("seen", default="")

        def __call__(self, request: Any) -> str:
            with self._lock:
                self._running += 1
                self._most = max(self._most, self._running)
            pen.note("in")
            gate.wait()
            with self._lock:
                self._running -= 1
            assert self._seen.get() == ""
            self._seen.set("leaked")
            return serve.get_request_context().request_id

        def most(self) -> tuple[int, bool]:
            return self._most, asyncio._get_running_loop() is not None

    app = serve_app(Sync.bind())
    with ThreadPoolExecutor(6) as pool:
        ids = [f"id-{n}" for n in range(6)]
        answers = [pool.submit(app.client.get, "/", headers={"x-request-id": name}) for name in ids]
        calls = [serve.get_app_handle("default").remote(None) for _ in range(3)]
        journal.wait_for("in", 3)
        gate.open()
        assert [answer.result().text for answer in answers] == ids
        assert [call.result() for call in calls] == [call.request_id for call in calls]
    assert app.handle.most.remote().result() == (3, False)
