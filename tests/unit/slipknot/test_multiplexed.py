"""`serve.multiplexed` without a cluster: what it refuses, and the cache."""

import asyncio
import pickle
from typing import Any

import cloudpickle
import pytest

from slipknot import serve


async def load(model_id: str) -> str:
    return model_id.upper()


def test_what_it_decorates() -> None:
    with pytest.raises(TypeError, match="function or method"):
        serve.multiplexed("text")  # type: ignore[call-overload]
    for wrong in (lambda model_id: None, Loader.sync_load):
        with pytest.raises(TypeError, match="async"):
            serve.multiplexed(wrong)  # type: ignore[type-var]

    async def none() -> None: ...
    async def two(model_id: str, more: int) -> None: ...
    async def many(*model_ids: str) -> None: ...

    for wrong_arguments in (none, two, many):
        with pytest.raises(TypeError, match="exactly one"):
            serve.multiplexed(wrong_arguments)
    for wrong_number in (1.5, "3", True):
        with pytest.raises(TypeError, match="must be an integer"):
            serve.multiplexed(max_num_models_per_replica=wrong_number)  # type: ignore[arg-type]
    for wrong_number in (0, -2):
        with pytest.raises(ValueError, match="must be positive"):
            serve.multiplexed(max_num_models_per_replica=wrong_number)


class Loader:
    def __init__(self) -> None:
        self.loaded: list[str] = []

    def sync_load(self, model_id: str) -> None: ...

    @serve.multiplexed(max_num_models_per_replica=1)
    async def one(self, model_id: str) -> str:
        self.loaded.append(model_id)
        await asyncio.sleep(0)
        return model_id.upper()

    @serve.multiplexed(max_num_models_per_replica=-1)
    async def any(self, model_id: str) -> str:
        self.loaded.append(model_id)
        return model_id


def test_each_instance_has_its_own_models_in_plain_asyncio_code() -> None:
    async def use(first: Loader, second: Loader) -> None:
        assert await asyncio.gather(*(first.one(name) for name in "aabab")) == list("AABAB")
        assert sorted(first.loaded) == ["a", "b"] and second.loaded == []
        assert await second.one(model_id="a") == "A"
        for name in "abcdeabcde":
            await second.any(name)
        assert second.loaded == list("aabcde")

    asyncio.run(use(Loader(), Loader()))


def test_functions_too_and_copies_by_value_begin_empty() -> None:
    decorated: Any = serve.multiplexed(load)
    assert asyncio.run(decorated("a")) == "A"
    copy = pickle.loads(cloudpickle.dumps(decorated))
    assert asyncio.run(copy("b")) == "B"
    with pytest.raises(TypeError):
        asyncio.run(decorated())
