"""The embedded cluster that scripts measure: on a free port, and without log lines, which cost time; and its
memory.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil

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


def rss_bytes() -> Counter[str]:
    """Of this process's children, by what they are."""
    sizes: Counter[str] = Counter()
    for process in psutil.Process().children(recursive=True):
        name = next((part for part in process.cmdline() if part.startswith("slipknot_")), "other")
        sizes[name.partition(".")[0].removeprefix("slipknot_")] += process.memory_info().rss
    return sizes
