from slipknot_proto.v1 import spec_pb2 as _spec_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class JoinReplicaRequest(_message.Message):
    __slots__ = ("hello", "state", "load", "health", "reconfigured", "alive", "models")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    RECONFIGURED_FIELD_NUMBER: _ClassVar[int]
    ALIVE_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    hello: ReplicaHello
    state: ReplicaState
    load: ReplicaLoad
    health: HealthReport
    reconfigured: ReconfigureReport
    alive: ReplicaAlive
    models: ReplicaModels
    def __init__(self, hello: _Optional[_Union[ReplicaHello, _Mapping]] = ..., state: _Optional[_Union[ReplicaState, _Mapping]] = ..., load: _Optional[_Union[ReplicaLoad, _Mapping]] = ..., health: _Optional[_Union[HealthReport, _Mapping]] = ..., reconfigured: _Optional[_Union[ReconfigureReport, _Mapping]] = ..., alive: _Optional[_Union[ReplicaAlive, _Mapping]] = ..., models: _Optional[_Union[ReplicaModels, _Mapping]] = ...) -> None: ...

class ReplicaHello(_message.Message):
    __slots__ = ("replica_id", "app_name", "deployment_name", "version", "address", "node_id", "pid", "state", "has_health_check", "user_config_hash", "seen_epoch", "multiplexed_model_ids", "rank")
    REPLICA_ID_FIELD_NUMBER: _ClassVar[int]
    APP_NAME_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    HAS_HEALTH_CHECK_FIELD_NUMBER: _ClassVar[int]
    USER_CONFIG_HASH_FIELD_NUMBER: _ClassVar[int]
    SEEN_EPOCH_FIELD_NUMBER: _ClassVar[int]
    MULTIPLEXED_MODEL_IDS_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    replica_id: str
    app_name: str
    deployment_name: str
    version: str
    address: str
    node_id: str
    pid: int
    state: ReplicaState
    has_health_check: bool
    user_config_hash: str
    seen_epoch: int
    multiplexed_model_ids: _containers.RepeatedScalarFieldContainer[str]
    rank: int
    def __init__(self, replica_id: _Optional[str] = ..., app_name: _Optional[str] = ..., deployment_name: _Optional[str] = ..., version: _Optional[str] = ..., address: _Optional[str] = ..., node_id: _Optional[str] = ..., pid: _Optional[int] = ..., state: _Optional[_Union[ReplicaState, _Mapping]] = ..., has_health_check: _Optional[bool] = ..., user_config_hash: _Optional[str] = ..., seen_epoch: _Optional[int] = ..., multiplexed_model_ids: _Optional[_Iterable[str]] = ..., rank: _Optional[int] = ...) -> None: ...

class ReplicaState(_message.Message):
    __slots__ = ("state", "message", "docs_path", "has_health_check")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[ReplicaState.State]
        STATE_STARTING: _ClassVar[ReplicaState.State]
        STATE_RUNNING: _ClassVar[ReplicaState.State]
        STATE_FAILED: _ClassVar[ReplicaState.State]
        STATE_DRAINING: _ClassVar[ReplicaState.State]
        STATE_STOPPED: _ClassVar[ReplicaState.State]
    STATE_UNSPECIFIED: ReplicaState.State
    STATE_STARTING: ReplicaState.State
    STATE_RUNNING: ReplicaState.State
    STATE_FAILED: ReplicaState.State
    STATE_DRAINING: ReplicaState.State
    STATE_STOPPED: ReplicaState.State
    STATE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    DOCS_PATH_FIELD_NUMBER: _ClassVar[int]
    HAS_HEALTH_CHECK_FIELD_NUMBER: _ClassVar[int]
    state: ReplicaState.State
    message: str
    docs_path: str
    has_health_check: bool
    def __init__(self, state: _Optional[_Union[ReplicaState.State, str]] = ..., message: _Optional[str] = ..., docs_path: _Optional[str] = ..., has_health_check: _Optional[bool] = ...) -> None: ...

class ReplicaLoad(_message.Message):
    __slots__ = ("ongoing", "waiting")
    ONGOING_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    ongoing: int
    waiting: int
    def __init__(self, ongoing: _Optional[int] = ..., waiting: _Optional[int] = ...) -> None: ...

class ReplicaModels(_message.Message):
    __slots__ = ("model_ids",)
    MODEL_IDS_FIELD_NUMBER: _ClassVar[int]
    model_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, model_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class HealthReport(_message.Message):
    __slots__ = ("healthy", "message")
    HEALTHY_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    healthy: bool
    message: str
    def __init__(self, healthy: _Optional[bool] = ..., message: _Optional[str] = ...) -> None: ...

class ReconfigureReport(_message.Message):
    __slots__ = ("user_config_hash", "error")
    USER_CONFIG_HASH_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    user_config_hash: str
    error: str
    def __init__(self, user_config_hash: _Optional[str] = ..., error: _Optional[str] = ...) -> None: ...

class JoinReplicaResponse(_message.Message):
    __slots__ = ("epoch", "welcome", "reconfigure", "drain", "prove_alive")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    RECONFIGURE_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    PROVE_ALIVE_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    welcome: ReplicaWelcome
    reconfigure: Reconfigure
    drain: DrainReplica
    prove_alive: ProveAlive
    def __init__(self, epoch: _Optional[int] = ..., welcome: _Optional[_Union[ReplicaWelcome, _Mapping]] = ..., reconfigure: _Optional[_Union[Reconfigure, _Mapping]] = ..., drain: _Optional[_Union[DrainReplica, _Mapping]] = ..., prove_alive: _Optional[_Union[ProveAlive, _Mapping]] = ...) -> None: ...

class ProveAlive(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReplicaAlive(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReplicaWelcome(_message.Message):
    __slots__ = ("epoch", "accepted", "message")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    accepted: bool
    message: str
    def __init__(self, epoch: _Optional[int] = ..., accepted: _Optional[bool] = ..., message: _Optional[str] = ...) -> None: ...

class Reconfigure(_message.Message):
    __slots__ = ("deployment", "user_config_hash")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    USER_CONFIG_HASH_FIELD_NUMBER: _ClassVar[int]
    deployment: _spec_pb2.DeploymentSpec
    user_config_hash: str
    def __init__(self, deployment: _Optional[_Union[_spec_pb2.DeploymentSpec, _Mapping]] = ..., user_config_hash: _Optional[str] = ...) -> None: ...

class DrainReplica(_message.Message):
    __slots__ = ("timeout_s",)
    TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    timeout_s: float
    def __init__(self, timeout_s: _Optional[float] = ...) -> None: ...

class JoinNodeRequest(_message.Message):
    __slots__ = ("hello", "replica_exited", "build_result", "alive", "policy_result", "leaving")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    REPLICA_EXITED_FIELD_NUMBER: _ClassVar[int]
    BUILD_RESULT_FIELD_NUMBER: _ClassVar[int]
    ALIVE_FIELD_NUMBER: _ClassVar[int]
    POLICY_RESULT_FIELD_NUMBER: _ClassVar[int]
    LEAVING_FIELD_NUMBER: _ClassVar[int]
    hello: NodeHello
    replica_exited: ReplicaExited
    build_result: BuildResult
    alive: NodeAlive
    policy_result: PolicyResult
    leaving: NodeLeaving
    def __init__(self, hello: _Optional[_Union[NodeHello, _Mapping]] = ..., replica_exited: _Optional[_Union[ReplicaExited, _Mapping]] = ..., build_result: _Optional[_Union[BuildResult, _Mapping]] = ..., alive: _Optional[_Union[NodeAlive, _Mapping]] = ..., policy_result: _Optional[_Union[PolicyResult, _Mapping]] = ..., leaving: _Optional[_Union[NodeLeaving, _Mapping]] = ...) -> None: ...

class NodeLeaving(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class NodeHello(_message.Message):
    __slots__ = ("node_id", "hostname", "pid", "num_cpus", "memory_bytes", "replica_ids", "labels", "incarnation", "seen_epoch", "admin_address", "gpu_ids", "custom_resources", "replicas")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class CustomResourcesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    NUM_CPUS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    REPLICA_IDS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    SEEN_EPOCH_FIELD_NUMBER: _ClassVar[int]
    ADMIN_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    GPU_IDS_FIELD_NUMBER: _ClassVar[int]
    CUSTOM_RESOURCES_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    hostname: str
    pid: int
    num_cpus: float
    memory_bytes: int
    replica_ids: _containers.RepeatedScalarFieldContainer[str]
    labels: _containers.ScalarMap[str, str]
    incarnation: str
    seen_epoch: int
    admin_address: str
    gpu_ids: _containers.RepeatedScalarFieldContainer[str]
    custom_resources: _containers.ScalarMap[str, float]
    replicas: _containers.RepeatedCompositeFieldContainer[HeldReplica]
    def __init__(self, node_id: _Optional[str] = ..., hostname: _Optional[str] = ..., pid: _Optional[int] = ..., num_cpus: _Optional[float] = ..., memory_bytes: _Optional[int] = ..., replica_ids: _Optional[_Iterable[str]] = ..., labels: _Optional[_Mapping[str, str]] = ..., incarnation: _Optional[str] = ..., seen_epoch: _Optional[int] = ..., admin_address: _Optional[str] = ..., gpu_ids: _Optional[_Iterable[str]] = ..., custom_resources: _Optional[_Mapping[str, float]] = ..., replicas: _Optional[_Iterable[_Union[HeldReplica, _Mapping]]] = ...) -> None: ...

class HeldReplica(_message.Message):
    __slots__ = ("replica_id", "app_name", "deployment_name", "version", "resources", "gpu_ids", "archive", "graceful_shutdown_timeout_s")
    REPLICA_ID_FIELD_NUMBER: _ClassVar[int]
    APP_NAME_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    GPU_IDS_FIELD_NUMBER: _ClassVar[int]
    ARCHIVE_FIELD_NUMBER: _ClassVar[int]
    GRACEFUL_SHUTDOWN_TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    replica_id: str
    app_name: str
    deployment_name: str
    version: str
    resources: _spec_pb2.ReplicaResources
    gpu_ids: _containers.RepeatedScalarFieldContainer[str]
    archive: str
    graceful_shutdown_timeout_s: float
    def __init__(self, replica_id: _Optional[str] = ..., app_name: _Optional[str] = ..., deployment_name: _Optional[str] = ..., version: _Optional[str] = ..., resources: _Optional[_Union[_spec_pb2.ReplicaResources, _Mapping]] = ..., gpu_ids: _Optional[_Iterable[str]] = ..., archive: _Optional[str] = ..., graceful_shutdown_timeout_s: _Optional[float] = ...) -> None: ...

class NodeAlive(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class FetchArchiveRequest(_message.Message):
    __slots__ = ("digest",)
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    digest: str
    def __init__(self, digest: _Optional[str] = ...) -> None: ...

class FetchArchiveResponse(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class ReplicaExited(_message.Message):
    __slots__ = ("replica_id", "exit_code", "detail")
    REPLICA_ID_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    replica_id: str
    exit_code: int
    detail: str
    def __init__(self, replica_id: _Optional[str] = ..., exit_code: _Optional[int] = ..., detail: _Optional[str] = ...) -> None: ...

class BuildResult(_message.Message):
    __slots__ = ("build_id", "application", "error")
    BUILD_ID_FIELD_NUMBER: _ClassVar[int]
    APPLICATION_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    build_id: str
    application: _spec_pb2.ApplicationSpec
    error: str
    def __init__(self, build_id: _Optional[str] = ..., application: _Optional[_Union[_spec_pb2.ApplicationSpec, _Mapping]] = ..., error: _Optional[str] = ...) -> None: ...

class JoinNodeResponse(_message.Message):
    __slots__ = ("epoch", "welcome", "start_replica", "stop_replica", "build_application", "evaluate_policy", "leaving_noted")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    START_REPLICA_FIELD_NUMBER: _ClassVar[int]
    STOP_REPLICA_FIELD_NUMBER: _ClassVar[int]
    BUILD_APPLICATION_FIELD_NUMBER: _ClassVar[int]
    EVALUATE_POLICY_FIELD_NUMBER: _ClassVar[int]
    LEAVING_NOTED_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    welcome: NodeWelcome
    start_replica: StartReplica
    stop_replica: StopReplica
    build_application: BuildApplication
    evaluate_policy: EvaluatePolicy
    leaving_noted: LeavingNoted
    def __init__(self, epoch: _Optional[int] = ..., welcome: _Optional[_Union[NodeWelcome, _Mapping]] = ..., start_replica: _Optional[_Union[StartReplica, _Mapping]] = ..., stop_replica: _Optional[_Union[StopReplica, _Mapping]] = ..., build_application: _Optional[_Union[BuildApplication, _Mapping]] = ..., evaluate_policy: _Optional[_Union[EvaluatePolicy, _Mapping]] = ..., leaving_noted: _Optional[_Union[LeavingNoted, _Mapping]] = ...) -> None: ...

class LeavingNoted(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class NodeWelcome(_message.Message):
    __slots__ = ("epoch",)
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    def __init__(self, epoch: _Optional[int] = ...) -> None: ...

class StartReplica(_message.Message):
    __slots__ = ("launch",)
    LAUNCH_FIELD_NUMBER: _ClassVar[int]
    launch: _spec_pb2.ReplicaLaunch
    def __init__(self, launch: _Optional[_Union[_spec_pb2.ReplicaLaunch, _Mapping]] = ...) -> None: ...

class StopReplica(_message.Message):
    __slots__ = ("replica_id", "grace_s")
    REPLICA_ID_FIELD_NUMBER: _ClassVar[int]
    GRACE_S_FIELD_NUMBER: _ClassVar[int]
    replica_id: str
    grace_s: float
    def __init__(self, replica_id: _Optional[str] = ..., grace_s: _Optional[float] = ...) -> None: ...

class BuildApplication(_message.Message):
    __slots__ = ("build_id", "name", "route_prefix", "has_route_prefix", "source", "overrides_json", "timeout_s")
    BUILD_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROUTE_PREFIX_FIELD_NUMBER: _ClassVar[int]
    HAS_ROUTE_PREFIX_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    OVERRIDES_JSON_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    build_id: str
    name: str
    route_prefix: str
    has_route_prefix: bool
    source: _spec_pb2.ImportSource
    overrides_json: str
    timeout_s: float
    def __init__(self, build_id: _Optional[str] = ..., name: _Optional[str] = ..., route_prefix: _Optional[str] = ..., has_route_prefix: _Optional[bool] = ..., source: _Optional[_Union[_spec_pb2.ImportSource, _Mapping]] = ..., overrides_json: _Optional[str] = ..., timeout_s: _Optional[float] = ...) -> None: ...

class EvaluatePolicy(_message.Message):
    __slots__ = ("evaluation_id", "policy_function", "kwargs_json", "context_json", "source", "python_path", "timeout_s", "for_application")
    EVALUATION_ID_FIELD_NUMBER: _ClassVar[int]
    POLICY_FUNCTION_FIELD_NUMBER: _ClassVar[int]
    KWARGS_JSON_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_JSON_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    PYTHON_PATH_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    FOR_APPLICATION_FIELD_NUMBER: _ClassVar[int]
    evaluation_id: str
    policy_function: str
    kwargs_json: str
    context_json: str
    source: _spec_pb2.ImportSource
    python_path: _containers.RepeatedScalarFieldContainer[str]
    timeout_s: float
    for_application: bool
    def __init__(self, evaluation_id: _Optional[str] = ..., policy_function: _Optional[str] = ..., kwargs_json: _Optional[str] = ..., context_json: _Optional[str] = ..., source: _Optional[_Union[_spec_pb2.ImportSource, _Mapping]] = ..., python_path: _Optional[_Iterable[str]] = ..., timeout_s: _Optional[float] = ..., for_application: _Optional[bool] = ...) -> None: ...

class PolicyResult(_message.Message):
    __slots__ = ("evaluation_id", "result_json", "error")
    EVALUATION_ID_FIELD_NUMBER: _ClassVar[int]
    RESULT_JSON_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    evaluation_id: str
    result_json: str
    error: str
    def __init__(self, evaluation_id: _Optional[str] = ..., result_json: _Optional[str] = ..., error: _Optional[str] = ...) -> None: ...
