"""Options of one controller."""

import json
from dataclasses import dataclass, field, fields
from typing import Any

from slipknot_core.rpc.credentials import NO_CREDENTIALS, Credentials
from slipknot_core.settings import cluster_settings, take_credentials

STORE_KINDS = ("memory", "sqlite")


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """Where desired state is kept.

    Raises:
        ValueError: The kind is unknown, or needs a path.
    """

    kind: str = "memory"
    """"memory" or "sqlite"."""
    path: str = ""
    """The file of "sqlite"."""

    def __post_init__(self) -> None:
        if self.kind not in STORE_KINDS:
            raise ValueError(f"store.kind={self.kind!r} is unknown; use one of {', '.join(STORE_KINDS)}")
        if self.kind == "sqlite" and not self.path:
            raise ValueError("store.path is missing; name the file for the sqlite store")


@dataclass(frozen=True, slots=True)
class ControllerConfig:
    """Options of one controller. The fields are the keys of `--config-json`."""

    address: str
    """Where to listen: "unix:/path" or "host:port"; port 0 picks one. TCP needs credentials."""
    store: StoreConfig = field(default_factory=StoreConfig)
    credentials: Credentials = NO_CREDENTIALS
    """By default those of the environment; the keys are "token", "tls_ca", "tls_cert", "tls_key". May be
    empty on Unix sockets."""
    embedded: bool = False
    """End this process when the cluster is shut down."""
    lifeline_fd: int | None = None
    """The controller dies with whoever holds the other end."""
    ready_fd: int | None = None
    """Where "ready <address>" is written once it serves."""
    logging_json: str = ""
    advertise_address: str = ""
    """"host:port" that others reach this controller at; empty: `address`, with this machine's host name where
    that is all of its addresses."""
    admin_address: str = ""
    """Where metrics are shown, "host:port" or "unix:/path"; empty: nowhere."""
    admin_token: str = ""
    """What readers of the admin port must send; may be empty on loopback and Unix sockets."""
    allow_pickle: bool = True
    """Take applications that come by value, pickled; if not, replicas and callers do without pickle, too."""

    @classmethod
    def from_json(cls, text: str) -> "ControllerConfig":
        """Read a JSON object with these fields as keys.

        Raises:
            ValueError: Names what is unknown, missing or wrong.
        """
        try:
            values: dict[str, Any] = dict(json.loads(text))
        except (TypeError, ValueError):
            raise ValueError(f"the options are no JSON object: {text!r}") from None
        credentials = take_credentials(values)
        unknown = sorted(values.keys() - {f.name for f in fields(cls)})
        if unknown:
            raise ValueError(f"unknown options of the controller: {', '.join(unknown)}")
        if not values.get("address"):
            raise ValueError("address is missing; give 'unix:/path' or '127.0.0.1:port'")
        store = StoreConfig(**values.pop("store", {}))
        values.setdefault("allow_pickle", cluster_settings().allow_pickle)
        values.setdefault("admin_token", cluster_settings().admin_token)
        return cls(**values, store=store, credentials=credentials)
