"""The command line and the environment of a role, read off its config dataclass.

A role's options are defined once, as the fields of its config (`ControllerConfig`, `ProxyConfig`,
`NodeConfig`) with a docstring under each. From them come the flags, the variables
`SLIPKNOT_<ROLE>_<FIELD>`, the help, and docs/options.md. A flag wins over `--config-json`, which wins over
the environment.
"""

import argparse
import ast
import functools
import inspect
import json
import os
import textwrap
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from typing import Any

from .logs import LoggingSettings

INTERNAL = frozenset(
    {
        "embedded",
        "gateway_port_may_change",
        "lifeline_fd",
        "listen_fd",
        "ready_fd",
        "credentials",
        "token",
    }
)
"""Fields that are for launchers, and the credentials, which have variables of their own."""

SECRET_SUFFIXES = ("password", "token")
"""Fields that can be given as a variable only: a command line is for all the machine's users to see."""

SHARED_VARIABLES = {
    "controller_address": "SLIPKNOT_ADDRESS",
    "admin_token": "SLIPKNOT_ADMIN_TOKEN",
    "allow_pickle": "SLIPKNOT_ALLOW_PICKLE",
}
"""Variables that all roles and the `slipknot` command share."""

LOGGING_FIELD = "logging_json"
LOGGING_NAMES = {
    "encoding": "log_encoding",
    "log_level": "log_level",
    "logs_dir": "log_dir",
    "enable_access_log": "access_log",
}
"""Options of each role that make its `logging_json`, by their names in `LoggingSettings`."""

JSON_FLAG = "--config-json"

Reader = Callable[[str], Any]
"""Makes a JSON value of a text; raises ValueError where it cannot."""


@dataclass(frozen=True, slots=True)
class RoleOption:
    """One option of a role."""

    path: tuple[str, ...]
    """Where its value stands in the JSON object of the role's config."""
    name: str
    """Its name with dashes, as in "store-path"."""
    variable: str
    """Its environment variable."""
    help: str
    default: str
    """As it is shown; empty: none, or none worth showing."""
    is_switch: bool
    """It takes no value: --name or --no-name."""
    is_secret: bool
    """It has no flag."""
    is_required: bool
    read: Reader
    placeholder: str
    """What the help calls its value."""

    @property
    def flag(self) -> str:
        """As it is typed."""
        return f"--{self.name}"


def role_options(role: str, config_class: type) -> list[RoleOption]:
    """All options of a role, in the order of its fields.

    Args:
        role: "controller", "proxy" or "node".
        config_class: The dataclass of its config; nested dataclasses become options with a prefix.
    """
    found: list[RoleOption] = []
    _collect(found, role, config_class, ())
    return found


def read_config_json(
    role: str,
    config_class: type,
    arguments: Sequence[str],
    *,
    environ: Mapping[str, str] = os.environ,
    defaults: Mapping[str, Any] | None = None,
    description: str = "",
) -> str:
    """Read a role's command line and environment; returns the JSON text for `config_class.from_json`.

    Args:
        role: "controller", "proxy" or "node".
        config_class: The dataclass of its config.
        arguments: The command line without the program's name. Given `--config-json` the environment's
            `SLIPKNOT_<ROLE>_…` are not looked at: a launcher says all that it wants.
        environ: Variables.
        defaults: Values of fields that have none of their own.
        description: What the role is, for `--help`.

    Raises:
        ValueError: A value cannot be read; names the flag or the variable.
        SystemExit: The command line is wrong, or asks for help.
    """
    if len(arguments) == 2 and arguments[0] == JSON_FLAG:
        return arguments[1]  # a launcher's: not worth building a parser for
    options = role_options(role, config_class)
    given = vars(_parser(role, options, description, defaults or {}).parse_args(list(arguments)))
    base = given.pop("config_json")
    values: dict[str, Any] = dict(defaults or {}) if base is None else _json_object(base)
    for option in options:
        raw = given.get(option.name)
        if raw is not None:
            _put(values, option, raw, option.flag)
        elif base is None and environ.get(option.variable):
            _put(values, option, environ[option.variable], option.variable)
    logging_values = values.pop("logging", None)
    if logging_values:
        values[LOGGING_FIELD] = json.dumps(logging_values)
    return json.dumps(values)


# --- from fields to options -------------------------------------------------------------------------------


def _collect(found: list[RoleOption], role: str, config_class: type, path: tuple[str, ...]) -> None:
    hints = typing.get_type_hints(config_class)
    words = _docstrings(config_class)
    for field in fields(config_class):
        if field.name in INTERNAL:
            continue
        if field.name == LOGGING_FIELD:
            _collect_logging(found)
            continue
        kind = _without_none(hints[field.name])
        if is_dataclass(kind):
            assert isinstance(kind, type)
            _collect(found, role, kind, (*path, field.name))
            continue
        where = (*path, field.name)
        name = "_".join(where)
        own_name = name.removeprefix(f"{role}_")
        variable = SHARED_VARIABLES.get(name, f"SLIPKNOT_{role}_{own_name}".upper())
        found.append(
            _option(field, kind, where, name=name, variable=variable, words=words.get(field.name, ""))
        )


def _collect_logging(found: list[RoleOption]) -> None:
    hints = typing.get_type_hints(LoggingSettings)
    words = _docstrings(LoggingSettings)
    for field in fields(LoggingSettings):
        if field.name in LOGGING_NAMES:
            name = LOGGING_NAMES[field.name]
            kind = str if field.name == "log_level" else _without_none(hints[field.name])
            variable = f"SLIPKNOT_{name}".upper()
            where = ("logging", field.name)
            found.append(
                _option(field, kind, where, name=name, variable=variable, words=words.get(field.name, ""))
            )


def _option(
    field: Field[Any], kind: Any, path: tuple[str, ...], *, name: str, variable: str, words: str
) -> RoleOption:
    read, placeholder = _reader(kind)
    has_default = field.default is not MISSING or field.default_factory is not MISSING
    return RoleOption(
        path=path,
        name=name.replace("_", "-"),
        variable=variable,
        help=words,
        default=_shown(field.default),
        is_switch=kind is bool,
        is_secret=name.endswith(SECRET_SUFFIXES),
        is_required=not has_default,
        read=read,
        placeholder=placeholder,
    )


@functools.cache
def _docstrings(config_class: type) -> dict[str, str]:
    """The text under each field."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(config_class)))
    class_node = tree.body[0]
    assert isinstance(class_node, ast.ClassDef)
    found = {}
    for node, following in zip(class_node.body, class_node.body[1:], strict=False):
        if (
            isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
        ):
            found[node.target.id] = " ".join(str(following.value.value).split())
    return found


def _without_none(kind: Any) -> Any:
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        others = [part for part in typing.get_args(kind) if part is not type(None)]
        if len(others) == 1:
            return others[0]
    return kind


def _reader(kind: Any) -> tuple[Reader, str]:
    """How a text becomes a value of this type, and what the help calls it."""
    origin = typing.get_origin(kind)
    if kind is bool:
        return _read_bool, "yes|no"
    if kind is int:
        return _read_number(int, "whole number"), "N"
    if kind is float:
        return _read_number(float, "number"), "NUMBER"
    if kind is str:
        return str, "TEXT"
    if origin is typing.Literal:
        return str, "|".join(str(choice) for choice in typing.get_args(kind))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        read, _ = _reader(typing.get_args(kind)[1])
        return _read_map(read), "KEY=VALUE,…"
    if isinstance(origin, type) and issubclass(origin, Sequence | set | frozenset):
        read, _ = _reader(typing.get_args(kind)[0])
        return (lambda text: [read(part) for part in _parts(text)]), "A,B,…"
    return json.loads, "JSON"


def _read_bool(text: str) -> bool:
    match text.lower():
        case "1" | "true" | "yes" | "on":
            return True
        case "0" | "false" | "no" | "off":
            return False
        case _:
            raise ValueError("use yes or no")


def _read_number(kind: type, noun: str) -> Reader:
    def read(text: str) -> Any:
        if text.lower() == "none":
            return None
        try:
            return kind(text)
        except ValueError:
            raise ValueError(f"use a {noun}") from None

    return read


def _read_map(read: Reader) -> Reader:
    def read_map(text: str) -> dict[str, Any]:
        values = {}
        for part in _parts(text):
            key, equals, value = part.partition("=")
            if not equals or not key:
                raise ValueError("use KEY=VALUE, several separated by commas")
            values[key] = read(value)
        return values

    return read_map


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _shown(default: Any) -> str:
    if default is MISSING or default is None or default == "":
        return ""
    if isinstance(default, bool):
        return "yes" if default else "no"
    return f"{default:g}" if isinstance(default, float) else str(default)


# --- the command line -------------------------------------------------------------------------------------


def _parser(
    role: str, options: Sequence[RoleOption], description: str, defaults: Mapping[str, Any]
) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"slipknot {role}",
        description=description,
        epilog="Each option can be given as an environment variable, too; the option wins. Secrets come from "
        "the environment alone: "
        + ", ".join(["SLIPKNOT_CLUSTER_TOKEN", *(o.variable for o in options if o.is_secret)])
        + ".",
        allow_abbrev=False,
    )
    parser.add_argument(
        JSON_FLAG,
        metavar="JSON",
        help="all options as one JSON object, with the names of the options in_this_spelling; "
        "variables are not read then",
    )
    for option in options:
        if option.is_secret:
            continue
        shown = str(defaults.get(option.path[0], "")) or option.default
        notes = "; ".join(
            part for part in (f"default {shown}" if shown else "", f"variable {option.variable}") if part
        )
        text = f"{option.help} [{notes}]".strip().replace("%", "%%")
        if option.is_switch:
            parser.add_argument(
                option.flag, dest=option.name, action=argparse.BooleanOptionalAction, default=None, help=text
            )
        else:
            parser.add_argument(option.flag, dest=option.name, metavar=option.placeholder, help=text)
    return parser


def _json_object(text: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise ValueError(f"{JSON_FLAG}: the options are no JSON object: {text[:80]!r}")
    return values


def _put(values: dict[str, Any], option: RoleOption, raw: Any, named: str) -> None:
    try:
        value = raw if isinstance(raw, bool) else option.read(raw)
    except ValueError as error:
        raise ValueError(f"{named}={raw!r}: {error}") from None
    for key in option.path[:-1]:
        values = values.setdefault(key, {})
    values[option.path[-1]] = value
