"""`serve.batch` without a cluster: what it refuses, how batches form, what callers get."""

import asyncio
import math
import pickle
import traceback
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from typing import Any

import cloudpickle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipknot import serve
from slipknot._batch_plan import BatchOptions, next_batch
from slipknot.serve.exceptions import SlipknotServeException

LONG_S = 60.0


async def doubled(values: list[int]) -> list[int]:
    return [2 * value for value in values]


def test_what_it_decorates() -> None:
    with pytest.raises(TypeError, match="functions or methods"):
        serve.batch("text")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="async def"):
        serve.batch(lambda values: values)
    with pytest.raises(TypeError, match="async def"):
        serve.batch(max_batch_size=2)(len)
    with pytest.raises(TypeError, match="batch_size_fn"):
        serve.batch(batch_size_fn=3)  # type: ignore[call-overload]
    assert asyncio.run(serve.batch(doubled)(2)) == 4
    assert serve.batch(doubled).__name__ == "doubled"


@pytest.mark.parametrize("name", ["max_batch_size", "max_concurrent_batches", "batch_wait_timeout_s"])
def test_values_are_checked_at_decoration_and_later(name: str) -> None:
    batch: Any = serve.batch
    decorated = batch(doubled)
    setter = getattr(decorated, f"set_{name}", lambda value: batch(**{name: value}))
    wrong: list[tuple[Any, type[Exception]]] = [("1", TypeError), (None, TypeError), (True, TypeError)]
    wrong += [(-1, ValueError)]
    wrong += (
        [(math.nan, ValueError)] if name == "batch_wait_timeout_s" else [(1.1, TypeError), (0, ValueError)]
    )
    for value, error in wrong:
        with pytest.raises(error, match=name):
            batch(**{name: value})
        with pytest.raises(error, match=name):
            setter(value)
    setter(1.0)
    batch(**{name: 1.0})


class Batched:
    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.gate = asyncio.Event()

    @serve.batch(max_batch_size=4, batch_wait_timeout_s=0.0)
    async def soon(self, values: list[int]) -> list[int]:
        self.sizes.append(len(values))
        return values

    @serve.batch(max_batch_size=1, batch_wait_timeout_s=LONG_S)
    async def alone(self, values: list[int]) -> list[int]:
        return values

    @serve.batch(max_batch_size=2, batch_wait_timeout_s=LONG_S, max_concurrent_batches=2)
    async def held(self, values: list[int]) -> tuple[int, ...]:
        self.sizes.append(len(values))
        await self.gate.wait()
        return tuple(values)

    @serve.batch(max_batch_size=10, batch_wait_timeout_s=0, batch_size_fn=sum)
    async def weighed(self, weights: list[int]) -> list[list[int]]:
        return [weights] * len(weights)

    @serve.batch(max_batch_size=3, batch_wait_timeout_s=LONG_S)
    async def many(self, a: list[int], b: list[int], c: Any = None, **rest: Any) -> list[Any]:
        return list(zip(a, b, c or [None] * len(a), *rest.values(), strict=True))

    @serve.batch(max_batch_size=2, batch_wait_timeout_s=LONG_S)
    async def fails(self, values: list[Any]) -> Any:
        match values[0]:
            case "cancels itself":
                raise asyncio.CancelledError
            case "exits":
                raise SystemExit(3)
            case _:
                return values[0]

    @serve.batch(max_batch_size=2, batch_wait_timeout_s=LONG_S)
    async def swallows(self, values: list[int]) -> list[int]:
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            self.sizes.append(len(values))
        return values

    @staticmethod
    @serve.batch(max_batch_size=2, batch_wait_timeout_s=LONG_S)
    async def static(values: list[int]) -> list[int]:
        return values


def run(use: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(use, 10.0))


def test_what_comes_together_goes_together() -> None:
    async def use() -> None:
        first, second = Batched(), Batched()
        found: Any = await asyncio.gather(*(first.soon(n) for n in range(6)), second.soon(9))
        assert found == [*range(6), 9]
        assert (first.sizes, second.sizes) == ([4, 2], [1])
        assert await first.alone(3) == 3
        assert await asyncio.gather(*(each.static(1) for each in (first, second))) == [1, 1]
        found = await asyncio.gather(*(first.weighed(n) for n in (3, 4, 5, 10)))
        assert found == [[3, 4], [3, 4], [5], [10]]
        with pytest.raises(ValueError, match="does not fit"):
            await first.weighed(11)

    run(use())
    run(use())  # on another loop


def test_as_many_batches_run_at_once_as_allowed() -> None:
    async def use() -> None:
        batched = Batched()
        calls = [asyncio.ensure_future(batched.held(n)) for n in range(6)]
        for _ in range(10):
            await asyncio.sleep(0)
        assert batched.sizes == [2, 2]
        batched.gate.set()
        assert await asyncio.gather(*calls) == list(range(6))
        assert batched.sizes == [2, 2, 2]

    run(use())


def test_arguments_become_lists_however_they_are_given() -> None:
    async def use() -> None:
        batched: Any = Batched()
        calls = [batched.many(1, 2), batched.many(b=4, a=3), batched.many(5, b=6, c=7)]
        found = await asyncio.gather(*calls)
        assert found == [(1, 2, None), (3, 4, None), (5, 6, 7)]
        kinds = [{"x": 1}, {"y": 2}, {"x": 3}, {"y": 4}, {"x": 5}, {"y": 6}]
        found = await asyncio.gather(*(batched.many(0, 0, **kind) for kind in kinds))
        assert found == [(0, 0, None, n) for n in range(1, 7)]
        with pytest.raises(TypeError, match="missing a required argument"):
            await batched.many(1)

    run(use())


def test_every_caller_of_a_batch_hears_of_its_failure() -> None:
    async def use() -> None:
        batched = Batched()
        for value, error, text in (
            ("cancels itself", SlipknotServeException, "raised CancelledError by itself"),
            ("exits", RuntimeError, "raised SystemExit"),
            ("ab", SlipknotServeException, "doesn't preserve batch size"),
            (None, SlipknotServeException, "doesn't preserve batch size"),
            ([1, 2, 3], SlipknotServeException, "doesn't preserve batch size.*length 2.*length 3"),
        ):
            for caught in await asyncio.gather(*(batched.fails(value) for _ in "ab"), return_exceptions=True):
                with pytest.raises(error, match=text):
                    raise caught
        assert await asyncio.gather(*(batched.fails([1, 2]) for _ in "ab")) == [1, 2]

    run(use())


def test_the_last_caller_waits_until_the_cancelled_batch_has_ended() -> None:
    async def use() -> None:
        batched = Batched()
        calls = [asyncio.ensure_future(batched.swallows(n)) for n in range(2)]
        await asyncio.sleep(0.01)
        for call in calls:
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        assert batched.sizes == [2]
        late = asyncio.ensure_future(batched.swallows(1))
        await asyncio.sleep(0)
        late.cancel()
        with pytest.raises(asyncio.CancelledError):
            await late
        assert batched.sizes == [2]

    run(use())


def test_generators_end_callers_one_by_one_and_wait_for_slow_readers() -> None:
    produced = 0

    @serve.batch(max_batch_size=3, batch_wait_timeout_s=LONG_S)
    async def items(ends: list[int]) -> AsyncIterator[list[Any]]:
        nonlocal produced
        while True:
            produced += 1
            yield [produced if produced <= end else StopAsyncIteration for end in ends]

    async def collect(end: int) -> list[int]:
        return [item async for item in items(end)]

    async def use() -> None:
        nonlocal produced
        assert await asyncio.gather(*(collect(n) for n in (1, 0, 3))) == [[1], [], [1, 2, 3]]
        produced = 0
        slow = items(1000)
        fast = [asyncio.ensure_future(collect(1000)) for _ in range(2)]
        assert await anext(slow) == 1
        await asyncio.sleep(0.05)
        assert produced < 200 and not fast[0].done()
        await slow.aclose()
        assert [len(found) for found in await asyncio.gather(*fast)] == [1000, 1000]

    run(use())


def test_generators_fail_with_all_callers_after_what_they_have_given() -> None:
    @serve.batch(max_batch_size=2, batch_wait_timeout_s=LONG_S)
    async def items(values: list[int]) -> AsyncIterator[list[int]]:
        yield values
        if values[0] == 0:
            raise ValueError("no more")
        yield [1]

    async def use() -> None:
        for start, error in ((0, ValueError), (1, SlipknotServeException)):
            streams = [items(start), items(start)]
            assert await asyncio.gather(*(anext(stream) for stream in streams)) == [start, start]
            for stream in streams:
                with pytest.raises(error):
                    await anext(stream)

    run(use())


def test_generators_fail_with_their_own_error_for_readers_that_are_busy() -> None:
    """They may see the end before the loop has told of it; the error is the generator's all the same."""

    @serve.batch(max_batch_size=2, batch_wait_timeout_s=LONG_S)
    async def items(values: list[int]) -> AsyncIterator[list[int]]:
        yield values
        raise ValueError("no more")

    async def collect(value: int) -> None:
        async for item in items(value):
            assert item == value
            await asyncio.sleep(0)

    async def use() -> None:
        for error in await asyncio.gather(collect(1), collect(2), return_exceptions=True):
            assert isinstance(error, ValueError)
            assert "raise ValueError" in "".join(traceback.format_exception(error))

    run(use())


def test_copies_by_value_begin_empty() -> None:
    decorated: Any = serve.batch(doubled)
    assert asyncio.run(decorated(1)) == 2
    copy = pickle.loads(cloudpickle.dumps(decorated))
    copy.set_max_batch_size(3)
    assert asyncio.run(copy(2)) == 4
    assert (copy.get_max_batch_size(), decorated.get_max_batch_size()) == (3, 10)
    assert copy._get_batch_wait_timeout_s() == 0.01


@dataclass(frozen=True)
class _Call:
    kind: str
    item: int
    arrived_s: float


CALLS = st.lists(
    st.builds(_Call, kind=st.sampled_from("ab"), item=st.integers(1, 5), arrived_s=st.floats(0, 10)),
    max_size=12,
).map(lambda calls: sorted(calls, key=lambda call: call.arrived_s))


@given(CALLS, st.integers(1, 8), st.floats(0, 5), st.booleans(), st.floats(10, 20))
def test_a_batch_is_of_one_kind_in_order_within_bounds_and_in_time(
    calls: list[_Call], size: int, timeout_s: float, is_weighed: bool, now_s: float
) -> None:
    options = BatchOptions(size, timeout_s, size_of=sum if is_weighed else None)
    batch, wake_s = next_batch(calls, options, now_s)
    if batch:
        same = [call for call in calls if call.kind == batch[0].kind]
        assert batch == same[: len(batch)]
        assert len(batch) == 1 or options.size([call.item for call in batch]) <= size
        is_full = len(same) > len(batch) or options.size([call.item for call in batch]) >= size
        assert is_full or batch[0].arrived_s + timeout_s <= now_s
    elif calls:
        assert wake_s == calls[0].arrived_s + timeout_s > now_s
    else:
        assert wake_s == math.inf
