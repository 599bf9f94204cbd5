"""Which replicas still say something."""

from dataclasses import dataclass

from slipknot_core.routing.silence import SILENT_AFTER_S, is_silent, prefer_answering

NOW_S = 1000.0


@dataclass(eq=False)
class _Replica:
    unanswered_since_s: float


QUIET = _Replica(0.0)
JUST_ASKED = _Replica(NOW_S - SILENT_AFTER_S / 2)
SILENT = _Replica(NOW_S - SILENT_AFTER_S * 2)


def test_a_replica_is_silent_only_if_it_owes_a_word_for_too_long() -> None:
    assert [is_silent(r, NOW_S) for r in (QUIET, JUST_ASKED, SILENT)] == [False, False, True]


def test_those_that_answer_come_first() -> None:
    assert list(prefer_answering([QUIET, SILENT, JUST_ASKED], NOW_S)) == [QUIET, JUST_ASKED]


def test_all_are_asked_where_all_are_silent() -> None:
    assert list(prefer_answering([SILENT], NOW_S)) == [SILENT]
    assert list(prefer_answering([], NOW_S)) == []
