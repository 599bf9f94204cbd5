"""Throws random and mutated frames at every port of a cluster over TCP, and looks what became of it.

By hand: `scripts/fuzz-ports --frames 1000000 --seed 7`.
"""

import argparse
import pickle
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from slipknot import serve
from slipknot_core.rpc.roles import REQUIRED
from slipknot_proto.v1 import (
    controller_pb2,
    discovery_pb2,
    gateway_pb2,
    payload_pb2,
    registry_pb2,
    replica_pb2,
    spec_pb2,
)

from .cluster_status import application, cluster_status, wait_until
from .frame_fuzz import CallSeed, FrameFuzz, throw
from .tcp_cluster import TcpCluster

WAIT_S = 30.0
"""A bound, not an expectation."""
CHECK_EVERY = 50
"""Connections between two looks at whether the application serves."""


class Bomb:
    """Leaves a file where it is unpickled."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(self._path),)


@serve.deployment(max_ongoing_requests=200, max_queued_requests=1000)
class Echo:
    """What the frames must not harm."""

    def __call__(self, _value: Any = None) -> str:
        return "well"


@dataclass
class Findings:
    """What came of it."""

    frames: int = 0
    connections: int = 0
    growth_bytes: dict[str, int] = field(default_factory=dict)
    """Resident memory of each process, after minus before."""


def call_seeds(token: str, bomb: bytes) -> list[CallSeed]:
    """Calls to all methods from strangers, with a pickled bomb wherever there is a place for one; and some
    with the right token, whose messages get as far as the handlers."""
    pickled = payload_pb2.Payload(pickle=bomb)
    json = payload_pb2.Payload(json=b'{"args": [1]}')
    messages: dict[str, Any] = {
        "ReplicaService/Call": _call_request(pickled),
        "ReplicaService/Session": replica_pb2.SessionRequest(),
        "ControllerService/DeployApplication": controller_pb2.DeployApplicationRequest(
            application=spec_pb2.ApplicationSpec(
                name="bomb",
                ingress_deployment="Bomb",
                deployments=[spec_pb2.DeploymentSpec(name="Bomb", code=spec_pb2.CodeSource(pickle=bomb))],
            )
        ),
        "RegistryService/JoinReplica": registry_pb2.JoinReplicaRequest(
            hello=registry_pb2.ReplicaHello(replica_id="default#Echo#stranger", app_name="default")
        ),
        "RegistryService/JoinNode": registry_pb2.JoinNodeRequest(
            hello=registry_pb2.NodeHello(node_id="stranger")
        ),
        "DiscoveryService/Watch": discovery_pb2.WatchRequest(
            proxy=discovery_pb2.ProxyInfo(proxy_id="stranger")
        ),
        "GatewayService/CallMethod": gateway_pb2.CallMethodRequest(
            target=gateway_pb2.MethodTarget(arguments=pickled)
        ),
        "GatewayService/SendHttpRequest": gateway_pb2.SendHttpRequestRequest(),
    }
    services = [
        s
        for module in (controller_pb2, discovery_pb2, gateway_pb2, registry_pb2, replica_pb2)
        for s in module.DESCRIPTOR.services_by_name.values()
    ]
    seeds = [
        CallSeed(f"{s.full_name}/{m.name}", messages[f"{s.name}/{m.name}"].SerializeToString(), wrong)
        if f"{s.name}/{m.name}" in messages
        else CallSeed(f"{s.full_name}/{m.name}", b"\x0a\x07default", wrong)
        for s in services
        for m in s.methods
        for wrong in ("", "the-token-of-another-cluster")
    ]
    seeds += [CallSeed(f"{name}/Anything", b"\0\1\2") for name in REQUIRED if "/" not in name]
    known = {
        "ReplicaService/Call": _call_request(json),
        "ControllerService/GetStatus": controller_pb2.GetStatusRequest(),
    }
    seeds += [
        CallSeed(f"slipknot.v1.{m}", message.SerializeToString(), token) for m, message in known.items()
    ] * 4
    return seeds


def fuzz(cluster: TcpCluster, trace: Path, *, frames: int, seed: int) -> Findings:
    """Throw `frames` frames, spread over all ports.

    Raises:
        AssertionError: Something was executed, or something that was there is not there any more.
    """
    bomb = pickle.dumps(Bomb(str(trace)))
    makers = FrameFuzz(seed, call_seeds(cluster.credentials.token, bomb))
    memory, there = _memory(cluster), members()
    findings = Findings()
    ports = targets(cluster)
    while findings.frames < frames:
        address, is_http1 = ports[findings.connections % len(ports)]
        data, count = makers.http1() if is_http1 else makers.http2()
        throw_at(address, data)
        findings.frames += count
        findings.connections += 1
        if findings.connections % CHECK_EVERY == 0:
            _check(cluster, trace)
    _check(cluster, trace)
    wait_until(lambda: members() == there)
    after = _memory(cluster)
    findings.growth_bytes = {name: after[name] - size for name, size in memory.items()}
    return findings


def _call_request(arguments: payload_pb2.Payload) -> replica_pb2.CallRequest:
    open_ = replica_pb2.Open(
        request_id="fuzz",
        app_name="default",
        deployment_name="Echo",
        method=replica_pb2.MethodCall(method_name="__call__", arguments=arguments),
    )
    return replica_pb2.CallRequest(frames=[replica_pb2.CallFrame(open=open_)])


def targets(cluster: TcpCluster) -> list[tuple[str, bool]]:
    """Addresses of all ports, and whether they speak HTTP/1."""
    _, http, gateway = cluster.proxies[0].ready_line.split()
    return [(cluster.address, False), (_replica().address, False), (gateway, False), (http, True)]


def _replica() -> Any:
    return application().deployments[0].replicas[0]


def members() -> tuple[Any, ...]:
    """Who is there, by name and process."""
    status = cluster_status()
    return (
        status.epoch,
        [a.name for a in status.applications],
        [(n.node_id, n.pid) for n in status.nodes],
        [p.proxy_id for p in status.proxies],
        (_replica().replica_id, _replica().pid),
    )


def _memory(cluster: TcpCluster) -> dict[str, int]:
    pids = {
        "controller": cluster.controller.pid,
        "node": cluster.nodes[0].pid,
        "proxy": cluster.proxies[0].pid,
        "replica": _replica().pid,
    }
    return {name: psutil.Process(pid).memory_info().rss for name, pid in pids.items()}


def throw_at(address: str, data: bytes) -> None:
    """A server that begins anew may need a moment."""
    deadline_s = time.monotonic() + WAIT_S
    while True:
        try:
            throw(address, data)
            return
        except ConnectionError:
            assert time.monotonic() < deadline_s, f"nobody listens at {address} any more"
            time.sleep(0.01)


def well(cluster: TcpCluster) -> bool:
    """The application answers, perhaps after a moment."""
    return wait_until(lambda: httpx.get(cluster.url, timeout=WAIT_S).text == "well")


def _check(cluster: TcpCluster, trace: Path) -> None:
    assert not trace.exists(), "a stranger's pickle was read"
    well(cluster)


def main() -> None:
    """Fuzz a new cluster, and print what came of it."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz-ports", description=__doc__)
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    given = parser.parse_args()
    print(f"seed {given.seed}")  # noqa: T201 - a command's output
    with tempfile.TemporaryDirectory() as directory, TcpCluster(Path(directory), nodes=1) as cluster:
        serve.run(Echo.bind())
        trace = Path(directory) / "executed"
        fuzz(cluster, trace, frames=min(2000, given.frames), seed=given.seed + 1)  # caches fill
        began_s = time.monotonic()
        findings = fuzz(cluster, trace, frames=given.frames, seed=given.seed)
        seconds = time.monotonic() - began_s
        replaced = sum(log.read_text().count("server_replaced") for log in Path(directory).rglob("*.log"))
    growth = ", ".join(f"{name} {size / 2**20:+.1f} MiB" for name, size in findings.growth_bytes.items())
    print(  # noqa: T201
        f"{findings.frames} frames on {findings.connections} connections in {seconds:.0f} s; {growth}; "
        f"{replaced} servers replaced"
    )


if __name__ == "__main__":
    main()
