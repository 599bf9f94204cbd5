"""Builds an application from its import path, in a process that is thrown away afterwards."""

import json
import os

from slipknot_core.spec import ImportSource
from slipknot_proto.v1 import registry_pb2


def build(command: registry_pb2.BuildApplication) -> registry_pb2.BuildResult:
    """Build; a failure becomes a result with the traceback."""
    result = registry_pb2.BuildResult(build_id=command.build_id)
    try:
        from slipknot._graph import build_from_import_path

        spec = build_from_import_path(
            ImportSource.from_proto(command.source),
            name=command.name,
            route_prefix=command.route_prefix if command.has_route_prefix else None,
            overrides=json.loads(command.overrides_json or "[]"),
        )
        result.application.CopyFrom(spec.to_proto())
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's code may raise anything when imported
        from slipknot._user_code import explained

        result.error = explained(error)
    return result


def build_from_fds(command_fd: int, result_fd: int) -> None:
    """Read the command from one file and write the result to another."""
    with os.fdopen(command_fd, "rb") as file:
        command = registry_pb2.BuildApplication.FromString(file.read())
    with os.fdopen(result_fd, "wb") as file:
        file.write(build(command).SerializeToString())
