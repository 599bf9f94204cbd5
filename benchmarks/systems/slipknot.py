"""slipknot, as a user runs it: `slipknot run`, access log on."""

import json
from pathlib import Path

from .system import PYTHON, ROOT, Command, Setting

APPLICATIONS = frozenset({"plain", "fastapi", "chain", "overload"})


class Slipknot:
    """An embedded cluster: controller, node agent, proxy, and a replica for each deployment."""

    name = "slipknot"
    start_within_s = 60.0
    end_within_s = 20.0

    def missing(self) -> str | None:
        """Nothing."""
        return None

    def applications(self) -> frozenset[str]:
        """All."""
        return APPLICATIONS

    def commands(self, application: str, setting: Setting) -> list[Command]:
        """`slipknot run`, with a config file where options are wanted."""
        command = [str(Path(PYTHON).with_name("slipknot")), "run"]
        if setting.options:
            command.append(str(_config_file(application, setting)))
        else:
            command.append(f"benchmarks.applications.serve_app:{application}")
        return [Command([*command, "--app-dir", str(ROOT), "--port", str(setting.port)])]

    def ready_path(self, application: str) -> str:
        """The no-op."""
        return "/"


class SlipknotScript(Slipknot):
    """The same, started by a script that calls `serve.run`."""

    name = "slipknot-script"

    def commands(self, application: str, setting: Setting) -> list[Command]:
        """`python script.py`; serves the FastAPI application only."""
        return [Command([PYTHON, "-m", "benchmarks.applications.script", str(setting.port)])]


def _config_file(application: str, setting: Setting) -> Path:
    options = dict(setting.options)
    deployments = [{"name": options.pop("deployment"), **options}] if "deployment" in options else []
    config = {
        "http_options": {} if deployments else options,
        "applications": [
            {
                "name": "default",
                "route_prefix": "/",
                "import_path": f"benchmarks.applications.serve_app:{application}",
                "deployments": deployments,
            }
        ],
    }
    path = setting.directory / "config.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML
    return path
