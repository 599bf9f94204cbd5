"""Generated protobuf code of slipknot.v1; made by scripts/gen-proto, never edited."""
