"""The account of a queue, and its callers' parts of it."""

from collections.abc import Hashable, Mapping

from hypothesis import given
from hypothesis import strategies as st

from slipknot_core.routing.queue_share import INTEREST_S, PATIENCE_S, SPARE_S, QueueShare
from slipknot_replica.queue_bank import Answer, QueueBank

NOW_S = 1000.0
BOUND = 20


class _Caller:
    """A router without requests: only their number, and messages that arrive when the test says so."""

    def __init__(self, bank: QueueBank, others: "list[_Caller]") -> None:
        self.share = QueueShare(0)
        self.waiting = 0
        self.refused = 0
        self._bank, self._others = bank, others
        others.append(self)

    def arrive(self, count: int, now_s: float = NOW_S) -> None:
        for _ in range(count):
            self.waiting += 1
            self.enforce(now_s)

    def leave(self, count: int, now_s: float = NOW_S) -> None:
        self.waiting = max(0, self.waiting - count)
        self.share.leave(self.waiting)

    def come_back(self, count: int, now_s: float = NOW_S) -> None:
        """What was sent to a replica on the chance of a slot."""
        for _ in range(count):
            self.waiting += 1
            self.enforce(now_s, returned=True)

    def tick(self, now_s: float = NOW_S) -> None:
        self.share.tick(self.waiting, now_s)
        self.talk(now_s)

    def enforce(self, now_s: float = NOW_S, *, returned: bool = False) -> None:
        self.share.note(self.waiting, BOUND, now_s, returned=returned)
        limit = self.share.limit(BOUND, now_s, returned=returned)
        self.refused += max(0, self.waiting - limit)
        self.waiting = min(self.waiting, limit)
        self.share.settle(self.waiting, BOUND, now_s, returned=returned)

    def talk(self, now_s: float = NOW_S) -> None:
        """Say what is to be said, and have everybody hear the answers."""
        message = self.share.take_message(now_s)
        if message is not None:
            answers = self._bank.update(
                self, given_back=message.given_back, wanted=message.wanted, bound=BOUND
            )
            self._deliver(answers, now_s)

    def _deliver(self, answers: Mapping[Hashable, Answer], now_s: float) -> None:
        for caller in self._others:
            if caller in answers:
                answer = answers[caller]
                caller.share.answer(
                    granted=answer.granted,
                    ask_back=answer.ask_back,
                    unmet=answer.unmet,
                    callers=self._bank.callers,
                )
                caller.enforce(now_s)


def _callers(count: int) -> list[_Caller]:
    bank = QueueBank()
    callers: list[_Caller] = []
    for _ in range(count):
        _Caller(bank, callers)
    return callers


def test_one_caller_may_have_the_whole_bound_and_no_more() -> None:
    busy, idle = _callers(2)
    busy.arrive(BOUND + 5)
    busy.talk()
    idle.talk()
    assert (busy.waiting, busy.refused) == (BOUND, 5)


def test_what_waits_for_an_answer_is_refused_when_the_queue_turns_out_to_be_full() -> None:
    first, second = _callers(2)
    first.arrive(BOUND)
    first.talk()
    second.arrive(3)
    assert second.waiting == 3  # for the moment
    second.talk()
    assert (second.waiting, second.refused) == (0, 3)
    second.arrive(1)
    assert second.refused == 4  # at once: it is known to be full


def test_a_place_that_gets_free_goes_to_who_wants_one() -> None:
    first, second = _callers(2)
    first.arrive(BOUND)
    first.talk()
    second.arrive(3)
    second.talk()
    for _ in range(2 * BOUND):
        first.leave(1)
        first.tick()
        second.tick()
        second.arrive(1)
        first.arrive(1)
    for caller in (first, second):
        caller.talk()
    assert BOUND - 1 <= first.waiting + second.waiting <= BOUND
    assert min(first.waiting, second.waiting) >= BOUND // 2 - 1


def test_who_waits_is_not_turned_away_for_the_sake_of_others() -> None:
    first, second = _callers(2)
    first.arrive(BOUND)
    first.talk()
    second.arrive(3)
    second.talk()
    assert first.waiting == BOUND
    assert first.share.asked_back > 0
    first.enforce()
    assert (first.waiting, first.refused) == (BOUND, 0)


def test_a_request_that_comes_back_finds_its_place_though_places_were_asked_back() -> None:
    first, second = _callers(2)
    first.arrive(BOUND)
    first.talk()
    first.tick()
    first.leave(4)
    second.arrive(BOUND)
    second.talk()
    assert first.share.asked_back == BOUND // 2
    first.arrive(1)
    first.talk()
    assert (first.waiting, first.refused) == (BOUND - 4, 1)  # a new one does not
    first.come_back(4)
    assert (first.waiting, first.refused) == (BOUND, 1)
    first.tick()
    assert first.share.held == BOUND
    first.leave(4)
    first.tick()
    first.tick()
    assert first.share.held == BOUND - 4  # nobody came back


def test_places_that_nobody_needs_go_back() -> None:
    first, second = _callers(2)
    first.arrive(BOUND)
    first.talk()
    first.leave(BOUND)
    for _ in range(2):
        first.tick(NOW_S + 2 * SPARE_S)
    second.arrive(BOUND)
    second.talk()
    assert second.waiting == BOUND
    first.share.tick(0, NOW_S + 2 * INTEREST_S)
    first.talk(NOW_S + 2 * INTEREST_S)
    assert not first.share.tick(0, NOW_S + 2 * INTEREST_S)


def test_a_keeper_that_does_not_answer_leaves_an_equal_part() -> None:
    first, second = _callers(2)
    for caller in (second, first):
        caller.arrive(1)
        caller.talk()
    first.leave(1)
    first.arrive(BOUND)
    first.share.take_message(NOW_S)  # and nobody hears it
    first.enforce(NOW_S + 2 * PATIENCE_S)
    assert first.waiting == BOUND // 2


def test_the_places_of_a_caller_that_is_gone_are_free() -> None:
    bank = QueueBank()
    bank.update("gone", declared=BOUND, wanted=0, bound=BOUND)
    assert bank.update("waits", wanted=2, bound=BOUND) == {
        "gone": Answer(0, 2, 0),
        "waits": Answer(0, 0, 2),
    }
    assert bank.close("gone") == {"waits": Answer(2, 0, 0)}
    assert "2 of 20 places held by 1 callers" in repr(bank)


def test_a_keeper_that_is_new_grants_nothing_beyond_what_is_declared() -> None:
    bank = QueueBank()
    assert bank.update("one", declared=15, wanted=0, bound=BOUND) == {}
    assert bank.update("two", declared=10, wanted=5, bound=BOUND)["two"] == Answer(0, 0, 5)
    assert bank.held == 25
    assert bank.update("one", given_back=10, wanted=0, bound=BOUND) == {"two": Answer(5, 0, 0)}


STEPS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(["arrive", "leave", "come back", "tick", "talk", "enforce"]),
        st.integers(1, 8),
    ),
    max_size=80,
)


@given(STEPS)
def test_the_sum_never_exceeds_the_bound_once_everybody_has_heard(steps: list[tuple[int, str, int]]) -> None:
    """The places held never exceed it, and those in the queue for good never exceed the places."""
    bank = QueueBank()
    callers: list[_Caller] = []
    for _ in range(3):
        _Caller(bank, callers)
    for index, what, count in steps:
        caller = callers[index]
        match what:
            case "arrive":
                caller.arrive(count)
            case "leave":
                caller.leave(count)
            case "come back":
                caller.come_back(count)
            case "tick":
                caller.tick()
            case "talk":
                caller.talk()
            case _:
                caller.enforce()
        assert bank.held <= BOUND
        assert sum(c.share.held for c in callers) <= bank.held
        assert all(c.share.placed <= c.share.held for c in callers)
    for _ in range(3):
        for caller in callers:
            caller.talk()
    assert sum(caller.waiting for caller in callers) <= BOUND
