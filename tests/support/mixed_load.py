"""Clients of three kinds at the same time - short requests, streams, WebSockets - behind what a load balancer
does: a proxy that takes no connection, or says that it goes, is left for the next one.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import httpx
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import connect

TIMEOUT_S = 20.0
"""No answer takes this long; a bound, not an expectation."""
PAUSE_S = 0.02
"""Between the requests of a client, so that the load is the same on every machine."""
HEALTH_PERIOD_S = 0.5
HEALTH_TIMEOUT_S = 1.0
STREAM_PAUSE_S = 0.1
"""Between the numbers of a stream."""
GOING_AWAY = (1001, 1012)
"""Codes by which a proxy or a replica says that it ends."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one request, one stream, or one message on a WebSocket."""

    kind: str
    """"short", "stream" or "socket"."""
    began_s: float
    ended_s: float
    failure: str
    """Empty: none."""


class MixedLoad:
    """Use as a context manager; `mark` begins a chapter whose outcomes are looked at by themselves.

    Args:
        urls: Of the proxies.
        short: Clients that ask one short request after another.
        streams: Clients that read one stream after another.
        sockets: Clients that send one message after another on a WebSocket.
        stream_s: How long a stream lasts.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        short: int = 3,
        streams: int = 2,
        sockets: int = 2,
        stream_s: float = 3.0,
    ) -> None:
        self._urls = urls
        self._stream_numbers = round(stream_s / STREAM_PAUSE_S)
        self._stream_clients = streams
        self._outcomes: list[Outcome] = []
        self._news = threading.Condition()
        self._ending = threading.Event()
        self._marked_s = 0.0
        clients: list[tuple[Callable[[int], None], int]] = [
            (self._ask, short),
            (self._stream, streams),
            (self._echo, sockets),
        ]
        self._is_well = [True] * len(urls)
        self._watcher = threading.Thread(target=self._watch, name="health")
        self._threads = [
            threading.Thread(target=client, args=(i,), name=f"{client.__name__}-{i}")
            for client, count in clients
            for i in range(count)
        ]

    def __enter__(self) -> Self:
        for thread in (self._watcher, *self._threads):
            thread.start()
        self.mark()
        self.wait_for_more(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in (self._watcher, *self._threads):
            thread.join()

    def mark(self) -> None:
        """Begin a chapter."""
        self._marked_s = time.monotonic()

    def outcomes(self, kind: str = "") -> list[Outcome]:
        """Those of this chapter: they ended after its beginning."""
        with self._news:
            return [o for o in self._outcomes if o.ended_s > self._marked_s and kind in ("", o.kind)]

    def failures(self, kind: str = "") -> list[Outcome]:
        """Those that failed."""
        return [o for o in self.outcomes(kind) if o.failure]

    def is_well(self, index: int) -> bool:
        """The last health check of a proxy was answered well."""
        return self._is_well[index]

    def longest_wait_s(self) -> float:
        """Of a short request that was answered well."""
        return max((o.ended_s - o.began_s for o in self.outcomes("short") if not o.failure), default=0.0)

    def longest_gap_s(self) -> float:
        """The longest time without a good answer to a short request."""
        times = [o.ended_s for o in self.outcomes("short") if not o.failure]
        return max((later - earlier for earlier, later in pairwise(times)), default=0.0)

    def wait_for_more(self, count: int) -> None:
        """Wait until so many short requests that begin from now on were answered well."""
        began_s = time.monotonic()

        def have_come() -> bool:
            good = (o for o in self._outcomes if o.kind == "short" and not o.failure and o.began_s > began_s)
            return sum(1 for _ in good) >= count

        with self._news:
            assert self._news.wait_for(have_come, TIMEOUT_S), f"no answers: {self._outcomes[-5:]}"

    # --- inside -------------------------------------------------------------------------------------------

    def _note(self, kind: str, began_s: float, failure: str = "") -> None:
        with self._news:
            self._outcomes.append(Outcome(kind, began_s, time.monotonic(), failure))
            self._news.notify_all()

    def _watch(self) -> None:
        """The health checks of a load balancer."""
        with httpx.Client(timeout=HEALTH_TIMEOUT_S) as client:
            while not self._ending.wait(HEALTH_PERIOD_S):
                for i, url in enumerate(self._urls):
                    try:
                        self._is_well[i] = client.get(f"{url}/-/healthz").status_code == 200
                    except httpx.HTTPError:
                        self._is_well[i] = False

    def _url(self, index: int) -> str:
        count = len(self._urls)
        wells = (self._urls[(index + i) % count] for i in range(count) if self._is_well[(index + i) % count])
        return next(wells, self._urls[index % count])

    def _ask(self, index: int) -> None:
        misses = 0
        with httpx.Client(timeout=TIMEOUT_S) as client:
            while not self._ending.wait(PAUSE_S):
                began_s = time.monotonic()
                try:
                    response = client.get(self._url(index + misses))
                except httpx.ConnectError:
                    misses += 1  # it has not even been sent: a balancer goes on to the next one
                    continue
                except httpx.HTTPError as error:
                    self._note("short", began_s, repr(error))
                    misses += 1
                    continue
                misses = 0
                self._note(
                    "short",
                    began_s,
                    "" if response.status_code == 200 else f"{response.status_code} {response.text}",
                )

    def _stream(self, index: int) -> None:
        misses = 0
        # The first ones are shorter, so that not all begin at the same time for ever.
        numbers = self._stream_numbers * (index + 1) // self._stream_clients
        with httpx.Client(timeout=TIMEOUT_S) as client:
            while not self._ending.wait(PAUSE_S):
                began_s = time.monotonic()
                query = f"/count?up_to={numbers}&pause_s={STREAM_PAUSE_S}"
                expected = "".join(f"{n}\n" for n in range(numbers))
                try:
                    text = client.get(self._url(index + misses) + query).text
                except httpx.ConnectError:
                    misses += 1
                    continue
                except httpx.HTTPError as error:
                    self._note("stream", began_s, repr(error))
                    misses += 1
                    continue
                misses = 0
                self._note("stream", began_s, "" if text == expected else f"cut or refused: {text[-80:]!r}")
                numbers = self._stream_numbers

    def _echo(self, index: int) -> None:
        while not self._ending.is_set():
            began_s = time.monotonic()
            url = self._url(index).replace("http://", "ws://")
            index += 1
            try:
                with connect(f"{url}/echo", open_timeout=TIMEOUT_S, close_timeout=1, proxy=None) as socket:
                    self._echo_on(socket)
            except ConnectionClosed as error:
                code = error.rcvd.code if error.rcvd else 1006
                if code not in GOING_AWAY:
                    self._note("socket", began_s, f"closed with {code}")
            except (OSError, InvalidHandshake, TimeoutError) as error:
                if not isinstance(error, ConnectionError):
                    self._note("socket", began_s, repr(error))
                self._ending.wait(PAUSE_S)

    def _echo_on(self, socket: "contextlib.AbstractContextManager[object]") -> None:
        number = 0
        while not self._ending.wait(PAUSE_S):
            began_s = time.monotonic()
            socket.send(str(number))  # type: ignore[attr-defined]
            answer = socket.recv(timeout=TIMEOUT_S)  # type: ignore[attr-defined]
            self._note("socket", began_s, "" if answer == str(number) else f"{answer!r} is not {number}")
            number += 1
