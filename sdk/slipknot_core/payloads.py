"""Python values to the wire and back: pickle inside a cluster, JSON and MessagePack for clients outside.

What cannot travel raises `SerializationError`, which names the argument and says why.
"""

import dataclasses
import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from slipknot_proto.v1.payload_pb2 import Payload

from .errors import SerializationError

Encoding = Literal["pickle", "json", "msgpack"]
Arguments = tuple[tuple[Any, ...], dict[str, Any]]

NUMPY_EXTENSION = 1
"""MessagePack extension type of numpy arrays: a map {"dtype", "shape", "data"}."""

_PLAIN_TYPES = frozenset({str, int, float, bool, bytes, complex, bytearray, type(None)})

_NUMBER_KINDS = "biufcMmSU"
"""Kinds of numpy types whose buffers mean the same everywhere."""

_CONTAINERS = frozenset({dict, list, tuple, set, frozenset})

_PLAIN_BUDGET = 256
"""So many values are looked at to find out whether plain pickle will do; larger ones go to cloudpickle."""


def encode_arguments(
    args: Sequence[Any], kwargs: Mapping[str, Any], encoding: str = "pickle", *, of: str = ""
) -> Payload:
    """Write the arguments of a call.

    Args:
        args: Positional arguments.
        kwargs: Keyword arguments.
        encoding: "pickle", "json" or "msgpack".
        of: Whose arguments these are, for the message of an error.

    Raises:
        SerializationError: Names the argument that cannot be written, and why.
    """
    encode = _encoder(encoding)
    value = (
        (tuple(args), dict(kwargs)) if encoding == "pickle" else {"args": list(args), "kwargs": dict(kwargs)}
    )
    try:
        return encode(value)
    except Exception as error:  # user-defined __reduce__ may raise anything
        raise _argument_error(args, kwargs, encode, of, error) from error


def decode_arguments(payload: Payload, *, allow_pickle: bool = True) -> Arguments:
    """Read the arguments of a call; an empty payload means none.

    Args:
        payload: As `encode_arguments` writes it.
        allow_pickle: Accept pickle; False where the caller is not an authenticated member of the cluster.

    Raises:
        SerializationError: The bytes are not what their encoding says, or pickle is not allowed.
    """
    encoding = payload.WhichOneof("encoding")
    if encoding is None:
        return (), {}
    value = _decode(payload, "the arguments", allow_pickle=allow_pickle)
    if encoding == "pickle":
        match value:
            case (tuple() as args, dict() as kwargs):
                return args, kwargs
        raise SerializationError("pickled arguments must be a tuple (args, kwargs)")
    return _checked_arguments(value, encoding)


def checked_size(payload: Payload, max_bytes: int, what: str) -> Payload:
    """Give the payload back if one message can carry it.

    Args:
        payload: What is to be sent.
        max_bytes: Largest size that both ends take.
        what: What it is, for the message of an error.

    Raises:
        SerializationError: It is larger; says how large.
    """
    size = payload.ByteSize()
    if size > max_bytes:
        raise SerializationError(
            f"{what}: {size:,} bytes, and one message carries at most {max_bytes:,}. Send it in pieces "
            "(stream=True), or raise SLIPKNOT_RPC_MAX_MESSAGE_BYTES for all processes of the cluster"
        )
    return payload


def encode_value(value: Any, encoding: str = "pickle") -> Payload:
    """Write a result or an item of a stream.

    Args:
        value: Anything that `encoding` can carry.
        encoding: "pickle", "json" or "msgpack".

    Raises:
        SerializationError: Names the type that cannot be written, and why.
    """
    encode = _encoder(encoding)
    try:
        return encode(value)
    except Exception as error:  # user-defined __reduce__ may raise anything
        raise SerializationError(
            f"the result ({type(value).__qualname__}) cannot be serialised as {encoding}: {_why(error)}"
        ) from error


def decode_value(payload: Payload, *, allow_pickle: bool = True) -> Any:
    """Read a result or an item of a stream.

    Args:
        payload: As `encode_value` writes it.
        allow_pickle: Accept pickle; False where the peer is not an authenticated member of the cluster.

    Raises:
        SerializationError: The bytes are not what their encoding says, or pickle is not allowed.
    """
    if payload.WhichOneof("encoding") is None:
        raise SerializationError("a payload without an encoding; set pickle, json or msgpack")
    return _decode(payload, "the value", allow_pickle=allow_pickle)


# --- inside -------------------------------------------------------------------------------------------------


def _encoder(encoding: str) -> Callable[[Any], Payload]:
    match encoding:
        case "pickle":
            return _to_pickle
        case "json":
            return _to_json
        case "msgpack":
            return _to_msgpack
    raise ValueError(f"encoding {encoding!r} is not one of 'pickle', 'json', 'msgpack'")


def _decode(payload: Payload, what: str, *, allow_pickle: bool) -> Any:
    encoding = payload.WhichOneof("encoding")
    if encoding == "pickle" and not allow_pickle:
        raise SerializationError(f"{what} came as pickle, which is not allowed here; send json or msgpack")
    try:
        if encoding == "pickle":
            return pickle.loads(payload.pickle)
        return json.loads(payload.json) if encoding == "json" else _from_msgpack(payload.msgpack)
    except Exception as error:  # unpickling may import modules and run any code
        raise SerializationError(f"{what} cannot be read as {encoding}: {_why(error)}") from error


def _argument_error(
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    encode: Callable[[Any], Payload],
    of: str,
    error: Exception,
) -> SerializationError:
    """Find the argument that made `error`."""
    named = [(f"argument {i}", value) for i, value in enumerate(args)]
    named += [(f"{key}=", value) for key, value in kwargs.items()]
    suffix = f" of {of}" if of else ""
    for name, value in named:
        try:
            encode(value)
        except Exception as culprit:  # noqa: BLE001 - as above
            return SerializationError(
                f"{name}{suffix} ({type(value).__qualname__}) cannot be serialised: {_why(culprit)}"
            )
    return SerializationError(f"the arguments{suffix} cannot be serialised: {_why(error)}")


def _why(error: Exception) -> str:
    return str(error) if isinstance(error, SerializationError) else f"{type(error).__name__}: {error}"


def _checked_arguments(value: Any, encoding: str) -> Arguments:
    if not isinstance(value, dict):
        raise SerializationError(f'{encoding} arguments must be a map {{"args": [...], "kwargs": {{...}}}}')
    unknown = sorted(str(key) for key in value.keys() - {"args", "kwargs"})
    if unknown:
        keys = ", ".join(unknown)
        raise SerializationError(f'{encoding} arguments have the keys "args" and "kwargs", not {keys}')
    args, kwargs = value.get("args", []), value.get("kwargs", {})
    if not isinstance(args, list):
        raise SerializationError(f'"args" must be a list, not {type(args).__name__}')
    if not isinstance(kwargs, dict) or not all(isinstance(key, str) for key in kwargs):
        raise SerializationError('"kwargs" must be a map with text as its keys')
    return tuple(args), kwargs


# --- pickle -------------------------------------------------------------------------------------------------


def _to_pickle(value: Any) -> Payload:
    if _is_plain(value):
        return Payload(pickle=pickle.dumps(value, pickle.HIGHEST_PROTOCOL))
    import cloudpickle  # slow to import, and most calls need no more than plain values

    return Payload(pickle=cloudpickle.dumps(value))


def _is_plain(value: Any) -> bool:
    """Only builtin types (and arrays of numbers): plain pickle does the same as cloudpickle, and faster."""
    pending, budget = [value], _PLAIN_BUDGET
    while pending:
        item = pending.pop()
        kind = type(item)
        if kind in _PLAIN_TYPES:
            continue
        if kind not in _CONTAINERS:
            if not _is_number_array(item):
                return False
            continue
        budget -= 1 + len(item)
        if budget < 0:
            return False
        pending.extend(item)
        if kind is dict:
            pending.extend(item.values())
    return True


def _is_number_array(value: Any) -> bool:
    if type(value).__module__ != "numpy":
        return False
    return getattr(getattr(value, "dtype", None), "kind", "O") in _NUMBER_KINDS


# --- JSON and MessagePack -----------------------------------------------------------------------------------


def _to_json(value: Any) -> Payload:
    text = json.dumps(
        value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_json_default
    )
    return Payload(json=text.encode())


def _json_default(value: Any) -> Any:
    if isinstance(value, (bytes, bytearray)):
        return value.decode()
    if _is_number_array(value):
        return value.tolist()
    return _obvious_form(value, "JSON")


def _obvious_form(value: Any, encoding: str) -> Any:
    """What models, dataclasses, sets, mappings and dates look like outside Python."""
    if not isinstance(value, type):
        if hasattr(value, "model_dump"):
            return value.model_dump(mode="json")
        if dataclasses.is_dataclass(value):
            return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        if isinstance(value, (set, frozenset)):
            return list(value)
        if isinstance(value, Mapping):
            return dict(value)
        if hasattr(value, "isoformat"):
            return value.isoformat()
    raise TypeError(f"{type(value).__qualname__} has no {encoding} form")


def _to_msgpack(value: Any) -> Payload:
    import msgpack

    data: bytes = msgpack.packb(value, default=_msgpack_default, use_bin_type=True)
    return Payload(msgpack=data)


def _msgpack_default(value: Any) -> Any:
    import msgpack

    if _is_number_array(value):
        if not hasattr(value, "tobytes") or not getattr(value, "shape", ()):
            return value.tolist()  # a scalar
        content = {"dtype": value.dtype.str, "shape": list(value.shape), "data": value.tobytes()}
        return msgpack.ExtType(NUMPY_EXTENSION, msgpack.packb(content, use_bin_type=True))
    return _obvious_form(value, "MessagePack")


def _from_msgpack(data: bytes) -> Any:
    import msgpack

    return msgpack.unpackb(data, ext_hook=_msgpack_extension, raw=False, strict_map_key=False)


def _msgpack_extension(code: int, data: bytes) -> Any:
    import msgpack

    if code != NUMPY_EXTENSION:
        raise SerializationError(f"unknown MessagePack extension type {code}")
    content = msgpack.unpackb(data, raw=False)
    try:
        import numpy
    except ImportError as error:
        raise SerializationError("an array, but numpy is missing: pip install slipknot[ndarray]") from error
    dtype = numpy.dtype(content["dtype"])
    if dtype.kind not in _NUMBER_KINDS:
        raise SerializationError(f"arrays of dtype {content['dtype']!r} cannot travel")
    # A copy, because what arrives should be writable like any array.
    return numpy.frombuffer(content["data"], dtype=dtype).reshape(content["shape"]).copy()
