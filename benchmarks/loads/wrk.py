"""wrk, run and read."""

import asyncio
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

POST_SCRIPT = Path(__file__).with_name("post.lua")
MISSING = "wrk is not installed; on Debian: apt-get install wrk"

_UNITS_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}


@dataclass(frozen=True)
class Post:
    """What to post: a text, or that many bytes."""

    content_type: str
    text: str = ""
    size_bytes: int = 0


@dataclass(frozen=True)
class Outcome:
    """What wrk said about one run."""

    requests: int
    rate: float
    p50_ms: float
    p99_ms: float
    errors: int
    """Connections that failed, timeouts, and bad answers."""
    bad_answers: int
    """Those other than 2xx and 3xx."""


def is_installed() -> bool:
    """Whether there is a wrk."""
    return shutil.which("wrk") is not None


async def run(url: str, *, connections: int, seconds: float, post: Post | None = None) -> Outcome:
    """Keep `connections` busy with one request each for `seconds`."""
    command = [
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{max(1, round(seconds))}s",
        "--latency",
        "--timeout",
        "8s",
    ]
    environment = dict(os.environ)
    if post is not None:
        command += ["-s", str(POST_SCRIPT)]
        environment |= {
            "POST_TYPE": post.content_type,
            "POST_TEXT": post.text,
            "POST_BYTES": str(post.size_bytes),
        }
    process = await asyncio.create_subprocess_exec(
        *command, url, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env=environment
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return parse(output.decode())


def parse(output: str) -> Outcome:
    """The figures in what `wrk --latency` prints."""
    requests = re.search(r"(\d+) requests in", output)
    rate = re.search(r"Requests/sec:\s*([\d.]+)", output)
    if requests is None or rate is None:
        raise ValueError(f"wrk said: {output.strip()}")
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", output)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    failed = sum(map(int, errors.groups())) if errors else 0
    bad_answers = int(refused[1]) if refused else 0
    return Outcome(
        int(requests[1]),
        float(rate[1]),
        _percentile_ms(output, 50),
        _percentile_ms(output, 99),
        failed + bad_answers,
        bad_answers,
    )


def _percentile_ms(output: str, percent: int) -> float:
    found = re.search(rf"^\s*{percent}%\s+([\d.]+)(us|ms|s|m)\s*$", output, re.MULTILINE)
    if found is None:
        raise ValueError(f"wrk said: {output.strip()}")
    return float(found[1]) * _UNITS_MS[found[2]]
