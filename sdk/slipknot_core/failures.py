"""Exceptions to the wire and back. The only place that knows `ErrorInfo`."""

import pickle
import traceback
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from slipknot_proto.v1.payload_pb2 import ErrorInfo

from . import errors

USER_EXCEPTION = "USER_EXCEPTION"
"""ErrorInfo.reason of what user code raised."""

MAX_PICKLE_BYTES = 16 * 1024 * 1024
"""Of an exception that holds more only its text travels."""

MAX_TEXT_CHARS = 64 * 1024
"""Longer texts keep their beginning."""

MAX_TRACEBACK_CHARS = 64 * 1024
"""Longer tracebacks keep their end."""

_BEFORE_USER_CODE = frozenset(
    (
        "slipknot",
        "slipknot_core",
        "slipknot_replica",
        "asyncio",
        "concurrent",
        "importlib",
        "_frozen_importlib",
        "_frozen_importlib_external",
    )
)
"""Packages between us and the first line of the user's code."""


def to_error_info(error: BaseException, *, with_pickle: bool = True) -> ErrorInfo:
    """Describe `error` for the caller.

    Args:
        error: What was raised.
        with_pickle: Include the exception itself, for callers inside the cluster.
    """
    if isinstance(error, errors.SlipknotServeException):
        backpressure = error if isinstance(error, errors.BackPressureError) else None
        return ErrorInfo(
            reason=error.reason,
            message=_text(error),
            traceback=format_traceback(error),
            pickled_exception=_pickled(error) if with_pickle else b"",
            http_status=0 if backpressure is None else backpressure.status_code,
            retry_after_s=None if backpressure is None else backpressure.retry_after_s,
        )
    return ErrorInfo(
        reason=USER_EXCEPTION,
        message=_text(error),
        type_name=_encodable(f"{type(error).__module__}.{type(error).__qualname__}"),
        traceback=format_traceback(error),
        pickled_exception=_pickled(error) if with_pickle else b"",
    )


def from_error_info(info: ErrorInfo, *, allow_pickle: bool = True) -> Exception:
    """Rebuild the exception: its original type where possible, with the remote traceback as `__cause__`."""
    error = _unpickled(info.pickled_exception) if allow_pickle and info.pickled_exception else None
    if error is None:
        error = _without_pickle(info)
    if info.traceback:
        error.__cause__ = errors.RemoteTraceback(info.traceback)
    return error


def format_traceback(error: BaseException) -> str:
    """The traceback of `error` with its causes as text, bounded."""
    return _traceback_text(error, error.__traceback__)


def format_user_traceback(error: BaseException) -> str:
    """The same from the first line of the user's code on: how we came to call it tells its author nothing.
    Whole if there is no such line.
    """
    below = error.__traceback__
    while below is not None and _package(below.tb_frame) in _BEFORE_USER_CODE:
        below = below.tb_next
    return _traceback_text(error, below or error.__traceback__)


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def _traceback_text(error: BaseException, from_: TracebackType | None) -> str:
    text = _encodable("".join(traceback.format_exception(type(error), error, from_)))
    return text if len(text) <= MAX_TRACEBACK_CHARS else "… (cut)\n" + text[-MAX_TRACEBACK_CHARS:]


def _without_pickle(info: ErrorInfo) -> Exception:
    error_type = errors.BY_REASON.get(info.reason)
    if error_type is errors.BackPressureError:
        retry_after_s = info.retry_after_s if info.HasField("retry_after_s") else None
        return errors.BackPressureError(info.message, info.http_status or 503, retry_after_s)
    if error_type is not None:
        return error_type(info.message)
    prefix = f"{info.type_name}: " if info.type_name else ""
    return errors.SlipknotServeException(f"{prefix}{info.message}")


def _text(error: BaseException) -> str:
    try:
        text = _encodable(str(error))
        return text if len(text) <= MAX_TEXT_CHARS else text[:MAX_TEXT_CHARS] + " … (cut)"
    except Exception:  # noqa: BLE001 - a user-defined __str__ may raise anything
        return "(its text cannot be had)"


def _encodable(text: str) -> str:
    """Escape what UTF-8, so protobuf, cannot carry."""
    return text.encode("utf-8", "backslashreplace").decode()


def _pickled(error: BaseException) -> bytes:
    """Pickle without traceback and cause; b"" if that is impossible or would not come back as it went."""
    return _dumped(error, lambda restored: str(restored) == str(error)) or _dumped(_AsIs(error), _has_text)


def _dumped(value: object, is_right: Callable[[BaseException], bool]) -> bytes:
    import cloudpickle  # slow to import, rarely needed

    try:
        data: bytes = cloudpickle.dumps(value)
        if len(data) > MAX_PICKLE_BYTES:
            return b""
        restored = pickle.loads(data)
        return data if isinstance(restored, BaseException) and is_right(restored) else b""
    except Exception:  # noqa: BLE001 - user-defined methods may raise anything: then only text travels
        return b""


def _has_text(error: BaseException) -> bool:
    return isinstance(str(error), str)  # its __str__ may raise instead


class _AsIs:
    """Pickles an exception by what it holds, for those whose `__init__` does not take their `args`."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self._error), self._error.args, vars(self._error))


def _restore(kind: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]) -> BaseException:
    error = kind.__new__(kind)
    error.args = args
    vars(error).update(state)
    return error


def _unpickled(data: bytes) -> Exception | None:
    try:
        error: Any = pickle.loads(data)
    except Exception:  # noqa: BLE001 - the class may not be importable here: then the text is used
        return None
    return error if isinstance(error, Exception) else None
