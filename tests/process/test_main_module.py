"""Scripts as users run them: `python script.py`, all in `__main__`, and what the console shows."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support.console import own_output

HEAD = """
import logging, time
import httpx
from fastapi import FastAPI
from slipknot import serve

logger = logging.getLogger("slipknot.serve")
"""


def run_script(directory: Path, body: str) -> tuple[str, str]:
    """Standard output and standard error of a script that ends well."""
    script = directory / "script.py"
    script.write_text(HEAD + body)
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=directory,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_a_class_of_main_with_a_fastapi_app_and_a_class_of_a_function(tmp_path: Path) -> None:
    out, err = run_script(
        tmp_path,
        """
api = FastAPI()

def make():
    @serve.deployment
    class Inner:
        def __call__(self, value):
            print("printed inside")
            return value + 1
    return Inner

@serve.deployment
@serve.ingress(api)
class Outer:
    def __init__(self, inner):
        self.inner = inner

    @api.get("/next/{value}")
    async def next(self, value: int) -> int:
        logger.info("logged inside")
        return await self.inner.remote(value)

space = {"serve": serve}
exec("class Cell:\\n    def __call__(self):\\n        return 'cell'\\n", space)

if __name__ == "__main__":
    serve.start(http_options={"port": 0})
    serve.run(Outer.bind(make().bind()), name="app")
    answer = httpx.get(serve.http_url() + "/next/4", headers={"x-request-id": "req-1"})
    print("answer", answer.text)
    cell = serve.run(serve.deployment(space["Cell"]).bind(), name="cell", route_prefix="/cell")
    print("cell says", cell.remote().result())
    serve.shutdown()
""",
    )
    both = out + err
    assert own_output(out).startswith("answer 5\ncell says cell\n")
    assert re.search(r"\(ServeReplica:app_Inner pid=\d+\) printed inside$", both, re.M), both
    prefix = r"^\(ServeReplica:app_Outer pid=\d+\) "
    line = prefix + r"INFO \d{4}-\d\d-\d\d [\d:]{8},\d{3} app_Outer \S+ \[?req-1\]? .*"
    assert re.search(line + "logged inside$", both, re.M), both
    assert re.search(line + r"GET /next/\{value\} 200 [\d.]+ms$", both, re.M), both
    assert re.search(
        r"^\(ServeReplica:app_Inner pid=\d+\) INFO .*req-1.* CALL __call__ OK [\d.]+ms$", both, re.M
    )
