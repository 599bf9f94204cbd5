"""The replica: one instance of the user's class behind `ReplicaService`.

`start` listens, then builds the user's code; `drain` finishes what runs and takes nothing new; `stop` ends
it. Registration with the controller is `registration.py`; a process around it is `main.py`.
"""

import asyncio
import contextvars
import enum
import logging
import os
import time
from collections.abc import Callable
from typing import Any

import grpc

from slipknot._models import ReplicaModels
from slipknot_core.errors import ProtocolError
from slipknot_core.ids import DeploymentId
from slipknot_core.rpc.addresses import advertised, join
from slipknot_core.rpc.credentials import NO_CREDENTIALS, Credentials
from slipknot_core.rpc.lasting_server import LastingServer
from slipknot_core.rpc.server import (
    add_health_and_reflection,
    bind,
    new_server,
)
from slipknot_core.settings import rpc_settings
from slipknot_core.spec import ReplicaLaunch
from slipknot_core.tasks import TaskOwner
from slipknot_proto.v1 import replica_pb2, replica_pb2_grpc
from slipknot_proto.v1.payload_pb2 import CancelReason

from .admission import Admission
from .exchange import ServerExchange
from .http_exchange import HttpExchange
from .method_exchange import MethodExchange
from .metrics import Counters
from .queue_desk import QueueDesk
from .server_stream import MAX_CALLER_CHAIN, Reason, ServerStream
from .server_wire import CallWire, SessionWire
from .user_code import UserCode
from .websocket_exchange import WebSocketExchange

logger = logging.getLogger("slipknot.serve")

SERVICE = "slipknot.v1.ReplicaService"

CLEANUP_S = 2.0
"""Time for code that was cancelled at the end of a drain to clean up."""

FLUSH_S = 1.0
"""Time for the last replies to be written."""

LINGER_S = 0.25
"""Then, for callers to read them and hang up."""

DESTRUCT_TIMEOUT_S = 5.0
"""Time for shutdown hooks and `__del__`."""


class ReplicaState(enum.Enum):
    """Where a replica stands; it only ever moves forward."""

    STARTING = "STARTING"
    RUNNING = "RUNNING"
    FAILED = "FAILED"
    DRAINING = "DRAINING"
    STOPPED = "STOPPED"


_EXCHANGES: dict[str, type[ServerExchange]] = {
    "http": HttpExchange,
    "websocket": WebSocketExchange,
    "method": MethodExchange,
}


class ReplicaServer:
    """Serves one replica. Belongs to the loop it was started on; `repr` tells state and slots.

    Args:
        launch: What this replica is.
        credentials: What this process proves itself with; empty on private Unix sockets.
        base_context: Requests run in copies of it; the caller's own if None.
        access_log: Write a line for each request.
    """

    def __init__(
        self,
        launch: ReplicaLaunch,
        *,
        credentials: Credentials = NO_CREDENTIALS,
        base_context: contextvars.Context | None = None,
        access_log: bool = True,
    ) -> None:
        self.launch = launch
        self.user_code: UserCode | None = None
        self.models = ReplicaModels()
        self.deployment_id = DeploymentId(launch.app_name, launch.deployment.name)
        self.state = ReplicaState.STARTING
        self.address = ""
        self.admission = Admission(launch.deployment.max_ongoing_requests)
        self.admission.on_change = self._load_changed
        self.counters = Counters()
        self.allows_pickle = not launch.refuse_pickle
        self.max_payload_bytes = rpc_settings().max_message_bytes
        self.base_context = base_context or contextvars.copy_context()
        self.access_log_enabled = access_log
        self.origin = f"replica:{self.deployment_id}#{launch.replica_id.rpartition('#')[2]}"
        self.tasks = TaskOwner(f"replica {launch.replica_id}")
        self.queue_desk = QueueDesk(self.tasks)
        self.on_state: Callable[[ReplicaState], None] = lambda state: None
        self.on_load: Callable[[], None] = lambda: None
        self._wires: set[CallWire | SessionWire] = set()
        self._exchanges: set[ServerExchange] = set()
        self._credentials = credentials
        self._server: LastingServer | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    def __repr__(self) -> str:
        return f"<ReplicaServer {self.launch.replica_id}: {self.state.value}, {self.admission!r}>"

    async def listen(self) -> str:
        """Start the gRPC server and return its address; requests are refused until `construct` is done."""
        self._server = new_server(self._credentials)
        servicer = _Servicer(self)
        self._server.add_generic_rpc_handlers((_handler_of_frames(servicer),))
        replica_pb2_grpc.add_ReplicaServiceServicer_to_server(servicer, self._server)
        add_health_and_reflection(self._server, [SERVICE])
        address = await bind(self._server, self._wanted_address(), self._credentials)
        self.address = advertised(address, self.launch.advertise_host)
        await self._server.start()
        return self.address

    async def construct(self, user_code: UserCode) -> None:
        """Build the user's code and begin to serve.

        Args:
            user_code: Loaded, not yet constructed.

        Raises:
            Exception: Whatever the constructor, the lifespan start-up or the first `reconfigure` raised.
        """
        import json

        self.user_code = user_code
        try:
            await user_code.construct()
            config = self.launch.deployment.user_config_json
            if config:
                await user_code.reconfigure(json.loads(config))
        except BaseException:
            self._move(ReplicaState.FAILED)
            raise
        if self.state is ReplicaState.STARTING:
            self._move(ReplicaState.RUNNING)

    async def drain(self, timeout_s: float, *, notice_s: float = 0.0) -> None:
        """Finish what runs and take nothing new; what still runs after `timeout_s` is cancelled. Twice is
        fine.

        Args:
            timeout_s: Time for what runs.
            notice_s: If there are callers, refuse what they send for at least so long: they are not told by
                anybody else.
        """
        refused_until_s = time.monotonic() + (notice_s if self._wires else 0.0)
        await self._finish(timeout_s)
        await asyncio.sleep(max(0.0, refused_until_s - time.monotonic()))

    async def _finish(self, timeout_s: float) -> None:
        if self.state is not ReplicaState.STOPPED:
            self._move(ReplicaState.DRAINING)
        self.admission.drain()
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
            return
        except TimeoutError:
            pass
        logger.warning(
            "drain_timeout %d requests are cancelled after %.1f s", self.admission.ongoing, timeout_s
        )
        for exchange in tuple(self._exchanges):
            exchange.cancel(CancelReason.CANCEL_REASON_DRAIN_TIMEOUT, self.origin)
        try:
            async with asyncio.timeout(CLEANUP_S):
                await self._idle.wait()
        except TimeoutError:
            logger.error("drain_incomplete %d requests ignored their cancellation", self.admission.ongoing)

    async def stop(self) -> None:
        """End the server and the user's code; without a `drain` before, what runs is cancelled. Twice is
        fine.
        """
        if self.state is ReplicaState.STOPPED:
            return
        await self.drain(0)
        if self.user_code is not None:
            await self._destruct(self.user_code)
        if self._server is not None:
            # The last replies first: what ends an RPC overtakes what was written to it.
            await asyncio.gather(*(wire.flush(FLUSH_S) for wire in tuple(self._wires)))
            await self._server.stop(LINGER_S if self._wires else 0)
        await self.tasks.stop()
        self._move(ReplicaState.STOPPED)

    async def _destruct(self, user_code: UserCode) -> None:
        try:
            async with asyncio.timeout(DESTRUCT_TIMEOUT_S):
                await self.models.close()
                await user_code.destruct()
        except TimeoutError:
            logger.error("destruct_timeout shutdown hooks took longer than %.1f s", DESTRUCT_TIMEOUT_S)
        except (
            Exception
        ) as error:  # the user's __del__ may raise anything, and must not keep the replica alive
            logger.error("destruct_failed %s", type(error).__name__, exc_info=error)

    async def reconfigure(self, max_ongoing_requests: int, user_config_json: str) -> None:
        """Take new options in place. Raises whatever the user's `reconfigure` raises."""
        import json

        if self.user_code is None:
            raise RuntimeError("reconfigured before it was constructed")
        self.admission.resize(max_ongoing_requests)
        self.user_code.set_max_ongoing_requests(max_ongoing_requests)
        if user_config_json:
            await self.user_code.reconfigure(json.loads(user_config_json))

    # --- for streams (the `Host` protocol) ----------------------------------------------------------

    def refusal(self, open_: replica_pb2.Open) -> Reason | None:
        """Why this Open cannot be served here at all, or None."""
        if (open_.app_name, open_.deployment_name) != self.deployment_id:
            return Reason.REASON_WRONG_DEPLOYMENT
        if open_.deadline_budget_us < 0:
            return Reason.REASON_DEADLINE_EXCEEDED
        if len(open_.caller_chain) > MAX_CALLER_CHAIN:
            return Reason.REASON_CALL_LOOP
        if self.state is ReplicaState.STARTING:
            return Reason.REASON_BUSY
        if self.state is not ReplicaState.RUNNING:
            return Reason.REASON_DRAINING
        return None

    def new_exchange(self, open_: replica_pb2.Open, stream: ServerStream) -> ServerExchange:
        """Make the exchange for an admitted Open."""
        kind = open_.WhichOneof("request")
        if kind is None:
            raise ProtocolError("frame 'open' without a request; set http, websocket or method")
        exchange = _EXCHANGES[kind](self, open_, stream)
        self._exchanges.add(exchange)
        exchange.on_ended = self._exchanges.discard
        return exchange

    @property
    def outliving(self) -> int:
        """Requests that were cancelled and whose code still runs."""
        return sum(exchange.request.is_cancelled for exchange in self._exchanges)

    # --- inside -------------------------------------------------------------------------------------

    async def serve(self, wire: CallWire | SessionWire) -> None:
        """Handle one RPC."""
        self._wires.add(wire)
        try:
            await wire.run()
        finally:
            self._wires.discard(wire)

    def info(self) -> replica_pb2.GetReplicaInfoResponse:
        """What this replica is and does now."""
        return replica_pb2.GetReplicaInfoResponse(
            replica_id=self.launch.replica_id,
            app_name=self.launch.app_name,
            deployment_name=self.launch.deployment.name,
            state=self.state.value,
            ongoing=self.admission.ongoing,
            max_ongoing=self.admission.max_ongoing,
            waiting=self.admission.waiting,
            completed_count=self.counters.completed,
            cancelled_count=self.counters.cancelled,
            completed_after_cancel_count=self.counters.completed_after_cancel,
            pid=os.getpid(),
        )

    def _wanted_address(self) -> str:
        if self.launch.listen_host:
            return join(self.launch.listen_host, 0)
        if not self.launch.socket_dir:
            return "127.0.0.1:0"
        return f"unix:{self.launch.socket_dir}/r-{self.launch.replica_id.rpartition('#')[2]}.sock"

    def _move(self, state: ReplicaState) -> None:
        if state is self.state:
            return
        self.state = state
        self.on_state(state)

    def _load_changed(self) -> None:
        if self.admission.is_idle:
            self._idle.set()
        else:
            self._idle.clear()
        self.on_load()


class _Servicer(replica_pb2_grpc.ReplicaServiceServicer):
    def __init__(self, replica: ReplicaServer) -> None:
        self._replica = replica

    async def Call(self, _requests: Any, context: Any) -> None:
        await self._replica.serve(CallWire(self._replica, context))

    async def Session(self, _requests: Any, context: Any) -> None:
        await self._replica.serve(SessionWire(self._replica, context))

    async def ShareQueue(self, _requests: Any, context: Any) -> None:
        await self._replica.queue_desk.serve(context)

    async def GetReplicaInfo(self, _request: Any, _context: Any) -> replica_pb2.GetReplicaInfoResponse:
        return self._replica.info()


def _handler_of_frames(servicer: _Servicer) -> grpc.GenericRpcHandler:
    """The methods that write messages as bytes; it is asked before the generated one, which has them, too."""
    handlers = {
        "Call": grpc.stream_stream_rpc_method_handler(
            servicer.Call, request_deserializer=replica_pb2.CallRequest.FromString
        ),
        "Session": grpc.stream_stream_rpc_method_handler(
            servicer.Session, request_deserializer=replica_pb2.SessionRequest.FromString
        ),
    }
    return grpc.method_handlers_generic_handler(SERVICE, handlers)
