"""Options of one controller."""

import json
from dataclasses import dataclass, field, fields
from typing import Any

from slipknot_core.rpc.credentials import NO_CREDENTIALS, Credentials
from slipknot_core.settings import cluster_settings, take_credentials

from .store import EtcdOptions

STORE_KINDS = ("memory", "sqlite", "etcd")
DEFAULT_PREFIX = "slipknot/"


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """Where desired state is kept.

    Raises:
        ValueError: The kind is unknown, or something that it needs is missing.
    """

    kind: str = "memory"
    """"memory", "sqlite", or "etcd", which all controllers of a cluster share."""
    path: str = ""
    """The file of "sqlite"."""
    endpoints: tuple[str, ...] = ()
    """Members of "etcd", each "host:port"."""
    prefix: str = DEFAULT_PREFIX
    """Of all keys in "etcd"; one for each cluster that shares it."""
    user: str = ""
    """User name at "etcd"; empty: none."""
    password: str = field(default="", repr=False)
    """Its password."""
    ca: str = ""
    """PEM file of the authority that signs the certificates of "etcd"; with it, or with a certificate, TLS is
    spoken."""
    cert: str = ""
    """PEM file of our own certificate for "etcd"."""
    key: str = ""
    """PEM file of its private key."""
    lease_ttl_s: int = 2
    """Seconds after which a silent leader is replaced ("etcd"; 2 is the shortest that it grants)."""

    def __post_init__(self) -> None:
        if self.kind not in STORE_KINDS:
            raise ValueError(f"store.kind={self.kind!r} is unknown; use one of {', '.join(STORE_KINDS)}")
        if self.kind == "sqlite" and not self.path:
            raise ValueError("store.path is missing; name the file for the sqlite store")
        if isinstance(self.endpoints, str):
            raise ValueError("store.endpoints is one text; use a list of 'host:port'")
        if self.kind == "etcd" and not self.endpoints:
            raise ValueError("store.endpoints is missing; name the members of etcd, each 'host:port'")
        if bool(self.cert) != bool(self.key):
            raise ValueError("store.cert and store.key go together; give both or none")
        if self.lease_ttl_s < 2:
            raise ValueError(f"store.lease_ttl_s={self.lease_ttl_s} is too short; use 2 or more")

    def etcd_options(self) -> EtcdOptions:
        """How "etcd" is reached."""
        return EtcdOptions(
            tuple(self.endpoints),
            self.user,
            self.password,
            ca_file=self.ca,
            cert_file=self.cert,
            key_file=self.key,
        )


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
        try:
            store = StoreConfig(**values.pop("store", {}))
        except TypeError as error:
            raise ValueError(f"options of the store: {error}") from None
        values.setdefault("allow_pickle", cluster_settings().allow_pickle)
        values.setdefault("admin_token", cluster_settings().admin_token)
        return cls(**values, store=store, credentials=credentials)
