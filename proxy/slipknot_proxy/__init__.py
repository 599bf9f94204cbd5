"""The HTTP proxy: HTTP/1.1 and WebSocket to streams of `ReplicaService`, and back."""
