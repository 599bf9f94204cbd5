"""Batching: single requests become one call of a model that is fast with many items at once.

python examples/batching.py
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
from starlette.requests import Request
from starlette.responses import StreamingResponse

from slipknot import serve


@serve.deployment(max_ongoing_requests=100)
class Squares:
    # 1. Callers pass one number each; the method gets lists, and gives a list of the same length.
    @serve.batch(max_batch_size=8, batch_wait_timeout_s=0.1)
    async def square(self, numbers: list[int]) -> list[int]:
        print(f"a batch of {len(numbers)}", flush=True)
        return [number * number for number in numbers]

    # 2. A generator gives each caller its items one by one; StopIteration ends those of one caller.
    @serve.batch(max_batch_size=2, batch_wait_timeout_s=0.1)
    async def count(self, ends: list[int]) -> AsyncIterator[list[Any]]:
        for number in range(max(ends)):
            yield [f"{number} " if number < end else StopIteration for end in ends]

    async def __call__(self, request: Request) -> Any:
        number = int(request.query_params["n"])
        if request.url.path == "/count":
            return StreamingResponse(self.count(number), media_type="text/plain")
        return await self.square(number)


app = Squares.bind()


async def ask(path: str, numbers: range) -> list[str]:
    """Send all requests at once."""
    async with httpx.AsyncClient(base_url="http://127.0.0.1:8000", timeout=30) as client:
        answers = await asyncio.gather(*(client.get(path, params={"n": number}) for number in numbers))
    return [answer.text for answer in answers]


if __name__ == "__main__":
    serve.run(app)
    print(asyncio.run(ask("/", range(16))))
    print(asyncio.run(ask("/count", range(2, 4))))
