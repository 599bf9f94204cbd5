"""What admin ports show, as numbers."""

import time
from collections.abc import Callable

from prometheus_client.parser import text_string_to_metric_families

WAIT_S = 30.0
POLL_S = 0.02


class Metrics:
    """One look at everything."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.samples = [
            sample for family in text_string_to_metric_families(text) for sample in family.samples
        ]

    def sum(self, name: str, **labels: str) -> float:
        """Of all samples that have these labels; 0 if there are none."""
        return sum(sample.value for sample in self._found(name, labels))

    def label_values(self, name: str, label: str, **labels: str) -> set[str]:
        """Values of one label."""
        return {sample.labels[label] for sample in self._found(name, labels)}

    def _found(self, name: str, labels: dict[str, str]) -> list:  # type: ignore[type-arg]
        return [s for s in self.samples if s.name == name and labels.items() <= s.labels.items()]


def wait_for_metrics(read: Callable[[], str], is_so: Callable[[Metrics], bool]) -> Metrics:
    """Look again until `is_so`: requests are counted just after their clients have been answered."""
    deadline_s = time.monotonic() + WAIT_S
    while not is_so(metrics := Metrics(read())):
        assert time.monotonic() < deadline_s, metrics.text
        time.sleep(POLL_S)
    return metrics
