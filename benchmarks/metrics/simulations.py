"""How the routing state grows, without any process: the same code as in controllers and proxies."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable

from slipknot_controller.messages import snapshot_message
from slipknot_core.ids import DeploymentId
from slipknot_core.routing.choose import choose
from slipknot_core.routing.replica import Replica
from slipknot_core.routing.route_table import RouteTable
from slipknot_core.routing.router import Router
from slipknot_core.routing.snapshot import ApplicationRoute, DeploymentRoute, ReplicaRoute, Snapshot
from slipknot_core.rpc.credentials import NO_CREDENTIALS
from slipknot_proto.v1 import discovery_pb2

from ..effort import Effort
from ..figures import Figure
from ..systems.system import Running
from .metric import Metric

REPLICAS_OF_A_DEPLOYMENT = 100
LOOPS = 2000


async def _routing(running: Running, effort: Effort) -> AsyncIterator[list[Figure]]:
    for count in effort.applications:
        routes = {f"app{n}": ApplicationRoute(f"app{n}", f"/app{n}", "Model") for n in range(count)}
        table = RouteTable.from_snapshot(Snapshot(1, 1, routes))
        path = f"/app{count // 2}/v1/predict"
        if table.match(path) is None:
            raise RuntimeError(f"{path} leads nowhere")
        elapsed_s = _best_s(lambda table=table, path=path: table.match(path), LOOPS)  # type: ignore[misc]
        yield [Figure("growth", f"{count} applications", "matching a path", elapsed_s * 1e6, "us")]


async def _snapshot(running: Running, effort: Effort) -> AsyncIterator[list[Figure]]:
    for count in effort.snapshot_replicas:
        routes = _routes(count)
        encoded = snapshot_message(1, 2, routes).SerializeToString()
        make_s = _best_s(lambda routes=routes: snapshot_message(1, 2, routes).SerializeToString(), 3)  # type: ignore[misc]
        read_s = _best_s(lambda encoded=encoded: _read(encoded), 3)  # type: ignore[misc]
        yield [
            Figure("growth", f"{count} replicas in a snapshot", "size", len(encoded) / 1024, "KiB"),
            Figure("growth", f"{count} replicas in a snapshot", "making it", make_s * 1000, "ms"),
            Figure("growth", f"{count} replicas in a snapshot", "reading it", read_s * 1000, "ms"),
            Figure(
                "growth",
                f"{count} replicas in a snapshot",
                "applying it, nothing changed",
                await _apply_s(encoded) * 1000,
                "ms",
            ),
        ]


async def _choice(running: Running, effort: Effort) -> AsyncIterator[list[Figure]]:
    for count in effort.snapshot_replicas:
        routes = [ReplicaRoute(f"replica{n}", f"unix:/{n}", "node", 10) for n in range(count)]
        replicas = [Replica(route, NO_CREDENTIALS, lambda: None) for route in routes]
        elapsed_s = _best_s(
            lambda replicas=replicas: choose(replicas, node_id="node", now_s=1.0, pick=random.choice),  # type: ignore[misc]
            20,
        )
        yield [Figure("growth", f"{count} replicas to choose from", "choosing", elapsed_s * 1e6, "us")]


def _routes(count: int) -> dict[str, ApplicationRoute]:
    """Deployments of up to a hundred replicas, on a hundred nodes."""
    routes = {}
    for first in range(0, count, REPLICAS_OF_A_DEPLOYMENT):
        app, numbers = f"app{first}", range(first, min(count, first + REPLICAS_OF_A_DEPLOYMENT))
        replicas = tuple(
            ReplicaRoute(
                f"{app}#Model#{n:08x}", f"10.0.{n % 100}.7:{40000 + n % 9999}", f"node-{n % 100}", 100
            )
            for n in numbers
        )
        deployment = DeploymentRoute(DeploymentId(app, "Model"), replicas=replicas)
        routes[app] = ApplicationRoute(app, f"/{app}", "Model", {"Model": deployment})
    return routes


def _read(encoded: bytes) -> Snapshot:
    return Snapshot.from_proto(discovery_pb2.Snapshot.FromString(encoded))


async def _apply_s(encoded: bytes) -> float:
    """Of a proxy that uses all of it: routes are made anew, routers compare what they have."""
    snapshot = _read(encoded)
    routers = {}
    for application in snapshot.applications.values():
        for route in application.deployments.values():
            routers[route.id] = Router(
                route.id, node_id="node-1", credentials=NO_CREDENTIALS, on_waiting=lambda router: None
            )
            routers[route.id].update(route)
    snapshot = _read(encoded)

    def apply() -> None:
        RouteTable.from_snapshot(snapshot)
        for deployment_id, router in routers.items():
            route = snapshot.deployment(deployment_id)
            assert route is not None
            router.update(route)

    try:
        return _best_s(apply, 3)
    finally:
        await asyncio.gather(*(router.close() for router in routers.values()))


def _best_s(work: Callable[[], object], loops: int) -> float:
    """The mean time of `loops` times, the best of five."""
    best_s = float("inf")
    for _ in range(5):
        begun_s = time.perf_counter()
        for _ in range(loops):
            work()
        best_s = min(best_s, (time.perf_counter() - begun_s) / loops)
    return best_s


SIMULATIONS = tuple(
    Metric("growth", "plain", measure, only=frozenset({"slipknot"}))
    for measure in (_routing, _snapshot, _choice)
)
