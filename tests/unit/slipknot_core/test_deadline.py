"""Deadlines, with the clock under the test's control."""

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipknot_core.deadline import NEVER, Deadline

INT64_MAX = 2**63 - 1


class _Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    """A clock that moves only when told to."""
    clock = _Clock()
    monkeypatch.setattr(time, "monotonic", clock.monotonic)
    return clock


def test_a_deadline_expires_at_its_point_in_time(clock: _Clock) -> None:
    """What is left shrinks with the clock, ends at zero, and never turns negative."""
    deadline = Deadline.after(2.0)
    clock.now_s += 1.5
    assert deadline.remaining_s() == deadline.timeout_s() == 0.5
    assert not deadline.has_expired()
    clock.now_s += 0.5
    assert deadline.has_expired()
    clock.now_s += 10
    assert deadline.remaining_s() == deadline.timeout_s() == 0.0


def test_without_a_timeout_there_is_no_end(clock: _Clock) -> None:
    """No timeout gives the deadline that never comes, in the forms that waiting functions take."""
    deadline = Deadline.after(None)
    clock.now_s += 1e12
    assert deadline == NEVER and deadline.is_never and not deadline.has_expired()
    assert deadline.remaining_s() == math.inf
    assert deadline.timeout_s() is None
    assert deadline.budget_us() == 0


def test_the_wire_form_tells_a_passed_deadline_from_none(clock: _Clock) -> None:
    """0 on the wire means no deadline, so a deadline that passes just now is sent as negative."""
    assert Deadline.after(0).budget_us() < 0
    assert Deadline.after(-3).budget_us() == -3_000_000
    assert Deadline.from_budget_us(-1).has_expired()
    assert Deadline.from_budget_us(0) is NEVER


@pytest.mark.parametrize("timeout_s", [1e13, 1e300, math.inf])
def test_a_timeout_beyond_all_bounds_still_fits_the_wire(timeout_s: float) -> None:
    """A client may ask for any time: what is sent is a 64-bit number, and far away."""
    budget_us = Deadline.after(timeout_s).budget_us()
    assert 0 <= budget_us <= INT64_MAX
    assert Deadline.from_budget_us(budget_us).remaining_s() > 1e12


@given(st.floats(1e-3, 1e6))
def test_a_deadline_survives_the_wire(timeout_s: float) -> None:
    """The next hop has as much time left as this one, but for the time between."""
    sent = Deadline.after(timeout_s)
    received = Deadline.from_budget_us(sent.budget_us())
    assert abs(received.at_s - sent.at_s) < 0.5


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_the_earlier_of_two_does_not_depend_on_their_order(a_s: float, b_s: float) -> None:
    """A hop with its own limit takes whichever comes first."""
    assert (
        Deadline(a_s).earlier(Deadline(b_s)).at_s
        == Deadline(b_s).earlier(Deadline(a_s)).at_s
        == min(a_s, b_s)
    )
    assert NEVER.earlier(Deadline(a_s)) == Deadline(a_s)
