"""The one module that reads the environment. Everything else gets values.

Each name is `SLIPKNOT_<GROUP>_<FIELD>`; its unit and default stand in the docstring under the field.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

DEFAULT_MAX_MESSAGE_BYTES = 256 * 1024 * 1024
MAX_RPC_OPTION = 2**31 - 1
"""gRPC keeps its options in 32 bits."""


@dataclass(frozen=True, slots=True)
class RpcSettings:
    """Bounds and timing of gRPC between members of a cluster."""

    max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES
    """`SLIPKNOT_RPC_MAX_MESSAGE_BYTES`: largest gRPC message, so the largest argument or result of a handle
    call.
    """
    keepalive_time_ms: int = 10_000
    """`SLIPKNOT_RPC_KEEPALIVE_TIME_MS`: a silent peer is asked after this time; a member that vanished is
    noticed.
    """
    keepalive_timeout_ms: int = 5_000
    """`SLIPKNOT_RPC_KEEPALIVE_TIMEOUT_MS`: it has this long to answer."""


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """How a process finds and proves itself to a cluster."""

    address: str = ""
    """`SLIPKNOT_ADDRESS`: controller of an existing cluster, "host:port" or "unix:/path"; empty: start an
    embedded one.
    """
    token: str = ""
    """`SLIPKNOT_CLUSTER_TOKEN`: shared secret sent with every call between members; empty on private Unix
    sockets.
    """


def rpc_settings(environ: Mapping[str, str] = os.environ) -> RpcSettings:
    """Read the group "rpc".

    Raises:
        ValueError: A variable is not a positive whole number, or larger than gRPC can keep.
    """
    default = RpcSettings()
    return RpcSettings(
        max_message_bytes=_positive_int(environ, "SLIPKNOT_RPC_MAX_MESSAGE_BYTES", default.max_message_bytes),
        keepalive_time_ms=_positive_int(environ, "SLIPKNOT_RPC_KEEPALIVE_TIME_MS", default.keepalive_time_ms),
        keepalive_timeout_ms=_positive_int(
            environ, "SLIPKNOT_RPC_KEEPALIVE_TIMEOUT_MS", default.keepalive_timeout_ms
        ),
    )


def cluster_settings(environ: Mapping[str, str] = os.environ) -> ClusterSettings:
    """Read the group "cluster"."""
    return ClusterSettings(
        address=environ.get("SLIPKNOT_ADDRESS", ""), token=environ.get("SLIPKNOT_CLUSTER_TOKEN", "")
    )


def _positive_int(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name)
    if text is None:
        return default
    number = int(text) if text.isdecimal() and len(text) <= len(str(MAX_RPC_OPTION)) else 0
    if not 0 < number <= MAX_RPC_OPTION:
        raise ValueError(
            f"{name}={text!r} is not a positive whole number up to {MAX_RPC_OPTION}; unset it or set one"
        )
    return number
