"""What the soak tells of its parts."""

from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.machine import stolen_percent
from benchmarks.soak import windows


def _times(user_s: float, idle_s: float, steal_s: float) -> Any:
    return SimpleNamespace(user=user_s, idle=idle_s, steal=steal_s, _fields=("user", "idle", "steal"))


def _sample(at_s: float, exchanges: int, cpu_ms: tuple[int, int], cpu: Any) -> dict[str, Any]:
    processes = {name: {"cpu_ms": spent} for name, spent in zip(("proxy", "replica"), cpu_ms, strict=True)}
    return {"at_s": at_s, "exchanges": exchanges, "processes": processes, "cpu": cpu}


def test_each_part_has_its_own_figures() -> None:
    samples = [
        _sample(100.0, 0, (0, 0), _times(0, 0, 0)),
        _sample(105.0, 50, (40, 10), _times(4, 5, 1)),
        _sample(110.0, 100, (80, 20), _times(8, 10, 2)),
        _sample(120.0, 150, (180, 70), _times(8, 20, 2)),
        _sample(125.0, 150, (180, 70), _times(8, 20, 2)),
    ]
    times_ms = [(101.0, 1.0), (109.0, 3.0), (111.0, 7.0), (124.0, 99.0)]

    first, second = windows(times_ms, samples, 10.0)

    assert (first["from_minute"], first["count"], first["max_ms"]) == (0, 2, 3.0)
    assert (first["cpu_ms_an_exchange"], first["stolen_percent"]) == (1.0, 20.0)
    assert (second["count"], second["max_ms"]) == (1, 7.0)
    assert (second["cpu_ms_an_exchange"], second["stolen_percent"]) == (3.0, 0.0)


def test_a_part_in_which_nothing_was_answered_is_left_out() -> None:
    samples = [_sample(at_s, 1, (1, 1), _times(at_s, 0, 0)) for at_s in (0.0, 5.0, 10.0, 15.0, 20.0)]
    assert [part["from_minute"] for part in windows([(12.0, 1.0)], samples, 10.0)] == [pytest.approx(0.2)]


def test_a_run_that_was_over_before_the_first_sample_has_no_parts() -> None:
    assert windows([(12.0, 1.0)], [], 10.0) == []


def test_where_nobody_tells_nothing_was_stolen() -> None:
    began = SimpleNamespace(user=1.0, idle=1.0, _fields=("user", "idle"))
    ended = SimpleNamespace(user=2.0, idle=1.0, _fields=("user", "idle"))
    assert stolen_percent(began, ended) == 0.0
    assert stolen_percent(began, began) == 0.0
