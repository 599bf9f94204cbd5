"""Options of one proxy. A frozen value."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from slipknot_core.rpc.credentials import NO_CREDENTIALS, Credentials
from slipknot_core.settings import cluster_settings, take_credentials


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyConfig:
    """Options of one proxy.

    Raises:
        ValueError: A value is not allowed; the message names it and the remedy.
    """

    controller_address: str
    """gRPC address of the controller, "unix:/path" or "host:port"."""
    host: str = "127.0.0.1"
    """Address to listen on for HTTP."""
    port: int = 8000
    """0: any free one."""
    listen_fd: int | None = None
    """Inherited listening socket, used instead of `host` and `port`."""
    gateway_host: str = "127.0.0.1"
    """Address of the gRPC gateway."""
    gateway_port_may_change: bool = False
    """Take any free port for the gateway if `gateway_port` is taken."""
    gateway_port: int | None = 9000
    """0: any free one; None: no gateway."""
    proxy_id: str = ""
    """Unique in the cluster; empty: made up from the names of machine and process."""
    node_id: str = ""
    """Replicas on this node are preferred."""
    credentials: Credentials = NO_CREDENTIALS
    """By default those of the environment; the keys are "token", "tls_ca", "tls_cert", "tls_key". May be
    empty on Unix sockets."""
    request_timeout_s: float | None = None
    """From the arrival of a request to the end of its response, in seconds; None: no limit."""
    keep_alive_timeout_s: float = 5.0
    """How long an idle connection stays open."""
    head_timeout_s: float = 60.0
    """How long a client may take to send the head of a request, the first one of a connection included."""
    body_timeout_s: float | None = 60.0
    """How long a client may pause in a request's body before the response has begun; then 408. None: no
    limit."""
    root_path: str = ""
    """Prefix that something in front of the proxy strips; handlers see it in `root_path` and `path`."""
    forwarded_allow_ips: str = "127.0.0.1,::1"
    """Peers whose X-Forwarded-For and X-Forwarded-Proto are believed; "*": all, empty: none."""
    ssl_keyfile: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile_password: str | None = None
    ssl_ca_certs: str | None = None
    """Certificates that clients must prove themselves with; None: clients need none."""
    max_header_bytes: int = 64 * 1024
    """Bound of a request's head; above it 431."""
    max_body_bytes: int | None = None
    """Bound of a request's body; above it 413. None: bodies are streamed, so the proxy needs no bound of its
    own."""
    max_read_ahead_bytes: int = 8 * 1024 * 1024
    """How much of a connection is read ahead of the replica, so that a client that leaves is noticed."""
    max_ws_message_bytes: int = 16 * 1024 * 1024
    """Bound of a WebSocket message; above it the connection is closed with 1009."""
    max_connections: int = 16_384
    """Client connections at one time; those above it are answered with 503."""
    drain_timeout_s: float = 20.0
    """How long ongoing requests may take after SIGTERM before they are cancelled."""
    lame_duck_s: float = 0.0
    """How long new connections are still taken after SIGTERM, so that a load balancer notices `/-/healthz`
    first."""
    retry_idempotent: bool = True
    """Send a GET, HEAD, OPTIONS, PUT, DELETE or TRACE whose replica was lost before it said anything to
    another one, although user code may have begun."""
    lifeline_fd: int | None = None
    """Read end of the parent's lifeline: the proxy dies with its parent."""
    ready_fd: int | None = None
    """Where "ready <http address> <gateway address>" is written once the proxy listens; "-" is no gateway."""
    logging_json: str = ""
    """JSON of the logging settings; empty: the defaults."""
    gateway_access: Literal["auto", "open", "credentials"] = "auto"
    """Who may use the gateway: "open" everybody who gets there, "credentials" those with a token or
    certificate of this cluster; "auto" is open on loopback, and demands credentials beyond it."""
    advertise_host: str = ""
    """Name or address that others reach this proxy by; empty: this machine's host name where it listens on
    all of its addresses."""
    admin_address: str = ""
    """Where metrics are shown, "host:port" or "unix:/path"; empty: nowhere."""
    admin_token: str = ""
    """What readers of the admin port must send; may be empty on loopback and Unix sockets."""

    def __post_init__(self) -> None:
        if not self.controller_address:
            raise ValueError("controller_address is empty; give the controller's 'host:port' or 'unix:/path'")
        if bool(self.ssl_keyfile) != bool(self.ssl_certfile):
            raise ValueError("ssl_keyfile and ssl_certfile go together; only one of them is set")
        if self.root_path and (not self.root_path.startswith("/") or self.root_path.endswith("/")):
            raise ValueError(f"root_path={self.root_path!r} must begin with '/' and must not end with it")
        if self.gateway_access not in ("auto", "open", "credentials"):
            raise ValueError(f"gateway_access={self.gateway_access!r} is none of auto, open, credentials")
        for name in ("port", "gateway_port"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 65535:
                raise ValueError(f"{name}={value!r} is no port; use 0 to 65535")
        bounds = ("max_header_bytes", "max_body_bytes", "max_read_ahead_bytes", "max_ws_message_bytes")
        for name in (*bounds, "head_timeout_s", "body_timeout_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name}={value!r} must be positive")
        if self.request_timeout_s is not None and not self.request_timeout_s > 0:
            raise ValueError(
                f"request_timeout_s={self.request_timeout_s!r} must be positive; use None for no limit"
            )

    @classmethod
    def from_options(cls, http_options: Mapping[str, Any], **others: Any) -> "ProxyConfig":
        """Take the plain values of `serve.config.HTTPOptions`; keys that are no concern of the proxy are left
        out."""
        known = {field.name for field in fields(cls)}
        return cls(**{key: value for key, value in http_options.items() if key in known} | others)

    @classmethod
    def from_json(cls, text: str) -> "ProxyConfig":
        """Read a JSON object with these fields as keys.

        Raises:
            ValueError: Names what is unknown or wrong.
        """
        try:
            values = json.loads(text)
        except ValueError as error:
            raise ValueError(f"the proxy's options are not JSON: {error}") from error
        if not isinstance(values, dict):
            raise ValueError(f"the proxy's options must be a JSON object, not {text[:80]!r}")
        credentials = take_credentials(values)
        unknown = sorted(values.keys() - {field.name for field in fields(cls)})
        if unknown:
            raise ValueError(f"unknown options of the proxy: {', '.join(unknown)}")
        if "controller_address" not in values:
            raise ValueError(
                "controller_address is missing; give the controller's 'host:port' or 'unix:/path'"
            )
        values.setdefault("admin_token", cluster_settings().admin_token)
        return cls(**values, credentials=credentials)
