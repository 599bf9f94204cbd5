import pytest

from benchmarks.loads.wrk import parse

OUTPUT = """Running 2s test @ http://127.0.0.1:8000/
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     4.04ms    1.21ms  28.30ms   93.71%
    Req/Sec     4.01k   342.43     4.54k    80.00%
  Latency Distribution
     50%  850.00us
     75%    4.18ms
     90%    4.71ms
     99%    1.20s\x20
  7987 requests in 2.00s, 1.12MB read
  Socket errors: connect 1, read 2, write 0, timeout 3
  Non-2xx or 3xx responses: 4
Requests/sec:   3992.45
Transfer/sec:    573.91KB
"""


def test_what_wrk_prints_is_read() -> None:
    """Whatever the units; every kind of error counts."""
    outcome = parse(OUTPUT)
    assert (outcome.requests, outcome.rate, outcome.errors, outcome.bad_answers) == (7987, 3992.45, 10, 4)
    assert (outcome.p50_ms, outcome.p99_ms) == (0.85, 1200)


def test_something_else_is_shown() -> None:
    """So that the report says what happened."""
    with pytest.raises(ValueError, match="unable to connect"):
        parse("unable to connect to 127.0.0.1:1 Connection refused")
