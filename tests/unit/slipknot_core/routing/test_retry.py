"""When a request is sent a second time."""

import pytest

from slipknot_core.routing.retry import BUDGET_MIN, MAX_ATTEMPTS, WINDOW_S, RetryBudget, may_repeat

NOW_S = 1000.0


@pytest.mark.parametrize(
    ("repeatable", "attempts", "others", "expected"),
    [
        (True, 1, 1, True),
        (False, 1, 1, False),
        (True, MAX_ATTEMPTS - 1, 3, True),
        (True, MAX_ATTEMPTS, 3, False),
        (True, 1, 0, False),
    ],
)
def test_a_request_is_repeated_where_allowed_a_few_times_and_if_there_is_another_replica(
    repeatable: bool, attempts: int, others: int, expected: bool
) -> None:
    assert may_repeat(repeatable=repeatable, attempts=attempts, others=others) is expected


def _taken(budget: RetryBudget, now_s: float) -> int:
    count = 0
    while budget.take(now_s):
        count += 1
    return count


def test_few_requests_may_all_be_repeated_once() -> None:
    budget = RetryBudget()
    assert _taken(budget, NOW_S) == BUDGET_MIN


def test_repetitions_are_at_most_a_fifth_of_the_requests() -> None:
    budget = RetryBudget()
    for _ in range(1000):
        budget.count_request(NOW_S)
    assert _taken(budget, NOW_S) == 200
    assert not budget.take(NOW_S + WINDOW_S / 2)


def test_the_budget_comes_back_when_the_window_has_passed() -> None:
    budget = RetryBudget()
    _taken(budget, NOW_S)
    assert _taken(budget, NOW_S + WINDOW_S + 1) == BUDGET_MIN
    assert _taken(budget, NOW_S + 10 * WINDOW_S) == BUDGET_MIN


def test_requests_of_the_last_half_window_count() -> None:
    budget = RetryBudget()
    for _ in range(1000):
        budget.count_request(NOW_S)
    assert _taken(budget, NOW_S + WINDOW_S / 2) == 200
    assert "200 repetitions of 1000 requests" in repr(budget)
