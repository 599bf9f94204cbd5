"""What a plain deployment returned, as an HTTP response. (FastAPI ingresses do this themselves.)"""

import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from starlette.responses import Response

JSON_TYPES = frozenset({dict, list, tuple, int, float, bool})
"""Values that need no encoder, unless something else is inside them."""


def as_response(value: Any) -> Response | None:
    """Convert a value that needs no encoder; None for the others, which `encoded_response` takes.

    Raises:
        TypeError: It is a generator.
        ValueError: It contains itself.
    """
    if isinstance(value, Response):
        return value
    if value is None or isinstance(value, bytes | bytearray | memoryview):
        return Response(b"" if value is None else bytes(value), headers={"content-type": "text/plain"})
    if isinstance(value, str):
        return Response(value, media_type="text/plain")
    if isinstance(value, Iterator | AsyncIterator):
        raise TypeError(
            f"the handler returned {value!r}; wrap it in starlette.responses.StreamingResponse "
            "to stream its items"
        )
    if type(value) not in JSON_TYPES:
        return None
    try:
        return _json_response(value)
    except TypeError:  # there is something inside that json does not know
        return None


def encoded_response(value: Any) -> Response:
    """Convert a value as FastAPI would: models, dataclasses, mappings, sets; NumPy and pandas if in use.

    The first call imports FastAPI, which takes a while: call it in a thread until `encoder_is_loaded`.

    Raises:
        TypeError: It cannot be serialised.
        ValueError: It cannot be serialised.
    """
    return _json_response(_encode(value))


def load_encoder() -> None:
    """Import what `encoded_response` needs."""
    import fastapi.encoders  # noqa: F401


def encoder_is_loaded() -> bool:
    """`encoded_response` is fast now."""
    return "fastapi.encoders" in sys.modules


def _json_response(value: Any) -> Response:
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    return Response(body, media_type="application/json")


def _encode(value: Any) -> Any:
    from fastapi.encoders import jsonable_encoder

    return jsonable_encoder(value, custom_encoder=_array_encoders())


def _array_encoders() -> dict[Any, Callable[[Any], Any]]:
    encoders: dict[Any, Callable[[Any], Any]] = {}
    numpy, pandas = sys.modules.get("numpy"), sys.modules.get("pandas")
    if numpy is not None:
        encoders[numpy.ndarray] = lambda array: _encode(array.tolist())
        encoders[numpy.generic] = lambda scalar: _encode(scalar.item())
    if pandas is not None:
        encoders[pandas.DataFrame] = lambda frame: _encode(frame.to_dict(orient="records"))
        encoders[pandas.Series] = lambda series: _encode(series.to_list())
    return encoders
