from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PlacementStrategy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PLACEMENT_STRATEGY_UNSPECIFIED: _ClassVar[PlacementStrategy]
    PLACEMENT_STRATEGY_SPREAD: _ClassVar[PlacementStrategy]
    PLACEMENT_STRATEGY_PACK: _ClassVar[PlacementStrategy]
PLACEMENT_STRATEGY_UNSPECIFIED: PlacementStrategy
PLACEMENT_STRATEGY_SPREAD: PlacementStrategy
PLACEMENT_STRATEGY_PACK: PlacementStrategy

class ApplicationSpec(_message.Message):
    __slots__ = ("name", "route_prefix", "ingress_deployment", "deployments", "import_source", "docs_path", "autoscaling_policy")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROUTE_PREFIX_FIELD_NUMBER: _ClassVar[int]
    INGRESS_DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENTS_FIELD_NUMBER: _ClassVar[int]
    IMPORT_SOURCE_FIELD_NUMBER: _ClassVar[int]
    DOCS_PATH_FIELD_NUMBER: _ClassVar[int]
    AUTOSCALING_POLICY_FIELD_NUMBER: _ClassVar[int]
    name: str
    route_prefix: str
    ingress_deployment: str
    deployments: _containers.RepeatedCompositeFieldContainer[DeploymentSpec]
    import_source: ImportSource
    docs_path: str
    autoscaling_policy: AutoscalingPolicy
    def __init__(self, name: _Optional[str] = ..., route_prefix: _Optional[str] = ..., ingress_deployment: _Optional[str] = ..., deployments: _Optional[_Iterable[_Union[DeploymentSpec, _Mapping]]] = ..., import_source: _Optional[_Union[ImportSource, _Mapping]] = ..., docs_path: _Optional[str] = ..., autoscaling_policy: _Optional[_Union[AutoscalingPolicy, _Mapping]] = ...) -> None: ...

class AutoscalingPolicy(_message.Message):
    __slots__ = ("policy_function", "policy_kwargs_json")
    POLICY_FUNCTION_FIELD_NUMBER: _ClassVar[int]
    POLICY_KWARGS_JSON_FIELD_NUMBER: _ClassVar[int]
    policy_function: str
    policy_kwargs_json: str
    def __init__(self, policy_function: _Optional[str] = ..., policy_kwargs_json: _Optional[str] = ...) -> None: ...

class ImportSource(_message.Message):
    __slots__ = ("import_path", "args_json", "working_dir", "env_vars", "archive")
    class EnvVarsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    IMPORT_PATH_FIELD_NUMBER: _ClassVar[int]
    ARGS_JSON_FIELD_NUMBER: _ClassVar[int]
    WORKING_DIR_FIELD_NUMBER: _ClassVar[int]
    ENV_VARS_FIELD_NUMBER: _ClassVar[int]
    ARCHIVE_FIELD_NUMBER: _ClassVar[int]
    import_path: str
    args_json: str
    working_dir: str
    env_vars: _containers.ScalarMap[str, str]
    archive: str
    def __init__(self, import_path: _Optional[str] = ..., args_json: _Optional[str] = ..., working_dir: _Optional[str] = ..., env_vars: _Optional[_Mapping[str, str]] = ..., archive: _Optional[str] = ...) -> None: ...

class DeploymentSpec(_message.Message):
    __slots__ = ("name", "num_replicas", "max_ongoing_requests", "max_queued_requests", "user_config_json", "graceful_shutdown_wait_loop_s", "graceful_shutdown_timeout_s", "health_check_period_s", "health_check_timeout_s", "backpressure_status_code", "backpressure_retry_after_s", "version", "code", "extra_options_json", "logging_config_json", "max_constructor_attempts", "autoscaling", "rolling_update_percentage", "max_surge_percent", "resources", "max_replicas_per_node", "placement_strategy", "env_vars")
    class EnvVarsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    NUM_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    MAX_ONGOING_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    MAX_QUEUED_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    USER_CONFIG_JSON_FIELD_NUMBER: _ClassVar[int]
    GRACEFUL_SHUTDOWN_WAIT_LOOP_S_FIELD_NUMBER: _ClassVar[int]
    GRACEFUL_SHUTDOWN_TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    HEALTH_CHECK_PERIOD_S_FIELD_NUMBER: _ClassVar[int]
    HEALTH_CHECK_TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    BACKPRESSURE_STATUS_CODE_FIELD_NUMBER: _ClassVar[int]
    BACKPRESSURE_RETRY_AFTER_S_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    EXTRA_OPTIONS_JSON_FIELD_NUMBER: _ClassVar[int]
    LOGGING_CONFIG_JSON_FIELD_NUMBER: _ClassVar[int]
    MAX_CONSTRUCTOR_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    AUTOSCALING_FIELD_NUMBER: _ClassVar[int]
    ROLLING_UPDATE_PERCENTAGE_FIELD_NUMBER: _ClassVar[int]
    MAX_SURGE_PERCENT_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    MAX_REPLICAS_PER_NODE_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_STRATEGY_FIELD_NUMBER: _ClassVar[int]
    ENV_VARS_FIELD_NUMBER: _ClassVar[int]
    name: str
    num_replicas: int
    max_ongoing_requests: int
    max_queued_requests: int
    user_config_json: str
    graceful_shutdown_wait_loop_s: float
    graceful_shutdown_timeout_s: float
    health_check_period_s: float
    health_check_timeout_s: float
    backpressure_status_code: int
    backpressure_retry_after_s: int
    version: str
    code: CodeSource
    extra_options_json: str
    logging_config_json: str
    max_constructor_attempts: int
    autoscaling: AutoscalingSpec
    rolling_update_percentage: float
    max_surge_percent: float
    resources: ReplicaResources
    max_replicas_per_node: int
    placement_strategy: PlacementStrategy
    env_vars: _containers.ScalarMap[str, str]
    def __init__(self, name: _Optional[str] = ..., num_replicas: _Optional[int] = ..., max_ongoing_requests: _Optional[int] = ..., max_queued_requests: _Optional[int] = ..., user_config_json: _Optional[str] = ..., graceful_shutdown_wait_loop_s: _Optional[float] = ..., graceful_shutdown_timeout_s: _Optional[float] = ..., health_check_period_s: _Optional[float] = ..., health_check_timeout_s: _Optional[float] = ..., backpressure_status_code: _Optional[int] = ..., backpressure_retry_after_s: _Optional[int] = ..., version: _Optional[str] = ..., code: _Optional[_Union[CodeSource, _Mapping]] = ..., extra_options_json: _Optional[str] = ..., logging_config_json: _Optional[str] = ..., max_constructor_attempts: _Optional[int] = ..., autoscaling: _Optional[_Union[AutoscalingSpec, _Mapping]] = ..., rolling_update_percentage: _Optional[float] = ..., max_surge_percent: _Optional[float] = ..., resources: _Optional[_Union[ReplicaResources, _Mapping]] = ..., max_replicas_per_node: _Optional[int] = ..., placement_strategy: _Optional[_Union[PlacementStrategy, str]] = ..., env_vars: _Optional[_Mapping[str, str]] = ...) -> None: ...

class AutoscalingSpec(_message.Message):
    __slots__ = ("min_replicas", "max_replicas", "initial_replicas", "has_initial_replicas", "target_ongoing_requests", "look_back_period_s", "upscale_delay_s", "downscale_delay_s", "downscale_to_zero_delay_s", "upscaling_factor", "downscaling_factor", "aggregation_function", "policy_function", "policy_kwargs_json")
    MIN_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    MAX_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    INITIAL_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    HAS_INITIAL_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    TARGET_ONGOING_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    LOOK_BACK_PERIOD_S_FIELD_NUMBER: _ClassVar[int]
    UPSCALE_DELAY_S_FIELD_NUMBER: _ClassVar[int]
    DOWNSCALE_DELAY_S_FIELD_NUMBER: _ClassVar[int]
    DOWNSCALE_TO_ZERO_DELAY_S_FIELD_NUMBER: _ClassVar[int]
    UPSCALING_FACTOR_FIELD_NUMBER: _ClassVar[int]
    DOWNSCALING_FACTOR_FIELD_NUMBER: _ClassVar[int]
    AGGREGATION_FUNCTION_FIELD_NUMBER: _ClassVar[int]
    POLICY_FUNCTION_FIELD_NUMBER: _ClassVar[int]
    POLICY_KWARGS_JSON_FIELD_NUMBER: _ClassVar[int]
    min_replicas: int
    max_replicas: int
    initial_replicas: int
    has_initial_replicas: bool
    target_ongoing_requests: float
    look_back_period_s: float
    upscale_delay_s: float
    downscale_delay_s: float
    downscale_to_zero_delay_s: float
    upscaling_factor: float
    downscaling_factor: float
    aggregation_function: str
    policy_function: str
    policy_kwargs_json: str
    def __init__(self, min_replicas: _Optional[int] = ..., max_replicas: _Optional[int] = ..., initial_replicas: _Optional[int] = ..., has_initial_replicas: _Optional[bool] = ..., target_ongoing_requests: _Optional[float] = ..., look_back_period_s: _Optional[float] = ..., upscale_delay_s: _Optional[float] = ..., downscale_delay_s: _Optional[float] = ..., downscale_to_zero_delay_s: _Optional[float] = ..., upscaling_factor: _Optional[float] = ..., downscaling_factor: _Optional[float] = ..., aggregation_function: _Optional[str] = ..., policy_function: _Optional[str] = ..., policy_kwargs_json: _Optional[str] = ...) -> None: ...

class ReplicaResources(_message.Message):
    __slots__ = ("num_cpus", "num_gpus", "memory_bytes", "custom", "label_selector")
    class CustomEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class LabelSelectorEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NUM_CPUS_FIELD_NUMBER: _ClassVar[int]
    NUM_GPUS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    CUSTOM_FIELD_NUMBER: _ClassVar[int]
    LABEL_SELECTOR_FIELD_NUMBER: _ClassVar[int]
    num_cpus: float
    num_gpus: float
    memory_bytes: int
    custom: _containers.ScalarMap[str, float]
    label_selector: _containers.ScalarMap[str, str]
    def __init__(self, num_cpus: _Optional[float] = ..., num_gpus: _Optional[float] = ..., memory_bytes: _Optional[int] = ..., custom: _Optional[_Mapping[str, float]] = ..., label_selector: _Optional[_Mapping[str, str]] = ...) -> None: ...

class CodeSource(_message.Message):
    __slots__ = ("pickle", "import_source", "python_path")
    PICKLE_FIELD_NUMBER: _ClassVar[int]
    IMPORT_SOURCE_FIELD_NUMBER: _ClassVar[int]
    PYTHON_PATH_FIELD_NUMBER: _ClassVar[int]
    pickle: bytes
    import_source: ImportSource
    python_path: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, pickle: _Optional[bytes] = ..., import_source: _Optional[_Union[ImportSource, _Mapping]] = ..., python_path: _Optional[_Iterable[str]] = ...) -> None: ...

class ReplicaLaunch(_message.Message):
    __slots__ = ("replica_id", "app_name", "deployment", "controller_address", "socket_dir", "node_id", "is_ingress", "route_prefix", "logs_dir", "listen_host", "advertise_host", "refuse_pickle", "metrics_dir", "gpu_ids", "rank")
    REPLICA_ID_FIELD_NUMBER: _ClassVar[int]
    APP_NAME_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    CONTROLLER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    SOCKET_DIR_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    IS_INGRESS_FIELD_NUMBER: _ClassVar[int]
    ROUTE_PREFIX_FIELD_NUMBER: _ClassVar[int]
    LOGS_DIR_FIELD_NUMBER: _ClassVar[int]
    LISTEN_HOST_FIELD_NUMBER: _ClassVar[int]
    ADVERTISE_HOST_FIELD_NUMBER: _ClassVar[int]
    REFUSE_PICKLE_FIELD_NUMBER: _ClassVar[int]
    METRICS_DIR_FIELD_NUMBER: _ClassVar[int]
    GPU_IDS_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    replica_id: str
    app_name: str
    deployment: DeploymentSpec
    controller_address: str
    socket_dir: str
    node_id: str
    is_ingress: bool
    route_prefix: str
    logs_dir: str
    listen_host: str
    advertise_host: str
    refuse_pickle: bool
    metrics_dir: str
    gpu_ids: _containers.RepeatedScalarFieldContainer[str]
    rank: int
    def __init__(self, replica_id: _Optional[str] = ..., app_name: _Optional[str] = ..., deployment: _Optional[_Union[DeploymentSpec, _Mapping]] = ..., controller_address: _Optional[str] = ..., socket_dir: _Optional[str] = ..., node_id: _Optional[str] = ..., is_ingress: _Optional[bool] = ..., route_prefix: _Optional[str] = ..., logs_dir: _Optional[str] = ..., listen_host: _Optional[str] = ..., advertise_host: _Optional[str] = ..., refuse_pickle: _Optional[bool] = ..., metrics_dir: _Optional[str] = ..., gpu_ids: _Optional[_Iterable[str]] = ..., rank: _Optional[int] = ...) -> None: ...
