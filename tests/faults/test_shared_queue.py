"""`max_queued_requests` holds over all callers together."""

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest

from slipknot import serve
from slipknot.serve.exceptions import BackPressureError
from tests.support.cluster_status import wait_until
from tests.support.extra_proxy import ExtraProxy
from tests.support.journal import Gate, Journal

BOUND = 20
SLOTS = 2


@pytest.fixture(scope="module")
def proxies(url: str) -> Iterator[list[ExtraProxy]]:
    """Two, so that there are three with the cluster's own."""
    with ExtraProxy() as first, ExtraProxy() as second:
        yield [first, second]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """Of requests that have got a slot."""
    with Journal(tmp_path) as journal:
        yield journal


@pytest.fixture
def gate(tmp_path: Path, journal: Journal, proxies: list[ExtraProxy]) -> Iterator[Gate]:
    """Holds the handlers of an application with one slot on each of two replicas."""
    gate = Gate(tmp_path / "gate")
    pen = journal.pen

    @serve.deployment(
        num_replicas=2,
        max_ongoing_requests=1,
        max_queued_requests=BOUND,
        backpressure_config={"retry_after_s": 7},
    )
    class Holds:
        async def __call__(self) -> str:
            if not gate.is_open():  # nobody reads the notes of all the others
                pen.note("has a slot")
            await gate.passed()
            return "through"

    # A prefix of its own: each proxy is waited for until it has heard of this application, not of the last.
    prefix = f"/{tmp_path.name}"
    serve.run(Holds.bind(), route_prefix=prefix)
    for proxy in proxies:
        proxy.prefix = prefix
        wait_until(lambda proxy=proxy: prefix in httpx.get(f"{proxy.url}/-/routes").json())
    yield gate
    gate.open()
    serve.delete("default")


class Requests:
    """Requests under way and what came back already."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._futures: list[Future[int]] = []
        self._statuses: Counter[int] = Counter()
        self._lock = threading.Lock()

    def send(self, count: int, call: Callable[[], int]) -> None:
        """Begin `count` of them at once."""
        for _ in range(count):
            future = self._pool.submit(call)
            future.add_done_callback(self._ended)
            self._futures.append(future)

    def refused(self, status: int = 503) -> int:
        """How many so far."""
        with self._lock:
            return self._statuses[status]

    def statuses(self) -> Counter[int]:
        """Of all, once the last has come back."""
        for future in self._futures:
            future.result()
        with self._lock:
            return Counter(self._statuses)

    def _ended(self, future: Future[int]) -> None:
        with self._lock:
            self._statuses[future.result()] += 1


@pytest.fixture
def requests(gate: Gate) -> Iterator[Requests]:
    """Room for all."""
    with ThreadPoolExecutor(4 * BOUND) as pool:
        yield Requests(pool)
        gate.open()  # or a test that has failed would wait for ever


def _get(proxy: ExtraProxy) -> Callable[[], int]:
    def get() -> int:
        # Not httpx: a client of it costs more than the request.
        connection = HTTPConnection("127.0.0.1", proxy.port, timeout=40)
        try:
            connection.request("GET", proxy.prefix)
            response = connection.getresponse()
            assert response.status != 503 or response.headers["retry-after"] == "7"
            response.read()
            return response.status
        finally:
            connection.close()

    return get


def _call() -> int:
    try:
        return 200 if serve.get_app_handle("default").remote().result(timeout_s=40) == "through" else 0
    except BackPressureError:
        return 503


@pytest.mark.timeout(60)
@pytest.mark.parametrize("parts", [(1.0, 0.0, 0.0), (0.5, 0.5, 0.0), (0.6, 0.2, 0.2)])
def test_the_queue_is_as_long_as_it_says_however_the_load_is_spread(
    proxies: list[ExtraProxy],
    gate: Gate,
    journal: Journal,
    requests: Requests,
    parts: tuple[float, float, float],
) -> None:
    # First those that take the slots: all that comes then is for the queue.
    requests.send(SLOTS, _get(proxies[0]))
    journal.wait_for("has a slot", SLOTS)
    for part, call in zip(parts, (_get(proxies[0]), _get(proxies[1]), _call), strict=True):
        requests.send(round(part * 3 * BOUND), call)
    wait_until(lambda: requests.refused() >= 2 * BOUND - BOUND / 10, timeout_s=40)
    gate.open()
    statuses = requests.statuses()
    assert statuses[200] + statuses[503] == SLOTS + 3 * BOUND
    assert abs(statuses[503] - 2 * BOUND) <= BOUND / 10


@pytest.mark.timeout(60)
def test_places_of_a_proxy_that_was_killed_are_free_again(
    url: str, gate: Gate, requests: Requests, proxies: list[ExtraProxy]
) -> None:
    with ExtraProxy(prefix=proxies[0].prefix) as killed, ThreadPoolExecutor(BOUND + SLOTS + 1) as lost:
        get = _get(killed)
        doomed = [lost.submit(get) for _ in range(BOUND + SLOTS + 1)]
        wait_until(lambda: any(future.done() for future in doomed))  # the queue is full
        requests.send(2, _get(proxies[0]))
        assert requests.statuses() == {503: 2}
        os.kill(killed.pid, signal.SIGKILL)

    def is_taken() -> bool:
        """Whether a request waits instead of being refused."""
        try:
            return httpx.get(proxies[0].url + proxies[0].prefix, timeout=0.3).status_code == 200
        except httpx.ReadTimeout:
            return True

    assert wait_until(is_taken)
