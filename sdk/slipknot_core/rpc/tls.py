"""Mutual TLS: what gRPC needs of the files, at both ends. They are read once in a process.

Members of a cluster come and go under any host name, so a server is not known by its host: callers demand a
certificate that names it a member (`Role.MEMBER.domain_name`).
"""

import functools
import ssl
import time
from pathlib import Path

import grpc

from .credentials import TlsFiles


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """For a port that demands a certificate of each client.

    Raises:
        ValueError: A file cannot be read, or the certificate has expired; the message names it.
    """
    ca, cert, key = _read(files)
    return grpc.ssl_server_credentials(((key, cert),), root_certificates=ca, require_client_auth=True)


def channel_credentials(files: TlsFiles) -> grpc.ChannelCredentials:
    """For a channel that shows this process's certificate.

    Raises:
        ValueError: A file cannot be read, or the certificate has expired; the message names it.
    """
    ca, cert, key = _read(files)
    return grpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=cert)


@functools.lru_cache(maxsize=16)
def _read(files: TlsFiles) -> tuple[bytes, bytes, bytes]:
    found = []
    for variable, path in (("CA", files.ca), ("CERT", files.cert), ("KEY", files.key)):
        try:
            found.append(Path(path).read_bytes())
        except OSError as error:
            raise ValueError(f"SLIPKNOT_TLS_{variable}={path!r} cannot be read: {error.strerror}") from error
    _check_expiry(files.cert)
    return found[0], found[1], found[2]


def _check_expiry(path: str) -> None:
    """A peer would hang up without a word; so it is said here, where Python can read the certificate."""
    decode = getattr(getattr(ssl, "_ssl", None), "_test_decode_cert", None)
    if decode is None:
        return
    try:
        ends = decode(path)["notAfter"]
    except (ssl.SSLError, OSError, KeyError) as error:
        raise ValueError(f"SLIPKNOT_TLS_CERT={path!r} is no certificate: {error}") from error
    if ssl.cert_time_to_seconds(ends) < time.time():
        raise ValueError(
            f"SLIPKNOT_TLS_CERT={path!r} has expired on {ends}; `slipknot certs` makes a new one"
        )
