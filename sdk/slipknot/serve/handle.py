"""Calls from one deployment to another, or from a driver: handles, and the responses they give.

    response = handle.method.remote(1, key="value")     # starts at once
    value = await response                               # in async code; response.result() elsewhere

Cancellation, in short: a call belongs to the request in whose context it was made and is cancelled with it; awaiting it is
like awaiting an `asyncio.Task`; `handle.options(detached=True)` makes calls that belong to nobody.
"""

import asyncio
from collections.abc import AsyncIterator, Generator, Iterator
from dataclasses import asdict, replace
from typing import Any, NoReturn

from slipknot_core.errors import RequestCancelledError, SlipknotServeException
from slipknot_core.ids import DeploymentId

from .. import _connection
from .._calls import REQUESTED, Call, HandleOptions, UnaryOutcome, raise_error, read_reply

__all__ = ["DeploymentHandle", "DeploymentResponse", "DeploymentResponseGenerator"]

_UNSET: Any = object()

_ON_A_LOOP = (
    "`{what}` blocks, and must not be called in an asyncio event loop: it would stop every other request. Use `{instead}`."
)


class DeploymentHandle:
    """Calls a deployment of this process's cluster. Cheap, immutable, picklable; equal if all its parts are.

    Args:
        deployment_name: The deployment.
        app_name: Its application.
    """

    def __init__(self, deployment_name: str, app_name: str, _options: HandleOptions | None = None) -> None:
        self.deployment_name = deployment_name
        self.app_name = app_name
        self._options = _options or HandleOptions()

    def __repr__(self) -> str:
        given = {k: v for k, v in asdict(self._options).items() if v != getattr(HandleOptions(), k)}
        options = "".join(f", {key}={value!r}" for key, value in given.items())
        return f"DeploymentHandle(deployment={self.deployment_name!r}, app={self.app_name!r}{options})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DeploymentHandle) and self._parts() == other._parts()

    def __hash__(self) -> int:
        return hash(self._parts())

    def __reduce__(self) -> tuple[Any, ...]:
        return DeploymentHandle, self._parts()

    def __getattr__(self, name: str) -> "DeploymentHandle":
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return self.options(method_name=name)

    @property
    def deployment_id(self) -> DeploymentId:
        """Application and deployment."""
        return DeploymentId(self.app_name, self.deployment_name)

    @property
    def is_initialized(self) -> bool:
        """This process has a cluster to send calls to."""
        return _connection.current_or_none() is not None

    def options(
        self,
        *,
        method_name: str = _UNSET,
        multiplexed_model_id: str = _UNSET,
        session_id: str = _UNSET,
        stream: bool = _UNSET,
        detached: bool = _UNSET,
    ) -> "DeploymentHandle":
        """Make a handle with other options; those not given stay as they are.

        Args:
            method_name: Method to call.
            multiplexed_model_id: Model that the replica should use.
            session_id: Calls of one session go to one replica where possible.
            stream: The method is a generator, and `remote` gives a `DeploymentResponseGenerator`.
            detached: Calls belong to no request: they are not cancelled with it, and have no deadline.

        Raises:
            TypeError: A value has the wrong type.
        """
        given = {
            "method_name": (method_name, str),
            "multiplexed_model_id": (multiplexed_model_id, str),
            "session_id": (session_id, str),
            "stream": (stream, bool),
            "detached": (detached, bool),
        }
        changes: dict[str, Any] = {}
        for name, (value, kind) in given.items():
            if value is _UNSET:
                continue
            if not isinstance(value, kind):
                raise TypeError(f"{name} must be {kind.__name__}, not {type(value).__name__}: {value!r}")
            changes[name] = value
        return DeploymentHandle(self.deployment_name, self.app_name, replace(self._options, **changes))

    def remote(self, *args: Any, **kwargs: Any) -> "DeploymentResponse | DeploymentResponseGenerator":
        """Start a call; it runs whether or not anybody waits for it.

        Args:
            args: Positional arguments. A `DeploymentResponse` is waited for and passed on by value.
            kwargs: Keyword arguments, likewise.

        Returns:
            A response; a `DeploymentResponseGenerator` if the handle has `stream=True`.

        Raises:
            SerializationError: An argument cannot be pickled; names it.
            SlipknotServeException: There is no cluster.
        """
        everything = (*args, *kwargs.values())
        for value in everything:
            if isinstance(value, DeploymentResponseGenerator):
                raise TypeError(
                    "a DeploymentResponseGenerator cannot be an argument of a call; iterate it and pass on what it gives"
                )
        pending = [value._call for value in everything if isinstance(value, DeploymentResponse)]
        call = Call(_connection.current(), self.deployment_id, self._options)
        call.begin(args, kwargs, pending)
        return DeploymentResponseGenerator(call) if self._options.stream else DeploymentResponse(call)

    def _parts(self) -> tuple[str, str, HandleOptions]:
        return self.deployment_name, self.app_name, self._options


class _Response:
    """What both kinds of responses have."""

    _kind = "DeploymentResponse"

    def __init__(self, call: Call) -> None:
        self._call = call

    def __repr__(self) -> str:
        state = "cancelled" if self.cancelled() else "done" if self._call.is_done else "pending"
        return f"<{self._kind} of request {self.request_id}: {state}>"

    def __reduce__(self) -> NoReturn:
        raise SlipknotServeException(
            f"{self._kind} is not serializable. Pass it as an argument of its own (not inside a list or dict): then its "
            "result is passed on. Or await it first."
        )

    @property
    def request_id(self) -> str:
        """Id of the request that this call belongs to."""
        return self._call.request_id

    def cancel(self) -> None:
        """Cancel the call and everything it has started. Idempotent; after the result has arrived a no-op.

        Before it runs it never will; while it runs, its handler gets `asyncio.CancelledError`.
        """
        self._call.is_cancel_requested = True
        self._call.connection.call_soon(self._call.cancel, REQUESTED, "response.cancel()")

    def cancelled(self) -> bool:
        """It was cancelled before its result had arrived."""
        return self._call.is_cancelled


class DeploymentResponse(_Response):
    """The result of a call, some time. Await it, or use `result()` in code without an event loop; as often as you like.

    Cancellation:
        As for an `asyncio.Task`: cancelling the task that awaits it cancels the call, `asyncio.shield(response)` does not.
        If the request that made the call is cancelled, so is the call, and awaiting it raises `asyncio.CancelledError`.
    """

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        self._outcome = UnaryOutcome(call)

    def __await__(self) -> Generator[Any, None, Any]:
        """Wait for the result.

        Raises:
            RequestCancelledError: It was cancelled by `cancel()`.
            BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError: It could not be served.
            Exception: Whatever the method raised, with its remote traceback as `__cause__`.
        """
        return self._wait().__await__()

    def __aiter__(self) -> NoReturn:
        raise TypeError("a DeploymentResponse has one result: await it. To iterate, use handle.options(stream=True)")

    def __iter__(self) -> NoReturn:
        raise TypeError("a DeploymentResponse has one result: call result(). To iterate, use handle.options(stream=True)")

    def result(self, *, timeout_s: float | None = None) -> Any:
        """Wait for the result, in code without an event loop.

        Args:
            timeout_s: Seconds to wait at most; None waits for ever. The call goes on after a timeout.

        Raises:
            TimeoutError: It took longer.
            RuntimeError: Called in an event loop.
            ValueError: `timeout_s` is negative.
            Exception: As `await`; a cancellation with the request raises RequestCancelledError here.
        """
        if timeout_s is not None and timeout_s < 0:
            raise ValueError(f"timeout_s must not be negative, got {timeout_s}")
        if asyncio._get_running_loop() is not None:
            raise RuntimeError(_ON_A_LOOP.format(what="response.result()", instead="await response"))
        try:
            self._call.connection.run(self._outcome.wait(), timeout_s)
        except TimeoutError:
            raise TimeoutError(f"request {self.request_id} has no result after {timeout_s} s; it goes on") from None
        try:
            return self._outcome.value()
        except asyncio.CancelledError:
            raise RequestCancelledError(f"Request {self.request_id} was cancelled.") from None

    async def _wait(self) -> Any:
        connection = self._call.connection
        try:
            if connection.is_on_loop:
                await self._outcome.wait()
            else:
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._outcome.wait(), connection.loop))
        except asyncio.CancelledError:
            self.cancel()
            raise
        return self._outcome.value()

    async def _resolved(self) -> Any:
        """The value for a downstream call, on the connection's loop; giving up leaves this call alone."""
        await self._outcome.wait()
        return self._outcome.value()


class DeploymentResponseGenerator(_Response):
    """The items of a streaming call, as they come. Iterate it once, with `async for` or `for`.

    A bounded number of items travels ahead of the reader. Dropping an unfinished generator cancels the call.

    Cancellation:
        Cancelling the task that iterates cancels the call. If the request that made the call is cancelled, so is the call,
        and iterating raises `asyncio.CancelledError`.
    """

    _kind = "DeploymentResponseGenerator"

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        self._is_finished = False
        self._failure: Exception | None = None

    def __await__(self) -> NoReturn:
        raise TypeError("a DeploymentResponseGenerator cannot be awaited; iterate it with `async for`")

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        connection = self._call.connection
        try:
            if connection.is_on_loop:
                frame = await self._next_frame()
            else:
                frame = await asyncio.wrap_future(
                    asyncio.run_coroutine_threadsafe(self._next_frame(), connection.loop)
                )
        except asyncio.CancelledError:
            self.cancel()
            raise
        if frame is None:
            self._raise_end(StopAsyncIteration)
        return self._read(frame)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if asyncio._get_running_loop() is not None:
            raise RuntimeError(_ON_A_LOOP.format(what="next(response)", instead="async for"))
        frame = self._call.connection.run(self._next_frame())
        if frame is None:
            try:
                self._raise_end(StopIteration)
            except asyncio.CancelledError:
                raise RequestCancelledError(f"Request {self.request_id} was cancelled.") from None
        return self._read(frame)

    def __del__(self) -> None:
        call = getattr(self, "_call", None)
        if call is not None and not self._is_finished and not call.is_done and not call.connection.loop.is_closed():
            self.cancel()

    def result(self, *, timeout_s: float | None = None) -> NoReturn:
        """Not available: a generator has many results.

        Raises:
            TypeError: Always.
        """
        raise TypeError("a DeploymentResponseGenerator has no result(); iterate it with `for`")

    async def aclose(self) -> None:
        """End the call; as leaving a generator early."""
        if not self._is_finished:
            self.cancel()

    async def _next_frame(self) -> Any:
        """The next reply, or None at the end; on the connection's loop."""
        call = self._call
        while not self._is_finished:
            frame = call.exchange.try_next() if call.exchange is not None else None
            if frame is not None:
                return frame
            if call.is_done:
                return None
            await call.progress()
        return None

    def _read(self, frame: Any) -> Any:
        kind = frame.WhichOneof("frame")
        if kind == "end":
            self._is_finished = True
            raise StopAsyncIteration if asyncio._get_running_loop() is not None else StopIteration
        try:
            value = read_reply(frame, self.request_id)
        except Exception as error:
            self._is_finished, self._failure = True, error
            raise
        if self._call.exchange is not None:
            self._call.connection.call_soon(self._call.exchange.grant, frame.item.ByteSize())
        return value

    def _raise_end(self, stop: type[Exception]) -> NoReturn:
        """Nothing comes any more: raise why."""
        if self._failure is not None:
            raise self._failure.with_traceback(None)
        if self._is_finished:
            raise stop
        raise_error(self._call)
        raise stop
