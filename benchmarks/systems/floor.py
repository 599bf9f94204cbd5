"""Bare uvicorn with the same FastAPI application: what serving costs without a cluster."""

from ..applications.asgi import LEAF_VARIABLE, MIDDLE_VARIABLE
from .system import PYTHON, Command, Setting, free_port

APPLICATIONS = frozenset({"plain", "fastapi", "chain"})


def uvicorn(application: str, port: int, environment: dict[str, str] | None = None) -> Command:
    """One process, with uvicorn's defaults: access log, uvloop and httptools where they are installed."""
    target = f"benchmarks.applications.asgi:{application}"
    command = [PYTHON, "-m", "uvicorn", target, "--host", "127.0.0.1", "--port", str(port)]
    return Command(command, environment or {}, port)


def uvicorns(application: str, port: int) -> list[Command]:
    """The one that clients talk to last, after those that it calls."""
    if application != "chain":
        return [uvicorn(application, port)]
    leaf, middle = free_port(), free_port()
    environment = {LEAF_VARIABLE: str(leaf), MIDDLE_VARIABLE: str(middle)}
    return [
        uvicorn("leaf", leaf),
        uvicorn("middle", middle, environment),
        uvicorn("chain", port, environment),
    ]


class Floor:
    """uvicorn; a call between deployments is an HTTP request to another uvicorn."""

    name = "floor"
    start_within_s = 60.0
    end_within_s = 10.0

    def missing(self) -> str | None:
        """Nothing: uvicorn is a dependency of slipknot."""
        return None

    def applications(self) -> frozenset[str]:
        """All but those that need a bounded queue."""
        return APPLICATIONS

    def commands(self, application: str, setting: Setting) -> list[Command]:
        """uvicorn, for each server of the chain."""
        return uvicorns(application, setting.port)

    def ready_path(self, application: str) -> str:
        """The no-op."""
        return "/"
