"""Clusters of containers. All tests here are marked `docker`, and skipped where no engine answers."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.compose import Compose, why_no_engine

FIGURES = pytest.StashKey[list[str]]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is below this directory."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.docker)
            item.add_marker(pytest.mark.timeout(300))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Show what was measured."""
    figures = config.stash.get(FIGURES, [])
    if figures:
        terminalreporter.section("figures of the container tests")
        for line in figures:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def figures(pytestconfig: pytest.Config) -> list[str]:
    """Lines to show at the end."""
    return pytestconfig.stash.setdefault(FIGURES, [])


@pytest.fixture(scope="session")
def engine() -> None:
    """Skip where there is none."""
    reason = why_no_engine()
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="module")
def small(engine: None) -> Iterator[Compose]:
    """The small form, built and up."""
    with Compose("docker-compose.small.yml", project=f"sk-small-{os.getpid()}", proxies=1) as compose:
        compose("build")
        compose("up", "--detach")
        yield compose


@pytest.fixture(scope="module")
def full(engine: None) -> Iterator[Compose]:
    """The form without a single point of failure, built and up."""
    with Compose("docker-compose.yml", project=f"sk-full-{os.getpid()}", proxies=2) as compose:
        compose("build")
        compose("up", "--detach")
        yield compose
