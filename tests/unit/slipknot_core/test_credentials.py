"""Credentials, where they come from, and which addresses need them."""

import socket
from pathlib import Path
from typing import Any

import pytest

from slipknot_core.rpc.addresses import advertised, is_loopback, is_wildcard, join, split
from slipknot_core.rpc.credentials import NO_CREDENTIALS, Credentials, TlsFiles
from slipknot_core.rpc.server import check_credentials
from slipknot_core.settings import cluster_settings, take_credentials

STRONG = "a-token-of-twenty-ch"
TLS = TlsFiles("/c/ca.pem", "/c/cert.pem", "/c/key.pem")
TLS_ENVIRONMENT = {
    "SLIPKNOT_TLS_CA": "/c/ca.pem",
    "SLIPKNOT_TLS_CERT": "/c/cert.pem",
    "SLIPKNOT_TLS_KEY": "/c/key.pem",
}


def test_repr_never_tells_the_token() -> None:
    """Credentials stand in configs, and configs in logs."""
    assert repr(Credentials("hush", TLS)) == "<Credentials: token and TLS>"
    assert repr(NO_CREDENTIALS) == "<Credentials: none>"


@pytest.mark.parametrize("token", ["two words", "line\n", "\x00", "schlüssel"])
def test_a_token_that_cannot_travel_is_refused(token: str) -> None:
    """It travels in a header."""
    with pytest.raises(ValueError, match="printable ASCII"):
        Credentials(token)


@pytest.mark.parametrize("credentials", [Credentials("hush"), Credentials("", TLS), Credentials("hush", TLS)])
def test_a_child_gets_the_same_credentials(credentials: Credentials) -> None:
    """Whatever its environment was before."""
    before = {"SLIPKNOT_CLUSTER_TOKEN_FILE": "/of/the/parent", "SLIPKNOT_CLUSTER_TOKEN": "old"}
    assert take_credentials({}, before | credentials.environment()) == credentials


def test_a_child_with_another_working_directory_finds_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replicas of an application with a working directory could not read relative paths."""
    monkeypatch.chdir(tmp_path)
    given = take_credentials({"tls_ca": "certs/ca.pem", "tls_cert": "../cert.pem", "tls_key": "key.pem"}, {})
    assert given.tls == TlsFiles(
        str(tmp_path / "certs" / "ca.pem"), str(tmp_path.parent / "cert.pem"), str(tmp_path / "key.pem")
    )


def test_options_win_over_the_environment() -> None:
    """The keys are taken out of the options; what is missing there comes from the environment."""
    values: dict[str, Any] = {"token": "given", "address": "x"}
    environ = {"SLIPKNOT_CLUSTER_TOKEN": "environment", **TLS_ENVIRONMENT}
    assert take_credentials(values, environ) == Credentials("given", TLS)
    assert values == {"address": "x"}


def test_a_token_from_a_file(tmp_path: Path) -> None:
    """White space around it does not count."""
    file = tmp_path / "token"
    file.write_text("hush\n")
    environ = {"SLIPKNOT_CLUSTER_TOKEN_FILE": str(file)}
    assert cluster_settings(environ).credentials == Credentials("hush")
    with pytest.raises(ValueError, match="both set"):
        cluster_settings(environ | {"SLIPKNOT_CLUSTER_TOKEN": "other"})
    file.write_text("\n")
    with pytest.raises(ValueError, match="is empty"):
        cluster_settings(environ)
    file.unlink()
    with pytest.raises(ValueError, match=r"SLIPKNOT_CLUSTER_TOKEN_FILE=.* cannot be read"):
        cluster_settings(environ)


def test_tls_files_go_together() -> None:
    """Half a set would be no protection."""
    environ = {"SLIPKNOT_TLS_CA": "ca.pem", "SLIPKNOT_TLS_KEY": "key.pem"}
    with pytest.raises(ValueError, match="SLIPKNOT_TLS_CERT missing"):
        cluster_settings(environ)


@pytest.mark.parametrize("address", ["127.0.0.1:7000", "[::1]:7000", "localhost:0"])
def test_loopback_needs_any_credentials(address: str) -> None:
    """Every user of the machine gets there."""
    assert is_loopback(address)
    check_credentials(address, Credentials("short"))
    with pytest.raises(ValueError, match=r"refusing to listen .* SLIPKNOT_TLS_CA"):
        check_credentials(address, NO_CREDENTIALS)


@pytest.mark.parametrize("address", ["0.0.0.0:7000", "[::]:7000", "10.0.0.1:1", "example.com:1", ":7000"])
def test_the_network_needs_a_strong_token_or_tls(address: str) -> None:
    """What can be guessed is none."""
    assert not is_loopback(address)
    check_credentials(address, Credentials(STRONG))
    check_credentials(address, Credentials("", TLS))
    for credentials in (NO_CREDENTIALS, Credentials("short")):
        with pytest.raises(ValueError, match="refusing to listen on"):
            check_credentials(address, credentials)


@pytest.mark.parametrize(
    ("address", "host", "expected"),
    [
        ("unix:/run/c.sock", "elsewhere", "unix:/run/c.sock"),
        ("127.0.0.1:7000", "", "127.0.0.1:7000"),
        ("127.0.0.1:7000", "node-1", "node-1:7000"),
        ("0.0.0.0:7000", "node-1", "node-1:7000"),
        ("0.0.0.0:7000", "", f"{socket.gethostname()}:7000"),
        ("[::]:7000", "fd00::1", "[fd00::1]:7000"),
    ],
)
def test_what_others_are_told(address: str, host: str, expected: str) -> None:
    """An address that others can connect to."""
    assert advertised(address, host) == expected
    assert not is_wildcard(expected)


def test_hosts_and_ports() -> None:
    """IPv6 addresses have brackets outside and none inside."""
    assert split(join("::1", 5)) == ("::1", "5")
    assert split("host:5") == ("host", "5")
    assert join("host", "5") == "host:5"
