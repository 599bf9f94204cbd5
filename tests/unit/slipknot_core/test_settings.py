"""Settings from the environment."""

import pytest

from slipknot_core.rpc.credentials import NO_CREDENTIALS, Credentials
from slipknot_core.settings import ClusterSettings, RpcSettings, cluster_settings, rpc_settings

RPC_NAMES = [
    "SLIPKNOT_RPC_MAX_MESSAGE_BYTES",
    "SLIPKNOT_RPC_KEEPALIVE_TIME_MS",
    "SLIPKNOT_RPC_KEEPALIVE_TIMEOUT_MS",
]


def test_an_empty_environment_gives_the_defaults() -> None:
    """Nothing has to be set."""
    assert rpc_settings({}) == RpcSettings()
    assert cluster_settings({}) == ClusterSettings(address="", credentials=NO_CREDENTIALS)


def test_each_variable_sets_its_own_field() -> None:
    """No two variables are mixed up."""
    environ = {name: str(number) for number, name in enumerate(RPC_NAMES, start=5)}
    assert rpc_settings(environ) == RpcSettings(5, 6, 7)
    assert rpc_settings({"SLIPKNOT_RPC_CARRIER": "call"}) == RpcSettings(carrier="call")
    environ = {"SLIPKNOT_ADDRESS": "unix:/run/c", "SLIPKNOT_CLUSTER_TOKEN": "secret"}
    assert cluster_settings(environ) == ClusterSettings("unix:/run/c", Credentials("secret"))


@pytest.mark.parametrize(("text", "expected"), [("", True), ("true", True), ("no", False), ("FALSE", False)])
def test_pickle_is_allowed_unless_turned_off(text: str, expected: bool) -> None:
    """Anything but yes and no is refused: a misspelt "false" must not allow it."""
    assert cluster_settings({"SLIPKNOT_ALLOW_PICKLE": text}).allow_pickle is expected
    with pytest.raises(ValueError, match="SLIPKNOT_ALLOW_PICKLE='flase'"):
        cluster_settings({"SLIPKNOT_ALLOW_PICKLE": "flase"})


@pytest.mark.parametrize("name", RPC_NAMES)
@pytest.mark.parametrize("value", ["", "0", "-1", "1.5", "many", "\N{SUPERSCRIPT TWO}", str(2**31)])
def test_a_value_that_cannot_be_is_refused_by_name(name: str, value: str) -> None:
    """The error names variable and value, and what to do."""
    with pytest.raises(ValueError, match=f"{name}='{value}' is not a positive .* set one"):
        rpc_settings({name: value})


def test_an_unknown_carrier_is_refused_by_name() -> None:
    """The error names variable, value, and the words there are."""
    with pytest.raises(ValueError, match="SLIPKNOT_RPC_CARRIER='pigeon' is not known; use one of auto, call"):
        rpc_settings({"SLIPKNOT_RPC_CARRIER": "pigeon"})
