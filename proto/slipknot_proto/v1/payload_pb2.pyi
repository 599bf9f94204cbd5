from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class CancelReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CANCEL_REASON_UNSPECIFIED: _ClassVar[CancelReason]
    CANCEL_REASON_CLIENT_DISCONNECTED: _ClassVar[CancelReason]
    CANCEL_REASON_DEADLINE_EXCEEDED: _ClassVar[CancelReason]
    CANCEL_REASON_REQUESTED: _ClassVar[CancelReason]
    CANCEL_REASON_PARENT_CANCELLED: _ClassVar[CancelReason]
    CANCEL_REASON_CALLER_LOST: _ClassVar[CancelReason]
    CANCEL_REASON_DRAIN_TIMEOUT: _ClassVar[CancelReason]
CANCEL_REASON_UNSPECIFIED: CancelReason
CANCEL_REASON_CLIENT_DISCONNECTED: CancelReason
CANCEL_REASON_DEADLINE_EXCEEDED: CancelReason
CANCEL_REASON_REQUESTED: CancelReason
CANCEL_REASON_PARENT_CANCELLED: CancelReason
CANCEL_REASON_CALLER_LOST: CancelReason
CANCEL_REASON_DRAIN_TIMEOUT: CancelReason

class Payload(_message.Message):
    __slots__ = ("pickle", "json", "msgpack")
    PICKLE_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    MSGPACK_FIELD_NUMBER: _ClassVar[int]
    pickle: bytes
    json: bytes
    msgpack: bytes
    def __init__(self, pickle: _Optional[bytes] = ..., json: _Optional[bytes] = ..., msgpack: _Optional[bytes] = ...) -> None: ...

class ErrorInfo(_message.Message):
    __slots__ = ("reason", "message", "type_name", "traceback", "pickled_exception", "http_status", "retry_after_s")
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TYPE_NAME_FIELD_NUMBER: _ClassVar[int]
    TRACEBACK_FIELD_NUMBER: _ClassVar[int]
    PICKLED_EXCEPTION_FIELD_NUMBER: _ClassVar[int]
    HTTP_STATUS_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_S_FIELD_NUMBER: _ClassVar[int]
    reason: str
    message: str
    type_name: str
    traceback: str
    pickled_exception: bytes
    http_status: int
    retry_after_s: int
    def __init__(self, reason: _Optional[str] = ..., message: _Optional[str] = ..., type_name: _Optional[str] = ..., traceback: _Optional[str] = ..., pickled_exception: _Optional[bytes] = ..., http_status: _Optional[int] = ..., retry_after_s: _Optional[int] = ...) -> None: ...
