"""Hygiene for every test: no task of ours is left behind, and no exception goes unheard."""

import asyncio
import gc
import importlib
import inspect
import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator

import hypothesis
import pytest

TASKS_END_WITHIN_S = 2.0
"""Tasks that are about to end when the test does have this long."""

UNHEARD = ("never retrieved", "was destroyed but it is pending", "was never awaited")

# Machines that run these tests are busy with other things too: no deadline for a single example.
hypothesis.settings.register_profile("slipknot", deadline=None)
hypothesis.settings.load_profile("slipknot")


class _Unheard(logging.Handler):
    """Keeps what asyncio logs about exceptions and tasks that nobody asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if any(part in message for part in UNHEARD):
            self.messages.append(message if record.exc_info is None else f"{message}\n{record.exc_info[1]!r}")

    def take(self) -> list[str]:
        messages, self.messages = self.messages, []
        return messages


_unheard = _Unheard()


def pytest_configure(config: pytest.Config) -> None:
    """Load the plugin where slipknot is on the path but not installed, and listen to asyncio."""
    if not config.pluginmanager.has_plugin("slipknot"):
        config.pluginmanager.register(importlib.import_module("slipknot.pytest_plugin"), "slipknot")
    logging.getLogger("asyncio").addHandler(_unheard)
    # A script that runs us in the background may have it ignored, which the programs under test inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # A cluster of the user's own must not be what the tests talk to.
    for name in (
        "SLIPKNOT_ADDRESS",
        "SLIPKNOT_CLUSTER_TOKEN",
        "SLIPKNOT_CLUSTER_TOKEN_FILE",
        "SLIPKNOT_TLS_CA",
        "SLIPKNOT_TLS_CERT",
        "SLIPKNOT_TLS_KEY",
    ):
        os.environ.pop(name, None)


def pytest_unconfigure() -> None:
    """Stop listening."""
    logging.getLogger("asyncio").removeHandler(_unheard)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run on asyncio."""
    return "asyncio"


@pytest.fixture(autouse=True)
def _hygiene(request: pytest.FixtureRequest) -> Iterator[None]:
    function = getattr(request.node, "obj", None)
    if inspect.iscoroutinefunction(function) and "anyio_backend" in request.fixturenames:
        # Set up before the test's own fixtures, so torn down after them.
        request.getfixturevalue("_no_task_left")
    yield
    assert not (messages := _unheard.take()), messages


@pytest.fixture(autouse=True, scope="module")
def _no_cycle_hides_an_exception() -> Iterator[None]:
    yield
    gc.collect()
    assert not (messages := _unheard.take()), messages


@pytest.fixture
async def _no_task_left() -> AsyncIterator[None]:
    before = _tasks()
    yield
    left = _tasks() - before
    if left:
        _, left = await asyncio.wait(left, timeout=TASKS_END_WITHIN_S)
    for task in left:
        task.cancel()
    assert not left, f"tasks left behind: {sorted(map(repr, left))}"


def _tasks() -> set["asyncio.Task[object]"]:
    return {
        task
        for task in asyncio.all_tasks()
        # anyio's test runner calls fixtures and tests by tasks of its own.
        if not getattr(task.get_coro(), "__qualname__", "").startswith("TestRunner.")
    }
