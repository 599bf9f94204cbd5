"""Values travel unchanged, and what cannot travel is named."""

import dataclasses
import datetime
import pickle
import threading
from typing import Any

import msgpack
import numpy
import pydantic
import pytest
import starlette.datastructures
from hypothesis import given
from hypothesis import strategies as st

from slipknot_core import payloads
from slipknot_core.errors import SerializationError
from slipknot_proto.v1.payload_pb2 import Payload

OBJECT_ARRAY = msgpack.ExtType(1, msgpack.packb({"dtype": "O", "shape": [1], "data": b"12345678"}))
ENCODINGS = st.sampled_from(["pickle", "json", "msgpack"])
NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.none() | st.booleans() | NUMBERS
VALUES = st.recursive(
    SCALARS | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)


@given(value=VALUES, encoding=ENCODINGS)
def test_values_of_json_survive_every_encoding(value: Any, encoding: str) -> None:
    """What JSON can say comes back equal from all three encodings."""
    assert payloads.decode_value(payloads.encode_value(value, encoding)) == value


@given(args=st.lists(VALUES), kwargs=st.dictionaries(st.text(), VALUES), encoding=ENCODINGS)
def test_arguments_survive_every_encoding(args: list[Any], kwargs: dict[str, Any], encoding: str) -> None:
    """Positional and keyword arguments come back as they went."""
    payload = payloads.encode_arguments(tuple(args), kwargs, encoding)
    assert payload.WhichOneof("encoding") == encoding
    assert payloads.decode_arguments(payload) == (tuple(args), kwargs)


@pytest.mark.parametrize("encoding", ["pickle", "msgpack"])
@pytest.mark.parametrize(
    "array",
    [
        numpy.arange(6, dtype="int16").reshape(2, 3),
        numpy.arange(12.0).reshape(3, 4).T,
        numpy.zeros((0, 4), dtype="float32"),
        numpy.array(["2024-01-01"], dtype="datetime64[D]"),
        numpy.array([True, False]),
    ],
)
def test_arrays_keep_their_type_and_shape(array: Any, encoding: str) -> None:
    """An array comes back with dtype, shape and contents, and can be written to."""
    back = payloads.decode_value(payloads.encode_value({"a": [array]}, encoding))["a"][0]
    numpy.testing.assert_array_equal(back, array)
    assert (back.dtype, back.shape, back.flags.writeable) == (array.dtype, array.shape, True)


def test_arrays_have_the_documented_extension() -> None:
    """A foreign client can write arrays as payload.proto describes them."""
    content = msgpack.packb({"dtype": "<f4", "shape": [2], "data": numpy.array([1, 2], "<f4").tobytes()})
    data = msgpack.packb({"args": [msgpack.ExtType(1, content)]})
    (array,), _ = payloads.decode_arguments(Payload(msgpack=data))
    assert array.tolist() == [1.0, 2.0]


def test_numpy_becomes_lists_and_numbers_in_json() -> None:
    """JSON has no arrays, but an obvious form for them."""
    payload = payloads.encode_value({"a": numpy.eye(2), "n": numpy.int64(3)}, "json")
    assert payload.json == b'{"a":[[1.0,0.0],[0.0,1.0]],"n":3}'


class Point(pydantic.BaseModel):
    """A model."""

    x: int


@dataclasses.dataclass
class Pair:
    """A dataclass with something in it."""

    left: Point
    right: Any


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
@pytest.mark.parametrize(
    ("value", "form"),
    [
        ([Point(x=1)], [{"x": 1}]),
        (Pair(Point(x=1), {2}), {"left": {"x": 1}, "right": [2]}),
        (starlette.datastructures.QueryParams("k=qp"), {"k": "qp"}),
        (datetime.date(2024, 1, 2), "2024-01-02"),
    ],
)
def test_what_has_an_obvious_form_takes_it(value: Any, form: Any, encoding: str) -> None:
    """Models, dataclasses, sets, mappings and dates need no conversion by the user."""
    assert payloads.decode_value(payloads.encode_value(value, encoding)) == form


def test_text_in_bytes_is_text_in_json() -> None:
    """JSON has no bytes; what is no text is refused."""
    assert payloads.encode_value([b"text"], "json").json == b'["text"]'
    with pytest.raises(SerializationError, match="UnicodeDecodeError"):
        payloads.encode_value([b"\xff"], "json")


def test_classes_without_an_import_path_travel_by_value() -> None:
    """An instance of a local class can be read where the class does not exist."""

    class Local:
        def double(self, n: int) -> int:
            return 2 * n

    payload = payloads.encode_value(Local())
    assert b"test_payloads" in payload.pickle
    assert payloads.decode_value(payload).double(4) == 8


def test_large_and_self_referring_values_travel() -> None:
    """The look at the value's types is bounded."""
    loop: list[Any] = []
    loop.append(loop)
    back = payloads.decode_value(payloads.encode_value(loop))
    assert back[0] is back
    many = {i: [i] for i in range(10_000)}
    assert payloads.decode_value(payloads.encode_value(many)) == many


@pytest.mark.parametrize("encoding", ["pickle", "json", "msgpack"])
def test_the_argument_that_cannot_travel_is_named(encoding: str) -> None:
    """The error says which argument it was, its type and the reason."""
    lock = threading.Lock()
    with pytest.raises(SerializationError, match=r"argument 1 of app/Model \(lock\) cannot be serialised: "):
        payloads.encode_arguments((1, lock), {"ok": 2}, encoding, of="app/Model")
    with pytest.raises(SerializationError, match=r"model= \(list\) cannot be serialised"):
        payloads.encode_arguments((1,), {"ok": 2, "model": [lock]}, encoding)


def test_an_error_of_ours_inside_a_value_keeps_its_text() -> None:
    """What refuses to be pickled can say why."""

    class Refuses:
        def __reduce__(self) -> str:
            raise SerializationError("this is not serializable")

    with pytest.raises(SerializationError, match=r"\(dict\) cannot be serialised: this is not serializable"):
        payloads.encode_arguments(({"r": Refuses()},), {})


@pytest.mark.parametrize(
    ("value", "encoding"),
    [(float("nan"), "json"), (2**70, "msgpack"), (1j, "json"), (object, "msgpack")],
)
def test_results_without_a_form_are_refused(value: Any, encoding: str) -> None:
    """The message names the type and the encoding."""
    message = rf"the result \({type(value).__name__}\) cannot be serialised as {encoding}"
    with pytest.raises(SerializationError, match=message):
        payloads.encode_value(value, encoding)


def test_pickle_can_be_refused() -> None:
    """Without allow_pickle not a byte of it is read."""
    payload = Payload(pickle=pickle.dumps((("a",), {})))
    with pytest.raises(SerializationError, match="pickle, which is not allowed here; send json or msgpack"):
        payloads.decode_arguments(payload, allow_pickle=False)
    with pytest.raises(SerializationError, match="not allowed"):
        payloads.decode_value(payload, allow_pickle=False)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (Payload(json=b"{"), "cannot be read as json: JSONDecodeError"),
        (Payload(json=b"[1]"), "json arguments must be a map"),
        (Payload(json=b'{"arguments": [1]}'), 'the keys "args" and "kwargs", not arguments'),
        (Payload(json=b'{"args": {}}'), '"args" must be a list, not dict'),
        (Payload(json=b'{"kwargs": []}'), '"kwargs" must be a map'),
        (Payload(msgpack=msgpack.packb({"kwargs": {1: 2}})), "text as its keys"),
        (Payload(msgpack=b"\xc1"), "cannot be read as msgpack"),
        (Payload(msgpack=msgpack.packb(msgpack.ExtType(7, b""))), "unknown MessagePack extension type 7"),
        (Payload(msgpack=msgpack.packb(msgpack.ExtType(1, b"\x80"))), "cannot be read as msgpack: KeyError"),
        (Payload(msgpack=msgpack.packb(OBJECT_ARRAY)), "arrays of dtype 'O' cannot travel"),
        (Payload(pickle=b"garbage"), "cannot be read as pickle"),
        (Payload(pickle=pickle.dumps([1])), "must be a tuple"),
        (Payload(pickle=b"cno_such_module\nthing\n."), "ModuleNotFoundError: No module named"),
    ],
)
def test_arguments_that_are_wrong_are_explained(payload: Payload, message: str) -> None:
    """Whatever a client sends, the answer says what is wrong with it."""
    with pytest.raises(SerializationError) as caught:
        payloads.decode_arguments(payload)
    assert message in str(caught.value)


def test_missing_parts_mean_no_arguments() -> None:
    """A client may leave out what it does not use; a value without an encoding is refused."""
    assert payloads.decode_arguments(Payload()) == ((), {})
    assert payloads.decode_arguments(Payload(json=b"{}")) == ((), {})
    with pytest.raises(SerializationError, match="without an encoding"):
        payloads.decode_value(Payload())


def test_an_unknown_encoding_is_misuse() -> None:
    """The names allowed are in the message."""
    with pytest.raises(ValueError, match="'yaml' is not one of 'pickle', 'json', 'msgpack'"):
        payloads.encode_value(1, "yaml")
