"""The fault tests of a module share one embedded cluster."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from slipknot import serve
from tests.support.journal import Journal


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """An embedded cluster."""
    serve.start(http_options={"port": 0})
    yield serve.http_url()
    serve.shutdown()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """What handlers note."""
    with Journal(tmp_path) as open_journal:
        yield open_journal


@pytest.fixture
def stopped() -> Iterator[set[int]]:
    """Pids to let go on at the end of the test, if they still can."""
    pids: set[int] = set()
    yield pids
    for pid in pids:
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            continue
