"""The FastAPI application inside BentoML services."""

from typing import Any

import bentoml
from fastapi import FastAPI

from .api import api

chain_api = FastAPI()


@bentoml.service
@bentoml.asgi_app(api, path="/")
class Fastapi:
    """The routes of `api`."""


@bentoml.service
class Plain:
    """A handler of BentoML's own, by POST."""

    @bentoml.api
    async def noop(self) -> str:
        """Answer."""
        return "ok"


@bentoml.service
class Leaf:
    """Where a chain ends."""

    @bentoml.api
    async def noop(self) -> str:
        """Answer."""
        return "ok"


@bentoml.service
@bentoml.asgi_app(chain_api, path="/")
class Chain:
    """One call of another service."""

    leaf: Any = bentoml.depends(Leaf)

    @chain_api.get("/")
    async def one(self) -> str:
        """One call."""
        return str(await self.leaf.to_async.noop())
