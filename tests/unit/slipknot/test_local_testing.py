"""`serve.run(app, _local_testing_mode=True)`: what works without a cluster."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from slipknot import serve
from slipknot.serve.exceptions import (
    DeploymentUnavailableError,
    RequestCancelledError,
    SerializationError,
    SlipknotServeException,
)
from slipknot.serve.handle import DeploymentHandle, DeploymentResponse, DeploymentResponseGenerator

STARTED, CANCELLED = threading.Event(), threading.Event()


@serve.deployment
class Child:
    def __init__(self, start: int) -> None:
        self._start = start

    def add(self, value: int) -> int:
        assert threading.current_thread() is not threading.main_thread()
        return self._start + value

    async def count(self, end: int) -> AsyncIterator[int]:
        for number in range(end):
            yield number

    def take(self, items: list[int]) -> int:
        items.append(1)
        return id(items)


@serve.deployment(user_config={"factor": 3}, num_replicas=2, max_ongoing_requests=1)
class Parent:
    def __init__(self, child: DeploymentHandle, children: dict[str, DeploymentHandle]) -> None:
        self._child, self._children = child, children
        self._factor = 1

    def reconfigure(self, config: dict[str, Any]) -> None:
        self._factor = config["factor"]

    async def __call__(self, value: int) -> int:
        first: int = await self._child.add.remote(value)
        same = self._children["same"]
        found: int = await same.add.remote(same.add.remote(first))
        assert serve.get_deployment_handle("Child").deployment_name == "Child"
        assert serve.get_replica_context().deployment == "Parent"
        return found * self._factor

    async def hangs(self) -> None:
        STARTED.set()  # of this module: the class itself is used, not a copy
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            CANCELLED.set()
            raise

    async def calls_hanging(self) -> None:
        await serve.get_app_handle("default").hangs.remote()

    def fails(self) -> None:
        raise KeyError("odd")

    @serve.batch(max_batch_size=2, batch_wait_timeout_s=60)
    async def together(self, values: list[int]) -> list[int]:
        return [sum(values)] * len(values)

    @serve.multiplexed
    async def load(self, model_id: str) -> str:
        return model_id * 2

    async def model(self) -> str:
        return await self.load(serve.get_multiplexed_model_id())


@pytest.fixture
def handle() -> Iterator[Any]:
    child = Child.bind(10)
    yield serve.run(Parent.bind(child, {"same": child}), _local_testing_mode=True)
    serve.shutdown()


def test_calls_streams_and_composition(handle: Any) -> None:
    assert isinstance(handle, DeploymentHandle) and handle.is_initialized
    response = handle.remote(1)
    assert isinstance(response, DeploymentResponse)
    assert response.result() == 93 == response.result()
    counts = handle.options(stream=True)

    async def awaits() -> int:
        found: int = await handle.remote(2)
        return found

    assert asyncio.run(awaits()) == 96
    with pytest.raises(TypeError):
        counts.remote(1).__next__()
    calls = [handle.together.remote(value) for value in (1, 2)]
    assert [call.result() for call in calls] == [3, 3]
    assert handle.options(multiplexed_model_id="m").model.remote().result() == "mm"
    with pytest.raises(KeyError, match="odd"):
        handle.fails.remote().result()
    with pytest.raises(SlipknotServeException, match="no method 'nothing'"):
        handle.nothing.remote().result()


def test_streams_and_copies_of_arguments() -> None:
    handle: Any = serve.run(Child.bind(0), name="child", _local_testing_mode=True)
    stream = handle.options(stream=True).count.remote(600)
    assert isinstance(stream, DeploymentResponseGenerator)
    assert list(stream) == list(range(600))

    async def collect() -> list[int]:
        return [item async for item in handle.options(stream=True).count.remote(3)]

    assert asyncio.run(collect()) == [0, 1, 2]
    items: list[int] = []
    assert handle.take.remote(items).result() != id(items) and items == []
    with pytest.raises(SerializationError):
        handle.take.remote(threading.Lock())
    serve.delete("child")
    with pytest.raises(DeploymentUnavailableError):
        handle.add.remote(1).result()
    serve.shutdown()
    with pytest.raises(SlipknotServeException):
        handle.add.remote(1)


def test_timeouts_and_cancellation_reach_the_code(handle: Any) -> None:
    STARTED.clear()
    CANCELLED.clear()
    response = handle.calls_hanging.remote()
    assert STARTED.wait(10)
    with pytest.raises(TimeoutError):
        response.result(timeout_s=0)
    response.cancel()
    with pytest.raises(RequestCancelledError):
        response.result()
    assert response.cancelled() and CANCELLED.wait(10)


def test_constructors_run_at_once_and_their_errors_come_out() -> None:
    ended: list[str] = []

    @serve.deployment
    class Good:
        def __del__(self) -> None:
            ended.append("good")

    @serve.deployment
    class Bad:
        def __init__(self, _good: Any) -> None:
            raise ZeroDivisionError("at once")

    with pytest.raises(ZeroDivisionError, match="at once"):
        serve.run(Bad.bind(Good.bind()), _local_testing_mode=True)
    assert ended == ["good"]
    with pytest.raises(TypeError):
        serve.run(Good, _local_testing_mode=True)  # type: ignore[arg-type]
    serve.shutdown()
    serve.shutdown()
