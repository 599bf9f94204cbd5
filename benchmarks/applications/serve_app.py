"""The applications for slipknot and for Ray Serve: one text, two imports.

Every replica asks for a tenth of a CPU, or a chain of three would not fit on two cores; the bounds of ongoing
requests are wide, because what is measured is not the bound.
"""

import asyncio
import os
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request

if os.environ.get("SLIPKNOT_BENCHMARK_SERVE") == "ray":
    from ray import serve
else:
    from slipknot import serve

from .api import api, hang

WIDE: dict[str, Any] = {"max_ongoing_requests": 2000, "ray_actor_options": {"num_cpus": 0.1}}

chain_api = FastAPI()


@serve.deployment(**WIDE)
class Plain:
    """A handler without a framework."""

    async def __call__(self, request: Request) -> str:
        """Answer."""
        return "ok"


@serve.deployment(**WIDE)
@serve.ingress(api)
class Fast:
    """FastAPI, with the routes of `api`."""


@serve.deployment(**WIDE)
class Leaf:
    """Where a chain ends."""

    async def noop(self) -> str:
        """Answer."""
        return "ok"

    async def hang(self, hop: int, request: str, seconds: float) -> None:
        """Hang here."""
        await hang(hop, request, seconds)


@serve.deployment(**WIDE)
class Middle:
    """Passes on."""

    def __init__(self, leaf: Any) -> None:
        self._leaf = leaf

    async def noop(self) -> str:
        """What the leaf says."""
        return str(await self._leaf.noop.remote())

    async def hang(self, request: str, seconds: float) -> None:
        """Until the leaf is done."""
        await self._leaf.hang.remote(2, request, seconds)


@serve.deployment(**WIDE)
@serve.ingress(chain_api)
class Chain:
    """One handle call, or two that follow one another."""

    def __init__(self, middle: Any, leaf: Any) -> None:
        self._middle = middle
        self._leaf = leaf

    @chain_api.get("/")
    async def one(self) -> str:
        """One call."""
        return str(await self._leaf.noop.remote())

    @chain_api.get("/two")
    async def two(self) -> str:
        """A chain of three deployments."""
        return str(await self._middle.noop.remote())

    @chain_api.get("/hang/0")
    async def hang_here(self, request: str, seconds: float) -> str:
        """Hang in the ingress."""
        await hang(0, request, seconds)
        return "ok"

    @chain_api.get("/hang/1")
    async def hang_below(self, request: str, seconds: float) -> str:
        """Hang one hop down."""
        await self._leaf.hang.remote(1, request, seconds)
        return "ok"

    @chain_api.get("/hang/2")
    async def hang_two_below(self, request: str, seconds: float) -> str:
        """Hang two hops down."""
        await self._middle.hang.remote(request, seconds)
        return "ok"


BOUNDED: dict[str, Any] = {"max_ongoing_requests": 4, "max_queued_requests": 16}
WORK_S = 0.02


@serve.deployment(**{**WIDE, **BOUNDED})
class Bounded:
    """Few slots, a short queue, and work that takes a while without taking CPU."""

    async def __call__(self, request: Request) -> str:
        """Answer after a while."""
        await asyncio.sleep(WORK_S)
        return "ok"


plain = Plain.bind()
fastapi = Fast.bind()
_leaf = Leaf.bind()
chain = Chain.bind(Middle.bind(_leaf), _leaf)
overload = Bounded.bind()
