"""The replica: gRPC streams in, calls of the user's code out; and the node agent that starts replicas."""
