"""What is to run, as frozen values; `from_proto`/`to_proto` stand beside each dataclass and are the only
users of its message.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from slipknot_proto.v1 import spec_pb2

from .autoscaling_spec import AutoscalingSpec, PolicySpec
from .ids import DeploymentId
from .resources import PlacementStrategy, Resources

_STRATEGIES = {
    PlacementStrategy.SPREAD: spec_pb2.PLACEMENT_STRATEGY_SPREAD,
    PlacementStrategy.PACK: spec_pb2.PLACEMENT_STRATEGY_PACK,
}

DEFAULT_ROLLING_UPDATE_PERCENTAGE = 0.2


@dataclass(frozen=True, slots=True)
class ImportSource:
    """Code that is built on the node from an import path."""

    import_path: str
    args: Mapping[str, Any] = field(default_factory=dict)
    working_dir: str = ""
    env_vars: Mapping[str, str] = field(default_factory=dict)
    archive: str = ""
    """Name of an uploaded archive that is the working directory; empty: none."""

    @classmethod
    def from_proto(cls, message: spec_pb2.ImportSource) -> "ImportSource":
        """Read the message."""
        args = json.loads(message.args_json) if message.args_json else {}
        return cls(message.import_path, args, message.working_dir, dict(message.env_vars), message.archive)

    def to_proto(self) -> spec_pb2.ImportSource:
        """Write the message."""
        return spec_pb2.ImportSource(
            import_path=self.import_path,
            args_json=json.dumps(dict(self.args)),
            working_dir=self.working_dir,
            env_vars=dict(self.env_vars),
            archive=self.archive,
        )


@dataclass(frozen=True, slots=True)
class CodeSource:
    """Where a replica gets its class from: exactly one of `pickle` and `import_source`."""

    pickle: bytes = b""
    """cloudpickle of (class or function, init args tuple, init kwargs dict)."""
    import_source: ImportSource | None = None
    python_path: Sequence[str] = ()
    """sys.path entries of the driver."""

    @classmethod
    def from_proto(cls, message: spec_pb2.CodeSource) -> "CodeSource":
        """Read the message."""
        if message.WhichOneof("source") == "import_source":
            source = ImportSource.from_proto(message.import_source)
            return cls(import_source=source, python_path=tuple(message.python_path))
        return cls(pickle=message.pickle, python_path=tuple(message.python_path))

    def to_proto(self) -> spec_pb2.CodeSource:
        """Write the message."""
        if self.import_source is not None:
            return spec_pb2.CodeSource(
                import_source=self.import_source.to_proto(), python_path=self.python_path
            )
        return spec_pb2.CodeSource(pickle=self.pickle, python_path=self.python_path)


@dataclass(frozen=True, slots=True)
class DeploymentSpec:
    """Desired state of one deployment. Units and defaults as in `DeploymentSpec` of spec.proto."""

    name: str
    code: CodeSource
    num_replicas: int = 1
    max_ongoing_requests: int = 5
    max_queued_requests: int = -1
    user_config_json: str = ""
    graceful_shutdown_wait_loop_s: float = 2.0
    graceful_shutdown_timeout_s: float = 20.0
    health_check_period_s: float = 10.0
    health_check_timeout_s: float = 30.0
    backpressure_status_code: int = 503
    backpressure_retry_after_s: int | None = None
    version: str = ""
    extra_options_json: str = ""
    logging_config_json: str = ""
    max_constructor_attempts: int = 3
    autoscaling: AutoscalingSpec | None = None
    rolling_update_percentage: float = DEFAULT_ROLLING_UPDATE_PERCENTAGE
    max_surge_percent: float = 0.0
    resources: Resources = field(default_factory=Resources)
    max_replicas_per_node: int = 0
    """0: no limit."""
    placement_strategy: PlacementStrategy = PlacementStrategy.SPREAD
    env_vars: Mapping[str, str] = field(default_factory=dict)
    """Of its replicas, over those of the application."""

    @classmethod
    def from_proto(cls, message: spec_pb2.DeploymentSpec) -> "DeploymentSpec":
        """Read the message."""
        retry_after_s = message.backpressure_retry_after_s
        return cls(
            name=message.name,
            code=CodeSource.from_proto(message.code),
            num_replicas=message.num_replicas,
            max_ongoing_requests=message.max_ongoing_requests,
            max_queued_requests=message.max_queued_requests,
            user_config_json=message.user_config_json,
            graceful_shutdown_wait_loop_s=message.graceful_shutdown_wait_loop_s,
            graceful_shutdown_timeout_s=message.graceful_shutdown_timeout_s,
            health_check_period_s=message.health_check_period_s,
            health_check_timeout_s=message.health_check_timeout_s,
            backpressure_status_code=message.backpressure_status_code,
            backpressure_retry_after_s=retry_after_s if retry_after_s >= 0 else None,
            version=message.version,
            extra_options_json=message.extra_options_json,
            logging_config_json=message.logging_config_json,
            max_constructor_attempts=message.max_constructor_attempts,
            autoscaling=AutoscalingSpec.from_proto(message.autoscaling)
            if message.HasField("autoscaling")
            else None,
            rolling_update_percentage=message.rolling_update_percentage or DEFAULT_ROLLING_UPDATE_PERCENTAGE,
            max_surge_percent=message.max_surge_percent,
            resources=Resources.from_proto(message.resources),
            max_replicas_per_node=message.max_replicas_per_node,
            placement_strategy=(
                PlacementStrategy.PACK
                if message.placement_strategy == spec_pb2.PLACEMENT_STRATEGY_PACK
                else PlacementStrategy.SPREAD
            ),
            env_vars=dict(message.env_vars),
        )

    def to_proto(self) -> spec_pb2.DeploymentSpec:
        """Write the message."""
        retry_after_s = self.backpressure_retry_after_s
        return spec_pb2.DeploymentSpec(
            name=self.name,
            code=self.code.to_proto(),
            num_replicas=self.num_replicas,
            max_ongoing_requests=self.max_ongoing_requests,
            max_queued_requests=self.max_queued_requests,
            user_config_json=self.user_config_json,
            graceful_shutdown_wait_loop_s=self.graceful_shutdown_wait_loop_s,
            graceful_shutdown_timeout_s=self.graceful_shutdown_timeout_s,
            health_check_period_s=self.health_check_period_s,
            health_check_timeout_s=self.health_check_timeout_s,
            backpressure_status_code=self.backpressure_status_code,
            backpressure_retry_after_s=-1 if retry_after_s is None else retry_after_s,
            version=self.version,
            extra_options_json=self.extra_options_json,
            logging_config_json=self.logging_config_json,
            max_constructor_attempts=self.max_constructor_attempts,
            autoscaling=self.autoscaling.to_proto() if self.autoscaling else None,
            rolling_update_percentage=self.rolling_update_percentage,
            max_surge_percent=self.max_surge_percent,
            resources=self.resources.to_proto(),
            max_replicas_per_node=self.max_replicas_per_node,
            placement_strategy=_STRATEGIES[self.placement_strategy],
            env_vars=dict(self.env_vars),
        )

    @property
    def user_config_hash(self) -> str:
        """Identifies the user_config; empty without one."""
        if not self.user_config_json:
            return ""
        return hashlib.sha256(self.user_config_json.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class ApplicationSpec:
    """Desired state of one application."""

    name: str
    ingress_deployment: str
    deployments: tuple[DeploymentSpec, ...]
    route_prefix: str | None = "/"
    import_source: ImportSource | None = None
    docs_path: str = ""
    autoscaling_policy: PolicySpec | None = None
    """Decides for all deployments that have `autoscaling`; None: each decides for itself."""

    @classmethod
    def from_proto(cls, message: spec_pb2.ApplicationSpec) -> "ApplicationSpec":
        """Read the message."""
        has_source = message.HasField("import_source")
        return cls(
            name=message.name,
            ingress_deployment=message.ingress_deployment,
            deployments=tuple(map(DeploymentSpec.from_proto, message.deployments)),
            route_prefix=message.route_prefix or None,
            import_source=ImportSource.from_proto(message.import_source) if has_source else None,
            docs_path=message.docs_path,
            autoscaling_policy=PolicySpec.from_proto(message.autoscaling_policy)
            if message.HasField("autoscaling_policy")
            else None,
        )

    def to_proto(self) -> spec_pb2.ApplicationSpec:
        """Write the message."""
        return spec_pb2.ApplicationSpec(
            name=self.name,
            route_prefix=self.route_prefix or "",
            ingress_deployment=self.ingress_deployment,
            deployments=[d.to_proto() for d in self.deployments],
            import_source=self.import_source.to_proto() if self.import_source else None,
            docs_path=self.docs_path,
            autoscaling_policy=self.autoscaling_policy.to_proto() if self.autoscaling_policy else None,
        )

    def deployment_ids(self) -> list[DeploymentId]:
        """Ids of all deployments."""
        return [DeploymentId(self.name, d.name) for d in self.deployments]

    def with_deployments(self, deployments: Sequence[DeploymentSpec]) -> "ApplicationSpec":
        """The same application with other deployments."""
        return replace(self, deployments=tuple(deployments))


@dataclass(frozen=True, slots=True)
class ReplicaLaunch:
    """What a replica process needs to start."""

    replica_id: str
    app_name: str
    deployment: DeploymentSpec
    controller_address: str
    node_id: str
    socket_dir: str = ""
    is_ingress: bool = False
    route_prefix: str | None = None
    logs_dir: str = ""
    listen_host: str = ""
    advertise_host: str = ""
    refuse_pickle: bool = False
    metrics_dir: str = ""
    gpu_ids: tuple[str, ...] = ()
    """GPUs that the replica may use."""
    rank: int = 0
    """Which of the deployment's replicas it is."""

    @classmethod
    def from_proto(cls, message: spec_pb2.ReplicaLaunch) -> "ReplicaLaunch":
        """Read the message."""
        return cls(
            replica_id=message.replica_id,
            app_name=message.app_name,
            deployment=DeploymentSpec.from_proto(message.deployment),
            controller_address=message.controller_address,
            node_id=message.node_id,
            socket_dir=message.socket_dir,
            is_ingress=message.is_ingress,
            route_prefix=message.route_prefix or None,
            logs_dir=message.logs_dir,
            listen_host=message.listen_host,
            advertise_host=message.advertise_host,
            refuse_pickle=message.refuse_pickle,
            metrics_dir=message.metrics_dir,
            gpu_ids=tuple(message.gpu_ids),
            rank=message.rank,
        )

    def to_proto(self) -> spec_pb2.ReplicaLaunch:
        """Write the message."""
        return spec_pb2.ReplicaLaunch(
            replica_id=self.replica_id,
            app_name=self.app_name,
            deployment=self.deployment.to_proto(),
            controller_address=self.controller_address,
            node_id=self.node_id,
            socket_dir=self.socket_dir,
            is_ingress=self.is_ingress,
            route_prefix=self.route_prefix or "",
            logs_dir=self.logs_dir,
            listen_host=self.listen_host,
            advertise_host=self.advertise_host,
            refuse_pickle=self.refuse_pickle,
            metrics_dir=self.metrics_dir,
            gpu_ids=self.gpu_ids,
            rank=self.rank,
        )
