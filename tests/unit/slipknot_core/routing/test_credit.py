"""How far a replica may be ahead of its readers, one by one and all together."""

from hypothesis import given
from hypothesis import strategies as st

from slipknot_core.routing.credit import (
    FAST_S,
    MAX_REPLY_CREDIT_BYTES,
    REPLY_CREDIT_BYTES,
    SLOW_S,
    SpareCredit,
    Window,
)

SPARE_BYTES = 3 * REPLY_CREDIT_BYTES
READS = st.tuples(
    st.integers(0, 3),
    st.integers(1, MAX_REPLY_CREDIT_BYTES),
    st.sampled_from([0.0, FAST_S / 2, (FAST_S + SLOW_S) / 2, SLOW_S * 2]),
)


@given(st.lists(READS, max_size=200))
def test_readers_are_never_further_behind_than_their_bounds(reads: list[tuple[int, int, float]]) -> None:
    """Whoever reads how much and how fast: each can go on, and what it has beyond the least was spare."""
    spare, now_s = SpareCredit(SPARE_BYTES), 1.0
    windows = [Window(spare, now_s) for _ in range(4)]
    ahead = [REPLY_CREDIT_BYTES] * 4
    for reader, wanted, elapsed_s in reads:
        now_s += elapsed_s
        read = min(wanted, ahead[reader])
        granted = windows[reader].take(read, now_s)
        assert granted >= 0
        ahead[reader] += granted - read
        assert all(0 < each <= MAX_REPLY_CREDIT_BYTES for each in ahead)
        assert sum(ahead) <= 4 * REPLY_CREDIT_BYTES + SPARE_BYTES
        assert spare.byte_count >= 0
    for window in windows:
        window.close()
        window.close()
    assert spare.byte_count == SPARE_BYTES


def test_a_fast_reader_is_soon_sent_much_ahead_and_a_slow_one_no_more_than_at_first() -> None:
    """After a few windows, either way; the same reader."""
    spare = SpareCredit()
    window, ahead = Window(spare, 0.0), REPLY_CREDIT_BYTES
    for _ in range(8):
        ahead = window.take(ahead, FAST_S)
    assert ahead == MAX_REPLY_CREDIT_BYTES
    now_s = 1.0
    while ahead > REPLY_CREDIT_BYTES:
        now_s += 2 * SLOW_S
        ahead += window.take(MAX_REPLY_CREDIT_BYTES // 4, now_s) - MAX_REPLY_CREDIT_BYTES // 4
        assert now_s < 100
    assert window.take(ahead, now_s + 2 * SLOW_S) == REPLY_CREDIT_BYTES


def test_a_reader_that_is_neither_keeps_what_it_has() -> None:
    """It takes each window in between."""
    window = Window(SpareCredit(), 0.0)
    times_s = [(FAST_S + SLOW_S) / 2 * number for number in range(1, 20)]
    assert {window.take(REPLY_CREDIT_BYTES, now_s) for now_s in times_s} == {REPLY_CREDIT_BYTES}


def test_credit_is_given_back_in_parts() -> None:
    """What a reader takes in small parts is granted in larger ones."""
    window = Window(SpareCredit(), 0.0)
    assert window.take(REPLY_CREDIT_BYTES // 4 - 1, 1.0) == 0
    assert window.take(1, 1.0) == REPLY_CREDIT_BYTES // 4
