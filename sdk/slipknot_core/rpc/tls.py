"""Mutual TLS: what gRPC needs of the files, at both ends.

Members of a cluster come and go under any host name, so a server is not known by its host: it is known by a
certificate that names it a member.
"""

from pathlib import Path

import grpc

from .credentials import TlsFiles

MEMBER_NAME = "member.slipknot.internal"
"""The name that certificates of members carry (subjectAltName, DNS) and that callers demand of a server."""


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """For a port that demands a certificate of each client.

    Raises:
        ValueError: A file cannot be read; the message names it.
    """
    ca, cert, key = _read(files)
    return grpc.ssl_server_credentials(((key, cert),), root_certificates=ca, require_client_auth=True)


def channel_credentials(files: TlsFiles) -> grpc.ChannelCredentials:
    """For a channel that shows this process's certificate.

    Raises:
        ValueError: A file cannot be read; the message names it.
    """
    ca, cert, key = _read(files)
    return grpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=cert)


def _read(files: TlsFiles) -> tuple[bytes, bytes, bytes]:
    found = []
    for variable, path in (("CA", files.ca), ("CERT", files.cert), ("KEY", files.key)):
        try:
            found.append(Path(path).read_bytes())
        except OSError as error:
            raise ValueError(f"SLIPKNOT_TLS_{variable}={path!r} cannot be read: {error.strerror}") from error
    return found[0], found[1], found[2]
