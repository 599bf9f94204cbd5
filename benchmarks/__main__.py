"""Measure systems side by side: `python -m benchmarks --systems slipknot,floor --metrics noop --out FILE`.

Writes FILE.json and FILE.md; what is measured and how to read it stands in docs/benchmarks.md.
"""

import argparse
import asyncio
import dataclasses
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from . import machine
from .effort import QUICK, Effort
from .figures import Gap, Observation
from .metrics import METRICS, USUAL_GROUPS, Metric
from .report.report import Report, line
from .run import Run
from .systems import PEERS_PYTHON, SYSTEMS, System

T = TypeVar("T")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, and write the report; the exit status is 0 if there are figures."""
    options = _parser().parse_args(arguments)
    systems = _chosen(options.systems, SYSTEMS)
    groups = _chosen(options.metrics, {metric.group: metric.group for metric in METRICS})
    metrics = [metric for metric in METRICS if metric.group in groups]
    effort = QUICK if options.quick else Effort()
    if options.seconds is not None:
        effort = dataclasses.replace(effort, seconds=options.seconds)
    report = asyncio.run(_run(systems, metrics, effort, options))
    print(report.as_markdown())
    return 0 if report.observations else 1


async def _run(
    systems: Sequence[System], metrics: Sequence[Metric], effort: Effort, options: argparse.Namespace
) -> Report:
    has_peers = PEERS_PYTHON.exists() and any(s.name not in ("slipknot", "floor", "haproxy") for s in systems)
    command = "python -m benchmarks " + shlex.join(sys.argv[1:])
    about = machine.about(command, str(PEERS_PYTHON) if has_peers else None)
    about["rounds"] = f"{options.rounds}, {effort.seconds:g} s a load"
    began = machine.cpu_times()
    directory = Path(tempfile.mkdtemp(prefix="slipknot-benchmarks-"))
    run = Run(systems, metrics, effort, directory=directory, say=_say)
    report = Report(about, [system.name for system in systems], run.observations, run.gaps)
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        for number in range(1, options.rounds + 1):
            await run.round(number)
            about["CPU time taken by others on the host"] = (
                f"{machine.stolen_percent(began, machine.cpu_times()):.1f} %"
            )
            _write(report, options.out)
    finally:
        # Also of a run that was interrupted.
        _write(report, options.out)
        if not options.keep_logs:
            shutil.rmtree(directory, ignore_errors=True)
        else:
            print(f"logs: {directory}", file=sys.stderr)
    return report


def _write(report: Report, out: Path | None) -> None:
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.with_suffix(".json").write_text(report.as_json())
        out.with_suffix(".md").write_text(report.as_markdown())


def _say(seen: Observation | Gap) -> None:
    if isinstance(seen, Observation):
        print(line(seen), file=sys.stderr)
    else:
        print(f"not measured: {seen.system}, {seen.metric}: {seen.reason}", file=sys.stderr)


def _chosen(names: str, all_of: dict[str, T]) -> list[T]:
    chosen = list(all_of) if names == "all" else names.split(",")
    if unknown := set(chosen) - set(all_of):
        sys.exit(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(all_of)}")
    return [all_of[name] for name in chosen]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--systems", default="slipknot,floor,haproxy", help=f"all, or some of {','.join(SYSTEMS)}"
    )
    usual = ",".join(USUAL_GROUPS)
    parser.add_argument("--metrics", default=usual, help=f"all, or some of {usual},growth")
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is measured")
    parser.add_argument("--seconds", type=float, help="length of each load")
    parser.add_argument("--quick", action="store_true", help="small loads, to see that everything works")
    parser.add_argument("--out", type=Path, help="where the report goes: FILE.json and FILE.md")
    parser.add_argument("--keep-logs", action="store_true", help="of the systems, and say where")
    return parser


if __name__ == "__main__":
    sys.exit(main())
