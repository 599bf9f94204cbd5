"""Roles, their tokens, and the table of what each RPC needs."""

import itertools
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipknot_core.rpc.access import AccessGuard
from slipknot_core.rpc.credentials import Credentials
from slipknot_core.rpc.roles import REQUIRED, Role, required_role, role_named_in, role_token
from slipknot_proto.v1 import controller_pb2, discovery_pb2, gateway_pb2, registry_pb2, replica_pb2

MODULES = (controller_pb2, discovery_pb2, gateway_pb2, registry_pb2, replica_pb2)
SERVICES = {s.full_name: s for m in MODULES for s in m.DESCRIPTOR.services_by_name.values()}

secrets = st.text(string.ascii_letters + string.digits + "-_", min_size=1)


def test_every_service_is_in_the_table() -> None:
    """And nothing is that no longer exists."""
    ours = {name for name in REQUIRED if name.startswith("slipknot.")}
    methods = {f"{name}/{m.name}" for name, service in SERVICES.items() for m in service.methods}
    assert SERVICES.keys() <= ours <= SERVICES.keys() | methods


@pytest.mark.parametrize(
    ("method", "role"),
    [
        ("grpc.health.v1.Health/Check", None),
        ("grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Role.CLIENT),
        ("slipknot.v1.GatewayService/CallMethod", Role.CLIENT),
        ("slipknot.v1.ControllerService/GetStatus", Role.CLIENT),
        ("slipknot.v1.ControllerService/GetConfig", Role.DEPLOYER),
        ("slipknot.v1.ControllerService/DeployApplication", Role.DEPLOYER),
        ("slipknot.v1.ReplicaService/Call", Role.DEPLOYER),
        ("slipknot.v1.RegistryService/JoinNode", Role.MEMBER),
        ("slipknot.v1.NewService/Anything", Role.MEMBER),
        ("", Role.MEMBER),
    ],
)
def test_what_a_method_needs(method: str, role: Role | None) -> None:
    """What nobody has thought of needs the largest role."""
    assert required_role(f"/{method}") is role


@given(secrets)
def test_tokens_of_roles(secret: str) -> None:
    """Each role has its own, which says what it is for, and does not tell the secret."""
    tokens = [role_token(secret, role) for role in Role]
    assert len(set(tokens)) == len(tokens)
    assert role_token(secret, Role.MEMBER) == secret
    for role in (Role.CLIENT, Role.DEPLOYER):
        assert role_named_in(role_token(secret, role)) is role
        assert Credentials(role_token(secret, role)).token  # it can travel


@given(secrets, secrets)
def test_another_cluster_has_other_tokens(one: str, other: str) -> None:
    """Also those of the lesser roles."""
    for role, its in itertools.product(Role, Role):
        assert (role_token(one, role) == role_token(other, its)) == (one == other and role is its)


@pytest.mark.parametrize("role", [Role.CLIENT, Role.DEPLOYER])
def test_a_server_wants_the_clusters_own_token(role: Role) -> None:
    """With another it would let in nobody who belongs there."""
    with pytest.raises(ValueError, match=f"is a {role}'s token"):
        AccessGuard(Credentials(role_token("secret", role)))
