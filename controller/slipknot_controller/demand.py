"""Requests that wait for a replica, as their callers report them. Pure: the clock is an argument.

A report replaces the one before of the same caller, and counts until it is replaced or has not been renewed:
a caller that died leaves no demand behind.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from slipknot_core.ids import DeploymentId

REPORT_TTL_S = 3.0
"""Callers renew their report every second for as long as requests wait."""
MAX_CALLERS = 10_000
"""Reports of others are ignored while so many count."""


@dataclass(frozen=True, slots=True)
class _Report:
    at_s: float
    queued: Mapping[DeploymentId, int]


class Demand:
    """Queued requests by deployment. `repr` tells how many callers report some."""

    def __init__(self) -> None:
        self._reports: dict[str, _Report] = {}

    def __repr__(self) -> str:
        return f"<Demand of {len(self._reports)} callers>"

    def reported(self, caller: str, queued: Mapping[DeploymentId, int], now_s: float) -> None:
        """Take a report; an empty one takes back what the caller reported before."""
        self._forget_old(now_s)
        if not queued:
            self._reports.pop(caller, None)
        elif caller in self._reports or len(self._reports) < MAX_CALLERS:
            self._reports[caller] = _Report(now_s, queued)

    def queued(self, deployment_id: DeploymentId, now_s: float) -> int:
        """Requests to one deployment that wait, over all callers."""
        return sum(
            report.queued.get(deployment_id, 0)
            for report in self._reports.values()
            if now_s - report.at_s < REPORT_TTL_S
        )

    def _forget_old(self, now_s: float) -> None:
        old = [caller for caller, report in self._reports.items() if now_s - report.at_s >= REPORT_TTL_S]
        for caller in old:
            del self._reports[caller]
