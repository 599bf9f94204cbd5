"""A controller and its process: `python -m slipknot_controller --config-json '{…}'`.

The process ends with status 0 when the cluster was shut down; told to end by a signal it ends with status
143.
"""

import asyncio
import logging
import os
import signal
import sys
from dataclasses import replace

from slipknot_core.admin import AdminServer
from slipknot_core.lifeline import follow
from slipknot_core.logs import LoggingSettings, component_var, configure_logging
from slipknot_core.loop_lag import LoopLag
from slipknot_core.metrics import Reading, gauge
from slipknot_core.role_options import read_config_json
from slipknot_core.rpc.addresses import advertised
from slipknot_core.rpc.lasting_server import LastingServer
from slipknot_core.rpc.server import (
    add_health_and_reflection,
    bind,
    new_server,
)
from slipknot_core.settings import RpcSettings, rpc_settings
from slipknot_proto.v1 import controller_pb2_grpc, discovery_pb2_grpc, registry_pb2_grpc

from .config import ControllerConfig, StoreConfig
from .coordinator import Coordinator
from .leadership import EtcdElection, Leadership, OnlyController, Term
from .metrics import controller_readings
from .registry_service import RegistryService
from .seat import Seat
from .services import ControllerService, DiscoveryService
from .standby import Standby
from .store import EtcdClient, EtcdStore, MemoryStore, SqliteStore, StateStore, StoreUnavailable

logger = logging.getLogger("slipknot.serve")

__all__ = ["Controller", "ControllerConfig", "StoreConfig", "main"]

SERVICE_NAMES = (
    "slipknot.v1.ControllerService",
    "slipknot.v1.RegistryService",
    "slipknot.v1.DiscoveryService",
)
DESCRIPTION = (
    "Run a controller: it keeps what shall run, tells the nodes to run it, and tells proxies and replicas "
    "where it runs. Requests do not pass through it, and go on without it."
)
MEMBER_SILENCE_MS, MEMBER_PATIENCE_MS = 2_000, 3_000
"""A node or a replica that is silent for so long is asked, and must answer within so long: the replicas of a
machine that vanished without a word are replaced within ten seconds, with the time that a node has to come
back."""
STOP_GRACE_S = 0.5
"""For calls under way when the controller stops; watches never end by themselves."""
SIGTERM_STATUS = 128 + signal.SIGTERM


class Controller:
    """Serves the control plane. Belongs to the loop `start` is called on; installs no signal handlers."""

    def __init__(self, config: ControllerConfig) -> None:
        self.config = config
        self.address = config.address
        """Where others reach it, once started."""
        self.was_shut_down = asyncio.Event()
        """Set when a client has shut the cluster down, and all applications have ended."""
        self._loop_lag = LoopLag()
        self._admin = AdminServer(self.readings, token=config.admin_token)
        self._admin_address = ""
        self._seat: Seat | None = None
        self._standby: Standby | None = None
        self._leadership: Leadership | None = None
        self._store: StateStore | None = None
        self._server: LastingServer | None = None

    def __repr__(self) -> str:
        return f"<Controller at {self.address}: {self._seat}>"

    @property
    def coordinator(self) -> Coordinator | None:
        """The work of the leader; None while another controller leads."""
        return self._seat.coordinator if self._seat else None

    async def readings(self) -> list[Reading]:
        """What the admin port shows."""
        shown = controller_readings(self.coordinator)
        lag = gauge(
            "slipknot_controller_loop_lag_seconds", "Worst lag of the last 10 s.", self._loop_lag.lag_s
        )
        return [*shown, lag]

    async def start(self) -> None:
        """Listen, and lead if there is no other controller; else become a candidate.

        Raises:
            OSError: The address is taken or not ours, or the store cannot be opened.
            ValueError: The address needs credentials, or their files cannot be read.
        """
        config = self.config
        server = self._server = new_server(
            config.credentials, _member_settings(rpc_settings()), patience_ms=MEMBER_PATIENCE_MS
        )
        bound = await bind(server, config.address, config.credentials)
        self.address = config.advertise_address or advertised(bound)
        self._loop_lag.start()
        if config.admin_address:
            self._admin_address = await self._admin.start(config.admin_address)
        self._store, self._leadership = await _open_store(config.store, self.address)
        seat = self._seat = Seat(self._leadership, self._coordinator_of)
        self._standby = Standby(self._store, config.credentials, self.address)
        await seat.start()
        controller_pb2_grpc.add_ControllerServiceServicer_to_server(
            ControllerService(seat, self._standby, self.was_shut_down), server
        )
        registry_pb2_grpc.add_RegistryServiceServicer_to_server(RegistryService(seat), server)
        discovery_pb2_grpc.add_DiscoveryServiceServicer_to_server(DiscoveryService(seat), server)
        add_health_and_reflection(server, SERVICE_NAMES)
        await server.start()

    async def stop(self) -> None:
        """Let go of everything; calling it twice is fine. Replicas go on without."""
        await self._admin.stop()
        self._loop_lag.stop()
        if self._seat is not None:
            await self._seat.stop()
        if self._leadership is not None:
            await self._leadership.close()
        if self._server is not None:
            await self._server.stop(STOP_GRACE_S)
        if self._standby is not None:
            await self._standby.close()
        if self._store is not None:
            await self._store.close()

    def _coordinator_of(self, term: Term) -> Coordinator:
        coordinator = Coordinator(term.store, self.address, allow_pickle=self.config.allow_pickle, term=term)
        coordinator.publisher.admin_address = self._admin_address
        return coordinator


def _member_settings(settings: RpcSettings) -> RpcSettings:
    return replace(
        settings,
        keepalive_time_ms=min(settings.keepalive_time_ms, MEMBER_SILENCE_MS),
        keepalive_timeout_ms=min(settings.keepalive_timeout_ms, MEMBER_PATIENCE_MS),
    )


async def _open_store(config: StoreConfig, address: str) -> tuple[StateStore, Leadership]:
    if config.kind == "etcd":
        client = EtcdClient(config.etcd_options())
        store = EtcdStore(client, config.prefix, owns_client=True)
        try:
            await store.get("epoch")
        except StoreUnavailable as error:  # it may come later
            logger.warning("Waiting for etcd: %s", error)
        except BaseException:
            await store.close()
            raise
        return store, EtcdElection(client, store, config.prefix, address, ttl_s=config.lease_ttl_s)
    only = await SqliteStore.open(config.path) if config.kind == "sqlite" else MemoryStore()
    return only, OnlyController(only, address)


def main() -> None:
    """Run a controller until the cluster is shut down or a signal ends it."""
    try:
        config = ControllerConfig.from_json(
            read_config_json("controller", ControllerConfig, sys.argv[1:], description=DESCRIPTION)
        )
        settings = LoggingSettings.from_json(config.logging_json)
    except (TypeError, ValueError) as error:
        sys.exit(f"slipknot controller: {error}")
    if config.lifeline_fd is not None:
        follow(config.lifeline_fd)
    configure_logging("controller", str(os.getpid()), settings)
    component_var.set(("controller", str(os.getpid())))
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            status = runner.run(_serve(config))
        except (OSError, ValueError) as error:
            sys.exit(f"slipknot controller: {error}")
    sys.exit(status)


async def _serve(config: ControllerConfig) -> int:
    loop = asyncio.get_running_loop()
    stop_wanted = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop_wanted.set)
    controller = Controller(config)
    await controller.start()
    try:
        if config.ready_fd is not None:
            _report_ready(config.ready_fd, controller.address)
        if config.embedded:
            asyncio.ensure_future(controller.was_shut_down.wait()).add_done_callback(
                lambda _: stop_wanted.set()
            )
        await stop_wanted.wait()
    finally:
        await controller.stop()
    return 0 if controller.was_shut_down.is_set() else SIGTERM_STATUS


def _report_ready(fd: int, address: str) -> None:
    with open(fd, "w") as ready:
        ready.write(f"ready {address}\n")
