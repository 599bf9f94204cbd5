"""How long to wait before the next attempt. Pure."""

FIRST_DELAY_S = 0.1
"""After the first failure."""
MAX_DELAY_S = 30.0
"""However many failures there were."""


def delay_s(failure_count: int) -> float:
    """Seconds to wait after that many failures in a row: 0 after none, then doubling up to the maximum."""
    if failure_count <= 0:
        return 0.0
    # The exponent is bounded, because a float overflows long before a loop of failures ends.
    return min(FIRST_DELAY_S * 2.0 ** min(failure_count - 1, 32), MAX_DELAY_S)
