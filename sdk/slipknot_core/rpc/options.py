"""Channel and server options. Each one is here because its default bit somebody; the reason is beside it."""

from ..settings import RpcSettings

Option = tuple[str, int]


def shared_options(settings: RpcSettings) -> list[Option]:
    """Options of both ends."""
    return [
        # The default of 4 MiB fails a handle call with a mid-sized array.
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        # Off by default on clients, two hours on servers: a vanished peer would not be noticed.
        ("grpc.keepalive_time_ms", settings.keepalive_time_ms),
        ("grpc.keepalive_timeout_ms", settings.keepalive_timeout_ms),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]


def channel_options(settings: RpcSettings) -> list[Option]:
    """Options of the calling end."""
    return [
        *shared_options(settings),
        # `http_proxy` in the environment would hijack calls inside the cluster.
        ("grpc.enable_http_proxy", 0),
        # A restarted peer is found again within a second, not within two minutes.
        ("grpc.initial_reconnect_backoff_ms", 50),
        ("grpc.min_reconnect_backoff_ms", 50),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        # Retries are the router's decision, never the transport's.
        ("grpc.enable_retries", 0),
    ]


def server_options(settings: RpcSettings) -> list[Option]:
    """Options of the serving end."""
    return [
        *shared_options(settings),
        # Two servers on one port would silently share its traffic.
        ("grpc.so_reuseport", 0),
        # Our clients ping every 10 s; the default allows one ping in five minutes and then says GOAWAY.
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
        ("grpc.http2.max_ping_strikes", 0),
    ]
