"""Generated protobuf code of slipknot.etcd.v1; made by scripts/gen-proto, never edited."""
