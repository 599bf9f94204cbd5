"""The node agent's process: `python -m slipknot_replica.node_main --config-json '{…}'`.

The order matters: the zygote is forked first, while this process has one thread and has not touched gRPC.
"""

import json
import os
import signal
import socket
import sys
from dataclasses import dataclass, field
from typing import Any

from slipknot_core.lifeline import Lifeline, follow
from slipknot_core.role_options import read_config_json
from slipknot_core.rpc.credentials import NO_CREDENTIALS, Credentials
from slipknot_core.settings import cluster_settings, take_credentials

DESCRIPTION = (
    "Run a node agent: it offers this machine to the cluster, and starts, watches and stops the replicas "
    "that the controller wants here. One a machine or container."
)
STOP_GRACE_S = 20.0
"""For replicas to drain when the agent is told to end."""


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
    """Offered CPUs; 0: all of the machine."""
    labels: dict[str, str] = field(default_factory=dict)
    """What this node says of itself, for example zone=a."""
    lifeline_fd: int | None = None
    """The agent dies with whoever holds the other end."""
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
    connection, lifeline = _fork_zygote(config)
    if config.lifeline_fd is not None:
        follow(config.lifeline_fd)
    _run(config, connection, lifeline)


def _fork_zygote(config: NodeConfig) -> tuple[socket.socket, Lifeline]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    lifeline = Lifeline()
    child_fd = lifeline.child_fd
    if os.fork() == 0:
        ours.close()
        for fd in (config.lifeline_fd, config.ready_fd):
            if fd is not None:
                os.close(fd)
        os.setpgid(0, 0)
        from .zygote import run_zygote

        run_zygote(theirs, child_fd)
    theirs.close()
    lifeline.handed_over()
    return ours, lifeline


def _run(config: NodeConfig, connection: socket.socket, lifeline: Lifeline) -> None:
    import asyncio

    import uvloop

    from slipknot_core.logs import LoggingSettings, configure_logging

    configure_logging("node", str(os.getpid()), LoggingSettings.from_json(config.logging_json))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_serve(config, connection, lifeline))
        except (OSError, ValueError) as error:
            sys.exit(f"slipknot node: {error}")
    sys.stdout.flush()


async def _serve(config: NodeConfig, connection: socket.socket, lifeline: Lifeline) -> None:
    import asyncio

    from slipknot_core.output import OutputPump, write_fd

    from .node_health import NodeHealth
    from .node_metrics import NodeMetrics
    from .node_session import NodeSession
    from .process import ProcessMachine, Surroundings, ZygoteLink

    loop = asyncio.get_running_loop()
    stop_wanted = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop_wanted.set)
    # Ctrl-C in the console is the launcher's to handle, where there is one.
    loop.add_signal_handler(signal.SIGINT, stop_wanted.set if config.lifeline_fd is None else lambda: None)
    zygote = ZygoteLink(connection, lifeline)
    zygote.listen()
    pump = OutputPump(write_fd)
    pump.start()

    def on_exit(replica_id: str, exit_code: int, detail: str) -> None:
        metrics.exited(exit_code)
        session.replica_exited(replica_id, exit_code, detail)

    metrics = NodeMetrics(lambda: machine.replica_ids(), lambda: session.is_joined, token=config.admin_token)
    admin_address = await metrics.start(config.admin_address)
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
    machine = ProcessMachine(zygote, pump, surroundings, on_exit)
    session = NodeSession(
        config.controller_address,
        config.node_id,
        machine,
        credentials=config.credentials,
        num_cpus=config.num_cpus,
        labels=config.labels,
        admin_address=admin_address,
    )
    health = NodeHealth(config.health_address, config.credentials)
    await health.start(session.welcomed)
    await session.start()
    welcome = asyncio.ensure_future(session.welcomed.wait())
    welcome.add_done_callback(lambda _: _say_ready(config.ready_fd))
    await stop_wanted.wait()
    await health.stop()
    welcome.cancel()
    await machine.stop(STOP_GRACE_S)
    await asyncio.sleep(0.05)  # let the news of the last exits out
    await session.stop()
    await metrics.stop()
    zygote.close()
    pump.stop()


def _say_ready(fd: int | None) -> None:
    if fd is not None:
        os.write(fd, b"ready\n")
        os.close(fd)


if __name__ == "__main__":
    main()
