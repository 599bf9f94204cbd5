"""The committed Python code of the contracts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMITTED = ROOT / "proto" / "slipknot_proto"


def _contents(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): path.read_text()
        for path in directory.rglob("*_pb2*.py*")
        if "__pycache__" not in path.parts
    }


@pytest.mark.timeout(60)
def test_it_is_what_the_proto_files_give(tmp_path: Path) -> None:
    """Generating again changes nothing; if this fails, run `make proto`."""
    pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed: pip install 'slipknot[dev]'")
    script = ROOT / "scripts" / "gen-proto"
    subprocess.run(
        [script, tmp_path], check=True, timeout=50, cwd=ROOT, env={**os.environ, "PYTHON": sys.executable}
    )
    generated, committed = _contents(tmp_path), _contents(COMMITTED)
    assert sorted(generated) == sorted(committed)
    assert generated and [name for name in generated if generated[name] != committed[name]] == []


def test_it_does_not_import_the_public_package() -> None:
    """protoc names our messages `slipknot.v1`, which would shadow, or be shadowed by, `slipknot`."""
    for name, text in _contents(COMMITTED).items():
        imports = [
            line for line in text.splitlines() if line.startswith(("import slipknot.", "from slipknot."))
        ]
        assert imports == [], name
