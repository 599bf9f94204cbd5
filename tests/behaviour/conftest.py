"""The behaviour suite runs every test twice: against all roles in this process, and against an embedded
cluster of processes. What depends on how exchanges travel runs once more with the other carrier.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from slipknot import _connection, _control, serve
from slipknot._metrics import cluster_readings
from slipknot.serve.handle import DeploymentHandle
from slipknot.testing import Cluster
from slipknot_core.exposition import expose
from tests.support.journal import Gate, Journal

MODES = ("in_process", "call_carrier", "embedded")
CALL_CARRIER_MODULES = ("test_cancel_http", "test_cancel_streams", "test_http_queue", "test_http_streaming")
"""These run with each exchange on a gRPC stream of its own, too: the default shares one."""


@dataclass
class RunningCluster:
    """Where the cluster under test is. `mode` is one of MODES."""

    mode: str
    url: str
    gateway_address: str
    controller_address: str
    metrics: Callable[[], str]

    @property
    def websocket_url(self) -> str:
        return self.url.replace("http://", "ws://")


@dataclass
class RunningApp:
    """An application under test; `client` has its URL as base."""

    name: str
    url: str
    handle: DeploymentHandle
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = httpx.Client(base_url=self.url, timeout=30.0)

    @property
    def websocket_url(self) -> str:
        return self.url.replace("http://", "ws://")


ServeApp = Callable[..., RunningApp]


@pytest.fixture(scope="session", params=MODES)
def cluster(request: pytest.FixtureRequest) -> Iterator[RunningCluster]:
    """One cluster for all tests of its mode."""
    if request.param != "embedded":
        with pytest.MonkeyPatch.context() as patch:
            if request.param == "call_carrier":
                patch.setenv("SLIPKNOT_RPC_CARRIER", "call")
            with Cluster() as running:
                yield RunningCluster(
                    "in_process",
                    running.url,
                    running.gateway_address,
                    running.controller_address,
                    running.metrics,
                )
        return
    serve.start(http_options={"port": 0})
    try:
        gateway_address, controller_address = _embedded_addresses()
        yield RunningCluster(
            "embedded", serve.http_url(), gateway_address, controller_address, _embedded_metrics
        )
    finally:
        serve.shutdown()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the mode `call_carrier` to the modules that it is for."""
    items[:] = [item for item in items if not _is_superfluous(item)]


def _is_superfluous(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    mode = callspec.params.get("cluster") if callspec is not None else None
    return mode == "call_carrier" and item.path.stem not in CALL_CARRIER_MODULES


def _embedded_addresses() -> tuple[str, str]:
    connection = _connection.current()
    (proxy,) = connection.run(_control.status(connection)).proxies
    return proxy.gateway_address, connection.dispatcher.controller_address


def _embedded_metrics() -> str:
    connection = _connection.current()
    status = connection.run(_control.status(connection))
    return expose(connection.run(cluster_readings(status)))[1].decode()


@pytest.fixture
def serve_app(cluster: RunningCluster) -> Iterator[ServeApp]:
    """Deploy applications for one test: `serve_app(app, name="default", route_prefix="/")`."""
    running: list[RunningApp] = []

    def deploy(
        target: serve.Application, *, name: str = "default", route_prefix: str | None = "/"
    ) -> RunningApp:
        handle = serve.run(target, name=name, route_prefix=route_prefix)
        app = RunningApp(name, cluster.url + (route_prefix or "/").rstrip("/"), handle)
        running.append(app)
        return app

    yield deploy
    for app in running:
        app.client.close()
    for name in {app.name for app in running}:
        serve.delete(name)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """What the handlers note with `journal.pen`."""
    with Journal(tmp_path) as open_journal:
        yield open_journal


@pytest.fixture
def make_gate(tmp_path: Path) -> Iterator[Callable[[str], Gate]]:
    """Gates by name; all are opened when the test ends, so that no handler stays behind."""
    gates: dict[str, Gate] = {}

    def make(name: str = "gate") -> Gate:
        return gates.setdefault(name, Gate(tmp_path / f"{name}.gate"))

    yield make
    for gate in gates.values():
        gate.open()
