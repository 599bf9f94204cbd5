"""The no-op as a LitServe API: `python -m benchmarks.applications.litserve_app PORT`."""

import sys
from typing import Any

import litserve


class Noop(litserve.LitAPI):
    """Answers."""

    def setup(self, device: str) -> None:
        """No model."""

    def predict(self, x: Any) -> str:
        """Answer."""
        return "ok"


if __name__ == "__main__":
    server = litserve.LitServer(Noop(), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False)
