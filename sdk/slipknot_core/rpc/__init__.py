"""gRPC as this project uses it: channels, servers and the translation of errors at the edge."""
