"""The one module that reads the environment. Everything else gets values.

Each name is `SLIPKNOT_<GROUP>_<FIELD>`; its unit and default stand in the docstring under the field.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .rpc.credentials import NO_CREDENTIALS, Credentials, TlsFiles
from .tracing import TracingSettings

DEFAULT_MAX_MESSAGE_BYTES = 256 * 1024 * 1024
MAX_RPC_OPTION = 2**31 - 1
"""gRPC keeps its options in 32 bits."""
CARRIERS = ("auto", "call", "session")


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
    data_keepalive_time_ms: int = 1_000
    """`SLIPKNOT_RPC_DATA_KEEPALIVE_TIME_MS`: the same between callers and replicas, where a request waits."""
    data_keepalive_timeout_ms: int = 1_500
    """`SLIPKNOT_RPC_DATA_KEEPALIVE_TIMEOUT_MS`: the sum of both is how long a replica that fell silent is
    waited for. gRPC answers from threads of its own: user code that blocks the event loop, or holds the
    interpreter's lock, is not taken for dead.
    """
    carrier: str = "auto"
    """`SLIPKNOT_RPC_CARRIER`: how exchanges travel to replicas. "call": each on a gRPC stream that no other
    uses meanwhile; "session": all of a process on one gRPC stream; "auto": uploads, large arguments and
    WebSockets as with "call", the others as with "session".
    """

    def for_data_path(self) -> "RpcSettings":
        """The settings of a caller's channel to a replica."""
        return replace(
            self,
            keepalive_time_ms=self.data_keepalive_time_ms,
            keepalive_timeout_ms=self.data_keepalive_timeout_ms,
        )


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """How a process finds and proves itself to a cluster."""

    address: str = ""
    """`SLIPKNOT_ADDRESS`: controller of an existing cluster, "host:port" or "unix:/path"; empty: start an
    embedded one.
    """
    credentials: Credentials = NO_CREDENTIALS
    """`SLIPKNOT_CLUSTER_TOKEN`, or the file `SLIPKNOT_CLUSTER_TOKEN_FILE`: shared secret sent with every call
    between members. `SLIPKNOT_TLS_CA`, `SLIPKNOT_TLS_CERT`, `SLIPKNOT_TLS_KEY`: PEM files for mutual TLS.
    Private Unix sockets need neither.
    """
    allow_pickle: bool = True
    """`SLIPKNOT_ALLOW_PICKLE`: "false" refuses pickled applications, arguments and results: applications come
    as import paths, arguments and results as MessagePack.
    """
    admin_token: str = ""
    """`SLIPKNOT_ADMIN_TOKEN`: what readers of metrics must send to admin ports; may be empty on loopback and
    Unix sockets.
    """


def rpc_settings(environ: Mapping[str, str] = os.environ) -> RpcSettings:
    """Read the group "rpc".

    Raises:
        ValueError: A variable is not a positive whole number, or larger than gRPC can keep, or not one of its
            words.
    """
    default = RpcSettings()
    return RpcSettings(
        max_message_bytes=_positive_int(environ, "SLIPKNOT_RPC_MAX_MESSAGE_BYTES", default.max_message_bytes),
        keepalive_time_ms=_positive_int(environ, "SLIPKNOT_RPC_KEEPALIVE_TIME_MS", default.keepalive_time_ms),
        keepalive_timeout_ms=_positive_int(
            environ, "SLIPKNOT_RPC_KEEPALIVE_TIMEOUT_MS", default.keepalive_timeout_ms
        ),
        data_keepalive_time_ms=_positive_int(
            environ, "SLIPKNOT_RPC_DATA_KEEPALIVE_TIME_MS", default.data_keepalive_time_ms
        ),
        data_keepalive_timeout_ms=_positive_int(
            environ, "SLIPKNOT_RPC_DATA_KEEPALIVE_TIMEOUT_MS", default.data_keepalive_timeout_ms
        ),
        carrier=_one_of(environ, "SLIPKNOT_RPC_CARRIER", default.carrier, CARRIERS),
    )


def cluster_settings(environ: Mapping[str, str] = os.environ) -> ClusterSettings:
    """Read the group "cluster".

    Raises:
        ValueError: The credentials are incomplete or cannot be read.
    """
    return ClusterSettings(
        address=environ.get("SLIPKNOT_ADDRESS", ""),
        credentials=take_credentials({}, environ),
        allow_pickle=_flag(environ, "SLIPKNOT_ALLOW_PICKLE", True),
        admin_token=environ.get("SLIPKNOT_ADMIN_TOKEN", ""),
    )


def tracing_settings(environ: Mapping[str, str] = os.environ) -> TracingSettings:
    """Read the group "tracing".

    Raises:
        ValueError: A variable is not what `TracingSettings` allows.
    """
    enabled = environ.get("SLIPKNOT_TRACING_ENABLED", "").strip().lower()
    if enabled not in ("", "0", "1", "false", "true"):
        raise ValueError(f"SLIPKNOT_TRACING_ENABLED={enabled!r} is not 1, true, 0 or false")
    ratio = environ.get("SLIPKNOT_TRACING_SAMPLING_RATIO", "") or "1"
    try:
        sampling_ratio = float(ratio)
    except ValueError:
        raise ValueError(f"SLIPKNOT_TRACING_SAMPLING_RATIO={ratio!r} is not from 0 to 1") from None
    return TracingSettings(
        enabled=enabled in ("1", "true"),
        exporter_import_path=environ.get("SLIPKNOT_TRACING_EXPORTER_IMPORT_PATH", ""),
        sampling_ratio=sampling_ratio,
    )


def take_credentials(values: dict[str, Any], environ: Mapping[str, str] = os.environ) -> Credentials:
    """Take a role's credentials out of its options; the environment gives those that are missing there.

    Args:
        values: Options of a role; the keys "token", "tls_ca", "tls_cert" and "tls_key" are removed.
        environ: Where the rest comes from.

    Raises:
        ValueError: They are incomplete or cannot be read; the message names the variable.
    """
    token = values.pop("token") if "token" in values else _token(environ)
    names = ("ca", "cert", "key")
    files = [str(values.pop(f"tls_{n}", environ.get(f"SLIPKNOT_TLS_{n.upper()}", ""))) for n in names]
    if not any(files):
        return Credentials(str(token))
    if not all(files):
        missing = [f"SLIPKNOT_TLS_{n.upper()}" for n, file in zip(names, files, strict=True) if not file]
        raise ValueError(f"{' and '.join(missing)} missing: SLIPKNOT_TLS_CA, _CERT and _KEY go together")
    # Replicas inherit the paths, and may have a working directory of their own.
    return Credentials(str(token), TlsFiles(*map(os.path.abspath, files)))


def _token(environ: Mapping[str, str]) -> str:
    token, file = environ.get("SLIPKNOT_CLUSTER_TOKEN", ""), environ.get("SLIPKNOT_CLUSTER_TOKEN_FILE", "")
    if not file:
        return token
    if token:
        raise ValueError("SLIPKNOT_CLUSTER_TOKEN and SLIPKNOT_CLUSTER_TOKEN_FILE are both set; unset one")
    try:
        found = Path(file).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"SLIPKNOT_CLUSTER_TOKEN_FILE={file!r} cannot be read: {error}") from error
    if not found:
        raise ValueError(f"SLIPKNOT_CLUSTER_TOKEN_FILE={file!r} is empty")
    return found


def _flag(environ: Mapping[str, str], name: str, default: bool) -> bool:
    text = environ.get(name, "").lower()
    if text in ("", "1", "true", "yes", "on"):
        return default if not text else True
    if text in ("0", "false", "no", "off"):
        return False
    raise ValueError(f"{name}={environ[name]!r} is neither true nor false; unset it or use one of them")


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


def _one_of(environ: Mapping[str, str], name: str, default: str, words: tuple[str, ...]) -> str:
    word = environ.get(name, default)
    if word not in words:
        raise ValueError(f"{name}={word!r} is not known; use one of {', '.join(words)}")
    return word
