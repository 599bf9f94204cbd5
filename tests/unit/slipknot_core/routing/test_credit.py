"""How far a replica may be ahead of its readers, one by one and all together."""

from hypothesis import given
from hypothesis import strategies as st

from slipknot_core.routing.credit import (
    MAX_REPLY_CREDIT_BYTES,
    REPLY_CREDIT_BYTES,
    SpareCredit,
    Window,
)

SPARE_BYTES = 3 * REPLY_CREDIT_BYTES


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, MAX_REPLY_CREDIT_BYTES)), max_size=200))
def test_readers_are_never_further_behind_than_their_bounds(reads: list[tuple[int, int]]) -> None:
    """Whoever reads how much: each has at least the least credit, and all that is beyond it was spare."""
    spare = SpareCredit(SPARE_BYTES)
    windows = [Window(spare) for _ in range(4)]
    ahead = [REPLY_CREDIT_BYTES] * 4
    for reader, wanted in reads:
        read = min(wanted, ahead[reader])
        ahead[reader] += windows[reader].take(read) - read
        assert all(0 < each <= MAX_REPLY_CREDIT_BYTES for each in ahead)
        assert sum(ahead) <= 4 * REPLY_CREDIT_BYTES + SPARE_BYTES
    for window in windows:
        window.close()
        window.close()
    assert spare.byte_count == SPARE_BYTES


def test_a_reader_that_takes_all_is_soon_sent_much_ahead() -> None:
    """After a few rounds it has all it can have."""
    window, ahead = Window(SpareCredit()), REPLY_CREDIT_BYTES
    for _ in range(8):
        ahead = window.take(ahead)
    assert ahead == MAX_REPLY_CREDIT_BYTES


def test_a_reader_that_does_not_read_is_sent_no_more() -> None:
    """What it takes in small parts is given back in larger ones."""
    window = Window(SpareCredit())
    assert window.take(REPLY_CREDIT_BYTES // 4 - 1) == 0
    assert window.take(1) == REPLY_CREDIT_BYTES // 4
