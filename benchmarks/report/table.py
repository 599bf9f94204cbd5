"""Pure: the report as Markdown."""

from collections.abc import Iterable, Mapping, Sequence

from ..figures import Gap
from .statistics import Summary
from .targets import Verdict


def figures_table(
    figures: Mapping[str, Mapping[str, Summary]], units: Mapping[str, str], systems: Sequence[str]
) -> list[str]:
    """A row a figure, a column a system: the median, and the spread where it says something."""
    rows = []
    for key, by_system in figures.items():
        if key.endswith("/errors") and not any(its.high for its in by_system.values()):
            continue
        _, case, name = key.split("/")
        unit = units[key]
        label = f"{case}: {name}" + (f" [{unit}]" if unit else "")
        rows.append([label, *(_cell(by_system.get(system)) for system in systems)])
    return _table(["", *systems], rows)


def verdicts_table(verdicts: Iterable[Verdict]) -> list[str]:
    """A row a target."""
    rows = []
    for verdict in verdicts:
        target = verdict.target
        at_least = target.at_least is not None
        bound = target.at_least if at_least else target.at_most
        assert bound is not None
        wanted = f"{'≥' if at_least else '≤'} {number(bound)}{' times' if target.relative_to else ''}"
        against = target.relative_to or ""
        value = "not measured" if verdict.value is None else number(verdict.value)
        word = {True: "yes", False: "**no**", None: ""}[verdict.is_met]
        rows.append([target.key, against, wanted, value, word])
    return _table(["figure", "divided by", "wanted", "measured", "met"], rows)


def gaps_table(gaps: Iterable[Gap]) -> list[str]:
    """A row for each thing that was not measured."""
    rows = []
    for gap in gaps:
        reason = gap.reason.replace("|", "\\|").replace("\n", " ")
        where = "" if gap.round is None else str(gap.round)
        rows.append([gap.system, gap.metric, where, reason])
    return _table(["system", "metric", "round", "why"], rows)


def number(value: float) -> str:
    """With three significant digits, and all digits before the point."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _cell(its: Summary | None) -> str:
    if its is None:
        return "-"
    if its.low == its.high:
        return number(its.median)
    return f"{number(its.median)} ({number(its.low)} to {number(its.high)})"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return lines
