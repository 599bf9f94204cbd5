"""Clients that ask one request after another, and keep what became of each."""

import threading
import time
from dataclasses import dataclass
from itertools import count, pairwise
from typing import Self

import httpx

WAIT_S = 20.0
"""Nothing that is waited for takes this long; a bound, not an expectation."""
PAUSE_AFTER_ERROR_S = 0.01


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client got. `status` 0: no response, and `text` says why. Times are those of
    `time.monotonic`.
    """

    began_s: float
    ended_s: float
    status: int
    text: str
    request_id: str = ""

    @property
    def took_s(self) -> float:
        """From the request to the end of the answer."""
        return self.ended_s - self.began_s


class Load:
    """`clients` threads, each with a connection that it keeps while it can. Use as a context manager."""

    def __init__(self, url: str, clients: int = 2, timeout_s: float = WAIT_S, method: str = "GET") -> None:
        self._url = url
        self._method = method
        self._ids = count()
        self._timeout_s = timeout_s
        self._answers: list[Answer] = []
        self._news = threading.Condition()
        self._is_ending = False
        self._threads = [threading.Thread(target=self._ask, name=f"client-{i}") for i in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        self.wait_for_more(1)
        return self

    def __exit__(self, *_: object) -> None:
        self._is_ending = True
        for thread in self._threads:
            thread.join()

    @property
    def answers(self) -> list[Answer]:
        """All so far, in the order of their end."""
        with self._news:
            return list(self._answers)

    @property
    def failures(self) -> list[Answer]:
        """Those that are not 200."""
        return [answer for answer in self.answers if answer.status != 200]

    @property
    def longest_gap_s(self) -> float:
        """The longest time without a good answer."""
        times = [answer.ended_s for answer in self.answers if answer.status == 200]
        return max((later - earlier for earlier, later in pairwise(times)), default=0.0)

    @property
    def slowest_s(self) -> float:
        """The longest time that a client waited for an answer, good or not."""
        return max((answer.took_s for answer in self.answers), default=0.0)

    def since(self, began_s: float) -> list[Answer]:
        """Answers to requests that began later."""
        return [answer for answer in self.answers if answer.began_s > began_s]

    def wait_for_more(self, number: int) -> None:
        """Wait until so many requests that begin from now on were answered with 200."""
        began_s = time.monotonic()

        def has_come() -> bool:
            return sum(a.status == 200 and a.began_s > began_s for a in self._answers) >= number

        with self._news:
            assert self._news.wait_for(has_come, WAIT_S), f"no good answers any more: {self._answers[-5:]}"

    def _ask(self) -> None:
        with httpx.Client(timeout=self._timeout_s) as client:
            while not self._is_ending:
                began_s, request_id = time.monotonic(), f"load-{next(self._ids)}"
                try:
                    headers = {"x-request-id": request_id}
                    response = client.request(self._method, self._url, headers=headers)
                    status, text = response.status_code, response.text
                except httpx.HTTPError as error:
                    status, text = 0, repr(error)
                with self._news:
                    self._answers.append(Answer(began_s, time.monotonic(), status, text, request_id))
                    self._news.notify_all()
                if status != 200:
                    time.sleep(PAUSE_AFTER_ERROR_S)
