"""Calls from one deployment to another, or from a driver: handles, and the responses they give.

    response = handle.method.remote(1, key="value")     # starts at once
    value = await response                               # in async code; response.result() elsewhere

A call belongs to the request in whose context it was made and is cancelled with it; awaiting it is
like awaiting an `asyncio.Task`; `handle.options(detached=True)` makes calls that belong to nobody.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from dataclasses import asdict, replace
from typing import Any, Generic, NoReturn

from typing_extensions import TypeVar

from slipknot_core.errors import RequestCancelledError, SerializationError, SlipknotServeException
from slipknot_core.ids import DeploymentId
from slipknot_proto.v1.replica_pb2 import ReplyFrame

from .. import _connection
from .._call_open import HandleOptions
from .._calls import Call
from .._replies import read_reply

__all__ = ["DeploymentHandle", "DeploymentResponse", "DeploymentResponseGenerator"]

T = TypeVar("T", default=Any)
"""The class of a deployment; for people and their tools."""
R = TypeVar("R", default=Any)
"""A result, or an item."""

_UNSET: Any = object()

_ON_A_LOOP = (
    "`{what}` blocks, and must not be called in an asyncio event loop: it would stop every other request. "
    "Use `{instead}`."
)

BATCH = 256
"""Items that cross from the connection's loop to a thread or another loop at once."""


class DeploymentHandle(Generic[T]):
    """Calls a deployment of this process's cluster. Cheap, immutable, picklable; equal if all its parts are.

    Args:
        deployment_name: The deployment.
        app_name: Its application.
    """

    def __init__(
        self,
        deployment_name: str,
        app_name: str,
        _options: HandleOptions | None = None,
        _is_local: bool = False,
    ) -> None:
        self.deployment_name = deployment_name
        self.app_name = app_name
        self._options = _options or HandleOptions()
        self._is_local = _is_local

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
        if self._is_local:
            return _connection.local_testing is not None
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
        options = replace(self._options, **changes)
        return DeploymentHandle(self.deployment_name, self.app_name, options, self._is_local)

    def remote(self, *args: Any, **kwargs: Any) -> Any:
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
        upstream: dict[int | str, Call] = {}
        arguments: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
        for place, value in arguments:
            if isinstance(value, DeploymentResponse):
                upstream[place] = value._call
            elif isinstance(value, DeploymentResponseGenerator):
                raise TypeError(
                    f"argument {place!r} is a DeploymentResponseGenerator, which cannot be passed to a call; "
                    "iterate it and pass on what it gives"
                )
        call = Call(self._connection(), self.deployment_id, self._options)
        call.begin(args, kwargs, upstream)
        return DeploymentResponseGenerator(call) if self._options.stream else DeploymentResponse(call)

    def _connection(self) -> _connection.Connection:
        if not self._is_local:
            return _connection.current()
        if _connection.local_testing is None:
            raise SlipknotServeException("the application in local testing mode was shut down")
        return _connection.local_testing

    def _parts(self) -> tuple[str, str, HandleOptions, bool]:
        return self.deployment_name, self.app_name, self._options, self._is_local


class _Response(Generic[R]):
    """What both kinds of responses have."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def __repr__(self) -> str:
        state = "cancelled" if self.cancelled() else "done" if self._call.is_done else "pending"
        return f"<{type(self).__name__} of request {self.request_id}: {state}>"

    def __reduce__(self) -> NoReturn:
        raise SerializationError(
            f"{type(self).__name__} is not serializable. Pass a response as an argument of its own (not "
            "inside a list or dict): then its result is passed on. Or await it first."
        )

    @property
    def request_id(self) -> str:
        """Id of the request that this call is part of."""
        return self._call.request_id

    def cancel(self) -> None:
        """Cancel the call and everything it has started. Idempotent; after the result has arrived a no-op.

        Before it runs it never will; while it runs, its handler gets `asyncio.CancelledError`. Afterwards
        whoever asks for the result gets `RequestCancelledError`.
        """
        self._call.cancel()

    def cancelled(self) -> bool:
        """Whether it was cancelled, by whomever, before its result had arrived."""
        return self._call.is_cancelled


class DeploymentResponse(_Response[R]):
    """The result of a call, some time. Await it, or use `result()` without an event loop, as often as you
    like.

    Cancellation:
        As for an `asyncio.Task`: cancelling a task that awaits it cancels the call (others that await it get
        `RequestCancelledError`); `asyncio.shield(response)` keeps it. If the request that made the call is
        cancelled, so is the call, shielded or not, and awaiting it raises `asyncio.CancelledError`.
    """

    def __await__(self) -> Generator[Any, None, R]:
        """Wait for the result.

        Raises:
            RequestCancelledError: It was cancelled by `cancel()`.
            RequestTimeoutError: The request's deadline passed.
            BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError: It could not be served.
            Exception: Whatever the method raised, with its remote traceback as `__cause__`.
        """
        return self._wait().__await__()

    def result(self, *, timeout_s: float | None = None) -> R:
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
        call = self._call
        if not call.is_settled:
            try:
                call.connection.run(call.settle(), timeout_s)
            except TimeoutError:
                raise TimeoutError(
                    f"request {self.request_id} has no result after {timeout_s} s; it goes on"
                ) from None
        result: R = _in_thread(call.value)
        return result

    async def _wait(self) -> R:
        call = self._call
        try:
            if call.is_settled:
                pass
            elif call.connection.is_on_loop:
                await call.settle()
            else:
                await call.connection.run_from_loop(call.settle())
        except (asyncio.CancelledError, GeneratorExit):
            call.cancel()
            raise
        value: R = call.value()
        return value


class DeploymentResponseGenerator(_Response[R]):
    """The items of a streaming call, as they come. Iterate it once, with `async for` or `for`.

    A bounded amount travels ahead of the reader. Dropping an unfinished generator cancels the call.

    Cancellation:
        Cancelling the task that iterates cancels the call. If the request that made the call is cancelled, so
        is the call, and iterating raises `asyncio.CancelledError`.
    """

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        self._replies: deque[ReplyFrame] = deque()
        self._last: ReplyFrame | None = None

    def __aiter__(self) -> AsyncIterator[R]:
        return self

    async def __anext__(self) -> R:
        """The next item.

        Raises:
            StopAsyncIteration: The method's generator is exhausted.
            Exception: As awaiting a `DeploymentResponse`; and again if asked again.
        """
        call = self._call
        try:
            if not self._has_reply:
                if call.connection.is_on_loop:
                    self._replies.extend(await call.next_replies())
                else:
                    self._replies.extend(await call.connection.run_from_loop(call.next_replies(BATCH)))
        except (asyncio.CancelledError, GeneratorExit):
            call.cancel()
            raise
        item: R = self._take(StopAsyncIteration)
        return item

    def __iter__(self) -> Iterator[R]:
        return self

    def __next__(self) -> R:
        """The next item, in code without an event loop.

        Raises:
            StopIteration: The method's generator is exhausted.
            RuntimeError: Called in an event loop.
            Exception: As `result()` of a `DeploymentResponse`; and again if asked again.
        """
        if asyncio._get_running_loop() is not None:
            raise RuntimeError(_ON_A_LOOP.format(what="next(response)", instead="async for"))
        call = self._call
        if not self._has_reply:
            self._replies.extend(call.connection.run(call.next_replies(BATCH)))
        item: R = _in_thread(lambda: self._take(StopIteration))
        return item

    def __del__(self) -> None:
        call = getattr(self, "_call", None)
        if call is not None and not call.is_done:
            call.post_cancel()

    def result(self, *, timeout_s: float | None = None) -> NoReturn:
        """Not available: a generator has many results.

        Raises:
            TypeError: Always.
        """
        raise TypeError("a DeploymentResponseGenerator has no result(); iterate it with `for` or `async for`")

    async def aclose(self) -> None:
        """Cancel what is left of the call; for `contextlib.aclosing`."""
        self.cancel()

    # --- inside -------------------------------------------------------------------------------------------

    @property
    def _has_reply(self) -> bool:
        """The next step needs no waiting."""
        return bool(self._replies) or self._last is not None or self._call.is_cancelled

    def _take(self, stop: type[Exception]) -> Any:
        if self._call.is_cancelled:
            self._replies.clear()
            raise self._call.error()
        reply = self._last or (self._replies.popleft() if self._replies else None)
        if reply is None:
            raise self._call.error()
        if reply.HasField("item"):
            return self._read(reply)
        self._last = reply
        if reply.HasField("end"):
            raise stop
        return self._read(reply)

    def _read(self, reply: Any) -> Any:
        return read_reply(reply, "item", allow_pickle=self._call.connection.allows_pickle)


def _in_thread(read: Callable[[], Any]) -> Any:
    """Call `read`; CancelledError is for tasks only, and a thread cannot be cancelled."""
    try:
        return read()
    except asyncio.CancelledError as error:
        raise RequestCancelledError(str(error)) from None
