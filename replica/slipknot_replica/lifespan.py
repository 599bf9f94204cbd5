"""The ASGI lifespan of an ingress application: its start-up and shutdown hooks.

The protocol is optional: an application that ends or raises without answering `lifespan.startup` is served
without it. One that answers `lifespan.startup.failed` is not served.
"""

import asyncio
import logging
from collections.abc import MutableMapping
from typing import Any

from slipknot._asgi import ASGIApp

logger = logging.getLogger("slipknot.serve")

END_TIMEOUT_S = 1.0
"""Time for the application to return after it has said that it is done."""


class Lifespan:
    """Runs the lifespan of one application in a task of its own, from `startup` to `shutdown`."""

    def __init__(self, app: ASGIApp, name: str) -> None:
        self.state: dict[str, Any] = {}
        """What the application wants to find in `scope["state"]` of each request."""
        self._app = app
        self._name = name
        self._task: asyncio.Task[None] | None = None
        self._answer: asyncio.Future[MutableMapping[str, Any]]
        self._shutdown_wanted = asyncio.Event()
        self._was_started = False
        self._error: BaseException | None = None

    async def startup(self) -> None:
        """Run the start-up hooks.

        Raises:
            Exception: What a hook raised.
        """
        self._task = asyncio.create_task(self._run(), name=f"lifespan of {self._name}")
        try:
            answer = await self._next_answer(self._task)
        except BaseException:
            self._task.cancel()
            raise
        if answer is None:
            logger.info("lifespan_unsupported %s is served without hooks (%r)", self._name, self._error)
        elif answer["type"] == "lifespan.startup.failed":
            await self._end(self._task)
            reason = answer.get("message", "")
            raise self._error or RuntimeError(f"the start-up of {self._name} failed: {reason}")

    async def shutdown(self) -> None:
        """Run the shutdown hooks, if `startup` ran; twice is fine.

        Raises:
            Exception: What a hook raised.
        """
        if self._task is None or self._task.done() or self._shutdown_wanted.is_set():
            return
        try:
            # The application cannot have taken a step since then, so this answer is the one to
            # `lifespan.shutdown`.
            self._shutdown_wanted.set()
            answer = await self._next_answer(self._task)
        finally:
            await self._end(self._task)
        if self._error is not None:
            raise self._error
        if answer is not None and answer["type"] == "lifespan.shutdown.failed":
            raise RuntimeError(f"the shutdown of {self._name} failed: {answer.get('message', '')}")

    async def _next_answer(self, task: asyncio.Task[None]) -> MutableMapping[str, Any] | None:
        self._answer = asyncio.get_running_loop().create_future()
        await asyncio.wait((self._answer, task), return_when=asyncio.FIRST_COMPLETED)
        return self._answer.result() if self._answer.done() else None

    async def _end(self, task: asyncio.Task[None]) -> None:
        await asyncio.wait((task,), timeout=END_TIMEOUT_S)
        task.cancel()

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        try:
            await self._app(scope, self._receive, self._send)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - hooks may raise anything, SystemExit too
            self._error = error

    async def _receive(self) -> MutableMapping[str, Any]:
        if not self._was_started:
            self._was_started = True
            return {"type": "lifespan.startup"}
        await self._shutdown_wanted.wait()
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        if not self._answer.done():
            self._answer.set_result(message)
