"""A replica's process: reads its launch from standard input, runs one replica, exits.

Standard input is 4 bytes of length (big-endian) and a `ReplicaLaunch`. Exit status: 0 after a drain, 1 if the
user's code could not be built.
"""

import asyncio
import atexit
import os
import signal
import sys

from slipknot_core.ids import DeploymentId
from slipknot_core.settings import cluster_settings, tracing_settings
from slipknot_core.spec import ReplicaLaunch


def main() -> None:
    """Run the replica that standard input describes."""
    from slipknot_proto.v1 import spec_pb2

    size = int.from_bytes(sys.stdin.buffer.read(4), "big")
    data = sys.stdin.buffer.read(size)
    if len(data) != size:
        sys.exit("no ReplicaLaunch on standard input; replicas are started by a node agent")
    run_replica(ReplicaLaunch.from_proto(spec_pb2.ReplicaLaunch.FromString(data)))


def run_replica_from_fd(fd: int) -> None:
    """Run the replica whose `ReplicaLaunch` the file `fd` holds (after a fork from the zygote)."""
    from slipknot_proto.v1 import spec_pb2

    with os.fdopen(fd, "rb") as file:
        data = file.read()
    run_replica(ReplicaLaunch.from_proto(spec_pb2.ReplicaLaunch.FromString(data)))


def run_replica(launch: ReplicaLaunch) -> None:
    """Run one replica in this process and exit; the process must not have used gRPC before."""
    from slipknot_core import tracing
    from slipknot_core.heap import keep_freed_memory
    from slipknot_core.logs import LoggingSettings, configure_logging

    keep_freed_memory()
    component = f"{launch.app_name}_{launch.deployment.name}"
    configure_logging(
        component,
        launch.replica_id.rpartition("#")[2],
        LoggingSettings.from_json(launch.deployment.logging_config_json),
        file_name=f"replica_{component}_{launch.replica_id.rpartition('#')[2]}",
    )
    tracing.configure_for_user_code(tracing_settings())
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        succeeded = runner.run(_run(launch))
        tracing.stop()
        _exit(0 if succeeded else 1)


async def _run(launch: ReplicaLaunch) -> bool:
    from .lifecycle import ReplicaLifecycle
    from .loading import load_user_code
    from .watchdog import LoopWatchdog

    loop = asyncio.get_running_loop()
    lifecycle = ReplicaLifecycle(
        launch,
        lambda: load_user_code(launch),
        credentials=cluster_settings().credentials,
        has_process=True,
    )
    loop.add_signal_handler(signal.SIGTERM, lifecycle.request_stop)
    loop.add_signal_handler(signal.SIGINT, lambda: None)  # Ctrl-C in the console is the launcher's to handle
    lifecycle.loop_lag.start()
    deployment_id = DeploymentId(launch.app_name, launch.deployment.name)
    watchdog = LoopWatchdog(lifecycle.loop_lag, deployment_id, lifecycle.counters)
    watchdog.start()
    try:
        return await lifecycle.run()
    finally:
        watchdog.stop()


def _exit(status: int) -> None:
    """End at once: a thread of the user's that never returns must not keep the process."""
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
