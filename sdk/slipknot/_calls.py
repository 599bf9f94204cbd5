"""One handle call from its beginning to its outcome. `serve/handle.py` wraps it for users.

A call belongs to the loop of its connection; whoever uses it from elsewhere hops there. To whom it belongs is decided where
it is made: to the request in whose context `.remote()` ran, unless that request is already cleaning up, or the handle is
detached.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slipknot_core import payloads, request_context
from slipknot_core.deadline import NEVER
from slipknot_core.errors import RequestCancelledError, SlipknotServeException
from slipknot_core.failures import from_error_info
from slipknot_core.ids import DeploymentId, new_request_id
from slipknot_core.request_context import RequestContext
from slipknot_core.routing.exchange import Exchange
from slipknot_proto.v1 import replica_pb2
from slipknot_proto.v1.payload_pb2 import CancelReason

from ._connection import Connection

REQUESTED = CancelReason.CANCEL_REASON_REQUESTED
PARENT_CANCELLED = CancelReason.CANCEL_REASON_PARENT_CANCELLED


@dataclass(frozen=True, slots=True)
class HandleOptions:
    """What `DeploymentHandle.options` sets."""

    method_name: str = "__call__"
    multiplexed_model_id: str = ""
    session_id: str = ""
    stream: bool = False
    detached: bool = False


class Call:
    """One call. Made by `begin`, in the context and thread of the caller; all else happens on the connection's loop."""

    def __init__(self, connection: Connection, deployment_id: DeploymentId, options: HandleOptions) -> None:
        parent = request_context.current.get()
        self.connection = connection
        self.request_id = parent.request_id if parent is not None else new_request_id()
        self.owner: RequestContext | None = None if options.detached else request_context.owner_of_new_call()
        self.is_cancel_requested = False
        self._deployment_id = deployment_id
        self._options = options
        self._open = replica_pb2.Open(
            request_id=self.request_id,
            multiplexed_model_id=options.multiplexed_model_id,
            session_id=options.session_id,
        )
        if parent is not None:
            self._open.route = parent.route
            self._open.traceparent = parent.traceparent
            self._open.caller_chain.extend(parent.caller_chain)
            self._open.caller_chain.append(f"{parent.app_name}/{parent.deployment_name}")
        self._open.method.method_name = options.method_name
        self._open.method.stream = options.stream
        self.exchange: Exchange | None = None
        self._early_error: BaseException | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self._resolving: asyncio.Task[None] | None = None

    def begin(self, args: Sequence[Any], kwargs: Mapping[str, Any], pending: "Sequence[Call]") -> None:
        """Start the call; with `pending` upstream calls among the arguments, as soon as they are there."""
        if pending:
            self.connection.call_soon(self._begin_resolving, args, kwargs)
            return
        self._open.method.arguments.CopyFrom(payloads.encode_arguments(tuple(args), kwargs))
        self.connection.call_soon(self._send)

    # --- on the loop ------------------------------------------------------------------------------------------------

    def cancel(self, reason: CancelReason, origin: str) -> None:
        """End the call, whatever it does; a no-op after its outcome."""
        if self.exchange is not None:
            self.exchange.cancel(reason, origin)
        elif self._early_error is None:
            if reason == PARENT_CANCELLED:
                self._fail_early(asyncio.CancelledError())
            else:
                self._fail_early(RequestCancelledError(f"Request {self.request_id} was cancelled."))

    @property
    def is_done(self) -> bool:
        """There is an outcome."""
        return self._early_error is not None or (self.exchange is not None and self.exchange.closed)

    @property
    def is_cancelled(self) -> bool:
        """It was cancelled before it had an outcome."""
        if not self.is_done:
            return self.is_cancel_requested
        if self.exchange is None:
            return isinstance(self._early_error, (asyncio.CancelledError, RequestCancelledError))
        return self.exchange.error is not None and self.exchange.cancel_reason is not None

    @property
    def is_cancelled_by_parent(self) -> bool:
        """It was cancelled with the request it belongs to."""
        if self.exchange is None:
            return isinstance(self._early_error, asyncio.CancelledError)
        return self.exchange.error is not None and self.exchange.cancel_reason == PARENT_CANCELLED

    @property
    def error(self) -> BaseException | None:
        """What ended the call instead of a reply."""
        return self._early_error if self.exchange is None else self.exchange.error

    async def progress(self) -> None:
        """Wait until there is a reply to read or an outcome.

        Cancellation:
            Safe; the call goes on.
        """
        waiter: asyncio.Future[None] = self.connection.loop.create_future()
        self._waiters.append(waiter)
        await waiter

    # --- inside -----------------------------------------------------------------------------------------------------

    def _send(self) -> None:
        owner = self.owner
        if self.is_cancel_requested:
            self._fail_early(RequestCancelledError(f"Request {self.request_id} was cancelled."))
            return
        deadline = NEVER if owner is None else owner.deadline
        self.exchange = self.connection.dispatcher.open(self._deployment_id, self._open, deadline, context=owner)
        self.exchange.on_ready = self._wake
        self._wake()

    def _begin_resolving(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        if self.owner is not None and not self.owner.adopt(self, self.cancel):
            self._fail_early(asyncio.CancelledError())
            return
        self._resolving = self.connection.loop.create_task(
            self._resolve(args, kwargs), name=f"arguments of request {self.request_id}"
        )

    async def _resolve(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Wait for upstream results and pass them on by value; an upstream failure becomes this call's."""
        try:
            values = [await _value_of(argument) for argument in args]
            named = {name: await _value_of(argument) for name, argument in kwargs.items()}
            self._open.method.arguments.CopyFrom(payloads.encode_arguments(tuple(values), named))
        except asyncio.CancelledError:
            if self._early_error is None:  # an upstream call was cancelled with its own request
                self._fail_early(asyncio.CancelledError())
            raise
        except Exception as error:  # whatever the upstream call raised
            self._fail_early(error)
            return
        finally:
            if self.owner is not None:
                self.owner.release(self)
            self._resolving = None
        if self._early_error is None:
            self._send()

    def _fail_early(self, error: BaseException) -> None:
        self._early_error = error
        if self._resolving is not None:
            self._resolving.cancel()
        self._wake()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


class UnaryOutcome:
    """Reads the one reply of a unary call, once, however many ask for it."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._frame: replica_pb2.ReplyFrame | None = None

    async def wait(self) -> None:
        """Wait for the outcome; raises nothing of the call's. Cancelling this leaves the call alone."""
        while not self._call.is_done:
            await self._call.progress()
        if self._frame is None and self._call.exchange is not None:
            self._frame = self._call.exchange.try_next()

    def value(self) -> Any:
        """The result; raises what the call raised (CancelledError if it was cancelled with its request)."""
        if self._frame is not None:
            return read_reply(self._frame, self._call.request_id)
        raise_error(self._call)


def raise_error(call: Call) -> Any:
    """Raise what ended `call`."""
    if call.is_cancelled_by_parent:
        raise asyncio.CancelledError(f"request {call.request_id} was cancelled")
    error = call.error
    if error is None:
        raise SlipknotServeException(f"request {call.request_id} ended without a reply")
    raise error.with_traceback(None)


def read_reply(frame: replica_pb2.ReplyFrame, request_id: str) -> Any:
    """The value in a reply, or raise the failure in it."""
    match frame.WhichOneof("frame"):
        case "result":
            return payloads.decode_value(frame.result.value)
        case "item":
            return payloads.decode_value(frame.item.value)
        case "failure":
            raise from_error_info(frame.failure.error)
        case kind:
            raise SlipknotServeException(f"request {request_id}: unexpected reply {kind!r}")


async def _value_of(argument: Any) -> Any:
    from .serve.handle import DeploymentResponse

    return await argument._resolved() if isinstance(argument, DeploymentResponse) else argument
