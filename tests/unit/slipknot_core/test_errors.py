"""The tree of errors."""

import grpc
import pytest

from slipknot_core import errors


def _subclasses(kind: type[errors.SlipknotServeException]) -> set[type[errors.SlipknotServeException]]:
    direct = {c for c in kind.__subclasses__() if c.__module__ == errors.__name__}
    return direct.union(*(_subclasses(c) for c in direct))


def test_every_error_can_be_found_by_its_reason() -> None:
    """The table of reasons has every class of the tree once, so none degrades to its base on the wire."""
    tree = {errors.SlipknotServeException} | _subclasses(errors.SlipknotServeException)
    assert set(errors.BY_REASON.values()) == tree
    assert len({e.reason for e in tree}) == len(tree)


@pytest.mark.parametrize("kind", errors.BY_REASON.values(), ids=errors.BY_REASON.keys())
def test_every_error_carries_its_statuses(kind: type[errors.SlipknotServeException]) -> None:
    """Each class is made from a message alone, and knows a failing gRPC code and an HTTP error status."""
    error = kind("what happened")
    assert str(error) == error.message == "what happened"
    assert kind.grpc_code in set(grpc.StatusCode) - {grpc.StatusCode.OK}
    assert 400 <= kind.http_status < 600
    assert kind.reason.isupper()


def test_an_error_without_arguments_has_an_empty_message() -> None:
    """The message never fails."""
    assert errors.SlipknotServeException().message == ""


def test_a_timeout_is_a_timeout_error() -> None:
    """`except TimeoutError` catches what a deadline raised."""
    with pytest.raises(TimeoutError):
        raise errors.RequestTimeoutError("too slow")


def test_backpressure_says_when_to_come_back() -> None:
    """The status and the time to wait travel with the error, and do not clutter its text."""
    error = errors.BackPressureError("Request dropped due to backpressure", 429, 7)
    assert (error.status_code, error.retry_after_s) == (429, 7)
    assert str(error) == "Request dropped due to backpressure"


def test_a_remote_traceback_is_set_apart_from_the_local_one() -> None:
    """As a cause it is printed on lines of its own."""
    assert str(errors.RemoteTraceback("Traceback: ...\n\n")) == "\n\nTraceback: ...\n"
