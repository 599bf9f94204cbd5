"""slipknot: a serving cluster in which letting go of a request lets go of everything it started.

`from slipknot import serve` is the API for deploying applications; `Client` and `AsyncClient` call them from
outside the cluster; `Credentials` (with `TlsFiles`) prove who is there.
"""

from typing import TYPE_CHECKING, Any

from . import serve

if TYPE_CHECKING:
    from slipknot_core.rpc.credentials import Credentials, TlsFiles

    from .client import AsyncClient, Client

__version__ = "0.1.0"

__all__ = ["AsyncClient", "Client", "Credentials", "TlsFiles", "__version__", "serve"]


def __getattr__(name: str) -> Any:
    if name in ("Client", "AsyncClient"):
        from . import client

        return getattr(client, name)
    if name in ("Credentials", "TlsFiles"):
        from slipknot_core.rpc import credentials

        return getattr(credentials, name)
    raise AttributeError(f"module 'slipknot' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
