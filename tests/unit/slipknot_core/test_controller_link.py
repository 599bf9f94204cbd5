"""Which controller is spoken to next, how soon, and which epochs are outdated."""

import grpc
import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipknot_core.rpc.channel import LEADER_KEY
from slipknot_core.rpc.controller_link import (
    FIRST_PAUSE_S,
    MAX_PAUSE_BETWEEN_SEVERAL_S,
    MAX_PAUSE_S,
    PATIENT_AFTER_ROUNDS,
    ControllerLink,
    EpochGate,
    split_addresses,
)


def standby(leader: str = "") -> grpc.aio.AioRpcError:
    """What a standby answers."""
    trailing = grpc.aio.Metadata(*([(LEADER_KEY, leader)] if leader else []))
    return grpc.aio.AioRpcError(grpc.StatusCode.FAILED_PRECONDITION, grpc.aio.Metadata(), trailing, "standby")


def test_addresses_are_separated_by_commas() -> None:
    assert split_addresses("a:1, unix:/b/c,") == ("a:1", "unix:/b/c")
    with pytest.raises(ValueError, match="host:port"):
        split_addresses(" , ")


def test_one_that_fails_is_followed_by_the_next() -> None:
    """Without a word about the leader, in turn; whoever comes late with the same news changes nothing."""
    link = ControllerLink("a:1,b:1,c:1")
    seen = []
    for _ in range(4):
        seen.append(link.address)
        link.lost(link.address)
    assert seen == ["a:1", "b:1", "c:1", "a:1"]
    assert link.address == "b:1"
    link.lost("a:1")
    assert link.address == "b:1"


def test_a_standby_names_the_leader() -> None:
    """The first time at once; a leader that is not in the list is gone to, and left again for the list."""
    link = ControllerLink("a:1,b:1,c:1")
    assert link.lost("a:1", standby("c:1")) == 0.0
    assert link.address == "c:1"
    link.held("c:1")
    assert link.lost("c:1", standby("elsewhere:1")) == 0.0
    assert link.address == "elsewhere:1"
    link.lost("elsewhere:1")
    assert link.address == "a:1"


@given(st.lists(st.sampled_from(["", "a:1", "b:1", "dead:1"]), min_size=1, max_size=60), st.booleans())
def test_failures_in_a_row_neither_rush_nor_get_stuck(leaders: list[str], is_single: bool) -> None:
    """Whatever standbys say, there is no run of attempts without pauses, pauses are bounded, and every
    controller of the list is tried again and again.
    """
    link = ControllerLink("a:1" if is_single else "a:1,b:1")
    without_pause, tried = 0, []
    for leader in leaders:
        tried.append(link.address)
        pause_s = link.lost(link.address, standby(leader))
        without_pause = without_pause + 1 if pause_s == 0 else 0
        assert without_pause <= 1
        is_soon = not is_single and len(tried) <= 2 * PATIENT_AFTER_ROUNDS
        assert pause_s <= (MAX_PAUSE_BETWEEN_SEVERAL_S if is_soon else MAX_PAUSE_S)
    for start in range(len(tried) - 12):
        assert set(link.addresses) <= set(tried[start : start + 12])


def test_pauses_begin_anew_after_an_answer() -> None:
    link = ControllerLink("a:1")
    pauses = [link.lost("a:1") for _ in range(8)]
    assert pauses == sorted(pauses) and pauses[0] == FIRST_PAUSE_S and pauses[-1] == MAX_PAUSE_S
    link.held("a:1")
    assert link.lost("a:1") == FIRST_PAUSE_S


@given(st.lists(st.integers(0, 5)))
def test_a_smaller_epoch_than_the_largest_seen_is_outdated(epochs: list[int]) -> None:
    gate, largest = EpochGate(), 0
    for epoch in epochs:
        assert gate.admits(epoch) == (epoch >= largest)
        largest = max(largest, epoch)
        assert gate.seen == largest
