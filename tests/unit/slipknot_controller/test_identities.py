"""Identities that are over."""

from slipknot_controller.identities import MAX_REMEMBERED, Departed, Incarnations


def test_the_departed_are_remembered_within_bounds() -> None:
    """The oldest are forgotten first."""
    departed = Departed()
    for number in range(MAX_REMEMBERED + 1):
        departed.add(str(number))
    assert "0" not in departed
    assert "1" in departed and str(MAX_REMEMBERED) in departed


def test_a_name_belongs_to_the_newest_that_came() -> None:
    """It may reconnect; those before it may not."""
    names = Incarnations()
    assert names.admit("node", "a")
    assert names.admit("node", "a")
    assert names.admit("node", "b")
    assert not names.admit("node", "a")
    assert names.admit("node", "b")
    assert names.admit("other", "a")
    assert names.admit("node", "")
