"""That the benchmarks run; how fast anything is, is not judged here."""

import json
from pathlib import Path

import psutil
import pytest

from benchmarks.__main__ import main
from benchmarks.loads import wrk
from benchmarks.systems import SYSTEMS
from benchmarks.systems.system import DidNotStart, Running

pytestmark = [pytest.mark.timeout(120)]


def test_a_quick_run_gives_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Figures of both systems, in JSON and Markdown; what is not there to measure with is said."""
    out = tmp_path / "report"
    assert main(f"--systems slipknot,floor --metrics post,paced --rounds 1 --quick --out {out}".split()) == 0
    content = json.loads(out.with_suffix(".json").read_text())
    found = {(its["figure"], its["system"]): its["values"] for its in content["figures"]}
    for system in ("slipknot", "floor"):
        assert found["paced/10 streams/lost", system] == [0]
        assert found["paced/10 streams/delay p99", system][0] > 0
        if wrk.is_installed():
            assert found["post/1 KiB c16/rate", system][0] > 0
            assert found["post/1 KiB c16/CPU per 1,000", system][0] > 0
            assert found["post/1 KiB c16/RSS", system][0] > 0
        else:
            gap = {"system": system, "metric": "post", "round": None, "reason": wrk.MISSING}
            assert gap in content["gaps"]
    assert "| 10 streams: lost | 0 | 0 |" in out.with_suffix(".md").read_text()


def test_nothing_is_left_of_a_system(tmp_path: Path) -> None:
    """All its processes end with it, and its port is free again."""
    running = Running(SYSTEMS["slipknot"], "plain", tmp_path)
    running.start()
    processes = running.processes.look()
    assert len(processes) > 3
    running.stop()
    assert not [process for process in processes if process.is_running()]
    assert not [
        connection
        for connection in psutil.net_connections("tcp")
        if connection.laddr and connection.laddr.port == running.port and connection.status == "LISTEN"
    ]


def test_what_does_not_start_says_why(tmp_path: Path) -> None:
    """In the words that it logged last."""
    running = Running(SYSTEMS["floor"], "no_such_application", tmp_path)
    with pytest.raises(DidNotStart, match="no_such_application"):
        running.start()
    assert not running.processes.look()
