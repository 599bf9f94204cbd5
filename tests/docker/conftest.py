"""Clusters of containers. All tests here are marked `docker`, and skipped where no engine answers."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.compose import Compose, why_no_engine

FIGURES = pytest.StashKey[list[str]]()
STREAM_S = 3.0
PATIENCE_S = 60.0
"""How long drains wait for streams that are longer than that."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--stream-s", type=float, default=STREAM_S, help="how long the streams of the load last")
    parser.addoption("--streams", type=int, default=2, help="how many there are at one time")


def pytest_collection_modifyitems(items: list[pytest.Item], config: pytest.Config) -> None:
    """Mark what is below this directory."""
    timeout_s = 300 if _stream_s(config) <= STREAM_S else 1200
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.docker)
            item.add_marker(pytest.mark.timeout(timeout_s))


def _stream_s(config: pytest.Config) -> float:
    """How long streams last; the option is not there where pytest was started for all tests."""
    return float(config.getoption("stream_s", STREAM_S))


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
def stream_s(pytestconfig: pytest.Config) -> float:
    """How long the streams of the load last."""
    return _stream_s(pytestconfig)


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
def full(engine: None, stream_s: float) -> Iterator[Compose]:
    """The form without a single point of failure, built and up. Drains wait for long streams."""
    patience = {
        "SLIPKNOT_DEMO": "examples/demo/patient.yaml",
        "SLIPKNOT_PROXY_DRAIN_TIMEOUT_S": f"{PATIENCE_S:g}",
        "SLIPKNOT_STOP_GRACE_PERIOD": f"{PATIENCE_S + 30:g}s",
    }
    with Compose("docker-compose.yml", project=f"sk-full-{os.getpid()}", proxies=2) as compose:
        if stream_s > STREAM_S:
            compose.environ.update(patience)
        compose("build")
        compose("up", "--detach")
        yield compose
