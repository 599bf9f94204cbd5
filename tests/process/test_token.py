"""A cluster whose members prove themselves with a token, as they must on TCP, works like any other."""

import os
import subprocess
import sys

SCRIPT = """
import httpx
from slipknot import serve

@serve.deployment
class Inner:
    def __call__(self): return "through"

@serve.deployment
class Outer:
    def __init__(self, inner): self._inner = inner
    async def __call__(self): return await self._inner.remote()

serve.start(http_options={"port": 0})
serve.run(Outer.bind(Inner.bind()))
print("answer:", httpx.get(serve.http_url()).text)
serve.shutdown()
"""


def test_an_embedded_cluster_with_a_token() -> None:
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "SLIPKNOT_CLUSTER_TOKEN": "secret"},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert "answer: through" in run.stdout, run.stderr
    assert run.returncode == 0
