"""The HTTP proxy: HTTP/1.1 and WebSocket to streams of `ReplicaService`, and back."""

from slipknot_core.compiled import search_path

__path__ = search_path(__name__, __path__)
