"""From the start of the process to the first 200, and what importing takes."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator

from ..effort import Effort
from ..figures import Figure
from ..systems.peers import PEERS_PYTHON
from ..systems.slipknot import SlipknotScript
from ..systems.system import Running
from .metric import Metric

IMPORTS = {
    "slipknot": (sys.executable, "from slipknot import serve"),
    "floor": (sys.executable, "import uvicorn, fastapi"),
    "ray": (str(PEERS_PYTHON), "from ray import serve"),
    "bentoml": (str(PEERS_PYTHON), "import bentoml"),
    "litserve": (str(PEERS_PYTHON), "import litserve"),
}


async def _start(running: Running, effort: Effort) -> AsyncIterator[list[Figure]]:
    # The start of this round has happened already.
    yield [Figure("start", "first 200", "time", running.start_s, "s")]
    if running.system.name == "slipknot":
        yield [
            Figure("start", "first 200, script", "time", await asyncio.to_thread(_start_script, running), "s")
        ]
    if running.system.name in IMPORTS:
        python, statement = IMPORTS[running.system.name]
        times_s = [await _run(python, statement) for _ in range(effort.starts)]
        bare_s = min([await _run(python, "pass") for _ in range(effort.starts)])
        yield [
            Figure("start", "import", "time", min(times_s), "s"),
            Figure("start", "import", "without that of Python", min(times_s) - bare_s, "s"),
        ]


def _start_script(running: Running) -> float:
    script = Running(SlipknotScript(), "fastapi", running.directory)
    try:
        script.start()
    finally:
        script.stop()
    return script.start_s


async def _run(python: str, statement: str) -> float:
    begun_s = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        python, "-c", statement, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    if await process.wait() != 0:
        raise RuntimeError(f"{statement} failed")
    return time.monotonic() - begun_s


START = Metric("start", "fastapi", _start)
