from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WatchRequest(_message.Message):
    __slots__ = ("watcher", "proxy", "seen_epoch")
    WATCHER_FIELD_NUMBER: _ClassVar[int]
    PROXY_FIELD_NUMBER: _ClassVar[int]
    SEEN_EPOCH_FIELD_NUMBER: _ClassVar[int]
    watcher: str
    proxy: ProxyInfo
    seen_epoch: int
    def __init__(self, watcher: _Optional[str] = ..., proxy: _Optional[_Union[ProxyInfo, _Mapping]] = ..., seen_epoch: _Optional[int] = ...) -> None: ...

class ProxyInfo(_message.Message):
    __slots__ = ("proxy_id", "node_id", "http_address", "gateway_address", "pid", "gateway_is_open", "admin_address")
    PROXY_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    HTTP_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    GATEWAY_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    GATEWAY_IS_OPEN_FIELD_NUMBER: _ClassVar[int]
    ADMIN_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    proxy_id: str
    node_id: str
    http_address: str
    gateway_address: str
    pid: int
    gateway_is_open: bool
    admin_address: str
    def __init__(self, proxy_id: _Optional[str] = ..., node_id: _Optional[str] = ..., http_address: _Optional[str] = ..., gateway_address: _Optional[str] = ..., pid: _Optional[int] = ..., gateway_is_open: _Optional[bool] = ..., admin_address: _Optional[str] = ...) -> None: ...

class WatchResponse(_message.Message):
    __slots__ = ("snapshot",)
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    snapshot: Snapshot
    def __init__(self, snapshot: _Optional[_Union[Snapshot, _Mapping]] = ...) -> None: ...

class Snapshot(_message.Message):
    __slots__ = ("epoch", "version", "applications", "refuse_pickle")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    APPLICATIONS_FIELD_NUMBER: _ClassVar[int]
    REFUSE_PICKLE_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    version: int
    applications: _containers.RepeatedCompositeFieldContainer[ApplicationRoute]
    refuse_pickle: bool
    def __init__(self, epoch: _Optional[int] = ..., version: _Optional[int] = ..., applications: _Optional[_Iterable[_Union[ApplicationRoute, _Mapping]]] = ..., refuse_pickle: _Optional[bool] = ...) -> None: ...

class ApplicationRoute(_message.Message):
    __slots__ = ("name", "route_prefix", "ingress_deployment", "deployments", "unavailable")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROUTE_PREFIX_FIELD_NUMBER: _ClassVar[int]
    INGRESS_DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENTS_FIELD_NUMBER: _ClassVar[int]
    UNAVAILABLE_FIELD_NUMBER: _ClassVar[int]
    name: str
    route_prefix: str
    ingress_deployment: str
    deployments: _containers.RepeatedCompositeFieldContainer[DeploymentRoute]
    unavailable: bool
    def __init__(self, name: _Optional[str] = ..., route_prefix: _Optional[str] = ..., ingress_deployment: _Optional[str] = ..., deployments: _Optional[_Iterable[_Union[DeploymentRoute, _Mapping]]] = ..., unavailable: _Optional[bool] = ...) -> None: ...

class DeploymentRoute(_message.Message):
    __slots__ = ("name", "max_ongoing_requests", "max_queued_requests", "backpressure_status_code", "backpressure_retry_after_s", "replicas", "unavailable", "autoscaled")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MAX_ONGOING_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    MAX_QUEUED_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    BACKPRESSURE_STATUS_CODE_FIELD_NUMBER: _ClassVar[int]
    BACKPRESSURE_RETRY_AFTER_S_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    UNAVAILABLE_FIELD_NUMBER: _ClassVar[int]
    AUTOSCALED_FIELD_NUMBER: _ClassVar[int]
    name: str
    max_ongoing_requests: int
    max_queued_requests: int
    backpressure_status_code: int
    backpressure_retry_after_s: int
    replicas: _containers.RepeatedCompositeFieldContainer[ReplicaRoute]
    unavailable: bool
    autoscaled: bool
    def __init__(self, name: _Optional[str] = ..., max_ongoing_requests: _Optional[int] = ..., max_queued_requests: _Optional[int] = ..., backpressure_status_code: _Optional[int] = ..., backpressure_retry_after_s: _Optional[int] = ..., replicas: _Optional[_Iterable[_Union[ReplicaRoute, _Mapping]]] = ..., unavailable: _Optional[bool] = ..., autoscaled: _Optional[bool] = ...) -> None: ...

class ReplicaRoute(_message.Message):
    __slots__ = ("replica_id", "address", "node_id", "max_ongoing_requests", "multiplexed_model_ids")
    REPLICA_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    MAX_ONGOING_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    MULTIPLEXED_MODEL_IDS_FIELD_NUMBER: _ClassVar[int]
    replica_id: str
    address: str
    node_id: str
    max_ongoing_requests: int
    multiplexed_model_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, replica_id: _Optional[str] = ..., address: _Optional[str] = ..., node_id: _Optional[str] = ..., max_ongoing_requests: _Optional[int] = ..., multiplexed_model_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class ReportDemandRequest(_message.Message):
    __slots__ = ("caller", "queued")
    CALLER_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    caller: str
    queued: _containers.RepeatedCompositeFieldContainer[QueuedRequests]
    def __init__(self, caller: _Optional[str] = ..., queued: _Optional[_Iterable[_Union[QueuedRequests, _Mapping]]] = ...) -> None: ...

class QueuedRequests(_message.Message):
    __slots__ = ("app_name", "deployment_name", "count")
    APP_NAME_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_NAME_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    app_name: str
    deployment_name: str
    count: int
    def __init__(self, app_name: _Optional[str] = ..., deployment_name: _Optional[str] = ..., count: _Optional[int] = ...) -> None: ...

class ReportDemandResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
