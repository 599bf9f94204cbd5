"""Addresses of gRPC servers, "unix:/path" or "host:port": where to listen, and how others get there. Pure but
for this machine's name.
"""

import ipaddress
import socket


def split(address: str) -> tuple[str, str]:
    """Host without brackets, and port; the host of a Unix socket is empty."""
    if address.startswith("unix:"):
        return "", ""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), port


def join(host: str, port: int | str) -> str:
    """ "host:port"; an IPv6 address gets its brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(address: str) -> bool:
    """Only this machine gets there."""
    host, _ = split(address)
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_wildcard(address: str) -> bool:
    """It listens on all of this machine's addresses, so it is none that others could connect to."""
    if address.startswith("unix:"):
        return False
    host, _ = split(address)
    try:
        return not host or ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def advertised(address: str, host: str = "") -> str:
    """Where others reach what listens on `address`.

    Args:
        address: With its real port.
        host: The name that others know this machine by; its own host name if empty and `address` names none.
    """
    if address.startswith("unix:") or not (host or is_wildcard(address)):
        return address
    return join(host or socket.gethostname(), split(address)[1])
