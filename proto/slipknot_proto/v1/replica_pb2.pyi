from slipknot_proto.v1 import payload_pb2 as _payload_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CallRequest(_message.Message):
    __slots__ = ("frames",)
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    frames: _containers.RepeatedCompositeFieldContainer[CallFrame]
    def __init__(self, frames: _Optional[_Iterable[_Union[CallFrame, _Mapping]]] = ...) -> None: ...

class CallResponse(_message.Message):
    __slots__ = ("frames",)
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    frames: _containers.RepeatedCompositeFieldContainer[ReplyFrame]
    def __init__(self, frames: _Optional[_Iterable[_Union[ReplyFrame, _Mapping]]] = ...) -> None: ...

class SessionRequest(_message.Message):
    __slots__ = ("stream_ids", "frames")
    STREAM_IDS_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    stream_ids: _containers.RepeatedScalarFieldContainer[int]
    frames: _containers.RepeatedCompositeFieldContainer[CallFrame]
    def __init__(self, stream_ids: _Optional[_Iterable[int]] = ..., frames: _Optional[_Iterable[_Union[CallFrame, _Mapping]]] = ...) -> None: ...

class SessionResponse(_message.Message):
    __slots__ = ("stream_ids", "frames")
    STREAM_IDS_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    stream_ids: _containers.RepeatedScalarFieldContainer[int]
    frames: _containers.RepeatedCompositeFieldContainer[ReplyFrame]
    def __init__(self, stream_ids: _Optional[_Iterable[int]] = ..., frames: _Optional[_Iterable[_Union[ReplyFrame, _Mapping]]] = ...) -> None: ...

class CallFrame(_message.Message):
    __slots__ = ("open", "body", "ws_message", "ws_close", "credit", "cancel", "decline")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    WS_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    WS_CLOSE_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    DECLINE_FIELD_NUMBER: _ClassVar[int]
    open: Open
    body: BodyChunk
    ws_message: WebSocketMessage
    ws_close: WebSocketClose
    credit: Credit
    cancel: Cancel
    decline: Decline
    def __init__(self, open: _Optional[_Union[Open, _Mapping]] = ..., body: _Optional[_Union[BodyChunk, _Mapping]] = ..., ws_message: _Optional[_Union[WebSocketMessage, _Mapping]] = ..., ws_close: _Optional[_Union[WebSocketClose, _Mapping]] = ..., credit: _Optional[_Union[Credit, _Mapping]] = ..., cancel: _Optional[_Union[Cancel, _Mapping]] = ..., decline: _Optional[_Union[Decline, _Mapping]] = ...) -> None: ...

class ReplyFrame(_message.Message):
    __slots__ = ("accepted", "refused", "slot_reserved", "response_start", "body", "credit", "ws_accept", "ws_message", "ws_close", "ws_reject", "result", "item", "end", "failure", "cancelled")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    SLOT_RESERVED_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_START_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    WS_ACCEPT_FIELD_NUMBER: _ClassVar[int]
    WS_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    WS_CLOSE_FIELD_NUMBER: _ClassVar[int]
    WS_REJECT_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    ITEM_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    CANCELLED_FIELD_NUMBER: _ClassVar[int]
    accepted: Accepted
    refused: Refused
    slot_reserved: SlotReserved
    response_start: ResponseStart
    body: BodyChunk
    credit: Credit
    ws_accept: WebSocketAccept
    ws_message: WebSocketMessage
    ws_close: WebSocketClose
    ws_reject: WebSocketReject
    result: MethodResult
    item: StreamItem
    end: StreamEnd
    failure: Failure
    cancelled: Cancelled
    def __init__(self, accepted: _Optional[_Union[Accepted, _Mapping]] = ..., refused: _Optional[_Union[Refused, _Mapping]] = ..., slot_reserved: _Optional[_Union[SlotReserved, _Mapping]] = ..., response_start: _Optional[_Union[ResponseStart, _Mapping]] = ..., body: _Optional[_Union[BodyChunk, _Mapping]] = ..., credit: _Optional[_Union[Credit, _Mapping]] = ..., ws_accept: _Optional[_Union[WebSocketAccept, _Mapping]] = ..., ws_message: _Optional[_Union[WebSocketMessage, _Mapping]] = ..., ws_close: _Optional[_Union[WebSocketClose, _Mapping]] = ..., ws_reject: _Optional[_Union[WebSocketReject, _Mapping]] = ..., result: _Optional[_Union[MethodResult, _Mapping]] = ..., item: _Optional[_Union[StreamItem, _Mapping]] = ..., end: _Optional[_Union[StreamEnd, _Mapping]] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ..., cancelled: _Optional[_Union[Cancelled, _Mapping]] = ...) -> None: ...

class Open(_message.Message):
    __slots__ = ("request_id", "app_name", "deployment_name", "route", "deadline_budget_us", "multiplexed_model_id", "session_id", "traceparent", "tracestate", "caller_chain", "wait_for_slot", "reply_credit_bytes", "http", "websocket", "method")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    APP_NAME_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_NAME_FIELD_NUMBER: _ClassVar[int]
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_BUDGET_US_FIELD_NUMBER: _ClassVar[int]
    MULTIPLEXED_MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    TRACESTATE_FIELD_NUMBER: _ClassVar[int]
    CALLER_CHAIN_FIELD_NUMBER: _ClassVar[int]
    WAIT_FOR_SLOT_FIELD_NUMBER: _ClassVar[int]
    REPLY_CREDIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    HTTP_FIELD_NUMBER: _ClassVar[int]
    WEBSOCKET_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    app_name: str
    deployment_name: str
    route: str
    deadline_budget_us: int
    multiplexed_model_id: str
    session_id: str
    traceparent: str
    tracestate: str
    caller_chain: _containers.RepeatedScalarFieldContainer[str]
    wait_for_slot: bool
    reply_credit_bytes: int
    http: HttpRequest
    websocket: WebSocketRequest
    method: MethodCall
    def __init__(self, request_id: _Optional[str] = ..., app_name: _Optional[str] = ..., deployment_name: _Optional[str] = ..., route: _Optional[str] = ..., deadline_budget_us: _Optional[int] = ..., multiplexed_model_id: _Optional[str] = ..., session_id: _Optional[str] = ..., traceparent: _Optional[str] = ..., tracestate: _Optional[str] = ..., caller_chain: _Optional[_Iterable[str]] = ..., wait_for_slot: _Optional[bool] = ..., reply_credit_bytes: _Optional[int] = ..., http: _Optional[_Union[HttpRequest, _Mapping]] = ..., websocket: _Optional[_Union[WebSocketRequest, _Mapping]] = ..., method: _Optional[_Union[MethodCall, _Mapping]] = ...) -> None: ...

class HttpRequest(_message.Message):
    __slots__ = ("method", "http_version", "scheme", "path", "raw_path", "query_string", "root_path", "headers", "client_host", "client_port", "server_host", "server_port", "body", "end_of_body")
    METHOD_FIELD_NUMBER: _ClassVar[int]
    HTTP_VERSION_FIELD_NUMBER: _ClassVar[int]
    SCHEME_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    RAW_PATH_FIELD_NUMBER: _ClassVar[int]
    QUERY_STRING_FIELD_NUMBER: _ClassVar[int]
    ROOT_PATH_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    CLIENT_HOST_FIELD_NUMBER: _ClassVar[int]
    CLIENT_PORT_FIELD_NUMBER: _ClassVar[int]
    SERVER_HOST_FIELD_NUMBER: _ClassVar[int]
    SERVER_PORT_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    END_OF_BODY_FIELD_NUMBER: _ClassVar[int]
    method: str
    http_version: str
    scheme: str
    path: str
    raw_path: bytes
    query_string: bytes
    root_path: str
    headers: _containers.RepeatedScalarFieldContainer[bytes]
    client_host: str
    client_port: int
    server_host: str
    server_port: int
    body: bytes
    end_of_body: bool
    def __init__(self, method: _Optional[str] = ..., http_version: _Optional[str] = ..., scheme: _Optional[str] = ..., path: _Optional[str] = ..., raw_path: _Optional[bytes] = ..., query_string: _Optional[bytes] = ..., root_path: _Optional[str] = ..., headers: _Optional[_Iterable[bytes]] = ..., client_host: _Optional[str] = ..., client_port: _Optional[int] = ..., server_host: _Optional[str] = ..., server_port: _Optional[int] = ..., body: _Optional[bytes] = ..., end_of_body: _Optional[bool] = ...) -> None: ...

class WebSocketRequest(_message.Message):
    __slots__ = ("scheme", "http_version", "path", "raw_path", "query_string", "root_path", "headers", "client_host", "client_port", "server_host", "server_port", "subprotocols")
    SCHEME_FIELD_NUMBER: _ClassVar[int]
    HTTP_VERSION_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    RAW_PATH_FIELD_NUMBER: _ClassVar[int]
    QUERY_STRING_FIELD_NUMBER: _ClassVar[int]
    ROOT_PATH_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    CLIENT_HOST_FIELD_NUMBER: _ClassVar[int]
    CLIENT_PORT_FIELD_NUMBER: _ClassVar[int]
    SERVER_HOST_FIELD_NUMBER: _ClassVar[int]
    SERVER_PORT_FIELD_NUMBER: _ClassVar[int]
    SUBPROTOCOLS_FIELD_NUMBER: _ClassVar[int]
    scheme: str
    http_version: str
    path: str
    raw_path: bytes
    query_string: bytes
    root_path: str
    headers: _containers.RepeatedScalarFieldContainer[bytes]
    client_host: str
    client_port: int
    server_host: str
    server_port: int
    subprotocols: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, scheme: _Optional[str] = ..., http_version: _Optional[str] = ..., path: _Optional[str] = ..., raw_path: _Optional[bytes] = ..., query_string: _Optional[bytes] = ..., root_path: _Optional[str] = ..., headers: _Optional[_Iterable[bytes]] = ..., client_host: _Optional[str] = ..., client_port: _Optional[int] = ..., server_host: _Optional[str] = ..., server_port: _Optional[int] = ..., subprotocols: _Optional[_Iterable[str]] = ...) -> None: ...

class MethodCall(_message.Message):
    __slots__ = ("method_name", "arguments", "stream")
    METHOD_NAME_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    method_name: str
    arguments: _payload_pb2.Payload
    stream: bool
    def __init__(self, method_name: _Optional[str] = ..., arguments: _Optional[_Union[_payload_pb2.Payload, _Mapping]] = ..., stream: _Optional[bool] = ...) -> None: ...

class BodyChunk(_message.Message):
    __slots__ = ("data", "end_of_body", "more")
    DATA_FIELD_NUMBER: _ClassVar[int]
    END_OF_BODY_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    end_of_body: bool
    more: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, data: _Optional[bytes] = ..., end_of_body: _Optional[bool] = ..., more: _Optional[_Iterable[bytes]] = ...) -> None: ...

class WebSocketMessage(_message.Message):
    __slots__ = ("text", "binary", "more", "continued")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    BINARY_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    CONTINUED_FIELD_NUMBER: _ClassVar[int]
    text: str
    binary: bytes
    more: bool
    continued: bool
    def __init__(self, text: _Optional[str] = ..., binary: _Optional[bytes] = ..., more: _Optional[bool] = ..., continued: _Optional[bool] = ...) -> None: ...

class WebSocketClose(_message.Message):
    __slots__ = ("code", "reason")
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    code: int
    reason: str
    def __init__(self, code: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class WebSocketAccept(_message.Message):
    __slots__ = ("subprotocol", "headers", "route")
    SUBPROTOCOL_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    subprotocol: str
    headers: _containers.RepeatedScalarFieldContainer[bytes]
    route: str
    def __init__(self, subprotocol: _Optional[str] = ..., headers: _Optional[_Iterable[bytes]] = ..., route: _Optional[str] = ...) -> None: ...

class WebSocketReject(_message.Message):
    __slots__ = ("status", "headers", "body", "route")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    status: int
    headers: _containers.RepeatedScalarFieldContainer[bytes]
    body: bytes
    route: str
    def __init__(self, status: _Optional[int] = ..., headers: _Optional[_Iterable[bytes]] = ..., body: _Optional[bytes] = ..., route: _Optional[str] = ...) -> None: ...

class Credit(_message.Message):
    __slots__ = ("byte_count",)
    BYTE_COUNT_FIELD_NUMBER: _ClassVar[int]
    byte_count: int
    def __init__(self, byte_count: _Optional[int] = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = ("reason", "origin")
    REASON_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    reason: _payload_pb2.CancelReason
    origin: str
    def __init__(self, reason: _Optional[_Union[_payload_pb2.CancelReason, str]] = ..., origin: _Optional[str] = ...) -> None: ...

class Decline(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Accepted(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Refused(_message.Message):
    __slots__ = ("reason", "ongoing", "max_ongoing", "waiting")
    class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        REASON_UNSPECIFIED: _ClassVar[Refused.Reason]
        REASON_BUSY: _ClassVar[Refused.Reason]
        REASON_DRAINING: _ClassVar[Refused.Reason]
        REASON_DEADLINE_EXCEEDED: _ClassVar[Refused.Reason]
        REASON_WRONG_DEPLOYMENT: _ClassVar[Refused.Reason]
        REASON_CALL_LOOP: _ClassVar[Refused.Reason]
    REASON_UNSPECIFIED: Refused.Reason
    REASON_BUSY: Refused.Reason
    REASON_DRAINING: Refused.Reason
    REASON_DEADLINE_EXCEEDED: Refused.Reason
    REASON_WRONG_DEPLOYMENT: Refused.Reason
    REASON_CALL_LOOP: Refused.Reason
    REASON_FIELD_NUMBER: _ClassVar[int]
    ONGOING_FIELD_NUMBER: _ClassVar[int]
    MAX_ONGOING_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    reason: Refused.Reason
    ongoing: int
    max_ongoing: int
    waiting: bool
    def __init__(self, reason: _Optional[_Union[Refused.Reason, str]] = ..., ongoing: _Optional[int] = ..., max_ongoing: _Optional[int] = ..., waiting: _Optional[bool] = ...) -> None: ...

class SlotReserved(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResponseStart(_message.Message):
    __slots__ = ("status", "headers", "body", "end_of_body", "route")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    END_OF_BODY_FIELD_NUMBER: _ClassVar[int]
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    status: int
    headers: _containers.RepeatedScalarFieldContainer[bytes]
    body: bytes
    end_of_body: bool
    route: str
    def __init__(self, status: _Optional[int] = ..., headers: _Optional[_Iterable[bytes]] = ..., body: _Optional[bytes] = ..., end_of_body: _Optional[bool] = ..., route: _Optional[str] = ...) -> None: ...

class MethodResult(_message.Message):
    __slots__ = ("value",)
    VALUE_FIELD_NUMBER: _ClassVar[int]
    value: _payload_pb2.Payload
    def __init__(self, value: _Optional[_Union[_payload_pb2.Payload, _Mapping]] = ...) -> None: ...

class StreamItem(_message.Message):
    __slots__ = ("value",)
    VALUE_FIELD_NUMBER: _ClassVar[int]
    value: _payload_pb2.Payload
    def __init__(self, value: _Optional[_Union[_payload_pb2.Payload, _Mapping]] = ...) -> None: ...

class StreamEnd(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Failure(_message.Message):
    __slots__ = ("error", "route")
    ERROR_FIELD_NUMBER: _ClassVar[int]
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    error: _payload_pb2.ErrorInfo
    route: str
    def __init__(self, error: _Optional[_Union[_payload_pb2.ErrorInfo, _Mapping]] = ..., route: _Optional[str] = ...) -> None: ...

class Cancelled(_message.Message):
    __slots__ = ("reason", "origin")
    REASON_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    reason: _payload_pb2.CancelReason
    origin: str
    def __init__(self, reason: _Optional[_Union[_payload_pb2.CancelReason, str]] = ..., origin: _Optional[str] = ...) -> None: ...

class GetReplicaInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetReplicaInfoResponse(_message.Message):
    __slots__ = ("replica_id", "app_name", "deployment_name", "state", "ongoing", "max_ongoing", "waiting", "completed_count", "cancelled_count", "completed_after_cancel_count", "pid")
    REPLICA_ID_FIELD_NUMBER: _ClassVar[int]
    APP_NAME_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ONGOING_FIELD_NUMBER: _ClassVar[int]
    MAX_ONGOING_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    COMPLETED_COUNT_FIELD_NUMBER: _ClassVar[int]
    CANCELLED_COUNT_FIELD_NUMBER: _ClassVar[int]
    COMPLETED_AFTER_CANCEL_COUNT_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    replica_id: str
    app_name: str
    deployment_name: str
    state: str
    ongoing: int
    max_ongoing: int
    waiting: int
    completed_count: int
    cancelled_count: int
    completed_after_cancel_count: int
    pid: int
    def __init__(self, replica_id: _Optional[str] = ..., app_name: _Optional[str] = ..., deployment_name: _Optional[str] = ..., state: _Optional[str] = ..., ongoing: _Optional[int] = ..., max_ongoing: _Optional[int] = ..., waiting: _Optional[int] = ..., completed_count: _Optional[int] = ..., cancelled_count: _Optional[int] = ..., completed_after_cancel_count: _Optional[int] = ..., pid: _Optional[int] = ...) -> None: ...

class ShareQueueRequest(_message.Message):
    __slots__ = ("declared", "given_back", "wanted", "bound")
    DECLARED_FIELD_NUMBER: _ClassVar[int]
    GIVEN_BACK_FIELD_NUMBER: _ClassVar[int]
    WANTED_FIELD_NUMBER: _ClassVar[int]
    BOUND_FIELD_NUMBER: _ClassVar[int]
    declared: int
    given_back: int
    wanted: int
    bound: int
    def __init__(self, declared: _Optional[int] = ..., given_back: _Optional[int] = ..., wanted: _Optional[int] = ..., bound: _Optional[int] = ...) -> None: ...

class ShareQueueResponse(_message.Message):
    __slots__ = ("granted", "ask_back", "unmet", "callers")
    GRANTED_FIELD_NUMBER: _ClassVar[int]
    ASK_BACK_FIELD_NUMBER: _ClassVar[int]
    UNMET_FIELD_NUMBER: _ClassVar[int]
    CALLERS_FIELD_NUMBER: _ClassVar[int]
    granted: int
    ask_back: int
    unmet: int
    callers: int
    def __init__(self, granted: _Optional[int] = ..., ask_back: _Optional[int] = ..., unmet: _Optional[int] = ..., callers: _Optional[int] = ...) -> None: ...
