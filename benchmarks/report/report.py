"""Everything that a run found out, as JSON and as Markdown."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..figures import Gap, Observation
from .statistics import Summary, summaries
from .table import figures_table, gaps_table, number, verdicts_table
from .targets import TARGETS, Verdict, judge


@dataclass(frozen=True)
class Report:
    """One run."""

    about: Mapping[str, str]
    """Machine, versions, command."""
    systems: Sequence[str]
    observations: Sequence[Observation]
    gaps: Sequence[Gap]

    @property
    def figures(self) -> dict[str, dict[str, Summary]]:
        """By key and system."""
        return summaries(self.observations)

    @property
    def verdicts(self) -> list[Verdict]:
        """On all targets, measured or not."""
        figures = self.figures
        return [judge(target, figures) for target in TARGETS]

    def as_json(self) -> str:
        """All values of all rounds."""
        units = self._units()
        content: dict[str, Any] = {
            "about": dict(self.about),
            "systems": list(self.systems),
            "figures": [
                {"figure": key, "unit": units[key], "system": system, **asdict(its)}
                for key, by_system in self.figures.items()
                for system, its in by_system.items()
            ],
            "targets": [
                {**asdict(verdict.target), "value": verdict.value, "is_met": verdict.is_met}
                for verdict in self.verdicts
            ],
            "gaps": [asdict(gap) for gap in self.gaps],
        }
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"

    def as_markdown(self) -> str:
        """Tables for reading."""
        units = self._units()
        lines = ["# Benchmarks of slipknot", "", *(f"- {k}: {v}" for k, v in self.about.items()), ""]
        lines += ["Each cell is the median of the rounds, with (lowest to highest).", ""]
        measured = [verdict for verdict in self.verdicts if verdict.value is not None]
        if measured:
            met = sum(verdict.is_met is True for verdict in measured)
            total = len(self.verdicts)
            lines += [f"## Targets: {met} met of {len(measured)} measured, of {total}", ""]
            lines += [*verdicts_table(measured), ""]
        by_metric: dict[str, dict[str, dict[str, Summary]]] = {}
        for key, by_system in self.figures.items():
            by_metric.setdefault(key.partition("/")[0], {})[key] = by_system
        for metric, figures in by_metric.items():
            names = [name for name in self.systems if any(name in its for its in figures.values())]
            lines += [f"## {metric}", "", *figures_table(figures, units, names), ""]
        if self.gaps:
            lines += ["## Not measured", "", *gaps_table(self.gaps), ""]
        return "\n".join(lines)

    def _units(self) -> dict[str, str]:
        return {seen.figure.key: seen.figure.unit for seen in self.observations}


def line(seen: Observation) -> str:
    """One observation, for those who watch."""
    figure = seen.figure
    value = f"{number(figure.value)} {figure.unit}".rstrip()
    return f"round {seen.round} {seen.system:<15} {figure.metric}/{figure.case}: {figure.name} {value}"
