"""One timer for many."""

import asyncio

import pytest

from slipknot_replica.overdue import Overdue

pytestmark = pytest.mark.anyio


async def test_each_item_is_told_once_in_the_order_of_coming() -> None:
    """Also what comes while others are told."""
    told: asyncio.Queue[int] = asyncio.Queue()

    def tell(item: int) -> None:
        told.put_nowait(item)
        if item < 3:
            overdue.add(item + 10)

    overdue = Overdue(0.001, tell)
    for item in range(5):
        overdue.add(item)
    async with asyncio.timeout(5):
        assert [await told.get() for _ in range(8)] == [0, 1, 2, 3, 4, 10, 11, 12]
        overdue.add(20)
        assert await told.get() == 20


async def test_nothing_is_told_after_its_end() -> None:
    """Nor is the loop kept awake."""
    told: list[int] = []
    overdue = Overdue(0.001, told.append)
    overdue.add(1)
    overdue.close()
    overdue.close()
    passed = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.002, passed.set_result, None)
    await passed
    assert told == []
