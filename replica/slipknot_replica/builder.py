"""Builds an application from its import path, in a process that is thrown away afterwards."""

import json
import os

from slipknot_core.failures import format_traceback
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
        result.error = _explained(error)
    return result


def build_from_fds(command_fd: int, result_fd: int) -> None:
    """Read the command from one file and write the result to another."""
    with os.fdopen(command_fd, "rb") as file:
        command = registry_pb2.BuildApplication.FromString(file.read())
    with os.fdopen(result_fd, "wb") as file:
        file.write(build(command).SerializeToString())


def _explained(error: BaseException) -> str:
    """What the user's code raised, from its first line on; or what slipknot says, which needs no place."""
    from slipknot._user_code import user_traceback

    of_the_user = user_traceback(error)
    if of_the_user is None and isinstance(error, ImportError | TypeError | ValueError):
        return f"{type(error).__name__}: {error}"
    return of_the_user or format_traceback(error)
