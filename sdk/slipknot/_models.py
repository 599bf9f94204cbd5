"""The multiplexed models that a replica holds: loaded once, kept while they are used, unloaded when others
need their place.
"""

import asyncio
import contextvars
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from slipknot_core import request_context
from slipknot_core.ids import new_request_id
from slipknot_core.request_context import RequestContext
from slipknot_core.tasks import TaskOwner

from ._finalizers import finalize
from ._shared_work import SharedWork

logger = logging.getLogger("slipknot.serve")


MAX_TOLD = 1000
"""A replica tells the routers of so many of its models."""


class ReplicaModels:
    """All caches of one replica together. `on_change` is called when it holds other models."""

    def __init__(self) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self._caches: list[ModelCache] = []

    @property
    def model_ids(self) -> tuple[str, ...]:
        """Models that are loaded or being loaded, sorted; of very many only some."""
        return tuple(sorted(frozenset().union(*(cache.model_ids for cache in self._caches))))[:MAX_TOLD]

    def add(self, cache: "ModelCache") -> None:
        """Count a cache in."""
        cache.on_change = self._changed
        self._caches.append(cache)

    async def close(self) -> None:
        """Unload everything."""
        for cache in self._caches:
            await cache.close()

    def _changed(self) -> None:
        self.on_change()


class ModelCache:
    """Models by id, the least recently used first. Belongs to a loop; `repr` tells the counts.

    Invariant: models that are loaded, being loaded and being unloaded are together at most `limit`.

    Args:
        name: Of the function that loads, for messages.
        limit: None: no limit.
    """

    def __init__(self, name: str, limit: int | None) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self._name = name
        self._limit = limit
        self._models: OrderedDict[str, Any] = OrderedDict()
        self._loading: dict[str, SharedWork[Any]] = {}
        self._busy_count = 0
        self._waiting: list[asyncio.Future[None]] = []
        self._tasks = TaskOwner(f"models of {name}")

    def __repr__(self) -> str:
        return f"<ModelCache {self._name}: {len(self._models)} loaded, {len(self._loading)} loading>"

    @property
    def model_ids(self) -> frozenset[str]:
        """Models that are loaded or being loaded."""
        return frozenset((*self._models, *self._loading))

    async def get(self, model_id: str, load: Callable[[str], Awaitable[Any]]) -> Any:
        """Find a model, or load it; whoever asks meanwhile waits for the same loading.

        Args:
            model_id: The model.
            load: The user's function.

        Raises:
            Exception: Whatever `load` raised; the next call tries again.

        Cancellation:
            The loading goes on while others wait for it, else it is cancelled.
        """
        if model_id in self._models:
            self._models.move_to_end(model_id)
            return self._models[model_id]
        work = self._loading.get(model_id)
        if work is None or work.is_abandoned:
            work = self._loading[model_id] = SharedWork(
                partial(self._load, model_id, load),
                f"loading of model {model_id!r} by {self._name}",
                _request_for(model_id),
                contextvars.copy_context(),
            )
            work.task.add_done_callback(partial(self._load_ended, model_id, work))
            self.on_change()
        work.join()
        return await work.result()

    async def close(self) -> None:
        """Unload everything; loads that still run are cancelled by those who wait for them."""
        unloading = []
        while self._models:
            unloading.append(self._unload_oldest())
        if unloading:
            await asyncio.wait(unloading)

    # --- inside -------------------------------------------------------------------------------------------

    async def _load(self, model_id: str, load: Callable[[str], Awaitable[Any]]) -> Any:
        await self._take_place()
        try:
            model = await load(model_id)
        except BaseException:
            self._give_place_back()
            raise
        if self._is_current(model_id):
            self._models[model_id] = model
            self._give_place_back()
        else:
            # Cancelled, and finished all the same. Who wants the model now loads it anew.
            self._spawn_unload(model_id, model)
        return model

    def _load_ended(self, model_id: str, work: SharedWork[Any], _task: asyncio.Task[Any]) -> None:
        # Not in `_load`, which has not even begun if it was cancelled at once.
        if self._loading.get(model_id) is work:
            del self._loading[model_id]
            self.on_change()

    def _is_current(self, model_id: str) -> bool:
        work = self._loading.get(model_id)
        return work is not None and work.task is asyncio.current_task() and not work.is_abandoned

    async def _take_place(self) -> None:
        while self._limit is not None and len(self._models) + self._busy_count >= self._limit:
            if self._models:
                await asyncio.wait((self._unload_oldest(),))
            else:
                await self._change()
        self._busy_count += 1

    def _give_place_back(self) -> None:
        self._busy_count -= 1
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)

    async def _change(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        finally:
            self._waiting.remove(waiter)

    def _unload_oldest(self) -> asyncio.Task[None]:
        model_id, model = self._models.popitem(last=False)
        self._busy_count += 1
        self.on_change()
        return self._spawn_unload(model_id, model)

    def _spawn_unload(self, model_id: str, model: Any) -> asyncio.Task[None]:
        """Unload in a task of its own: whoever needs the place may be cancelled, an unloading must not be."""
        context = contextvars.copy_context()
        context.run(request_context.current.set, None)
        return context.run(self._tasks.spawn, self._unload(model_id, model), f"unload {model_id}")

    async def _unload(self, model_id: str, model: Any) -> None:
        try:
            await finalize(model)
        except Exception:  # the user's __del__ may raise anything; the model is gone all the same
            logger.exception("model_unload_failed %s: __del__ of model %r", self._name, model_id)
        finally:
            self._give_place_back()


def _request_for(model_id: str) -> RequestContext:
    """The request that a loading runs in: its own. It has no deadline; those who wait for it have theirs."""
    caller = request_context.current.get()
    if caller is None:
        return RequestContext(new_request_id(), multiplexed_model_id=model_id)
    return RequestContext(
        caller.request_id,
        caller.route,
        caller.app_name,
        caller.deployment_name,
        multiplexed_model_id=model_id,
        traceparent=caller.traceparent,
        tracestate=caller.tracestate,
        caller_chain=caller.caller_chain,
    )
