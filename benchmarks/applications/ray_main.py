"""Run an application on Ray Serve until SIGINT: `python -m …ray_main NAME PORT [REQUEST_TIMEOUT_S]`."""

import signal
import sys
from typing import Any

import ray
from ray import serve

from . import serve_app


def main() -> None:
    """Start Ray here, and Serve on it."""
    name, port = sys.argv[1:3]
    http_options: dict[str, Any] = {"host": "127.0.0.1", "port": int(port)}
    if len(sys.argv) > 3:
        http_options["request_timeout_s"] = float(sys.argv[3])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        ray.init()
        serve.start(http_options=http_options)
        serve.run(getattr(serve_app, name))
        signal.pause()
    except KeyboardInterrupt:
        ray.shutdown()  # `serve.shutdown` waits half a minute with some switches


if __name__ == "__main__":
    main()
