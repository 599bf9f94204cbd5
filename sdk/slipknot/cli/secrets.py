"""Commands that make credentials: the cluster's token, those of other roles, and certificates."""

import secrets
from collections.abc import Sequence
from pathlib import Path

import typer

from slipknot_core.rpc.roles import Role, role_named_in, role_token
from slipknot_core.settings import cluster_settings

TOKEN_BYTES = 32


def make_token(role_name: str, output: Path | None) -> int:
    """Print a token, or write it to a new file of mode 0600."""
    role = _role(role_name)
    token = secrets.token_urlsafe(TOKEN_BYTES)
    if role is not Role.MEMBER:
        secret = cluster_settings().credentials.token
        if not secret or role_named_in(secret) is not None:
            raise ValueError(
                f"a {role}'s token is made from the cluster's: set SLIPKNOT_CLUSTER_TOKEN or "
                "SLIPKNOT_CLUSTER_TOKEN_FILE to the one that the members have"
            )
        token = role_token(secret, role)
    if output is None:
        typer.echo(token)
        return 0
    if output.exists():
        raise FileExistsError(f"{output} is there already; remove it, or write to another file")
    from .._certificates import write_private

    write_private(output, f"{token}\n".encode())
    typer.echo(f"Wrote the {role} token to {output}; use it: SLIPKNOT_CLUSTER_TOKEN_FILE={output}", err=True)
    return 0


def make_certificates(
    directory: Path, role_names: Sequence[str], name: str, days: float, hosts: Sequence[str]
) -> int:
    """Make certificates for roles, and the authority if there is none yet."""
    from .._certificates import Authority

    roles = [_role(role_name) for role_name in role_names] or list(Role)
    if name and len(roles) != 1:
        raise ValueError("--name goes with one --role")
    if days <= 0:
        raise ValueError(f"--days must be more than 0, not {days:g}")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority = Authority.open(directory)
    for role in roles:
        files = authority.issue(directory, role, name=name, days=days, hosts=hosts)
        typer.echo(
            f"{role}: SLIPKNOT_TLS_CA={files.ca} SLIPKNOT_TLS_CERT={files.cert} SLIPKNOT_TLS_KEY={files.key}"
        )
    typer.echo(
        f"Keep {directory / 'ca-key.pem'} off the machines of the cluster: whoever has it makes members.",
        err=True,
    )
    return 0


def _role(name: str) -> Role:
    try:
        return Role[name.upper()]
    except KeyError:
        raise ValueError(f"role {name!r} is none of {', '.join(map(str, Role))}") from None
