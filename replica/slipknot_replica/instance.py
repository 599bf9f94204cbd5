"""The one object a replica serves: made from the user's function or class, configured, checked, and ended."""

import asyncio
import contextlib
import inspect
from typing import Any

from slipknot._finalizers import forget_del

from .threads import run_in_new_thread

LAST_CALL_S = 1.0
"""Time for `__del__` if the replica's time to end has run out already."""


class Instance:
    """Holds the user's function, or the instance of their class. Sync hooks run in threads of their own.

    Args:
        func_or_class: The user's.
        init_args: For the class's constructor.
        init_kwargs: For the class's constructor.
        deployment: How error messages call the deployment.
    """

    def __init__(
        self, func_or_class: Any, init_args: tuple[Any, ...], init_kwargs: dict[str, Any], deployment: str
    ) -> None:
        self._func_or_class = func_or_class
        self._init_args = init_args
        self._init_kwargs = init_kwargs
        self._deployment = deployment
        self._object: Any = None
        self._is_deleted = False
        self.servable: Any = None
        """The function or the instance; None until it is constructed."""

    @property
    def has_health_check(self) -> bool:
        """The class has a `check_health` method."""
        return self._is_class and callable(getattr(self._func_or_class, "check_health", None))

    async def construct(self) -> None:
        """Make the instance.

        Raises:
            TypeError: There are arguments for a function's constructor, or they do not fit the class's.
            RuntimeError: The constructor raised SystemExit (`sys.exit`) or KeyboardInterrupt.
            Exception: Whatever the constructor raised.
        """
        if not self._is_class:
            if self._init_args or self._init_kwargs:
                raise TypeError(
                    f"deployment {self._deployment!r} is a function, but arguments were bound to it; only "
                    "the constructor of a class takes arguments of bind()"
                )
            self.servable = self._func_or_class
            return
        try:
            await self._construct()
        except (SystemExit, KeyboardInterrupt) as error:  # would end the loop, and with it the replica
            raise RuntimeError(
                f"the constructor of deployment {self._deployment!r} raised {type(error).__name__}"
            ) from error
        self.servable = self._object

    async def reconfigure(self, user_config: Any) -> None:
        """Hand a configuration to the user's `reconfigure`.

        Raises:
            ValueError: There is a configuration but no such method.
            Exception: Whatever it raised.
        """
        method = getattr(self.servable, "reconfigure", None) if self._is_class else None
        if method is None:
            if user_config is None:
                return
            raise ValueError(
                f"deployment {self._deployment!r} has a user_config, but its class has no `reconfigure` "
                "method; add `def reconfigure(self, user_config)` or leave the user_config out"
            )
        await self._call_hook("reconfigure", method, user_config)

    async def check_health(self) -> None:
        """Call the user's `check_health`, if there is one; raises whatever it raised."""
        if self.has_health_check:
            await self._call_hook("check_health", self.servable.check_health)

    async def delete(self) -> None:
        """Call the user's `__del__`, once, also if the constructor failed or still runs.

        Raises:
            Exception: Whatever it raised.
        """
        if self._is_deleted or self._object is None:
            return
        self._is_deleted = True
        if not hasattr(self._object, "__del__"):
            return
        try:
            await self._call_hook("__del__", self._object.__del__)
        finally:
            forget_del(self._object)

    async def delete_quickly(self) -> None:
        """`delete`, but give up after a moment."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_CALL_S):
                await self.delete()

    # --- inside ---------------------------------------------------------------------------------------------

    @property
    def _is_class(self) -> bool:
        return inspect.isclass(self._func_or_class)

    async def _construct(self) -> None:
        cls = self._func_or_class
        if inspect.iscoroutinefunction(cls.__init__):
            self._make()
            await self._object.__init__(*self._init_args, **self._init_kwargs)
            return
        try:
            await run_in_new_thread(f"constructor of {self._deployment}", self._make_and_init)
        except RuntimeError as error:
            if "event loop" in str(error):
                error.add_note(
                    "Sync constructors run in a thread; write `async def __init__` to use the event loop."
                )
            raise

    def _make(self) -> None:
        cls = self._func_or_class
        self._object = cls.__new__(cls, *self._init_args, **self._init_kwargs)

    def _make_and_init(self) -> None:
        self._make()
        # Like calling the class, but in two steps: `__del__` may be due while the constructor still runs.
        if isinstance(self._object, self._func_or_class):
            type(self._object).__init__(self._object, *self._init_args, **self._init_kwargs)

    async def _call_hook(self, name: str, method: Any, *args: Any) -> None:
        if inspect.iscoroutinefunction(method):
            await method(*args)
            return
        result = await run_in_new_thread(f"{name} of {self._deployment}", method, *args)
        if inspect.iscoroutine(result):
            await result
