"""HTTP adapters: functions that make a handler's argument from a request.

An adapter is a FastAPI dependency, so these serve both as `http_adapter=` of a plain deployment and as
`Depends(...)` in a FastAPI ingress, where their schema shows up in the documentation. Write your own the same
way; a pydantic model class is an adapter too, for a JSON body.
"""

import importlib
import io
from types import ModuleType
from typing import TYPE_CHECKING, Any

from fastapi import Body, File
from pydantic import BaseModel, Field
from starlette.requests import Request

if TYPE_CHECKING:
    import numpy
    import pandas

__all__ = [
    "NdArray",
    "image_to_ndarray",
    "json_request",
    "json_to_multi_ndarray",
    "json_to_ndarray",
    "pandas_read_json",
    "starlette_request",
]

_1D = list[float]
_2D = list[_1D]
_3D = list[_2D]
_4D = list[_3D]


class NdArray(BaseModel):
    """An array as JSON."""

    array: _1D | _2D | _3D | _4D = Field(description="The numbers, nested up to four levels.")
    shape: list[int] | None = Field(default=None, description="Shape to give the array, if not its own.")
    dtype: str | None = Field(default=None, description="NumPy type of its numbers, e.g. 'float32'.")


async def json_request(request: Request) -> Any:
    """The body, parsed as JSON."""
    return await request.json()


async def starlette_request(request: Request) -> Request:
    """The request itself."""
    return request


def json_to_ndarray(payload: NdArray) -> "numpy.ndarray[Any, Any]":
    """A NumPy array from a body like `{"array": [[1, 2]], "shape": [2, 1], "dtype": "int32"}`.

    Raises:
        ImportError: NumPy is missing.
    """
    return _to_ndarray(payload)


def json_to_multi_ndarray(payload: dict[str, NdArray] = Body()) -> "dict[str, numpy.ndarray[Any, Any]]":  # noqa: B008
    """Named NumPy arrays from a body that maps each name to what `json_to_ndarray` takes.

    Raises:
        ImportError: NumPy is missing.
    """
    return {name: _to_ndarray(array) for name, array in payload.items()}


def image_to_ndarray(img: bytes = File()) -> "numpy.ndarray[Any, Any]":
    """The pixels of an image that was uploaded as the form field `img`.

    Raises:
        ImportError: NumPy or Pillow is missing.
        PIL.UnidentifiedImageError: It is no image.
    """
    image = _required("PIL.Image", "Pillow", "image").open(io.BytesIO(img))
    pixels: numpy.ndarray[Any, Any] = _required("numpy", "NumPy", "image").array(image)
    return pixels


async def pandas_read_json(raw_request: Request) -> "pandas.DataFrame":
    """A DataFrame from a JSON body; query parameters go to `pandas.read_json` (`?orient=records`).

    Raises:
        ImportError: pandas is missing.
    """
    pandas = _required("pandas", "pandas", "pandas")
    frame: Any = pandas.read_json(io.BytesIO(await raw_request.body()), **dict(raw_request.query_params))
    return frame  # type: ignore[no-any-return]


def _to_ndarray(payload: NdArray) -> "numpy.ndarray[Any, Any]":
    array: numpy.ndarray[Any, Any] = _required("numpy", "NumPy", "ndarray").array(payload.array)
    if payload.shape is not None:
        array = array.reshape(payload.shape)
    return array if payload.dtype is None else array.astype(payload.dtype)


def _required(module: str, library: str, extra: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f'this HTTP adapter needs {library}, which is not installed: pip install "slipknot[{extra}]"'
        ) from error
