"""From a validated config file to what is to be built. Pure.

The CLI validates the file against the full schema; here only what the controller relies on is checked again.
"""

import json
from collections.abc import Mapping
from typing import Any

from slipknot_core.archive import is_digest
from slipknot_core.autoscaling_spec import PolicySpec
from slipknot_core.spec import ImportSource

from .desired import Build
from .validation import check_application_name, check_route_prefix


def read_builds(config_json: str) -> dict[str, Build]:
    """What to build, by application name.

    Raises:
        ValueError: The text is no config; the message gives the path of the offending key.
    """
    try:
        config = json.loads(config_json)
    except ValueError as error:
        raise ValueError(f"the config is not JSON: {error}") from None
    applications = config.get("applications") if isinstance(config, dict) else None
    if not isinstance(applications, list):
        raise ValueError("applications: a list is required; an empty one removes all applications")
    builds: dict[str, Build] = {}
    for index, application in enumerate(applications):
        where = f"applications[{index}]"
        name, build = _read_application(application, where)
        _check_unique(name, build, builds, where)
        builds[name] = build
    return builds


def _read_application(application: Any, where: str) -> tuple[str, Build]:
    if not isinstance(application, dict):
        raise ValueError(f"{where}: a mapping is required, not {application!r}")
    name = application.get("name", "default")
    import_path = application.get("import_path")
    prefix = application.get("route_prefix", "/")
    if not isinstance(name, str) or not isinstance(prefix, str | None):
        raise ValueError(f"{where}: name and route_prefix must be text")
    if not isinstance(import_path, str) or not import_path:
        raise ValueError(f"{where}.import_path: text of the form 'module:attribute' is required")
    try:
        check_application_name(name)
        check_route_prefix(prefix or None)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    environment = _mapping(application, "runtime_env", where)
    source = ImportSource(
        import_path=import_path,
        args=_mapping(application, "args", where),
        working_dir=str(environment.get("working_dir") or ""),
        archive=_archive(environment, where),
        env_vars={k: str(v) for k, v in _mapping(environment, "env_vars", f"{where}.runtime_env").items()},
    )
    overrides = application.get("deployments") or []
    if not isinstance(overrides, list):
        raise ValueError(f"{where}.deployments: a list is required")
    policy = _policy(application, where)
    return name, Build(source, prefix or None, json.dumps(overrides), autoscaling_policy=policy)


def _policy(application: Mapping[str, Any], where: str) -> PolicySpec | None:
    policy = _mapping(application, "autoscaling_policy", where)
    if not policy:
        return None
    where = f"{where}.autoscaling_policy"
    function = policy.get("policy_function")
    if not isinstance(function, str) or not function:
        raise ValueError(f"{where}.policy_function: text of the form 'module:function' is required")
    return PolicySpec(function, _mapping(policy, "policy_kwargs", where))


def _archive(environment: Mapping[str, Any], where: str) -> str:
    archive = str(environment.get("archive") or "")
    if archive and not is_digest(archive):
        raise ValueError(f"{where}.runtime_env.archive: {archive[:80]!r} is no archive's name")
    return archive


def _mapping(parent: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    value = parent.get(key) or {}
    if not isinstance(value, dict):
        raise ValueError(f"{where}.{key}: a mapping is required, not {value!r}")
    return value


def _check_unique(name: str, build: Build, builds: Mapping[str, Build], where: str) -> None:
    if name in builds:
        raise ValueError(f"{where}.name: {name!r} is used twice; names must be unique")
    for other_name, other in builds.items():
        if build.route_prefix is not None and other.route_prefix == build.route_prefix:
            raise ValueError(
                f"{where}.route_prefix: {build.route_prefix!r} is already used by application {other_name!r}"
            )
