"""Why requests are cancelled, as words for people: logs, metrics, user code."""

from slipknot_proto.v1.payload_pb2 import CancelReason

_NAMES = {number: name.removeprefix("CANCEL_REASON_") for name, number in CancelReason.items()}


def reason_name(reason: CancelReason | None) -> str:
    """For example "CLIENT_DISCONNECTED"; empty for None. A peer may be newer than we are, or lie: what we do
    not know is "UNKNOWN".
    """
    return "" if reason is None else _NAMES.get(reason, "UNKNOWN")
