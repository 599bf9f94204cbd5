"""From a reply to what the caller gets: a value, or an exception made anew for whoever asks."""

import copy
from typing import Any

from slipknot_core import payloads
from slipknot_core.errors import ProtocolError
from slipknot_core.failures import from_error_info
from slipknot_proto.v1 import replica_pb2


def read_reply(frame: replica_pb2.ReplyFrame, expected: str, *, allow_pickle: bool = True) -> Any:
    """Read the value in a reply, or raise the failure in it.

    Args:
        frame: The reply.
        expected: The kind that carries a value here, "result" or "item".
        allow_pickle: Read values and exceptions that are pickled.

    Raises:
        ProtocolError: It is of another kind.
        Exception: Whatever the method raised, with its remote traceback as `__cause__`.
    """
    kind = frame.WhichOneof("frame")
    if kind == "failure":
        raise from_error_info(frame.failure.error, allow_pickle=allow_pickle)
    if kind != expected:
        raise ProtocolError(f"the replica answered with {kind!r} where {expected!r} belongs")
    value = frame.result.value if kind == "result" else frame.item.value
    return payloads.decode_value(value, allow_pickle=allow_pickle)


def renewed(error: Exception) -> Exception:
    """Copy an error without the tracebacks of those who raised it before, which would pile up."""
    try:
        again = copy.copy(error)
    except Exception:  # noqa: BLE001 - the user's exception may not survive copying
        return error.with_traceback(None)
    again.__cause__ = error.__cause__
    return again
