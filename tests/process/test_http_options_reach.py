"""Every field of `HTTPOptions` reaches the proxy, however the cluster was started."""

import json
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from slipknot import serve
from slipknot.serve.config import HTTPOptions
from slipknot_proxy.config import ProxyConfig
from tests.support.processes import child_running
from tests.support.tcp_cluster import free_port

WAIT_S = 30.0
NOT_THE_PROXYS = {"location", "num_cpus", "middlewares"}
"""Where proxies run is the launcher's concern; the others are accepted for applications of Ray Serve."""
CHOSEN: dict[str, Any] = {
    "host": "127.0.0.2",
    "root_path": "/outside",
    "request_timeout_s": 91.0,
    "keep_alive_timeout_s": 92,
    "head_timeout_s": 93.0,
    "body_timeout_s": 94.0,
    "max_header_bytes": 95_000,
    "max_body_bytes": 96_000,
    "max_ws_message_bytes": 97_000,
    "max_connections": 98,
    "retry_idempotent": False,
    "drain_timeout_s": 9.0,
    "lame_duck_s": 0.1,
    "forwarded_allow_ips": "192.0.2.1",
}
TLS = {"ssl_keyfile", "ssl_certfile", "ssl_keyfile_password", "ssl_ca_certs"}
"""Their files would have to be there; tests/behaviour/test_http_options.py serves with them."""

APP = """
from slipknot import serve

@serve.deployment
class Says:
    async def __call__(self):
        return "well"

app = Says.bind()
"""


def _options(pid: int) -> dict[str, Any]:
    """What a process was started with."""
    arguments = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    options: dict[str, Any] = json.loads(arguments[arguments.index("--config-json") + 1])
    return options


def _told(pid: int) -> dict[str, Any]:
    """The options of HTTP that a proxy process was started with."""
    return {name: _options(pid).get(name) for name in CHOSEN}


def test_the_test_is_complete() -> None:
    """Each option is looked at here, is one of the proxy's, and differs from its default."""
    assert HTTPOptions.model_fields.keys() == CHOSEN.keys() | TLS | NOT_THE_PROXYS | {"port"}
    assert {field.name for field in fields(ProxyConfig)} >= CHOSEN.keys() | TLS | {"port"}
    assert [name for name, value in CHOSEN.items() if HTTPOptions.model_fields[name].default == value] == []


def test_in_process() -> None:
    """What `slipknot.testing` makes of them."""
    config = ProxyConfig.from_options(HTTPOptions(**CHOSEN).model_dump(), controller_address="unix:/nowhere")
    assert {name: getattr(config, name) for name in CHOSEN} == CHOSEN


def test_embedded_cluster() -> None:
    serve.start(http_options={"port": 0, **CHOSEN})
    try:
        assert _told(child_running("slipknot_proxy")) == CHOSEN
    finally:
        serve.shutdown()


@pytest.mark.timeout(60)
def test_config_file(tmp_path: Path) -> None:
    """`slipknot run config.yaml`; what else it says of the cluster counts, too."""
    port, gateway_port = free_port(CHOSEN["host"]), free_port()
    (tmp_path / "says.py").write_text(APP)
    config = {
        "http_options": {"port": port, **CHOSEN},
        "grpc_options": {"port": gateway_port},
        "logging_config": {"encoding": "JSON"},
        "tracing_config": {"enabled": False},
        "applications": [{"name": "default", "route_prefix": "/", "import_path": "says:app"}],
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "slipknot", "run", "config.yaml"]
    with (tmp_path / "log").open("wb") as log:
        running = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log)
    try:
        _wait_until_served(f"http://{CHOSEN['host']}:{port}/", running, tmp_path / "log")
        proxy = child_running("slipknot_proxy", running.pid)
        assert _told(proxy) == CHOSEN
        assert _options(proxy)["gateway_port"] == gateway_port
        assert json.loads(_options(proxy)["logging_json"])["encoding"] == "JSON"
        assert "SLIPKNOT_TRACING_ENABLED=0" in Path(f"/proc/{proxy}/environ").read_text().split("\0")
    finally:
        running.terminate()
        running.wait(WAIT_S)


def _wait_until_served(url: str, running: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while True:
        assert running.poll() is None and time.monotonic() < deadline_s, log.read_text()
        try:
            if httpx.get(url, timeout=WAIT_S).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
