"""The commands that make tokens and certificates."""

import stat
import subprocess
from pathlib import Path

import pytest

from slipknot._certificates import Authority
from slipknot.cli.secrets import make_certificates, make_token
from slipknot_core.rpc.credentials import MIN_TOKEN_LENGTH, Credentials
from slipknot_core.rpc.roles import Role, role_token

x509 = pytest.importorskip("cryptography.x509", reason="needs cryptography: pip install slipknot[tls]")


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def test_a_new_token_is_strong_and_another_each_time(capsys: pytest.CaptureFixture[str]) -> None:
    """One line, fit for $(slipknot token)."""
    for _ in range(2):
        make_token("member", None)
    first, second = capsys.readouterr().out.splitlines()
    assert first != second
    assert len(Credentials(first).token) > 2 * MIN_TOKEN_LENGTH


def test_a_token_file_is_for_its_owner_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And never overwrites another."""
    file = tmp_path / "token"
    make_token("member", file)
    assert mode(file) == 0o600
    with pytest.raises(FileExistsError, match="is there already"):
        make_token("member", file)
    # From it come those of other roles.
    monkeypatch.setenv("SLIPKNOT_CLUSTER_TOKEN_FILE", str(file))
    make_token("client", tmp_path / "client")
    assert (tmp_path / "client").read_text().strip() == role_token(file.read_text().strip(), Role.CLIENT)


@pytest.mark.parametrize("secret", ["", role_token("secret", Role.CLIENT)])
def test_tokens_of_roles_need_the_clusters(secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lesser token makes no others."""
    monkeypatch.setenv("SLIPKNOT_CLUSTER_TOKEN", secret)
    with pytest.raises(ValueError, match="set SLIPKNOT_CLUSTER_TOKEN"):
        make_token("deployer", None)
    with pytest.raises(ValueError, match="none of client, deployer, member"):
        make_token("king", None)


def test_certificates_name_their_roles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Keys are private, and the printed variables are ready for use; OpenSSL agrees that all is well."""
    directory = tmp_path / "certs"
    make_certificates(directory, [], "", 30, ["gateway.example.com", "10.0.0.1"])
    printed = capsys.readouterr()
    assert "ca-key.pem" in printed.err
    for role in Role:
        file, key = directory / f"{role}.pem", directory / f"{role}-key.pem"
        assert f"SLIPKNOT_TLS_CERT={file} SLIPKNOT_TLS_KEY={key}" in printed.out
        assert mode(key) == 0o600
        certificate = x509.load_pem_x509_certificate(file.read_bytes())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == [role.domain_name, "gateway.example.com"]
        verified = subprocess.run(
            ["openssl", "verify", "-x509_strict", "-CAfile", directory / "ca.pem", file],
            capture_output=True,
            text=True,
            check=False,
        )
        assert verified.returncode == 0, verified
    assert mode(directory) == 0o700
    assert mode(directory / "ca-key.pem") == 0o600


def test_an_authority_is_used_again(tmp_path: Path) -> None:
    """New certificates are of the same cluster; names make several of a role."""
    first = Authority.open(tmp_path).certificate
    make_certificates(tmp_path, ["member"], "node-7", 1, [])
    assert Authority.open(tmp_path).certificate == first
    assert {f.name for f in tmp_path.iterdir()} == {"ca.pem", "ca-key.pem", "node-7.pem", "node-7-key.pem"}
    (tmp_path / "ca-key.pem").unlink()
    with pytest.raises(ValueError, match="not its counterpart"):
        Authority.open(tmp_path)


def test_a_wrong_command_changes_nothing(tmp_path: Path) -> None:
    """Checked before anything is written."""
    for roles, name, days in ((["king"], "", 1.0), ([], "one", 1.0), (["client"], "", 0.0)):
        with pytest.raises(ValueError):
            make_certificates(tmp_path / "new", roles, name, days, [])
    assert not (tmp_path / "new").exists()
