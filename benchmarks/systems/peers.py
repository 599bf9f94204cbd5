"""Ray Serve, BentoML and LitServe, each with its defaults, from a virtual environment of their own."""

import os
from collections.abc import Mapping

from .system import ROOT, Command, Setting

PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"


def _missing(package: str) -> str | None:
    if not PEERS_PYTHON.exists():
        return "no .venv-peers; make bench-peers makes it"
    if not list(PEERS_PYTHON.parent.parent.glob(f"lib/python*/site-packages/{package}")):
        return f"{package} could not be installed in .venv-peers"
    return None


class Ray:
    """Ray Serve on a Ray that it starts itself."""

    start_within_s = 120.0
    end_within_s = 30.0

    def __init__(self, name: str, environment: Mapping[str, str]) -> None:
        self.name = name
        self._environment = {"SLIPKNOT_BENCHMARK_SERVE": "ray", **environment}

    def missing(self) -> str | None:
        """Ray, where it is not installed."""
        return _missing("ray")

    def applications(self) -> frozenset[str]:
        """All: the API is the same."""
        return frozenset({"plain", "fastapi", "chain", "overload"})

    def commands(self, application: str, setting: Setting) -> list[Command]:
        """A script that calls `serve.run`, as `serve run` takes no port."""
        command = [
            str(PEERS_PYTHON),
            "-m",
            "benchmarks.applications.ray_main",
            application,
            str(setting.port),
        ]
        if timeout_s := setting.options.get("request_timeout_s"):
            command.append(str(timeout_s))
        return [Command(command, self._environment)]

    def ready_path(self, application: str) -> str:
        """The no-op."""
        return "/"


class BentoML:
    """BentoML with the FastAPI application mounted in a service."""

    name = "bentoml"
    start_within_s = 60.0
    end_within_s = 20.0

    def missing(self) -> str | None:
        """BentoML, where it is not installed."""
        return _missing("bentoml")

    def applications(self) -> frozenset[str]:
        """What it can mount; its own API takes the place of the plain handler."""
        return frozenset({"plain", "fastapi", "chain"})

    def commands(self, application: str, setting: Setting) -> list[Command]:
        """`bentoml serve`."""
        command = [str(PEERS_PYTHON.with_name("bentoml")), "serve"]
        command.append(f"benchmarks.applications.bentoml_app:{application.capitalize()}")
        command += ["--host", "127.0.0.1", "--port", str(setting.port)]
        environment = {"BENTOML_DO_NOT_TRACK": "1", "BENTOML_HOME": str(setting.directory)}
        path = f"{PEERS_PYTHON.parent}{os.pathsep}{os.environ['PATH']}"
        return [Command(command, environment | {"PATH": path})]

    def ready_path(self, application: str) -> str:
        """The no-op; of its own API, which takes no GET, the health check."""
        return "/readyz" if application == "plain" else "/"


class LitServe:
    """LitServe: a server process and a worker process; its own API, by POST."""

    name = "litserve"
    start_within_s = 60.0
    end_within_s = 20.0

    def missing(self) -> str | None:
        """LitServe, where it is not installed."""
        return _missing("litserve")

    def applications(self) -> frozenset[str]:
        """Its own API only, which takes the place of the plain handler."""
        return frozenset({"plain"})

    def commands(self, application: str, setting: Setting) -> list[Command]:
        """A script that runs the server."""
        return [Command([str(PEERS_PYTHON), "-m", "benchmarks.applications.litserve_app", str(setting.port)])]

    def ready_path(self, application: str) -> str:
        """Its health check: 200 once the worker is there."""
        return "/health"
