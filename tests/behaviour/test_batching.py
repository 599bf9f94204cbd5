"""Single calls become batches: through handles and HTTP, with results, errors, items and cancellations."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import StreamingResponse

from slipknot import serve
from slipknot.serve.exceptions import RequestCancelledError, SlipknotServeException
from tests.support.journal import Gate, Journal, Pen

from .conftest import RunningApp, ServeApp

MakeGate = Callable[..., Gate]

LONG_S = 60.0
"""Nothing in a test waits for so long: the batch must be full."""


@serve.deployment
class Slow:
    """What a batch calls; waits at its gate."""

    def __init__(self, pen: Pen, gate: Gate) -> None:
        self._pen, self._gate = pen, gate

    async def __call__(self, value: Any) -> str:
        self._pen.note("downstream")
        try:
            await self._gate.passed()
        except asyncio.CancelledError:
            self._pen.note(f"downstream cancelled: {serve.get_request_context().cancel_reason}")
            raise
        return "done"


@serve.deployment(max_ongoing_requests=20)
class Batches:
    def __init__(self, pen: Pen, gate: Gate, slow: Any = None) -> None:
        self._pen, self._gate, self._slow = pen, gate, slow

    @serve.batch(max_batch_size=3, batch_wait_timeout_s=LONG_S)
    async def double(self, values: list[int]) -> list[int]:
        self._pen.note(f"batch of {len(values)}")
        if 13 in values:
            raise ValueError("13 is refused")
        return [2 * value for value in values] if 7 not in values else [1]

    @serve.batch(max_batch_size=3, batch_wait_timeout_s=LONG_S)
    async def held(self, tags: list[str]) -> list[str]:
        self._pen.note("held " + ",".join(sorted(tags)))
        try:
            await (self._gate.passed() if self._slow is None else self._slow.remote(0))
        except asyncio.CancelledError:
            self._pen.note(f"cancelled: {serve.get_request_context().cancel_reason}")
            raise
        return tags

    @serve.batch(max_batch_size=2, batch_wait_timeout_s=LONG_S)
    async def counts(self, ends: list[int]) -> AsyncIterator[list[Any]]:
        try:
            for number in range(max(ends)):
                yield [number if number < end else StopIteration for end in ends]
                if number == 1:
                    await self._gate.passed()
        except asyncio.CancelledError:
            self._pen.note("stream cancelled")
            raise
        finally:
            self._pen.note("stream over")

    @serve.batch(max_batch_size=2, batch_wait_timeout_s=LONG_S)
    async def models(self, values: list[int]) -> list[str]:
        assert len(serve.context._get_serve_batch_request_context()) == 2
        return [f"{serve.get_multiplexed_model_id()} {sorted(values)}"] * len(values)

    async def run_double(self, value: int) -> int:
        doubled: int = await self.double(value)
        return doubled

    async def run_held(self, tag: str) -> str:
        waiting = asyncio.ensure_future(self.held(tag))
        await asyncio.sleep(0)
        self._pen.note(f"waits {tag}")
        try:
            return str(await waiting)
        except asyncio.CancelledError:
            self._pen.note(f"left {tag}")
            raise

    @serve.batch(max_batch_size=3, batch_wait_timeout_s=LONG_S)
    async def resized(self, tags: list[str]) -> list[str]:
        return tags

    async def run_resized(self, tag: str) -> str:
        waiting = asyncio.ensure_future(self.resized(tag))
        await asyncio.sleep(0)
        self._pen.note(f"waits {tag}")
        return str(await waiting)

    async def run_model(self, value: int) -> str:
        return str(await self.models(value))

    async def set_size(self, size: int) -> int:
        self.resized.set_max_batch_size(size)
        return int(self.resized.get_max_batch_size())

    async def __call__(self, request: Request) -> StreamingResponse:
        end = int(request.query_params["end"])
        numbers = (f"{number}\n" async for number in self.counts(end))  # type: ignore[attr-defined, call-arg, arg-type]
        return StreamingResponse(numbers, media_type="text/plain")


def test_results_and_errors_find_their_callers(
    serve_app: ServeApp, journal: Journal, make_gate: MakeGate
) -> None:
    double = serve_app(Batches.bind(journal.pen, make_gate())).handle.run_double
    calls = [double.remote(value) for value in (1, 2, 3, 4, 5, 6)]
    assert [call.result() for call in calls] == [2, 4, 6, 8, 10, 12]
    assert journal.notes == ["batch of 3"] * 2
    for wrong, error, text in (
        (13, ValueError, "13 is refused"),
        (7, SlipknotServeException, "doesn't preserve batch size"),
    ):
        for call in [double.remote(value) for value in (1, wrong, 2)]:
            with pytest.raises(error, match=text):
                call.result()


def test_batches_do_not_mix_models(serve_app: ServeApp, journal: Journal, make_gate: MakeGate) -> None:
    handle = serve_app(Batches.bind(journal.pen, make_gate())).handle
    calls = [
        handle.options(method_name="run_model", multiplexed_model_id=f"m{value % 2}").remote(value)
        for value in range(4)
    ]
    assert [call.result() for call in calls] == ["m0 [0, 2]", "m1 [1, 3]"] * 2


def test_a_cancelled_caller_leaves_its_batch(
    serve_app: ServeApp, journal: Journal, make_gate: MakeGate
) -> None:
    gate = make_gate()
    app = serve_app(Batches.bind(journal.pen, gate))
    held = app.handle.run_held
    early = held.remote("early")
    journal.wait_for("waits early")
    early.cancel()
    with pytest.raises(RequestCancelledError):
        early.result()
    journal.wait_for("left early")
    calls = [held.remote(tag) for tag in "abc"]
    journal.wait_for("held a,b,c")
    calls[0].cancel()
    with pytest.raises(RequestCancelledError):
        calls[0].result()
    gate.open()
    assert [call.result() for call in calls[1:]] == ["b", "c"]
    assert not any(note.startswith("cancelled") for note in journal.notes)


def test_a_batch_is_cancelled_with_its_last_caller_and_takes_its_calls_along(
    serve_app: ServeApp, journal: Journal, make_gate: MakeGate
) -> None:
    gate = make_gate()
    app = serve_app(Batches.bind(journal.pen, gate, Slow.bind(journal.pen, gate)))
    calls = [app.handle.run_held.remote(tag) for tag in "abc"]
    journal.wait_for("downstream")
    calls[0].cancel()
    calls[1].cancel()
    with pytest.raises(RequestCancelledError):
        calls[1].result()
    assert not calls[2].cancelled()
    calls[2].cancel()
    journal.wait_for("downstream cancelled: PARENT_CANCELLED")
    journal.wait_for("cancelled: REQUESTED")

    # Nothing is left behind: the next batch runs.
    gate.open()
    assert [call.result() for call in [app.handle.run_held.remote(tag) for tag in "def"]] == list("def")


def test_sizes_change_while_calls_wait(serve_app: ServeApp, journal: Journal, make_gate: MakeGate) -> None:
    handle = serve_app(Batches.bind(journal.pen, make_gate())).handle
    assert handle.set_size.remote(3).result() == 3
    call = handle.run_resized.remote("a")
    journal.wait_for("waits a")
    assert handle.set_size.remote(1).result() == 1
    assert call.result() == "a"


def first_until(app: RunningApp, timeout_s: str) -> int:
    headers = {"x-request-timeout-seconds": timeout_s}
    return app.client.get("/", params={"tag": "first"}, headers=headers).status_code


def test_a_batch_outlives_the_deadline_of_its_first_caller(
    serve_app: ServeApp, journal: Journal, make_gate: MakeGate
) -> None:
    @serve.deployment(max_ongoing_requests=5)
    class Timed:
        def __init__(self, pen: Pen, gate: Gate) -> None:
            self._pen, self._gate = pen, gate

        @serve.batch(max_batch_size=2, batch_wait_timeout_s=LONG_S)
        async def work(self, tags: list[str]) -> list[str]:
            self._pen.note("in")
            await self._gate.passed()
            self._pen.note("out")
            return [f"{tag} {serve.get_request_context().remaining_s}" for tag in tags]

        async def __call__(self, request: Request) -> str:
            return str(await self.work(request.query_params["tag"]))

    gate = make_gate()
    app = serve_app(Timed.bind(journal.pen, gate))
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(first_until, app, "1.5")
        second = pool.submit(app.client.get, "/", params={"tag": "second"})
        assert first.result() == 408
        if "in" not in journal.notes:  # it had gone before the other came
            assert first_until(app, "6") == 408
        journal.wait_for("in")
        gate.open()
        assert second.result().text == "second None"
    assert journal.notes == ["in", "out"]


def read(app: RunningApp, end: int) -> str:
    return app.client.get("/", params={"end": end}).text


def test_generators_give_each_caller_its_items(
    serve_app: ServeApp, journal: Journal, make_gate: MakeGate
) -> None:
    gate = make_gate()
    app = serve_app(Batches.bind(journal.pen, gate))
    stream = app.handle.options(method_name="counts", stream=True)
    short, long = stream.remote(1), stream.remote(4)
    assert list(short) == [0]  # over, while the batch goes on
    assert [next(long), next(long)] == [0, 1]
    gate.open()
    assert list(long) == [2, 3]
    journal.wait_for("stream over")
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda end: read(app, end), (2, 3))) == ["0\n1\n", "0\n1\n2\n"]


def test_a_streaming_batch_is_cancelled_with_its_last_reader(
    serve_app: ServeApp, journal: Journal, make_gate: MakeGate
) -> None:
    app = serve_app(Batches.bind(journal.pen, make_gate()))
    stream = app.handle.options(method_name="counts", stream=True)
    calls = [stream.remote(9), stream.remote(9)]
    assert [[next(call), next(call)] for call in calls] == [[0, 1], [0, 1]]
    calls[0].cancel()
    with pytest.raises(RequestCancelledError):
        next(calls[0])
    assert "stream cancelled" not in journal.notes
    calls[1].cancel()
    journal.wait_for("stream cancelled")
    journal.wait_for("stream over")
