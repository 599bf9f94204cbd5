"""Python values to the wire and back, in three encodings.

pickle   between members of a cluster: anything that cloudpickle takes
json     for people and grpcurl: what JSON has, and what has an obvious JSON form (models, dataclasses, arrays, sets, bytes)
msgpack  for programs outside: what MessagePack has, and numpy arrays as buffers (extension type 1)
"""

import dataclasses
import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from slipknot_proto.v1.payload_pb2 import Payload

from .errors import SerializationError

Encoding = Literal["pickle", "json", "msgpack"]

ARRAY_EXTENSION = 1
"""MessagePack extension type of numpy arrays: a map {"dtype": str, "shape": [int], "data": bytes}."""

_PLAIN = frozenset({str, bytes, int, float, bool, type(None)})
_MAX_PLAIN_ITEMS = 32
"""Larger containers are not looked through: cloudpickle then takes them whole."""


def encode_arguments(args: Sequence[Any], kwargs: Mapping[str, Any], encoding: Encoding = "pickle") -> Payload:
    """Encode the arguments of a call.

    Raises:
        SerializationError: One cannot travel; names it.
    """
    try:
        if encoding == "pickle":
            return Payload(pickle=_pickle((tuple(args), dict(kwargs))))
        return encode_value({"args": list(args), "kwargs": dict(kwargs)}, encoding)
    except Exception as error:  # user-defined __reduce__ may raise anything
        if isinstance(error, SerializationError) and encoding != "pickle":
            raise
        raise SerializationError(_blame(args, kwargs, error)) from error


def decode_arguments(payload: Payload, *, allow_pickle: bool = True) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Decode the arguments of a call; an empty payload has none.

    Raises:
        SerializationError: The bytes do not fit the encoding, or pickle is not allowed.
    """
    if payload.WhichOneof("encoding") is None:
        return (), {}
    value = decode_value(payload, allow_pickle=allow_pickle)
    if payload.WhichOneof("encoding") == "pickle":
        args, kwargs = value
        return args, kwargs
    if not isinstance(value, dict) or not value.keys() <= {"args", "kwargs"}:
        raise SerializationError('arguments must be an object {"args": [...], "kwargs": {...}}; either may be missing')
    return tuple(value.get("args") or ()), dict(value.get("kwargs") or {})


def encode_value(value: Any, encoding: str = "pickle") -> Payload:
    """Encode one value.

    Raises:
        SerializationError: It cannot travel in this encoding; says why.
    """
    try:
        if encoding == "json":
            return Payload(json=json.dumps(value, default=_to_json, separators=(",", ":")).encode())
        if encoding == "msgpack":
            import msgpack

            return Payload(msgpack=msgpack.packb(value, default=_to_msgpack, use_bin_type=True))
        return Payload(pickle=_pickle(value))
    except Exception as error:  # user-defined __reduce__ may raise anything
        raise SerializationError(f"cannot serialise {type(value).__name__} as {encoding}: {error}") from error


def decode_value(payload: Payload, *, allow_pickle: bool = True) -> Any:
    """Decode one value.

    Raises:
        SerializationError: The bytes do not fit the encoding, or pickle is not allowed.
    """
    encoding = payload.WhichOneof("encoding")
    if encoding == "pickle" and not allow_pickle:
        raise SerializationError("pickle is not accepted here; send json or msgpack")
    try:
        match encoding:
            case "pickle":
                return pickle.loads(payload.pickle)
            case "json":
                return json.loads(payload.json)
            case "msgpack":
                import msgpack

                return msgpack.unpackb(payload.msgpack, ext_hook=_from_extension, strict_map_key=False)
            case _:
                return None
    except Exception as error:  # foreign bytes, and classes that cannot be imported here, raise anything
        raise SerializationError(f"cannot read a value from {encoding}: {type(error).__name__}: {error}") from error


# --- inside ---------------------------------------------------------------------------------------------------------


def _pickle(value: Any) -> bytes:
    if _is_plain(value):
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    import cloudpickle  # slow to import; not needed for plain values

    data: bytes = cloudpickle.dumps(value)
    return data


def _is_plain(value: Any) -> bool:
    """It is made of builtin types only, so that plain pickle gives the same as cloudpickle, faster."""
    kind = type(value)
    if kind in _PLAIN:
        return True
    if kind is tuple or kind is list:
        return len(value) <= _MAX_PLAIN_ITEMS and all(map(_is_plain, value))
    if kind is dict:
        return len(value) <= _MAX_PLAIN_ITEMS and all(map(_is_plain, value)) and all(map(_is_plain, value.values()))
    return False


def _blame(args: Sequence[Any], kwargs: Mapping[str, Any], error: Exception) -> str:
    """Name the argument that cannot travel."""
    named = [(f"positional argument {i}", value) for i, value in enumerate(args)]
    named += [(f"argument {name!r}", value) for name, value in kwargs.items()]
    for name, value in named:
        try:
            _pickle(value)
        except Exception as reason:  # this is the one
            return f"{name} ({type(value).__name__}) cannot be serialised: {reason}"
    return f"the arguments cannot be serialised: {error}"


def _to_json(value: Any) -> Any:
    """What JSON does not have, in its obvious form."""
    form = _plain_form(value)
    if form is not None:
        return form()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).decode()
    raise TypeError(f"an object of type {type(value).__name__} has no JSON form")


def _to_msgpack(value: Any) -> Any:
    """What MessagePack does not have."""
    if type(value).__module__ == "numpy" and hasattr(value, "dtype") and hasattr(value, "tobytes"):
        return _array_extension(value)
    form = _plain_form(value)
    if form is not None:
        return form()
    raise TypeError(f"an object of type {type(value).__name__} has no MessagePack form")


def _plain_form(value: Any) -> Callable[[], Any] | None:
    if hasattr(value, "model_dump"):
        return lambda: value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return lambda: dataclasses.asdict(value)
    if isinstance(value, (set, frozenset)):
        return lambda: list(value)
    if isinstance(value, Mapping):
        return lambda: dict(value)
    if hasattr(value, "tolist"):
        return lambda: value.tolist()
    if hasattr(value, "isoformat"):
        return lambda: value.isoformat()
    return None


def _array_extension(array: Any) -> Any:
    import msgpack

    if array.dtype.hasobject:
        raise TypeError("a numpy array of Python objects has no MessagePack form")
    form = {"dtype": array.dtype.str, "shape": list(array.shape), "data": array.tobytes()}
    return msgpack.ExtType(ARRAY_EXTENSION, msgpack.packb(form))


def _from_extension(code: int, data: bytes) -> Any:
    import msgpack

    if code != ARRAY_EXTENSION:
        return msgpack.ExtType(code, data)
    import numpy

    form = msgpack.unpackb(data)
    dtype = numpy.dtype(form["dtype"])
    if dtype.hasobject:
        raise TypeError("an array of Python objects is not accepted")
    array = numpy.frombuffer(form["data"], dtype=dtype).reshape(form["shape"])
    return array.copy() if array.shape else array[()]
