"""Spans are exported in batches, seconds later; those of processes that end before must not be lost."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.tcp_cluster import free_port

pytest.importorskip("opentelemetry.sdk", reason="needs OpenTelemetry: pip install slipknot[otel]")

WAIT_S = 30.0

EXPORTER = """
import os
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

class Names(SpanExporter):
    def export(self, spans):
        with open(os.environ["SPANS"], "a") as file:
            file.writelines(span.name + "\\n" for span in spans)
        return SpanExportResult.SUCCESS
"""

SCRIPT = """
import sys
import httpx
from slipknot import serve

@serve.deployment
class Says:
    def __call__(self):
        return "well"

port = int(sys.argv[1])
serve.start(
    http_options={"port": port},
    tracing_config={"enabled": True, "exporter_import_path": "exporter:Names", "sampling_ratio": 1.0},
)
handle = serve.run(Says.bind())
assert handle.remote().result() == "well"
assert httpx.get(f"http://127.0.0.1:{port}/").text == "well"
"""


def test_spans_of_the_last_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the script, the proxy and the replica, though the script ends at once."""
    (tmp_path / "exporter.py").write_text(EXPORTER)
    (tmp_path / "script.py").write_text(SCRIPT)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("SPANS", str(tmp_path / "spans"))
    subprocess.run([sys.executable, "script.py", str(free_port())], cwd=tmp_path, check=True, timeout=WAIT_S)
    assert sorted((tmp_path / "spans").read_text().splitlines()) == [
        "call default/Says.__call__",
        "proxy GET /",
        "replica default/Says CALL __call__",
        "replica default/Says GET /",
    ]
