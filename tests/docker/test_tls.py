"""The small form with mutual TLS: who has no certificate of the cluster gets nowhere, and who has one may do
what its role says.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from slipknot.cli.secrets import make_certificates
from slipknot_core.rpc.channel import new_blocking_channel, token_metadata
from slipknot_core.rpc.credentials import NO_CREDENTIALS, Credentials, TlsFiles
from slipknot_proto.v1 import (
    controller_pb2,
    controller_pb2_grpc,
    gateway_pb2,
    gateway_pb2_grpc,
    registry_pb2,
    registry_pb2_grpc,
)
from tests.support.compose import Compose, address_of, docker, health_of, wait_until

TIMEOUT_S = 10.0
OK, REFUSED, HUNG_UP = grpc.StatusCode.OK, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAVAILABLE


@pytest.fixture(scope="module")
def secured(engine: None) -> Iterator[Compose]:
    """The small form, each member with its certificate."""
    files = ("docker-compose.small.yml", "docker-compose.small.tls.yml")
    with Compose(*files, project=f"sk-tls-{os.getpid()}", proxies=1) as compose:
        compose("build")
        compose("up", "--detach")
        wait_until(compose.answer, "the demo answers")
        yield compose


@pytest.fixture(scope="module")
def callers(secured: Compose, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The certificates for those outside of the cluster, taken out as docs/security.md says."""
    directory = tmp_path_factory.mktemp("callers")
    secured("cp", "init:/run/slipknot/callers/.", str(directory))
    return directory


def certificate(directory: Path, name: str) -> Credentials:
    ca, cert, key = (str(directory / file) for file in ("ca.pem", f"{name}.pem", f"{name}-key.pem"))
    return Credentials(tls=TlsFiles(ca, cert, key))


def code_of(
    address: str, credentials: Credentials, ask: Callable[[grpc.Channel, Any], object]
) -> grpc.StatusCode:
    """How a call ends."""
    with new_blocking_channel(address, credentials) as channel:
        try:
            ask(channel, {"timeout": TIMEOUT_S, "metadata": token_metadata(credentials)})
        except grpc.RpcError as error:
            return error.code()
    return OK


def read_status(channel: grpc.Channel, options: Any) -> object:
    stub = controller_pb2_grpc.ControllerServiceStub(channel)
    return stub.GetStatus(controller_pb2.GetStatusRequest(), **options)


def scale(channel: grpc.Channel, options: Any) -> object:
    """To what there is already: a change by its kind, and none by its effect."""
    stub = controller_pb2_grpc.ControllerServiceStub(channel)
    wanted = controller_pb2.ScaleDeploymentRequest(app_name="default", deployment_name="Leaf", num_replicas=1)
    return stub.ScaleDeployment(wanted, **options)


def deploy(channel: grpc.Channel, options: Any) -> object:
    """Nothing; whoever may not is told so before it is read."""
    stub = controller_pb2_grpc.ControllerServiceStub(channel)
    return stub.DeployApplication(controller_pb2.DeployApplicationRequest(), **options)


def join(channel: grpc.Channel, options: Any) -> object:
    """As a node."""
    hello = registry_pb2.JoinNodeRequest(hello=registry_pb2.NodeHello(node_id="stranger"))
    return next(registry_pb2_grpc.RegistryServiceStub(channel).JoinNode(iter([hello]), **options))


def use_gateway(channel: grpc.Channel, options: Any) -> object:
    return gateway_pb2_grpc.GatewayServiceStub(channel).Healthz(gateway_pb2.HealthzRequest(), **options)


def test_all_are_healthy(secured: Compose) -> None:
    """Health checks speak TLS, too."""
    containers = secured.containers("controller", "proxy", "node")
    assert len(containers) == 4
    wait_until(lambda: {health_of(c) for c in containers} == {"healthy"}, "all are healthy")


def test_without_a_certificate_of_this_cluster_nobody_gets_in(
    secured: Compose, callers: Path, tmp_path: Path
) -> None:
    """Neither in clear, with or without a token, nor as a member of another cluster."""
    make_certificates(tmp_path, ["member"], "", 1, [])
    stranger = certificate(tmp_path, "member")
    ours = str(callers / "ca.pem")
    assert stranger.tls is not None
    believing = Credentials(tls=TlsFiles(ours, stranger.tls.cert, stranger.tls.key))
    controller = f"{address_of(secured.one('controller'))}:7000"
    gateway = f"127.0.0.1:{secured.ports[1]}"
    for credentials in (NO_CREDENTIALS, Credentials("some-token-or-other"), stranger, believing):
        for ask in (read_status, deploy, join):
            assert code_of(controller, credentials, ask) is HUNG_UP, (credentials, ask)
        assert code_of(gateway, credentials, use_gateway) is HUNG_UP, credentials
    nodes = {node.node_id for node in status(controller, certificate(callers, "client")).nodes}
    assert len(nodes) == 2 and "stranger" not in nodes


def test_a_certificate_says_what_its_holder_may(secured: Compose, callers: Path) -> None:
    controller = f"{address_of(secured.one('controller'))}:7000"
    gateway = f"127.0.0.1:{secured.ports[1]}"
    client, deployer = certificate(callers, "client"), certificate(callers, "deployer")
    found = {
        ask: (code_of(controller, client, ask), code_of(controller, deployer, ask))
        for ask in (read_status, scale, join)
    }
    assert found == {read_status: (OK, OK), scale: (REFUSED, OK), join: (REFUSED, REFUSED)}
    assert code_of(controller, client, deploy) is REFUSED
    assert code_of(gateway, client, use_gateway) is OK


def test_each_container_holds_what_it_needs_only(secured: Compose) -> None:
    """The authority's key is with nobody but `init`, a member's with members."""
    mounted = {
        service: docker(
            "inspect", "--format", "{{range .Mounts}}{{.Name}} {{end}}", secured.one(service)
        ).split()
        for service in ("init", "controller", "proxy", "deploy")
    }
    names = {
        service: {name.removeprefix(f"{secured.project}_") for name in found}
        for service, found in mounted.items()
    }
    assert names == {
        "init": {"secrets", "authority", "member", "callers"},
        "controller": {"member", "state"},
        "proxy": {"member"},
        "deploy": {"callers"},
    }
    for container in secured.containers("controller", "proxy", "node"):
        there = docker("exec", container, "ls", "/run/slipknot/secrets").split()
        assert there == ["ca.pem", "member-key.pem", "member.pem"]


def test_certificates_are_made_once(secured: Compose, callers: Path, tmp_path: Path) -> None:
    docker("start", "--attach", secured.one("init"))
    secured("cp", "init:/run/slipknot/callers/.", str(tmp_path))
    assert {f.name: f.read_bytes() for f in tmp_path.iterdir()} == {
        f.name: f.read_bytes() for f in callers.iterdir()
    }


def status(controller: str, credentials: Credentials) -> Any:
    with new_blocking_channel(controller, credentials) as channel:
        return read_status(channel, {"timeout": TIMEOUT_S}).status  # type: ignore[attr-defined]
