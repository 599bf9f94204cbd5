"""The node agent's process: `python -m slipknot_replica.node_main --config-json '{…}'`.

This process becomes the supervisor, and the agent its first child; see `supervisor.py`.
"""

import json
import logging
import os
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slipknot_core.role_options import read_config_json
from slipknot_core.rpc.credentials import NO_CREDENTIALS, Credentials
from slipknot_core.runtime_dir import RuntimeDir
from slipknot_core.settings import cluster_settings, take_credentials

from .supervisor import Inheritance, Supervisor

if TYPE_CHECKING:
    from .process import SupervisorLink

logger = logging.getLogger("slipknot.serve")

DESCRIPTION = (
    "Run a node agent: it offers this machine to the cluster, and starts, watches and stops the replicas "
    "that the controller wants here. One a machine or container."
)


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """Options of one node agent. The fields are the keys of `--config-json`."""

    controller_address: str
    """gRPC address of the controller, "unix:/path" or "host:port"."""
    node_id: str
    """Name of this node, unique in the cluster; one that comes back keeps it."""
    socket_dir: str = ""
    """Directory for the replicas' Unix sockets; empty: they listen on TCP."""
    credentials: Credentials = NO_CREDENTIALS
    """By default those of the environment; the keys are "token", "tls_ca", "tls_cert", "tls_key"."""
    num_cpus: float = 0.0
    """Offered CPUs; 0: all of the machine or container; inf: not counted, any number of replicas fits."""
    labels: dict[str, str] = field(default_factory=dict)
    """What this node says of itself, for example zone=a; deployments can ask for it with label_selector."""
    lifeline_fd: int | None = None
    """The node dies with whoever holds the other end."""
    ready_fd: int | None = None
    """Where "ready\\n" is written once the node has joined."""
    logging_json: str = ""
    listen_host: str = ""
    """Address that replicas listen on, for example "0.0.0.0"; empty: Unix sockets in `socket_dir`, or
    loopback."""
    advertise_host: str = ""
    """Name or address that others reach this machine by; empty: its host name, if `listen_host` is all of its
    addresses."""
    admin_address: str = ""
    """Where metrics are shown, those of the replicas too, "host:port" or "unix:/path"; empty: nowhere."""
    admin_token: str = ""
    """What readers of the admin port must send; may be empty on loopback and Unix sockets."""
    health_address: str = ""
    """Where this agent answers grpc.health.v1 once it has joined, "unix:/path" or "host:port", for health
    checks; empty: nowhere."""
    allow_pickle: bool = True
    """Start replicas that read pickle, if the controller allows it."""
    num_gpus: int = -1
    """Offered GPUs; -1: those of CUDA_VISIBLE_DEVICES, else those of the machine."""
    memory_bytes: int = 0
    """Offered memory; 0: all of the machine or container."""
    resources: dict[str, float] = field(default_factory=dict)
    """Amounts of further resources, under names that deployments ask for."""
    cache_dir: str = ""
    """Where uploaded code is kept; empty: in the user's cache directory."""

    @classmethod
    def from_json(cls, text: str) -> "NodeConfig":
        """Read the options.

        Raises:
            ValueError: Names what is missing or unknown.
        """
        try:
            values: dict[str, Any] = dict(json.loads(text))
        except (TypeError, ValueError):
            raise ValueError(f"the options are no JSON object: {text!r}") from None
        credentials = take_credentials(values)
        values.setdefault("allow_pickle", cluster_settings().allow_pickle)
        values.setdefault("admin_token", cluster_settings().admin_token)
        try:
            return cls(**values, credentials=credentials)
        except TypeError as error:
            raise ValueError(f"options of the node agent: {error}") from None


def main() -> None:
    """Run a node agent until it is told to end."""
    try:
        config = NodeConfig.from_json(
            read_config_json(
                "node",
                NodeConfig,
                sys.argv[1:],
                defaults={"node_id": socket.gethostname()},
                description=DESCRIPTION,
            )
        )
    except ValueError as error:
        sys.exit(f"slipknot node: {error}")
    try:
        # Held by its processes: should all of them be killed, the next one to start removes it.
        own_dir = RuntimeDir.create() if config.admin_address and not config.socket_dir else None
    except (OSError, ValueError) as error:
        sys.exit(f"slipknot node: {error}")
    metrics_dir = str(own_dir.path) if own_dir is not None else config.socket_dir
    supervisor = Supervisor(
        lambda inheritance: _run(config, inheritance, metrics_dir),
        lifeline_fd=config.lifeline_fd,
        ready_fd=config.ready_fd,
    )
    try:
        sys.exit(supervisor.run())
    finally:
        if own_dir is not None:
            own_dir.remove()


def _run(config: NodeConfig, inheritance: Inheritance, metrics_dir: str) -> int:
    """Be the agent until it is told to end."""
    import asyncio

    import uvloop

    from slipknot_core.logs import LoggingSettings, configure_logging

    configure_logging("node", str(os.getpid()), LoggingSettings.from_json(config.logging_json))
    if inheritance.previous_status is not None:
        logger.warning(
            "node_agent_restarted: the one before ended with status %d; %d replicas go on",
            inheritance.previous_status,
            sum(child.status is None for child in inheritance.children),
        )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_serve(config, inheritance, metrics_dir))
        except (OSError, ValueError) as error:
            sys.stderr.write(f"slipknot node: {error}\n")
            return 1
    return 0


async def _serve(config: NodeConfig, inheritance: Inheritance, metrics_dir: str) -> None:
    import asyncio

    from slipknot_core.output import OutputPump, write_fd

    from . import machine_offer
    from .archives import ArchiveCache, default_directory
    from .node_health import NodeHealth
    from .node_metrics import NodeMetrics
    from .node_session import NodeSession, Offer
    from .process import ProcessMachine, SupervisorLink, Surroundings

    loop = asyncio.get_running_loop()
    stop_wanted = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop_wanted.set)
    supervisor = SupervisorLink(inheritance.connection)
    supervisor.listen()
    pump = OutputPump(write_fd)
    pump.start()

    def on_exit(replica_id: str, exit_code: int, detail: str) -> None:
        metrics.exited(exit_code)
        session.replica_exited(replica_id, exit_code, detail)

    metrics = NodeMetrics(
        lambda: [held.replica_id for held in machine.held()],
        lambda: session.is_joined,
        token=config.admin_token,
    )
    admin_address = await metrics.start(config.admin_address, metrics_dir)
    surroundings = Surroundings(
        controller_address=config.controller_address,
        socket_dir=config.socket_dir,
        listen_host=config.listen_host,
        advertise_host=config.advertise_host,
        metrics_dir=metrics.metrics_dir,
        logging_json=config.logging_json,
        environment=config.credentials.environment(),
        refuse_pickle=not config.allow_pickle,
    )
    archives = ArchiveCache(
        Path(config.cache_dir) if config.cache_dir else default_directory(),
        lambda digest: session.fetch_archive(digest),
    )
    machine = ProcessMachine(supervisor, pump, surroundings, on_exit, archives)
    session = NodeSession(
        config.controller_address,
        config.node_id,
        machine,
        credentials=config.credentials,
        offer=Offer(
            num_cpus=config.num_cpus or machine_offer.cpu_count(),
            gpu_ids=machine_offer.gpu_ids(config.num_gpus),
            memory_bytes=config.memory_bytes or machine_offer.memory_bytes(),
            resources=config.resources,
            labels=config.labels,
        ),
        admin_address=admin_address,
    )
    health = NodeHealth(config.health_address, config.credentials)
    await health.start(session.welcomed)
    machine.take_over(inheritance.children)
    await session.start()
    welcome = asyncio.ensure_future(session.welcomed.wait())
    welcome.add_done_callback(lambda _: _say_ready(config, supervisor, inheritance))
    await stop_wanted.wait()
    await health.stop()
    welcome.cancel()
    await session.leave()
    await machine.stop()
    await asyncio.sleep(0.05)  # let the news of the last exits out
    await session.stop()
    archives.close()
    await metrics.stop()
    supervisor.close()
    pump.stop()


def _say_ready(config: NodeConfig, supervisor: "SupervisorLink", inheritance: Inheritance) -> None:
    if config.ready_fd is not None and not inheritance.was_ready:
        with suppress(OSError):
            os.write(config.ready_fd, b"ready\n")
        os.close(config.ready_fd)
    supervisor.say_ready()


if __name__ == "__main__":
    main()
