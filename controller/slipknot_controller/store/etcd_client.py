"""The part of an etcd client that a store and an election need: calls that find a member that answers.

A call is made of short attempts under one deadline. An attempt that fails goes on at the next member, so a
member that is dead, frozen or cut off costs one attempt; where all are slow the attempts get longer. An
attempt without an answer may have taken effect: `Answer.is_repeated` says that there was one, and every
change made through here can be made twice without harm (a transaction that compares revisions, a lease whose
id we chose).
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import grpc
import grpc.aio

from slipknot_core.deadline import Deadline
from slipknot_core.rpc.channel import never_connected
from slipknot_proto.etcd.v1 import etcd_pb2

from .interface import StoreRefused, StoreUnavailable

logger = logging.getLogger("slipknot.serve")

Message = TypeVar("Message")

ATTEMPT_TIMEOUT_S = 0.4
"""For the first attempt at each member; doubled with every round over all members that failed."""
MAX_ATTEMPT_TIMEOUT_S = 1.6
MIN_ATTEMPT_TIMEOUT_S = 0.05
ROUND_PAUSE_S = 0.05
"""After a round over all members that failed."""
MAX_MESSAGE_BYTES = 256 * 1024 * 1024
"""Of an answer; what etcd takes in one request is much less."""

_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 50),
    # Also what a connection, with its TLS handshake, has to be made in.
    ("grpc.min_reconnect_backoff_ms", 400),
    ("grpc.max_reconnect_backoff_ms", 500),
    # Not more often than etcd allows by default (5 s); what must be noticed sooner has deadlines of its own.
    ("grpc.keepalive_time_ms", 6_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.http2.ping_timeout_ms", 2_000),
    # Members get connections of their own, whatever else this process does.
    ("grpc.use_local_subchannel_pool", 1),
]

_PASSING = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)
"""What another member, or the same one a moment later, may answer differently."""
_NO_SPACE = "database space exceeded"
"""The quota is used up: nothing is written until somebody makes room and takes the alarm back."""
_STALE_TOKEN = ("invalid auth token", "auth: revision", "user name is empty")

LEADER_METADATA = (("hasleader", "true"),)
"""Has a member that has lost its cluster say so, instead of being silent."""


@dataclass(frozen=True, slots=True)
class EtcdOptions:
    """How an etcd cluster is reached."""

    endpoints: tuple[str, ...]
    """"host:port" of its members."""
    user: str = ""
    """Empty: no authentication by name."""
    password: str = field(default="", repr=False)
    ca_file: str = ""
    """PEM of the CA that signs the members' certificates. With it, or with `cert_file`, TLS is spoken."""
    cert_file: str = ""
    key_file: str = ""
    call_timeout_s: float = 5.0
    """For a call with all its attempts."""

    @property
    def uses_tls(self) -> bool:
        """Members are spoken to over TLS."""
        return bool(self.ca_file or self.cert_file)


@dataclass(frozen=True, slots=True)
class Method(Generic[Message]):
    """One unary RPC of etcd's."""

    path: str
    answer: type[Message]


RANGE = Method("/etcdserverpb.KV/Range", etcd_pb2.RangeResponse)
TXN = Method("/etcdserverpb.KV/Txn", etcd_pb2.TxnResponse)
LEASE_GRANT = Method("/etcdserverpb.Lease/LeaseGrant", etcd_pb2.LeaseGrantResponse)
LEASE_REVOKE = Method("/etcdserverpb.Lease/LeaseRevoke", etcd_pb2.LeaseRevokeResponse)
AUTHENTICATE = Method("/etcdserverpb.Auth/Authenticate", etcd_pb2.AuthenticateResponse)
KEEP_ALIVE_PATH = "/etcdserverpb.Lease/LeaseKeepAlive"
WATCH_PATH = "/etcdserverpb.Watch/Watch"


@dataclass(frozen=True, slots=True)
class Answer(Generic[Message]):
    """What a call gave."""

    message: Message
    is_repeated: bool
    """An attempt before this one may have taken effect."""


class EtcdClient:
    """Speaks to one member at a time. Belongs to the loop it is used on; `repr` tells the member.

    Args:
        options: Where the members are and who we are.
        read_file: Reads a PEM file.
    """

    def __init__(self, options: EtcdOptions, read_file: Callable[[str], bytes] | None = None) -> None:
        self._options = options
        self._credentials = _tls_credentials(options, read_file or _read_file)
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._at = 0
        self._token = ""
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<EtcdClient at {self.endpoint} of {len(self._options.endpoints)}>"

    @property
    def endpoint(self) -> str:
        """The member that is spoken to now."""
        return self._options.endpoints[self._at]

    def move_on(self, endpoint: str) -> None:
        """`endpoint` does not answer: speak to the next one, unless that is done already."""
        if endpoint == self.endpoint:
            self._at = (self._at + 1) % len(self._options.endpoints)

    async def call(
        self, method: Method[Message], request: Any, timeout_s: float | None = None
    ) -> Answer[Message]:
        """Make a unary call; within the options' `call_timeout_s` unless told otherwise.

        Raises:
            StoreUnavailable: No member answered in time; the call may have taken effect.
            StoreRefused: They answer that it cannot be.
        """

        async def attempt(attempt_timeout_s: float) -> Message:
            rpc = self.channel().unary_unary(
                method.path,
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=method.answer.FromString,  # type: ignore[attr-defined]
            )
            answer: Message = await rpc(request, timeout=attempt_timeout_s, metadata=await self.metadata())
            return answer

        return await self._until_answered(
            attempt, method.path, self._options.call_timeout_s if timeout_s is None else timeout_s
        )

    async def keep_alive(self, lease_id: int, timeout_s: float) -> int:
        """Renew a lease; returns the seconds that it has, 0 if it is no more. Raises as `call`.

        Each renewal is a stream of its own: a long one would be stuck to a member that froze.
        """

        async def attempt(attempt_timeout_s: float) -> int:
            call = self.channel().stream_stream(
                KEEP_ALIVE_PATH,
                request_serializer=etcd_pb2.LeaseKeepAliveRequest.SerializeToString,
                response_deserializer=etcd_pb2.LeaseKeepAliveResponse.FromString,
            )(timeout=attempt_timeout_s, metadata=await self.metadata())
            try:
                await call.write(etcd_pb2.LeaseKeepAliveRequest(ID=lease_id))
                answer = await call.read()
                if answer is grpc.aio.EOF:
                    raise _EndOfStream
                return int(answer.TTL)
            finally:
                call.cancel()

        answer: Answer[int] = await self._until_answered(attempt, KEEP_ALIVE_PATH, timeout_s)
        return answer.message

    def channel(self) -> grpc.aio.Channel:
        """The connection to the member that is spoken to now."""
        if self._is_closed:
            raise StoreUnavailable("the connection to etcd is closed")
        endpoint = self.endpoint
        channel = self._channels.get(endpoint)
        if channel is None:
            channel = (
                grpc.aio.insecure_channel(endpoint, options=_OPTIONS)
                if self._credentials is None
                else grpc.aio.secure_channel(endpoint, self._credentials, options=_OPTIONS)
            )
            self._channels[endpoint] = channel
        return channel

    async def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with every call: that the member must have a leader, and who we are."""
        if not self._options.user:
            return LEADER_METADATA
        if not self._token:
            request = etcd_pb2.AuthenticateRequest(name=self._options.user, password=self._options.password)
            rpc = self.channel().unary_unary(
                AUTHENTICATE.path,
                request_serializer=etcd_pb2.AuthenticateRequest.SerializeToString,
                response_deserializer=etcd_pb2.AuthenticateResponse.FromString,
            )
            # Passwords are hashed slowly on purpose.
            answer = await rpc(request, timeout=MAX_ATTEMPT_TIMEOUT_S, metadata=LEADER_METADATA)
            self._token = answer.token
        return (*LEADER_METADATA, ("token", self._token))

    def forget_token(self) -> None:
        """The token is not taken any more: the next call gets a new one."""
        self._token = ""

    async def close(self) -> None:
        """Let go of all connections; calling it twice is fine."""
        self._is_closed = True
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            await channel.close(None)

    async def _until_answered(
        self, attempt: Callable[[float], Any], what: str, timeout_s: float
    ) -> Answer[Any]:
        deadline, failures, is_repeated = Deadline.after(timeout_s), 0, False
        attempt_timeout_s = ATTEMPT_TIMEOUT_S
        while True:
            endpoint = self.endpoint
            try:
                left_s = max(deadline.remaining_s(), MIN_ATTEMPT_TIMEOUT_S)
                return Answer(await attempt(min(attempt_timeout_s, left_s)), is_repeated)
            except grpc.aio.AioRpcError as error:
                reason = f"{error.code().name}: {error.details()}"
                if is_stale_token(error) and self._token:
                    self.forget_token()
                elif error.code() not in _PASSING or _NO_SPACE in (error.details() or ""):
                    raise StoreRefused(f"etcd refuses {what}: {reason}") from None
                elif not never_connected(error):
                    is_repeated = True
            except _EndOfStream:
                reason, is_repeated = "the stream ended without an answer", True
            failures += 1
            self.move_on(endpoint)
            logger.debug("etcd_attempt_failed %s at %s: %s", what, endpoint, reason)
            if failures % len(self._options.endpoints) == 0:
                attempt_timeout_s = min(attempt_timeout_s * 2, MAX_ATTEMPT_TIMEOUT_S)
                await asyncio.sleep(ROUND_PAUSE_S)
            if deadline.has_expired():
                raise StoreUnavailable(
                    f"no member of etcd ({', '.join(self._options.endpoints)}) answered {what} within "
                    f"{timeout_s:g} s; the last one said {reason}"
                )


class _EndOfStream(Exception):
    pass


def is_stale_token(error: grpc.aio.AioRpcError) -> bool:
    """The member does not know our token, or it was made before the users were changed."""
    return error.code() is grpc.StatusCode.UNAUTHENTICATED or names_stale_token(error.details() or "")


def names_stale_token(text: str) -> bool:
    """The same, as a watch is told."""
    return any(part in text.lower() for part in _STALE_TOKEN)


def prefix_end(prefix: bytes) -> bytes:
    """The first key after all that begin with `prefix`, as the end of a range."""
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes([kept[-1] + 1]) if kept else b"\x00"


def _tls_credentials(
    options: EtcdOptions, read_file: Callable[[str], bytes]
) -> grpc.ChannelCredentials | None:
    if not options.uses_tls:
        return None
    return grpc.ssl_channel_credentials(
        *(
            read_file(path) if path else None
            for path in (options.ca_file, options.key_file, options.cert_file)
        )
    )


def _read_file(path: str) -> bytes:
    return Path(path).read_bytes()
