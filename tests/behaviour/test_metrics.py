"""Metrics: what is counted, under which labels, and that all gauges return to zero however requests end."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc
import httpx
import pytest
from fastapi import FastAPI, WebSocket
from starlette.responses import StreamingResponse
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from slipknot import serve
from slipknot.serve.handle import DeploymentHandle
from slipknot_proto.v1 import gateway_pb2, gateway_pb2_grpc
from tests.support.journal import Gate, Journal, Pen
from tests.support.metrics import Metrics, wait_for_metrics

from .conftest import RunningCluster

pytestmark = pytest.mark.timeout(60)

APP = "measured"
GAUGES = (
    "slipknot_proxy_ongoing_http_requests",
    "slipknot_proxy_ongoing_grpc_requests",
    "slipknot_router_queued_requests",
    "slipknot_router_ongoing_requests",
    "slipknot_replica_ongoing_requests",
    "slipknot_replica_waiting_requests",
    "slipknot_replica_outliving_requests",
)

api = FastAPI()


@serve.deployment
class Child:
    """Counts with a metric of the user's own."""

    def __init__(self) -> None:
        self.calls = serve.metrics.Counter("child_calls", description="Calls.", tag_keys=("size",))
        self.calls.set_default_tags({"size": "small"})
        self.last = serve.metrics.Gauge("child_last")
        self.sizes = serve.metrics.Histogram("child_sizes", boundaries=[1, 10])

    async def __call__(self, number: int) -> int:
        self.calls.inc()
        self.calls.inc(2, tags={"size": "large"})
        self.last.set(number)
        self.sizes.observe(number)
        return number


@serve.deployment(max_ongoing_requests=2, max_queued_requests=1)
@serve.ingress(api)
class Measured:
    """Ends in every way there is."""

    def __init__(self, pen: Pen, gate: Gate, child: DeploymentHandle) -> None:
        self.pen, self.gate, self.child = pen, gate, child

    @api.get("/items/{number}")
    async def item(self, number: int) -> int:
        return int(await self.child.remote(number))

    @api.get("/fails/{number}")
    async def fails(self, number: int) -> None:
        raise ValueError(number)

    @api.get("/stands/{name}")
    async def stands(self, name: str) -> str:
        self.pen.note(f"{name} begun")
        await self.gate.passed()
        return name

    @api.get("/swallows/{name}")
    async def swallows(self, name: str) -> str:
        self.pen.note(f"{name} begun")
        try:
            await self.gate.passed()
        except asyncio.CancelledError:
            self.pen.note(f"{name} cancelled")
            await self.gate.passed()
        return name

    @api.get("/streams/{name}")
    async def streams(self, name: str) -> StreamingResponse:
        async def chunks() -> AsyncIterator[str]:
            yield "first"
            self.pen.note(f"{name} begun")
            await self.gate.passed()
            yield "last"

        return StreamingResponse(chunks())

    @api.websocket("/sockets/{name}")
    async def talk(self, websocket: WebSocket, name: str) -> None:
        if name == "refused":
            await websocket.close()
            return
        await websocket.accept()
        await websocket.send_text(await websocket.receive_text())
        await websocket.close(4001)


@dataclass
class Running:
    """The application, where it runs."""

    cluster: RunningCluster
    journal: Journal
    gate: Gate
    client: httpx.Client

    def wait(self, name: str, value: float, **labels: str) -> Metrics:
        return wait_for_metrics(self.cluster.metrics, lambda m: m.sum(name, **labels) == value)

    def all_is_quiet(self) -> Metrics:
        return wait_for_metrics(
            self.cluster.metrics, lambda m: all(m.sum(name, application=APP) == 0 for name in GAUGES[2:])
        )

    def leave(self, path: str, name: str) -> None:
        """Be a client that goes away once the handler has begun."""
        host, _, port = self.cluster.url.removeprefix("http://").rpartition(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(f"GET /m{path} HTTP/1.1\r\nhost: test\r\n\r\n".encode())
            self.journal.wait_for(f"{name} begun")


@pytest.fixture(scope="module")
def running(cluster: RunningCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    directory = tmp_path_factory.mktemp("metrics")
    gate = Gate(directory / "gate")
    with Journal(directory) as journal, httpx.Client(base_url=f"{cluster.url}/m", timeout=30) as client:
        serve.run(Measured.bind(journal.pen, gate, Child.bind()), name=APP, route_prefix="/m")
        yield Running(cluster, journal, gate, client)
        gate.open()
        serve.delete(APP)


def test_answers_and_errors_by_route_template(running: Running) -> None:
    """Counted with method, status, application and deployment, in proxy and replica alike."""
    for number in range(3):
        assert running.client.get(f"/items/{number}").json() == number
    assert running.client.get("/fails/1").status_code == 500
    assert running.client.get("/items/x").status_code == 422
    assert running.client.request("PROPFIND", "/items/1").status_code == 405
    metrics = running.wait("slipknot_proxy_http_requests_total", 1.0, method="other", application=APP)
    labels = {"application": APP, "deployment": "Measured"}
    of_items = {"route": "/m/items/{number}", "method": "GET", **labels}
    assert metrics.sum("slipknot_proxy_http_requests_total", status="200", **of_items) == 3
    assert metrics.sum("slipknot_proxy_http_request_latency_ms_count", status="200", **of_items) == 3
    assert metrics.sum("slipknot_proxy_http_errors_total", status="422", **of_items) == 1
    assert metrics.sum("slipknot_proxy_http_errors_total", status="500", route="/m/fails/{number}") == 1
    assert metrics.sum("slipknot_replica_requests_total", status="200", **of_items) == 3
    assert metrics.sum("slipknot_replica_errors_total", status="500", **labels) == 1
    assert metrics.sum("slipknot_replica_requests_total", deployment="Child", status="OK", method="CALL") == 3
    assert metrics.sum("slipknot_router_requests_total", application=APP, deployment="Child") == 3
    assert metrics.sum("slipknot_replica_processing_latency_ms_count", **of_items) == 4


def test_unknown_paths_make_no_labels(running: Running) -> None:
    """They are counted with an empty route."""
    before = Metrics(running.cluster.metrics())
    known = len(before.label_values("slipknot_proxy_http_requests_total", "route"))
    count = before.sum("slipknot_proxy_http_requests_total", route="", status="404")
    for number in range(5):
        assert httpx.get(f"{running.cluster.url}/nowhere/{number}").status_code == 404
    metrics = running.wait("slipknot_proxy_http_requests_total", count + 5, route="", status="404")
    assert len(metrics.label_values("slipknot_proxy_http_requests_total", "route")) <= known + 1
    assert metrics.label_values("slipknot_proxy_http_requests_total", "application", route="") == {""}


def test_user_metrics_know_where_they_were_counted(running: Running) -> None:
    """Application, deployment, replica and route come by themselves."""
    before = Metrics(running.cluster.metrics()).sum("child_calls_total", size="small")
    running.client.get("/items/5")
    where = {"application": APP, "deployment": "Child", "route": "/m/items/{number}"}
    metrics = running.wait("child_calls_total", before + 1, size="small", **where)
    assert metrics.sum("child_calls_total", size="large", **where) == 2 * (before + 1)
    assert metrics.sum("child_last", **where) == 5
    assert metrics.sum("child_sizes_bucket", le="10.0", **where) == before + 1
    replicas = metrics.label_values("child_last", "replica", **where)
    assert replicas and all(replica.startswith(f"{APP}#Child#") for replica in replicas)


def test_gauges_return_to_zero(running: Running) -> None:
    """After disconnects, deadlines, refusals, streams, WebSockets and calls through the gateway."""
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(running.client.get, "/stands/one") for _ in range(2)]
        running.journal.wait_for("one begun", 2)
        queued = pool.submit(running.client.get, "/stands/one")
        running.wait("slipknot_router_queued_requests", 1, application=APP, deployment="Measured")
        running.wait("slipknot_replica_ongoing_requests", 2, application=APP, deployment="Measured")
        running.wait("slipknot_proxy_ongoing_http_requests", 3)
        assert running.client.get("/stands/too-many").status_code == 503
        running.gate.open()
        assert [future.result().status_code for future in (*answers, queued)] == [200] * 3
    running.gate.close()
    labels = {"application": APP, "deployment": "Measured"}
    running.all_is_quiet()
    running.wait("slipknot_router_dropped_requests_total", 1, **labels)

    running.leave("/stands/left", "left")
    running.leave("/streams/streamed", "streamed")
    short = {"x-request-timeout-seconds": "0.2"}
    assert running.client.get("/stands/late", headers=short).status_code == 408
    with connect(f"{running.cluster.websocket_url}/m/sockets/a") as talk:
        talk.send("x")
        assert talk.recv() == "x"
        with pytest.raises(ConnectionClosed):  # the handler's close comes first
            talk.recv()
    with pytest.raises(InvalidStatus):
        connect(f"{running.cluster.websocket_url}/m/sockets/refused")
    _call_gateway(running)
    running.all_is_quiet()
    disconnected = {"reason": "CLIENT_DISCONNECTED", **labels}
    sockets = {"route": "/m/sockets/{name}", **labels}
    running.wait("slipknot_proxy_cancelled_requests_total", 2, **disconnected)
    running.wait("slipknot_replica_cancelled_requests_total", 2, **disconnected)
    running.wait("slipknot_proxy_http_requests_total", 1, status="408", **labels)
    running.wait("slipknot_proxy_websockets_total", 1, status="4001", **sockets)
    running.wait("slipknot_proxy_websockets_total", 1, status="403", **sockets)
    running.wait("slipknot_proxy_ongoing_grpc_requests", 0)
    running.wait("slipknot_proxy_ongoing_http_requests", 0)
    calls = {"method": "CallMethod", "status": "OK", "application": APP}
    running.wait("slipknot_proxy_grpc_requests_total", 1, **calls)


def test_work_that_outlives_its_request_is_seen(running: Running) -> None:
    """While it runs, and in a counter once it has ended, also if it then tries to answer."""
    labels = {"application": APP, "deployment": "Measured"}
    running.leave("/swallows/it", "it")
    running.journal.wait_for("it cancelled")
    metrics = running.wait("slipknot_replica_outlived_requests_total", 1.0, **labels)
    assert metrics.sum("slipknot_replica_outliving_requests", **labels) == 1
    assert metrics.sum("slipknot_replica_ongoing_requests", **labels) == 1
    running.gate.open()
    running.all_is_quiet()
    running.wait("slipknot_replica_completed_after_cancel_total", 1, **labels)
    running.gate.close()


def test_controller_and_routers_show_the_cluster(running: Running) -> None:
    """Replicas by state, leadership, the age of the routing state, the lag of each loop."""
    metrics = Metrics(running.cluster.metrics())
    labels = {"application": APP, "deployment": "Measured"}
    assert metrics.sum("slipknot_controller_replicas", state="RUNNING", **labels) == 1
    assert metrics.sum("slipknot_controller_target_replicas", **labels) == 1
    assert metrics.sum("slipknot_controller_replica_starts_total", **labels) == 1
    assert metrics.sum("slipknot_controller_replica_restarts_total", **labels) == 0
    assert metrics.sum("slipknot_controller_application_status", application=APP, status="RUNNING") == 1
    assert metrics.sum("slipknot_controller_leader") == 1
    assert metrics.sum("slipknot_router_controller_connected") >= 1
    names = {sample.name for sample in metrics.samples}
    assert {f"slipknot_{role}_loop_lag_seconds" for role in ("proxy", "controller", "replica")} <= names
    assert "slipknot_router_snapshot_age_seconds" in names


def _call_gateway(running: Running) -> None:
    with grpc.insecure_channel(running.cluster.gateway_address) as channel:
        stub = gateway_pb2_grpc.GatewayServiceStub(channel)
        target = gateway_pb2.MethodTarget(app_name=APP, deployment_name="Child", args_json="[7]")
        assert stub.CallMethod(gateway_pb2.CallMethodRequest(target=target), timeout=10).result_json == "7"
