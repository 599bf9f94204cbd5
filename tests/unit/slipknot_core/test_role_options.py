"""A role's command line and variables come from the fields of its config."""

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from slipknot_core.role_options import read_config_json, role_options


@dataclass(frozen=True)
class Inner:
    """Nested."""

    kind: str = "memory"
    """What kind."""
    size: int = 5


@dataclass(frozen=True, kw_only=True)
class Config:
    """All kinds of fields."""

    controller_address: str
    """Where the controller is."""
    role_id: str = ""
    port: int | None = 8000
    """A port,
    of two lines, 100 % text."""
    wait_s: float = 1.5
    is_open: bool = False
    names: list[str] = field(default_factory=list)
    amounts: dict[str, float] = field(default_factory=dict)
    inner: Inner = field(default_factory=Inner)
    key_password: str | None = None
    token: str = ""
    ready_fd: int | None = None
    logging_json: str = ""


def read(*arguments: str, environ: dict[str, str] | None = None, **defaults: Any) -> dict[str, Any]:
    text = read_config_json("role", Config, arguments, environ=environ or {}, defaults=defaults)
    values: dict[str, Any] = json.loads(text)
    return values


def test_nothing_given_is_an_empty_object() -> None:
    """What is not given is left to the config's own defaults."""
    assert read() == {}


def test_flags_of_every_kind() -> None:
    """Texts become values of the field's type; nested fields have a prefix."""
    assert read(
        "--controller-address=c:1",
        "--port=0",
        "--wait-s=2",
        "--is-open",
        "--names=a, b",
        "--amounts=x=1,y=2.5",
        "--inner-kind=file",
        "--inner-size",
        "7",
    ) == {
        "controller_address": "c:1",
        "port": 0,
        "wait_s": 2.0,
        "is_open": True,
        "names": ["a", "b"],
        "amounts": {"x": 1.0, "y": 2.5},
        "inner": {"kind": "file", "size": 7},
    }
    assert read("--no-is-open", "--port=none") == {"is_open": False, "port": None}


def test_variables_are_named_after_role_and_field() -> None:
    """The role stands once in a name, the controller's address is the variable that the commands share."""
    environ = {
        "SLIPKNOT_ADDRESS": "c:1",
        "SLIPKNOT_ROLE_ID": "r1",
        "SLIPKNOT_ROLE_PORT": "80",
        "SLIPKNOT_ROLE_IS_OPEN": "yes",
        "SLIPKNOT_ROLE_INNER_SIZE": "9",
        "SLIPKNOT_ROLE_KEY_PASSWORD": "secret",
        "SLIPKNOT_ROLE_NAMES": "",
        "SLIPKNOT_OTHER_PORT": "81",
    }
    assert read(environ=environ) == {
        "controller_address": "c:1",
        "role_id": "r1",
        "port": 80,
        "is_open": True,
        "inner": {"size": 9},
        "key_password": "secret",
    }


def test_flag_wins_over_json_wins_over_variables_win_over_defaults() -> None:
    """With `--config-json` the variables are not looked at, not even for other fields."""
    environ = {"SLIPKNOT_ROLE_PORT": "80", "SLIPKNOT_ROLE_ID": "r1"}
    assert read(environ=environ, role_id="mine") == {"port": 80, "role_id": "r1"}
    assert read("--port=1", environ=environ) == {"port": 1, "role_id": "r1"}
    assert read("--config-json", '{"wait_s": 3}', environ=environ, role_id="mine") == {"wait_s": 3}
    assert read("--config-json", '{"wait_s": 3, "port": 2}', "--port=1", environ=environ) == {
        "wait_s": 3,
        "port": 1,
    }


def test_logging_options_make_the_logging_json() -> None:
    """They are the same for all roles."""
    values = read("--log-level=DEBUG", "--no-access-log", environ={"SLIPKNOT_LOG_ENCODING": "JSON"})
    assert json.loads(values["logging_json"]) == {
        "log_level": "DEBUG",
        "enable_access_log": False,
        "encoding": "JSON",
    }


@pytest.mark.parametrize(
    ("arguments", "environ", "message"),
    [
        (["--port=x"], {}, "--port='x': use a whole number"),
        ([], {"SLIPKNOT_ROLE_PORT": "tcp://10.0.0.1:80"}, "SLIPKNOT_ROLE_PORT='tcp://10.0.0.1:80'"),
        ([], {"SLIPKNOT_ROLE_IS_OPEN": "perhaps"}, "use yes or no"),
        (["--amounts=x"], {}, "--amounts='x': use KEY=VALUE"),
        (["--config-json", "[]", "--port=1"], {}, "no JSON object"),
    ],
)
def test_what_cannot_be_read_is_named(arguments: list[str], environ: dict[str, str], message: str) -> None:
    """The message says which flag or variable, and what to use."""
    with pytest.raises(ValueError) as raised:
        read(*arguments, environ=environ)
    assert message in str(raised.value)


def test_internal_fields_and_secrets_have_no_flag(capsys: pytest.CaptureFixture[str]) -> None:
    """The help shows texts, defaults and variables; the launcher's fields are not in it."""
    assert {option.name for option in role_options("role", Config)}.isdisjoint({"token", "ready-fd"})
    with pytest.raises(SystemExit) as raised:
        read("--help")
    assert raised.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "A port, of two lines, 100 % text. [default 8000; variable SLIPKNOT_ROLE_PORT]" in shown
    assert "--key-password" not in shown and "SLIPKNOT_ROLE_KEY_PASSWORD" in shown
    assert "ready-fd" not in shown


def test_unknown_flags_end_with_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt one is named."""
    with pytest.raises(SystemExit) as raised:
        read("--prot=1")
    assert raised.value.code == 2
    assert "--prot=1" in capsys.readouterr().err
