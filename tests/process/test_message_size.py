"""Arguments and results that are larger than one message: they are refused by name, and harm nobody else."""

from collections.abc import Iterator
from typing import Any

import pytest

from slipknot import serve
from slipknot.serve.exceptions import SerializationError
from slipknot.serve.handle import DeploymentHandle
from slipknot.testing import Cluster
from tests.support.journal import Gate

BOUND = 2 * 1024 * 1024
TOO_MUCH = BOUND + 1


@serve.deployment(max_ongoing_requests=10)
class Sizes:
    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def wait(self) -> str:
        await self._gate.passed()
        return "undisturbed"

    def length(self, data: bytes) -> int:
        return len(data)

    def make(self, size: int) -> bytes:
        return b"x" * size

    def items(self, size: int) -> Iterator[bytes]:
        yield b"first"
        yield b"x" * size

    def fail(self, size: int) -> None:
        raise ValueError("begin" + "x" * size)


@pytest.fixture
def handle(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Iterator[DeploymentHandle]:
    """The application in a cluster with small messages, with a call under way that must not notice."""
    monkeypatch.setenv("SLIPKNOT_RPC_MAX_MESSAGE_BYTES", str(BOUND))
    gate = Gate(tmp_path / "gate")
    with Cluster():
        handle = serve.run(Sizes.bind(gate))
        bystander = handle.wait.remote()
        yield handle
        gate.open()
        assert bystander.result(timeout_s=10) == "undisturbed"


def test_what_fits_travels(handle: DeploymentHandle) -> None:
    """The bound holds for arguments and results, whatever else is in their messages."""
    most = BOUND - 100  # pickle has a few bytes of its own
    assert handle.length.remote(b"x" * most).result() == most
    assert len(handle.make.remote(most).result()) == most


def test_too_large_arguments_are_refused_where_they_are_given(handle: DeploymentHandle) -> None:
    """As for arguments that cannot be pickled."""
    with pytest.raises(SerializationError, match=r"the arguments of .* are too large: 2,0.* at most 2,0"):
        handle.length.remote(b"x" * TOO_MUCH)


def test_too_large_results_fail_their_own_call(handle: DeploymentHandle) -> None:
    """The replica is not taken for lost, as nothing was."""
    with pytest.raises(SerializationError, match=r"the result of 'make' is too large: 2,0"):
        handle.make.remote(TOO_MUCH).result(timeout_s=10)
    items = handle.options(stream=True).items.remote(TOO_MUCH)
    assert next(items) == b"first"
    with pytest.raises(SerializationError, match=r"the item of 'items' is too large"):
        next(items)


def test_an_exception_with_a_very_long_text_keeps_its_beginning(handle: DeploymentHandle) -> None:
    """It is more important that its caller hears of it."""
    with pytest.raises(Exception, match=r"ValueError: begin"):
        handle.fail.remote(20 * TOO_MUCH).result(timeout_s=10)
