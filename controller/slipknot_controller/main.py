"""A controller and its process: `python -m slipknot_controller --config-json '{…}'`.

The process ends with status 0 when the cluster was shut down; told to end by a signal it ends with status
143.
"""

import asyncio
import os
import signal
import sys

import grpc.aio

from slipknot_core.admin import AdminServer
from slipknot_core.lifeline import follow
from slipknot_core.logs import LoggingSettings, component_var, configure_logging
from slipknot_core.loop_lag import LoopLag
from slipknot_core.metrics import Reading, gauge
from slipknot_core.role_options import read_config_json
from slipknot_core.rpc.addresses import advertised
from slipknot_core.rpc.server import (
    add_health_and_reflection,
    bind,
    new_server,
)
from slipknot_proto.v1 import controller_pb2_grpc, discovery_pb2_grpc, registry_pb2_grpc

from .config import ControllerConfig, StoreConfig
from .coordinator import Coordinator
from .metrics import controller_readings
from .registry_service import RegistryService
from .services import ControllerService, DiscoveryService
from .store import MemoryStore, SqliteStore, StateStore

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
        self.coordinator: Coordinator | None = None
        self.is_leader = True
        """Shown in the metrics."""
        self._loop_lag = LoopLag()
        self._admin = AdminServer(self.readings, token=config.admin_token)
        self._store: StateStore | None = None
        self._server: grpc.aio.Server | None = None

    def __repr__(self) -> str:
        return f"<Controller at {self.address}: {self.coordinator}>"

    async def readings(self) -> list[Reading]:
        """What the admin port shows."""
        shown = controller_readings(self.coordinator, is_leader=self.is_leader) if self.coordinator else []
        lag = gauge(
            "slipknot_controller_loop_lag_seconds", "Worst lag of the last 10 s.", self._loop_lag.lag_s
        )
        return [*shown, lag]

    async def start(self) -> None:
        """Listen and reconcile.

        Raises:
            OSError: The address is taken or not ours, or the store cannot be opened.
            ValueError: The address needs credentials, or their files cannot be read.
        """
        config = self.config
        server = self._server = new_server(config.credentials)
        bound = await bind(server, config.address, config.credentials)
        self.address = config.advertise_address or advertised(bound)
        self._store = await _open_store(config.store)
        self.coordinator = Coordinator(self._store, self.address, allow_pickle=config.allow_pickle)
        self._loop_lag.start()
        if self.config.admin_address:
            self.coordinator.admin_address = await self._admin.start(self.config.admin_address)
        await self.coordinator.start()
        controller_pb2_grpc.add_ControllerServiceServicer_to_server(
            ControllerService(self.coordinator, self.was_shut_down), server
        )
        registry_pb2_grpc.add_RegistryServiceServicer_to_server(RegistryService(self.coordinator), server)
        discovery_pb2_grpc.add_DiscoveryServiceServicer_to_server(DiscoveryService(self.coordinator), server)
        add_health_and_reflection(server, SERVICE_NAMES)
        await server.start()

    async def stop(self) -> None:
        """Let go of everything; calling it twice is fine. Replicas go on without."""
        await self._admin.stop()
        self._loop_lag.stop()
        if self.coordinator is not None:
            await self.coordinator.stop()
        if self._server is not None:
            await self._server.stop(STOP_GRACE_S)
        if self._store is not None:
            await self._store.close()


async def _open_store(config: StoreConfig) -> StateStore:
    if config.kind == "sqlite":
        return await SqliteStore.open(config.path)
    return MemoryStore()


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
