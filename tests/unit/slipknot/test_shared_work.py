"""Work that is shared: whoever is cancelled, whenever, nothing is lost and nothing is left behind."""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from slipknot import serve
from slipknot._models import ModelCache


class Shared:
    """Batches and models that take a random time, fail at times, and at times ignore a cancellation."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._models = ModelCache("models", 3)
        self.running = self.live_models = 0

    async def call(self, number: int) -> bool:
        """One of three kinds of calls; tells whether it got what it should."""
        match number % 3:
            case 0:
                return await self.double(number) == 2 * number  # type: ignore[no-any-return]
            case 1:
                end = 1 + number % 90
                return [item async for item in self.count(end)] == list(range(end))
            case _:
                model = await self._models.get(str(self._chance.randrange(7)), self._load)
                return isinstance(model, _Model)

    async def close(self) -> None:
        """Unload the models; nothing must be left."""
        await self._models.close()
        assert repr(self._models) == "<ModelCache models: 0 loaded, 0 loading>"
        assert (self._models.model_ids, self.live_models, self.running) == (frozenset(), 0, 0)

    @serve.batch(max_batch_size=5, batch_wait_timeout_s=0.001, max_concurrent_batches=2)
    async def double(self, values: list[int]) -> list[int]:
        self.running += 1
        assert self.running <= 2
        try:
            await self._linger()
            return [2 * value for value in values]
        finally:
            self.running -= 1

    @serve.batch(max_batch_size=5, batch_wait_timeout_s=0.001, max_concurrent_batches=2)
    async def count(self, ends: list[int]) -> AsyncIterator[list[Any]]:
        for number in range(max(ends)):
            if self._chance.random() < 0.3:
                await asyncio.sleep(0)
            yield [number if number < end else StopIteration for end in ends]

    async def _load(self, model_id: str) -> "_Model":
        await self._linger()
        self.live_models += 1
        assert self.live_models <= 3
        return _Model(self)

    async def _linger(self) -> None:
        for _ in range(self._chance.randrange(4)):
            await asyncio.sleep(0)
        if self._chance.random() < 0.1:
            raise ValueError("by chance")
        if self._chance.random() < 0.1:
            try:
                await asyncio.sleep(0.002)
            except asyncio.CancelledError:
                await asyncio.sleep(0)


class _Model:
    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    async def __del__(self) -> None:
        await asyncio.sleep(0)
        self._shared.live_models -= 1


@pytest.mark.parametrize("seed", range(4))
def test_random_cancellations(seed: int) -> None:
    async def use() -> None:
        chance = random.Random(seed)
        shared, loop = Shared(chance), asyncio.get_running_loop()
        calls: list[asyncio.Task[bool]] = []
        for number in range(400):
            calls.append(asyncio.ensure_future(shared.call(number)))
            if chance.random() < 0.4:
                loop.call_later(chance.random() * 0.01, calls[-1].cancel)
            if chance.random() < 0.2:
                await asyncio.sleep(chance.random() * 0.003)
        async with asyncio.timeout(15):
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
        for outcome in outcomes:
            assert outcome is True or isinstance(outcome, ValueError | asyncio.CancelledError), outcome
        await shared.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    failures: list[dict[str, Any]] = []

    async def watched() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: failures.append(context))
        await use()

    asyncio.run(watched())
    assert not failures
