"""The status as tables, for people. Pure.

Columns are for what everybody asks; whatever else a message says, also what a newer controller says that this
command knows nothing of, stands in the last column as name=value.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message

from slipknot_proto.v1 import controller_pb2

MAX_MESSAGE_CHARS = 200


@dataclass(frozen=True, slots=True)
class StatusTable:
    """One table; columns that are empty throughout are left out when it is shown."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)

    def without_empty_columns(self) -> "StatusTable":
        """The same with the columns that say something."""
        kept = [i for i in range(len(self.columns)) if any(row[i] for row in self.rows)]
        return StatusTable(
            self.title,
            tuple(self.columns[i] for i in kept),
            [tuple(row[i] for i in kept) for row in self.rows],
        )


def status_tables(status: controller_pb2.ClusterStatus, name: str | None = None) -> list[StatusTable]:
    """Everything; or one application with its replicas.

    Args:
        status: From the controller.
        name: Only this application.
    """
    applications = [a for a in status.applications if name is None or a.name == name]
    tables = [_applications(applications), _deployments(applications), _replicas(applications)]
    if name is None:
        tables = [_cluster(status), *tables, _proxies(status.proxies), _nodes(status.nodes)]
    return [table.without_empty_columns() for table in tables if table.rows]


def _cluster(status: controller_pb2.ClusterStatus) -> StatusTable:
    known = (
        "epoch",
        "applications",
        "proxies",
        "nodes",
        "snapshot_version",
        "admin_address",
        "leader_address",
    )
    counts = (
        f"{len(status.applications)} applications, {len(status.proxies)} proxies, {len(status.nodes)} nodes"
    )
    row = (
        f"{status.epoch}.{status.snapshot_version}",
        counts,
        status.leader_address,
        status.admin_address,
        _more(status, known),
    )
    return StatusTable("Cluster", ("EPOCH", "HAS", "LEADER", "METRICS", "MORE"), [row])


def _applications(applications: Iterable[controller_pb2.ApplicationStatus]) -> StatusTable:
    known = (
        "name",
        "status",
        "route_prefix",
        "message",
        "deployments",
        "deployed_time_s",
        "docs_path",
        "generation",
        "ingress_deployment",
    )
    return StatusTable(
        "Applications",
        ("APPLICATION", "STATUS", "ROUTE", "WHY", "MORE"),
        [(a.name, a.status, a.route_prefix, last_line(a.message), _more(a, known)) for a in applications],
    )


def _deployments(applications: Iterable[controller_pb2.ApplicationStatus]) -> StatusTable:
    known = (
        "name",
        "status",
        "status_trigger",
        "message",
        "replica_states",
        "target_num_replicas",
        "replicas",
    )
    return StatusTable(
        "Deployments",
        ("DEPLOYMENT", "STATUS", "REPLICAS", "ONGOING", "WHY", "MORE"),
        [
            (
                f"{a.name}/{d.name}",
                d.status,
                _replica_counts(d),
                str(sum(replica.ongoing for replica in d.replicas)),
                last_line(d.message) or d.status_trigger,
                _more(d, known),
            )
            for a in applications
            for d in a.deployments
        ],
    )


def _replica_counts(deployment: controller_pb2.DeploymentStatus) -> str:
    """For example "2/3, 1 starting"."""
    states = deployment.replica_states
    others = [
        f"{count} {state.lower()}" for state, count in sorted(states.items()) if count and state != "RUNNING"
    ]
    return ", ".join([f"{states.get('RUNNING', 0)}/{deployment.target_num_replicas}", *others])


def _replicas(applications: Iterable[controller_pb2.ApplicationStatus]) -> StatusTable:
    known = ("replica_id", "state", "pid", "node_id", "ongoing", "address")
    rows = [
        (
            r.node_id or "-",
            r.replica_id,
            r.state,
            str(r.pid or ""),
            str(r.ongoing),
            r.address,
            _more(r, known),
        )
        for a in applications
        for d in a.deployments
        for r in d.replicas
    ]
    columns = ("NODE", "REPLICA", "STATE", "PID", "ONGOING", "ADDRESS", "MORE")
    return StatusTable("Replicas by node", columns, sorted(rows))


def _proxies(proxies: Iterable[controller_pb2.ProxyStatus]) -> StatusTable:
    known = ("proxy_id", "status", "node_id", "http_address", "gateway_address", "pid", "admin_address")
    return StatusTable(
        "Proxies",
        ("PROXY", "STATUS", "NODE", "HTTP", "GATEWAY", "PID", "METRICS", "MORE"),
        [
            (
                p.proxy_id,
                p.status,
                p.node_id,
                p.http_address,
                p.gateway_address,
                str(p.pid),
                p.admin_address,
                _more(p, known),
            )
            for p in proxies
        ],
    )


def _nodes(nodes: Iterable[controller_pb2.NodeStatus]) -> StatusTable:
    known = ("node_id", "hostname", "pid", "replica_count", "admin_address")
    return StatusTable(
        "Nodes",
        ("NODE", "HOST", "PID", "REPLICAS", "METRICS", "MORE"),
        [
            (n.node_id, n.hostname, str(n.pid), str(n.replica_count), n.admin_address, _more(n, known))
            for n in nodes
        ],
    )


def last_line(message: str) -> str:
    """The line of a message that says it: of a traceback the last one."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[-1][:MAX_MESSAGE_CHARS] if lines else ""


def _more(message: Message, known: Collection[str]) -> str:
    return " ".join(
        f"{descriptor.name}={_value(value)}"
        for descriptor, value in message.ListFields()
        if descriptor.name not in known
    )


def _value(value: Any) -> str:
    if isinstance(value, Message):
        return "{" + _more(value, ()) + "}"
    if isinstance(value, str | bool | int | float | bytes):
        return f"{value:g}" if isinstance(value, float) else str(value)
    if hasattr(value, "items"):
        return "{" + " ".join(f"{key}={_value(item)}" for key, item in sorted(value.items())) + "}"
    return "[" + " ".join(_value(item) for item in _items(value)) + "]"


def _items(value: Any) -> Sequence[Any]:
    return list(value)
