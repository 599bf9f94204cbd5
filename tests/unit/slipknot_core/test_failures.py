"""Exceptions to the wire and back."""

import asyncio
import threading
import traceback
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.exceptions import HTTPException

from slipknot_core import errors
from slipknot_core.failures import (
    MAX_PICKLE_BYTES,
    MAX_TEXT_CHARS,
    MAX_TRACEBACK_CHARS,
    USER_EXCEPTION,
    format_traceback,
    from_error_info,
    to_error_info,
)
from slipknot_proto.v1.payload_pb2 import ErrorInfo


class Plain(Exception):
    """As most people write them."""


class Decorated(Exception):
    """Its text is not its argument: making it again from `args` would decorate twice."""

    def __init__(self, code: int) -> None:
        super().__init__(f"failed with code {code}")
        self.code = code


class TwoArguments(Exception):
    """Cannot be made again from `args`."""

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code


class KeywordOnly(Exception):
    """Cannot be made again from `args` either."""

    def __init__(self, *, code: int) -> None:
        super().__init__("keyword")
        self.code = code


class Unpicklable(Exception):
    """Holds what cannot leave its process."""

    def __init__(self) -> None:
        super().__init__("holds a lock")
        self.lock = threading.Lock()


class Hostile(Exception):
    """Everything about it fails."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    def __reduce__(self) -> Any:
        raise RuntimeError("no pickle")


class Shapeshifter(Exception):
    """Comes back as something that is no exception."""

    def __reduce__(self) -> Any:
        return str, ("gotcha",)


def _raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as raised:  # noqa: BLE001 - it is what the tests are about
        return raised


def _travel(error: BaseException, *, allow_pickle: bool = True) -> Exception:
    data = to_error_info(_raised(error)).SerializeToString()
    return from_error_info(ErrorInfo.FromString(data), allow_pickle=allow_pickle)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("bad"),
        KeyError("k"),
        FileNotFoundError(2, "No such file", "a.txt"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        Plain("text", 3),
        Decorated(5),
        TwoArguments(7, "detail"),
        KeywordOnly(code=9),
        Shapeshifter("odd"),
        HTTPException(status_code=418, detail="teapot", headers={"x-a": "1"}),
        ExceptionGroup("several", [ValueError("a"), TypeError("b")]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_user_exception_comes_back_as_it_went(error: Exception) -> None:
    """Type, text, arguments and attributes are those of the original, whatever its `__init__` asks for."""
    restored = _travel(error)
    assert type(restored) is type(error)
    assert str(restored) == str(error)
    assert repr(restored.args) == repr(error.args)
    assert {k: repr(v) for k, v in vars(restored).items()} == {k: repr(v) for k, v in vars(error).items()}


def test_the_remote_traceback_is_the_cause() -> None:
    """Whoever sees the error sees where it was raised in the other process, causes included."""

    def deep_inside() -> None:
        try:
            raise KeyError("first")
        except KeyError as error:
            raise Plain("second") from error

    with pytest.raises(Plain) as caught:
        deep_inside()
    restored = from_error_info(to_error_info(caught.value))
    assert isinstance(restored.__cause__, errors.RemoteTraceback)
    assert "deep_inside" in restored.__cause__.text and "KeyError: 'first'" in restored.__cause__.text
    printed = "".join(traceback.format_exception(restored))
    assert "deep_inside" in printed


def test_notes_travel_with_the_exception() -> None:
    """What `add_note` added is still there."""
    error = Plain("x")
    error.add_note("while loading")
    assert _travel(error).__notes__ == ["while loading"]


def test_an_exception_of_a_class_without_import_path_keeps_its_attributes() -> None:
    """A class made in a function travels by value."""

    class Local(Exception):
        def __init__(self, code: int, *, hint: str) -> None:
            super().__init__("local")
            self.code, self.hint = code, hint

    restored: Any = _travel(Local(3, hint="h"))
    assert type(restored).__name__ == "Local"
    assert (restored.code, restored.hint, str(restored)) == (3, "h", "local")


def test_what_cannot_be_pickled_travels_as_text() -> None:
    """The caller gets an error of slipknot's with type and text of the original, and its traceback."""
    error = Unpicklable()
    info = to_error_info(_raised(error))
    assert info.reason == USER_EXCEPTION and info.pickled_exception == b""
    restored = _travel(error)
    assert type(restored) is errors.SlipknotServeException
    assert str(restored) == f"{__name__}.Unpicklable: holds a lock"
    assert isinstance(restored.__cause__, errors.RemoteTraceback)


def test_arguments_whose_text_names_their_address_do_not_cost_the_type() -> None:
    """The text of such an exception differs in each process, but it is the same exception."""
    restored = _travel(Plain("bad", object()))
    assert type(restored) is Plain and restored.args[0] == "bad"


def test_an_exception_that_cannot_even_be_printed_still_arrives() -> None:
    """Nothing that user code does to its exceptions keeps the caller waiting."""
    restored = _travel(Hostile())
    assert type(restored) is errors.SlipknotServeException
    assert "Hostile" in str(restored)


def test_text_that_is_no_unicode_still_arrives() -> None:
    """A file name with undecodable bytes in it does not break the answer."""
    name = b"a\xff".decode("utf-8", "surrogateescape")
    restored = _travel(ValueError(f"cannot read {name}"))
    assert type(restored) is ValueError and str(restored) == f"cannot read {name}"


def test_without_pickle_only_text_is_sent_and_read() -> None:
    """Callers outside the cluster neither get a pickle nor does one of theirs get read."""
    assert to_error_info(ValueError("bad"), with_pickle=False).pickled_exception == b""
    restored = _travel(ValueError("bad"), allow_pickle=False)
    assert type(restored) is errors.SlipknotServeException
    assert str(restored) == "builtins.ValueError: bad"


def test_a_pickle_of_an_unknown_class_is_read_as_text() -> None:
    """The class may not exist at the caller."""
    info = to_error_info(ValueError("bad"))
    info.pickled_exception = b"\x80\x04\x8c\x08nomodule\x94\x8c\x05Thing\x94\x93\x94."
    assert str(from_error_info(info)) == "builtins.ValueError: bad"


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()])
def test_what_would_end_the_caller_is_only_reported(error: BaseException) -> None:
    """A replica's exit or cancellation does not become the caller's."""
    restored = _travel(error)
    assert type(restored) is errors.SlipknotServeException
    assert type(error).__name__ in str(restored)


@pytest.mark.parametrize("kind", errors.BY_REASON.values(), ids=errors.BY_REASON.keys())
@pytest.mark.parametrize("allow_pickle", [True, False])
def test_every_error_of_ours_keeps_its_type(
    kind: type[errors.SlipknotServeException], allow_pickle: bool
) -> None:
    """With or without pickle the caller can catch it by class."""
    restored = _travel(kind("what happened"), allow_pickle=allow_pickle)
    assert type(restored) is kind
    assert str(restored) == "what happened"


def test_backpressure_keeps_its_arguments() -> None:
    """Status and time to wait reach the proxy."""
    restored = _travel(errors.BackPressureError("Request dropped due to backpressure", 429, 7))
    assert isinstance(restored, errors.BackPressureError)
    assert (restored.status_code, restored.retry_after_s) == (429, 7)


@given(st.text(st.characters() | st.characters(categories=["Cs"]), max_size=50))
def test_any_text_survives_without_pickle(text: str) -> None:
    """What protobuf can carry arrives as it was; the rest is escaped."""
    restored = _travel(errors.ProtocolError(text), allow_pickle=False)
    expected = text.encode("utf-8", "backslashreplace").decode()
    assert restored.args == (expected,)


def test_a_long_traceback_keeps_its_end() -> None:
    """Text is bounded, and what was raised stands at the end."""
    text = format_traceback(_raised(ValueError("x" * MAX_TRACEBACK_CHARS + "the end")))
    assert len(text) <= MAX_TRACEBACK_CHARS + 20
    assert text.startswith("… (cut)") and text.endswith("the end\n")


@pytest.mark.parametrize("retry_after_s", [None, 0, 7])
def test_backpressure_keeps_its_status_without_pickle(retry_after_s: int | None) -> None:
    """What a client is told of a full queue does not depend on pickle."""
    error = errors.BackPressureError("Request dropped due to backpressure.", 429, retry_after_s)
    restored = from_error_info(to_error_info(error, with_pickle=False), allow_pickle=False)
    assert isinstance(restored, errors.BackPressureError)
    assert (restored.status_code, restored.retry_after_s, str(restored)) == (429, retry_after_s, str(error))


def test_what_an_exception_holds_is_bounded() -> None:
    """A message that is too large would end more than the call that failed."""
    info = to_error_info(ValueError("begin" + "x" * MAX_PICKLE_BYTES))
    assert info.ByteSize() < 4 * MAX_TEXT_CHARS
    assert str(from_error_info(info)).startswith("builtins.ValueError: beginxxx")
