"""Log lines of a whole cluster, as a script's console shows them."""

import json
import re
from pathlib import Path

from .test_main_module import run_script


def test_json_lines_name_the_request_and_where_it_ran(tmp_path: Path) -> None:
    out, err = run_script(
        tmp_path,
        """
@serve.deployment
def says(request):
    logger.warning("said")
    return "hi"

if __name__ == "__main__":
    serve.start(http_options={"port": 0})
    serve.run(says.bind(), name="app", logging_config={"encoding": "JSON"})
    httpx.get(serve.http_url(), headers={"x-request-id": "req-2"})
    serve.shutdown()
""",
    )
    lines = re.findall(r"^\(ServeReplica:app_says pid=\d+\) (\{.*\})$", out + err, re.M)
    (said,) = [entry for entry in map(json.loads, lines) if entry["message"] == "said"]
    assert said["request_id"] == "req-2" and said["levelname"] == "WARNING"
    assert (said["application"], said["deployment"], said["route"]) == ("app", "says", "/")


def test_an_error_has_its_traceback_and_a_client_that_left_has_none(tmp_path: Path) -> None:
    out, err = run_script(
        tmp_path,
        """
import asyncio
from pathlib import Path

@serve.deployment
async def handler(request):
    if request.url.path == "/fail":
        raise ValueError("odd")
    try:
        await asyncio.sleep(60)
    finally:
        Path("cancelled").touch()

if __name__ == "__main__":
    serve.start(http_options={"port": 0})
    serve.run(handler.bind(), name="app")
    assert httpx.get(serve.http_url() + "/fail", headers={"x-request-id": "bad"}).status_code == 500
    try:
        httpx.get(serve.http_url() + "/wait", headers={"x-request-id": "req-gone"}, timeout=0.5)
    except httpx.ReadTimeout:
        pass
    while not Path("cancelled").exists():
        time.sleep(0.01)
    serve.shutdown()
""",
    )
    both = out + err
    assert re.search(r"ERROR .*bad", both) and "ValueError: odd" in both, both
    gone = [line for line in both.splitlines() if "req-gone" in line]
    assert any(re.search(r"INFO .*GET / 499 [\d.]+ms", line) for line in gone), both
    assert any("[req-gone] -- Client for request req-gone disconnected" in line for line in gone), both
    assert not any("ERROR" in line or "WARNING" in line for line in gone), both
    assert "CancelledError" not in both
