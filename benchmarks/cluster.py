"""The embedded cluster that scripts measure: on a free port, and without log lines, which cost time."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from slipknot import serve

QUIET = {"enable_access_log": False, "log_level": "ERROR"}


@contextmanager
def quiet_cluster(application: serve.Application, **http_options: Any) -> Iterator[None]:
    """Serve an application while the block runs; `serve.http_url()` tells where."""
    serve.start(http_options={"port": 0, **http_options}, logging_config=QUIET)
    try:
        serve.run(application, logging_config=QUIET)
        yield
    finally:
        serve.shutdown()
