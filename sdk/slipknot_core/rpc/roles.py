"""Who may do what: the roles, the tokens that prove them, and the one table of what each RPC needs. Pure.

A member holds the cluster's secret. The tokens of the other roles are made from it, so that members know them
without a list, and nobody gets back from one of them to the secret.
"""

import enum
import hashlib
import hmac
from collections.abc import Mapping
from types import MappingProxyType


class Role(enum.IntEnum):
    """What a caller is to the cluster; a larger one may do all that a smaller one may."""

    CLIENT = 1
    """Sends requests through the gateway, and sees the status."""
    DEPLOYER = 2
    """Deploys applications, and calls their replicas with handles."""
    MEMBER = 3
    """Is a part of the cluster: controller, node, replica, proxy."""

    def __str__(self) -> str:
        return self.name.lower()

    @property
    def domain_name(self) -> str:
        """The DNS name in certificates of this role (subjectAltName)."""
        return f"{self}.slipknot.internal"


REQUIRED: Mapping[str, Role | None] = MappingProxyType(
    {
        # Whoever gets to the port may ask whether it serves.
        "grpc.health.v1.Health": None,
        "grpc.reflection.v1.ServerReflection": Role.CLIENT,
        "grpc.reflection.v1alpha.ServerReflection": Role.CLIENT,
        "slipknot.v1.GatewayService": Role.CLIENT,
        "slipknot.v1.ControllerService": Role.DEPLOYER,
        "slipknot.v1.ControllerService/GetLeader": Role.CLIENT,
        "slipknot.v1.ControllerService/GetStatus": Role.CLIENT,
        "slipknot.v1.ControllerService/WatchStatus": Role.CLIENT,
        "slipknot.v1.DiscoveryService": Role.DEPLOYER,
        "slipknot.v1.ReplicaService": Role.DEPLOYER,
        "slipknot.v1.RegistryService": Role.MEMBER,
    }
)
"""By service, or by method where that differs from its service. None: open to everybody."""

_PREFIX = "slipknot-"


def required_role(method: str) -> Role | None:
    """What a caller of "/package.Service/Method" must be; a member for what stands in no table."""
    name = method.removeprefix("/")
    service = name.partition("/")[0]
    return REQUIRED[name] if name in REQUIRED else REQUIRED.get(service, Role.MEMBER)


def role_token(secret: str, role: Role) -> str:
    """The token of a role.

    Args:
        secret: The cluster's.
        role: A member's token is the secret itself.
    """
    if role is Role.MEMBER:
        return secret
    digest = hmac.new(secret.encode(), f"slipknot {role}".encode(), hashlib.sha256).hexdigest()
    return f"{_PREFIX}{role}-{digest}"


def role_named_in(token: str) -> Role | None:
    """The role that a token made by `role_token` says it is for; None for a secret."""
    for role in (Role.CLIENT, Role.DEPLOYER):
        if token.startswith(f"{_PREFIX}{role}-"):
            return role
    return None
