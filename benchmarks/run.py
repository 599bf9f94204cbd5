"""The order of a run: rounds, systems in alternating order, a start for each application; what goes wrong."""

import asyncio
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from . import machine
from .effort import Effort
from .figures import Gap, Observation
from .loads import wrk
from .metrics import Metric, NotOffered
from .systems import System
from .systems.system import DidNotStart, Running


class Run:
    """Measures everything on everything; a failure costs its own figure only."""

    def __init__(
        self,
        systems: Sequence[System],
        metrics: Sequence[Metric],
        effort: Effort,
        *,
        directory: Path,
        say: Callable[[Observation | Gap], None],
    ) -> None:
        self._systems = systems
        self._metrics = metrics
        self._effort = effort
        self._directory = directory
        self._say = say
        self.observations: list[Observation] = []
        self.gaps: list[Gap] = []

    async def round(self, number: int) -> None:
        """One round, counted from 1, over all systems that can run here."""
        present = []
        for system in self._systems:
            if reason := system.missing():
                self._miss(Gap(system.name, "all", None, reason))
            else:
                present.append(system)
        for together in together_started(self._metrics):
            for system in in_turn(present, number):
                await self._measure(system, self._possible(system, together, number), number)

    def _possible(self, system: System, metrics: Sequence[Metric], number: int) -> list[Metric]:
        possible = []
        for metric in metrics:
            if metric.only is not None and system.name not in metric.only:
                continue
            if metric.application not in system.applications():
                if number == 1:
                    reason = f"the application `{metric.application}` is not offered"
                    self._miss(Gap(system.name, metric.group, None, reason))
            elif metric.needs_wrk and not wrk.is_installed():
                if number == 1:
                    self._miss(Gap(system.name, metric.group, None, wrk.MISSING))
            else:
                possible.append(metric)
        return possible

    async def _measure(self, system: System, metrics: Sequence[Metric], number: int) -> None:
        running: Running | None = None
        try:
            for metric in metrics:
                if running is None:
                    running = Running(system, metric.application, self._directory, metric.options)
                    await asyncio.to_thread(machine.settle, self._effort.settle_s)
                    try:
                        await asyncio.to_thread(running.start)
                    except (DidNotStart, OSError) as error:
                        running = None
                        self._miss(Gap(system.name, metric.group, number, str(error)))
                        continue
                if not await self._try(running, metric, number):
                    # What is left of the failure would be measured next.
                    self._stop(running)
                    running = None
        finally:
            if running is not None:
                self._stop(running)

    async def _try(self, running: Running, metric: Metric, number: int) -> bool:
        system = running.system.name
        try:
            async with asyncio.timeout(metric.within_s):
                async for figures in metric.measure(running, self._effort):
                    for figure in figures:
                        seen = Observation(figure, system, number)
                        self.observations.append(seen)
                        self._say(seen)
        except NotOffered as error:
            if number == 1:
                self._miss(Gap(system, metric.group, None, str(error)))
            return True
        except Exception as error:  # noqa: BLE001 - whatever it is, the other metrics are still wanted
            self._miss(Gap(system, metric.group, number, f"{type(error).__name__}: {error}"[:500]))
            return False
        return True

    def _stop(self, running: Running) -> None:
        if killed := running.stop():
            self._miss(Gap(running.system.name, "end", None, f"{killed} processes did not end by themselves"))

    def _miss(self, gap: Gap) -> None:
        if gap not in self.gaps:
            self.gaps.append(gap)
            self._say(gap)


def together_started(metrics: Sequence[Metric]) -> Iterator[list[Metric]]:
    """Metrics that share one start of a system: the same application, no options."""

    def start(metric: Metric) -> tuple[str, str]:
        return metric.application, repr(sorted(metric.options.items()))

    ordered = sorted(metrics, key=lambda metric: [start(other) for other in metrics].index(start(metric)))
    for _, together in itertools.groupby(ordered, key=start):
        yield list(together)


def in_turn(systems: Sequence[System], number: int) -> list[System]:
    """Forwards in odd rounds, backwards in even ones: nobody always comes first."""
    return list(systems) if number % 2 else list(reversed(systems))
