"""A replica dies, or falls silent, under load: what its clients see."""

import asyncio
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from starlette.requests import Request

from slipknot import serve
from tests.support.cluster_status import running_replicas, wait_until
from tests.support.journal import Journal
from tests.support.load import Load

CLIENTS = 6


class Notes:
    """Notes the id of each request that it begins in a file, and answers after a while."""

    def __init__(self, path: str, takes_s: float) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._takes_s = takes_s

    async def __call__(self) -> str:
        """Begin, take time, end."""
        request_id = serve.get_request_context().request_id
        os.write(self._file, f"{request_id}\n".encode())
        await asyncio.sleep(self._takes_s)
        return serve.get_replica_context().replica_id


def _run(tmp_path: Path, takes_s: float, num_replicas: int = 3) -> Path:
    deployment = serve.deployment(Notes, num_replicas=num_replicas, max_ongoing_requests=3)
    serve.run(deployment.bind(str(tmp_path / "begun"), takes_s))
    return tmp_path / "begun"


def _kill_one() -> str:
    killed, pid = next(iter(running_replicas().items()))
    os.kill(pid, signal.SIGKILL)
    return killed


@pytest.mark.timeout(60)
def test_idempotent_requests_that_were_not_begun_see_nothing_of_a_killed_replica(
    url: str, tmp_path: Path
) -> None:
    begun = _run(tmp_path, takes_s=0.05)
    with Load(url, clients=4 * CLIENTS) as load:  # more than there are slots: many wait with tickets
        for _ in range(2):
            killed = _kill_one()
            wait_until(lambda killed=killed: killed not in (now := running_replicas()) and len(now) == 3)
            load.wait_for_more(20)
    ids = set(begun.read_text().splitlines())
    assert [answer for answer in load.failures if answer.request_id not in ids] == []
    assert len(load.failures) <= 2 * 3  # what each killed replica had in its slots


@pytest.mark.timeout(60)
def test_a_request_that_may_have_begun_is_repeated_only_if_that_does_no_harm(
    url: str, tmp_path: Path
) -> None:
    _run(tmp_path, takes_s=0.0)
    with Load(url, clients=CLIENTS) as getting, Load(url, clients=CLIENTS, method="POST") as posting:
        for _ in range(3):
            killed = _kill_one()
            wait_until(lambda killed=killed: killed not in (now := running_replicas()) and len(now) == 3)
            posting.wait_for_more(20)
        getting.wait_for_more(20)
    # A fast handler has answered before it could be reported as accepted.
    assert getting.failures == []
    assert all(answer.status == 500 for answer in posting.failures)


@pytest.mark.timeout(60)
def test_a_replica_that_falls_silent_delays_its_requests_by_seconds_and_fails_none(
    url: str, tmp_path: Path, stopped: set[int]
) -> None:
    _run(tmp_path, takes_s=0.0)
    with Load(url, clients=CLIENTS) as load:
        silent, pid = next(iter(running_replicas().items()))
        stopped.add(pid)
        os.kill(pid, signal.SIGSTOP)
        stopped_s = time.monotonic()
        wait_until(lambda: time.monotonic() - stopped_s > 3.5)
        load.wait_for_more(50)
        later = load.since(time.monotonic() - 0.2)
        os.kill(pid, signal.SIGCONT)
    assert load.failures == []  # without keepalive nothing would come: the clients would give up
    assert later
    assert silent not in {answer.text for answer in later}


@pytest.mark.timeout(60)
def test_a_replica_whose_loop_is_blocked_is_not_taken_for_dead(url: str, journal: Journal) -> None:
    pen = journal.pen

    @serve.deployment(num_replicas=2)
    class Blocks:
        async def __call__(self, request: Request) -> str:
            seconds = float(request.query_params.get("s", "0"))
            if seconds:
                pen.note("blocking")
                until_s = time.monotonic() + seconds
                while time.monotonic() < until_s:
                    pass
            return str(os.getpid())

    serve.run(Blocks.bind())
    before = running_replicas()
    with ThreadPoolExecutor(1) as pool:
        blocking = pool.submit(httpx.post, url, params={"s": "5"}, timeout=30)
        journal.wait_for("blocking")
        with Load(url, clients=2) as load:
            response = blocking.result()
            load.wait_for_more(10)
    assert response.status_code == 200
    assert load.failures == []
    assert running_replicas() == before
