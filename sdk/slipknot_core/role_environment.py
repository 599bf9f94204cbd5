"""What is set in the environment of a role's process before it loads gRPC; what is there already wins."""

import os
from collections.abc import Mapping, MutableMapping

ROLE_ENVIRONMENT: Mapping[str, str] = {
    # gRPC's event engine hands a message from thread to thread on its way to asyncio: twice as many switches
    # of context as with its older poller (docs/decisions/0031). Versions without it ignore the names.
    "GRPC_EXPERIMENTS": "-event_engine_client,-event_engine_listener",
}


def prepare(environ: MutableMapping[str, str] = os.environ) -> None:
    """Set it for this process; has no effect once gRPC is imported."""
    for name, value in ROLE_ENVIRONMENT.items():
        environ.setdefault(name, value)
