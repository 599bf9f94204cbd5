"""Applications with an import path, for configs."""

import time
from typing import Any

from slipknot import serve


@serve.deployment
class Says:
    """Says a text, and its user config."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._config: Any = None
        self._count = 0

    def reconfigure(self, config: Any) -> None:
        """Take a config."""
        self._config = config
        self._count += 1

    async def __call__(self) -> Any:
        """Say all."""
        return [self._text, self._config, self._count]


def says(args: dict[str, str]) -> serve.Application:
    """Build it with the text of the config's args."""
    return Says.bind(args["text"])


app = Says.bind("fixed")


def broken(args: dict[str, str]) -> serve.Application:
    """A builder that fails."""
    raise ZeroDivisionError("no such application today")


@serve.deployment(name="Says")
class StartsSlowly(Says.func_or_class):  # type: ignore[name-defined]
    """The same, after a while."""

    def __init__(self, text: str) -> None:
        time.sleep(0.5)
        super().__init__(text)


def slow(args: dict[str, str]) -> serve.Application:
    """The builder of one that takes its time."""
    return StartsSlowly.bind(args["text"])


@serve.deployment
class Front:
    """Calls another deployment."""

    def __init__(self, back: Any) -> None:
        self._back = back

    async def __call__(self) -> Any:
        """What that one says."""
        return await self._back.remote()


pair = Front.bind(Says.bind("behind"))
