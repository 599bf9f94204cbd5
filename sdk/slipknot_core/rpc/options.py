"""Channel and server options. Each one is here because its default bit somebody; the reason is beside it."""

from ..settings import MAX_RPC_OPTION, RpcSettings

Option = tuple[str, int]

ENVELOPE_BYTES = 1024 * 1024
"""What a message may have beside arguments or a result: names, headers, frames that travel with it."""


SERVER_PATIENCE_MS = 10_000
"""A caller that is stopped for a few seconds and goes on has lost nothing: servers wait longer for the answer
to a ping than callers, who can go elsewhere."""


def shared_options(settings: RpcSettings, ping_timeout_ms: int) -> list[Option]:
    """Options of both ends."""
    # What is too large is to be found before: a message that gRPC refuses ends all that is on its stream.
    message_bytes = min(settings.max_message_bytes + ENVELOPE_BYTES, MAX_RPC_OPTION)
    return [
        # The default of 4 MiB fails a handle call with a mid-sized array.
        ("grpc.max_receive_message_length", message_bytes),
        ("grpc.max_send_message_length", message_bytes),
        # Off by default on clients, two hours on servers: a vanished peer would not be noticed.
        ("grpc.keepalive_time_ms", settings.keepalive_time_ms),
        ("grpc.keepalive_timeout_ms", ping_timeout_ms),
        # The connection is given up by whichever of the two comes first, and this one is 60 s by default.
        ("grpc.http2.ping_timeout_ms", ping_timeout_ms),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]


def channel_options(settings: RpcSettings) -> list[Option]:
    """Options of the calling end."""
    return [
        *shared_options(settings, settings.keepalive_timeout_ms),
        # `http_proxy` in the environment would hijack calls inside the cluster.
        ("grpc.enable_http_proxy", 0),
        # A restarted peer is found again within a second, not within two minutes.
        ("grpc.initial_reconnect_backoff_ms", 50),
        ("grpc.min_reconnect_backoff_ms", 50),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        # Retries are the router's decision, never the transport's.
        ("grpc.enable_retries", 0),
    ]


def server_options(settings: RpcSettings, patience_ms: int = SERVER_PATIENCE_MS) -> list[Option]:
    """Options of the serving end; a caller has at least `patience_ms` to answer a ping."""
    return [
        *shared_options(settings, max(settings.keepalive_timeout_ms, patience_ms)),
        # Two servers on one port would silently share its traffic.
        ("grpc.so_reuseport", 0),
        # Callers ping their replicas every second; the default allows one ping in five minutes, then says
        # GOAWAY.
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 300),
        ("grpc.http2.max_ping_strikes", 0),
    ]
