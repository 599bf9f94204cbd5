"""The way to the controller that leads, for everybody who needs one.

A cluster may have several controllers, of which one leads. Their addresses are given as one text,
"a:7000,b:7000". The link speaks to one of them at a time; whoever uses it says when that failed (`lost`) or
answered (`held`), and the link goes on to the leader that a standby named, else to the next address. Pauses
grow with every round over all of them that failed, and are bounded.

Fencing: `EpochGate` remembers the largest epoch that this process has seen. What comes with a smaller one is
from a controller that was the leader once, and is refused.
"""

import logging
from dataclasses import replace

import grpc.aio

from ..settings import RpcSettings, rpc_settings
from .channel import LEADER_KEY, RefusalLog, new_channel
from .credentials import NO_CREDENTIALS, Credentials

logger = logging.getLogger("slipknot.serve")

FIRST_PAUSE_S = 0.05
MAX_PAUSE_S = 1.0
MAX_PAUSE_BETWEEN_SEVERAL_S = 0.25
"""Where there are several controllers, a new leader is to be found soon."""
PATIENT_AFTER_ROUNDS = 16
"""Without success; then there will be no leader for longer, and many members ask."""
SEVERAL_KEEPALIVE_MS = 2_000
"""Of several controllers, one that fell silent is given up after this time without a word and as much again
without an answer. A single one has no successor to go to, so the usual times hold."""


class EpochGate:
    """The largest epoch seen; for one process. `repr` tells it."""

    def __init__(self) -> None:
        self.seen = 0

    def __repr__(self) -> str:
        return f"<EpochGate: {self.seen}>"

    def admits(self, epoch: int) -> bool:
        """It is not outdated; from now on smaller ones are."""
        if epoch < self.seen:
            return False
        self.seen = epoch
        return True


def split_addresses(text: str) -> tuple[str, ...]:
    """The addresses in "a:7000,b:7000".

    Raises:
        ValueError: There is none.
    """
    addresses = tuple(part.strip() for part in text.split(",") if part.strip())
    if not addresses:
        raise ValueError(
            "the controller's address is empty; give 'host:port' or 'unix:/path', several separated by commas"
        )
    return addresses


class ControllerLink:
    """Knows which controller to speak to. Belongs to the loop it is used on; `repr` tells the address.

    Args:
        addresses: "host:port" or "unix:/path" of all controllers, separated by commas.
        credentials: What this process proves itself with.
        settings: Bounds and timing; read from the environment if None.
    """

    def __init__(
        self,
        addresses: str,
        credentials: Credentials = NO_CREDENTIALS,
        *,
        settings: RpcSettings | None = None,
    ) -> None:
        self.addresses = split_addresses(addresses)
        self.credentials = credentials
        self.address = self.addresses[0]
        """Of the controller that is spoken to now."""
        self.is_refused = False
        """The last attempt was refused: our credentials are not accepted."""
        self._settings = settings
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._failures = 0
        self._redirects = 0
        self._refusals = RefusalLog(addresses)

    def __repr__(self) -> str:
        return f"<ControllerLink to {self.address} of {','.join(self.addresses)}>"

    @property
    def channel(self) -> grpc.aio.Channel:
        """The connection to the controller that is spoken to now."""
        channel = self._channels.get(self.address)
        if channel is None:
            settings = _settings_for(len(self.addresses), self._settings or rpc_settings())
            channel = self._channels[self.address] = new_channel(self.address, self.credentials, settings)
        return channel

    def held(self, address: str) -> None:
        """The controller at `address` answered, and leads."""
        self._failures = self._redirects = 0
        self._refusals.forget()
        self.address = address

    def lost(self, address: str, error: grpc.aio.AioRpcError | None = None) -> float:
        """The controller at `address` failed, does not lead, or ended the call; returns the seconds to wait
        before the next attempt.
        """
        self.is_refused = error is not None and self._refusals.note(error)
        if address != self.address:
            return FIRST_PAUSE_S  # somebody else has found out already
        self._failures += 1
        leader = _leader_named_by(error)
        if leader and leader != address and self._redirects < len(self.addresses):
            self._redirects += 1
            self.address = leader
            return 0.0 if self._redirects == 1 else FIRST_PAUSE_S
        self.address = self._after(address)
        if self.address == self.addresses[0]:
            self._redirects = 0
        rounds = (self._failures - 1) // len(self.addresses)
        is_soon = len(self.addresses) > 1 and rounds < PATIENT_AFTER_ROUNDS
        longest_s = MAX_PAUSE_BETWEEN_SEVERAL_S if is_soon else MAX_PAUSE_S
        return min(FIRST_PAUSE_S * 2.0 ** min(rounds, 10), longest_s)

    async def close(self) -> None:
        """Let go of all connections; calling it twice is fine."""
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            await channel.close(None)

    def _after(self, address: str) -> str:
        if address not in self.addresses:
            return self.addresses[0]
        return self.addresses[(self.addresses.index(address) + 1) % len(self.addresses)]


def _leader_named_by(error: grpc.aio.AioRpcError | None) -> str:
    if error is None:
        return ""
    for key, value in error.trailing_metadata() or ():
        if key == LEADER_KEY:
            return value.decode() if isinstance(value, bytes) else str(value)
    return ""


def _settings_for(controllers: int, settings: RpcSettings) -> RpcSettings:
    if controllers == 1:
        return settings
    return replace(
        settings,
        keepalive_time_ms=min(settings.keepalive_time_ms, SEVERAL_KEEPALIVE_MS),
        keepalive_timeout_ms=min(settings.keepalive_timeout_ms, SEVERAL_KEEPALIVE_MS),
    )
