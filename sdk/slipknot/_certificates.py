"""A small certificate authority for one cluster: itself, and certificates that name a role. Needs the package
`cryptography` (`pip install slipknot[tls]`).

A certificate names its role in subjectAltName (`member.slipknot.internal`); see `slipknot_core.rpc.roles`.
Files are PEM; private keys are readable by their owner only.
"""

import datetime
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from slipknot_core.ids import short_id
from slipknot_core.rpc.credentials import TlsFiles
from slipknot_core.rpc.roles import Role

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

CA_DAYS = 3650
DEFAULT_DAYS = 365

BEGINS_EARLIER = datetime.timedelta(minutes=5)
"""Clocks of other machines may be a little behind."""


@dataclass(frozen=True, slots=True)
class Authority:
    """Signs certificates. Its key must stay where nobody but the operator of the cluster reads it."""

    certificate: "x509.Certificate"
    key: "ec.EllipticCurvePrivateKey"

    @classmethod
    def open(cls, directory: Path) -> "Authority":
        """Read the authority `ca.pem`, `ca-key.pem` of a directory, or make one there.

        Raises:
            ImportError: The package `cryptography` is missing.
            ValueError: Only one of the files is there, or they are no authority.
        """
        _need_cryptography()
        files = (directory / "ca.pem", directory / "ca-key.pem")
        there = [file for file in files if file.exists()]
        if not there:
            return cls._make(*files)
        if len(there) == 1:
            raise ValueError(
                f"{there[0]} is there, but not its counterpart; restore it, or use another directory"
            )
        return cls._read(*files)

    @classmethod
    def _make(cls, certificate_file: Path, key_file: Path) -> "Authority":
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(f"slipknot cluster {short_id()}")
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            _builder(name, name, key, now + datetime.timedelta(days=CA_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        authority = cls(certificate, key)
        _write_pair(certificate, key, certificate_file, key_file)
        return authority

    @classmethod
    def _read(cls, certificate_file: Path, key_file: Path) -> "Authority":
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        try:
            certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
            key = serialization.load_pem_private_key(key_file.read_bytes(), None)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{certificate_file} and {key_file} cannot be read: {error}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or certificate.public_key() != key.public_key():
            raise ValueError(f"{key_file} is not the key of {certificate_file}")
        return cls(certificate, key)

    def issue(
        self,
        directory: Path,
        role: Role,
        *,
        name: str = "",
        days: float = DEFAULT_DAYS,
        hosts: Sequence[str] = (),
    ) -> TlsFiles:
        """Make a key and a certificate for a role, replacing earlier ones of this name.

        Args:
            directory: Where the files go; `ca.pem` is there already.
            role: What its holder may do.
            name: Beginning of the files' names; the role if empty.
            days: How long it is valid, from now on; not longer than the authority itself.
            hosts: DNS names and IP addresses for programs that check the server's host name.
        """
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID as Usage

        name = name or str(role)
        key = ec.generate_private_key(ec.SECP256R1())
        ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
        usages = [Usage.CLIENT_AUTH, Usage.SERVER_AUTH] if role is Role.MEMBER else [Usage.CLIENT_AUTH]
        issuer = self.certificate.subject
        certificate = (
            _builder(
                _name(f"slipknot {role} {name}"), issuer, key, min(ends, self.certificate.not_valid_after_utc)
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(
                x509.SubjectAlternativeName([x509.DNSName(role.domain_name), *map(_general_name, hosts)]),
                critical=False,
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
            )
            .sign(self.key, hashes.SHA256())
        )
        files = (directory / f"{name}.pem", directory / f"{name}-key.pem")
        _write_pair(certificate, key, *files)
        return TlsFiles(str(directory / "ca.pem"), str(files[0]), str(files[1]))


def _builder(
    subject: "x509.Name", issuer: "x509.Name", key: "ec.EllipticCurvePrivateKey", ends: datetime.datetime
) -> "x509.CertificateBuilder":
    from cryptography import x509

    begins = min(datetime.datetime.now(datetime.UTC), ends) - BEGINS_EARLIER
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
    )


def _name(text: str) -> "x509.Name":
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _general_name(host: str) -> "x509.GeneralName":
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_usage(*, signs_certificates: bool) -> "x509.KeyUsage":
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _write_pair(
    certificate: "x509.Certificate", key: "ec.EllipticCurvePrivateKey", certificate_file: Path, key_file: Path
) -> None:
    from cryptography.hazmat.primitives import serialization

    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    write_private(key_file, key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    certificate_file.write_bytes(certificate.public_bytes(pem))


def write_private(file: Path, data: bytes) -> None:
    """Write a file that only its owner can read; one that is there is replaced."""
    file.unlink(missing_ok=True)  # it may be readable by others
    fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "wb") as opened:
        opened.write(data)


def _need_cryptography() -> None:
    try:
        import cryptography  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise ImportError("making certificates needs a package: pip install slipknot[tls]") from error
