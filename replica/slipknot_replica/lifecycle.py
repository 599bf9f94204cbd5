"""One replica from its first to its last moment: listen, register, build, serve, drain, stop.

`ReplicaLifecycle.run` is the same in a process of its own (`main.py`) and in a test's process
(`slipknot.testing`).
"""

import asyncio
import contextvars
import logging
from collections.abc import Callable

from slipknot._connection import Connection, connection_var, install
from slipknot.serve import context as serve_context
from slipknot.serve.metrics import user_readings
from slipknot_core.admin import AdminServer
from slipknot_core.logs import LoggingSettings, component_var
from slipknot_core.loop_lag import LoopLag
from slipknot_core.metrics import Reading, gauge
from slipknot_core.routing.dispatcher import Dispatcher
from slipknot_core.routing.metrics import router_readings
from slipknot_core.rpc.credentials import NO_CREDENTIALS, Credentials
from slipknot_core.spec import ReplicaLaunch

from .metrics import Counters, replica_readings
from .node_metrics import metrics_address
from .registration import Registration
from .server import ReplicaServer, ReplicaState
from .user_code import UserCode

logger = logging.getLogger("slipknot.serve")

DRAIN_NOTICE_S = 0.25
"""A replica that was not told to end by the controller goes on refusing for so long, so that what its callers
have on the way finds an answer."""

LoadCode = Callable[[], UserCode]


class ReplicaLifecycle:
    """Runs one replica. Belongs to the loop that `run` is called on.

    Args:
        launch: What this replica is.
        load: Makes the user's code object, not yet constructed; may raise anything.
        credentials: What this process proves itself with; empty on private Unix sockets.
        has_process: The process is this replica's alone: threads that the user's code starts are in it too.
    """

    def __init__(
        self,
        launch: ReplicaLaunch,
        load: LoadCode,
        *,
        credentials: Credentials = NO_CREDENTIALS,
        has_process: bool = False,
    ) -> None:
        self.launch = launch
        self.server: ReplicaServer | None = None
        self.counters = Counters()
        self.loop_lag = LoopLag()
        self._dispatcher: Dispatcher | None = None
        self._load = load
        self._credentials = credentials
        self._has_process = has_process
        self._notice_s = 0.0
        self._stop_wanted: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def request_stop(self, timeout_s: float | None = None) -> None:
        """Drain and end; only the first request counts.

        Args:
            timeout_s: Time for what runs; the deployment's `graceful_shutdown_timeout_s` if None.
        """
        if not self._stop_wanted.done():
            # A signal comes without warning: callers have heard of nothing.
            self._notice_s = DRAIN_NOTICE_S if timeout_s is None else 0.0
            limit_s = self.launch.deployment.graceful_shutdown_timeout_s if timeout_s is None else timeout_s
            self._stop_wanted.set_result(limit_s)

    async def readings(self, *, with_user_metrics: bool = True) -> list[Reading]:
        """What the replica shows of itself, and of the calls it makes.

        Args:
            with_user_metrics: Those of `serve.metrics` too; they are the process's, not the replica's.
        """
        if self.server is None or self._dispatcher is None:
            return []
        replica = {"replica": self.launch.replica_id}
        lag = gauge("slipknot_replica_loop_lag_seconds", "Worst lag of the last 10 s.", self.loop_lag.lag_s)
        return [
            *replica_readings(self.server),
            lag.labelled(
                {"application": self.launch.app_name, "deployment": self.launch.deployment.name, **replica}
            ),
            *(reading.labelled(replica) for reading in router_readings(self._dispatcher)),
            *(user_readings() if with_user_metrics else ()),
        ]

    async def run(self) -> bool:
        """Serve until a stop is requested.

        Returns:
            False if the user's code could not be built; the controller has been told why.
        """
        launch = self.launch
        component_var.set(
            (f"{launch.app_name}_{launch.deployment.name}", launch.replica_id.rpartition("#")[2])
        )
        dispatcher = self._dispatcher = Dispatcher(
            launch.controller_address,
            watcher=f"replica:{launch.replica_id}",
            node_id=launch.node_id,
            credentials=self._credentials,
        )
        await dispatcher.start()
        connection = Connection.on_loop(
            asyncio.get_running_loop(),
            dispatcher,
            app_name=launch.app_name,
            allow_pickle=not launch.refuse_pickle,
        )
        connection_var.set(connection)
        if self._has_process:
            install(connection)
        try:
            self.loop_lag.start()
            return await self._run(dispatcher)
        finally:
            if self._has_process:
                install(None)
            self.loop_lag.stop()
            await dispatcher.stop()

    # --- inside -------------------------------------------------------------------------------------

    async def _run(self, dispatcher: Dispatcher) -> bool:
        settings = LoggingSettings.from_json(self.launch.deployment.logging_config_json)
        server = self.server = ReplicaServer(
            self.launch, credentials=self._credentials, access_log=settings.enable_access_log
        )
        server.counters = self.counters
        registration = Registration(server, self.request_stop, dispatcher.link, dispatcher.gate)
        await server.listen()
        admin = AdminServer(self.readings)
        try:
            if self.launch.metrics_dir:
                await admin.start(metrics_address(self.launch.metrics_dir, self.launch.replica_id))
            await registration.start()
            error = await self._build(server)
            if error is not None:
                logger.error("replica_failed %s", type(error).__name__, exc_info=error)
                registration.tell_failure(error)
                return False
            registration.start_health_checks()
            await self._serve_until_stopped(server)
            return True
        finally:
            await server.stop()
            await registration.stop()
            await admin.stop()

    async def _build(self, server: ReplicaServer) -> BaseException | None:
        """Load and construct the user's code; returns what went wrong. Gives up when a stop is requested
        first.
        """
        _set_replica_context(server, for_process=self._has_process)
        server.base_context = contextvars.copy_context()
        building = asyncio.ensure_future(self._load_and_construct(server))
        await asyncio.wait((building, self._stop_wanted), return_when=asyncio.FIRST_COMPLETED)
        if not building.done():
            building.cancel()
            await asyncio.wait((building,), timeout=1.0)
            return None
        return building.exception()

    async def _load_and_construct(self, server: ReplicaServer) -> None:
        # In a thread: a module of the user's may be slow to import, or call asyncio.run.
        user_code = await asyncio.to_thread(self._load)
        await server.construct(user_code)

    async def _serve_until_stopped(self, server: ReplicaServer) -> None:
        timeout_s = await self._stop_wanted
        if server.state is not ReplicaState.RUNNING:
            return
        await server.drain(timeout_s, notice_s=self._notice_s)
        logger.info("replica_drained")


def _set_replica_context(server: ReplicaServer, *, for_process: bool) -> None:
    launch = server.launch
    serve_context._set_replica_context(
        serve_context.ReplicaContext(
            app_name=launch.app_name,
            deployment=launch.deployment.name,
            replica_id=launch.replica_id,
            servable=lambda: server.user_code.servable if server.user_code is not None else None,
            world_size=launch.deployment.num_replicas,
            rank=launch.rank,
            _models=server.models,
        ),
        for_process=for_process,
    )
