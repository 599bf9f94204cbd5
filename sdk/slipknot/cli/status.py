"""`slipknot status`: tables on a terminal, YAML for programs; once, or after each change until Ctrl-C."""

import sys
from typing import TYPE_CHECKING, Any

import typer
import yaml

from slipknot_core.errors import SlipknotServeException
from slipknot_proto.v1 import controller_pb2

from .. import _control
from .cluster import _connect
from .status_tables import status_tables

if TYPE_CHECKING:
    from rich.console import Group

    from .._connection import Connection

Status = controller_pb2.ClusterStatus


def show_status(name: str | None, address: str | None, *, as_yaml: bool = False, watch: bool = False) -> int:
    """Print the status.

    Args:
        name: Only this application.
        address: Of the controller.
        as_yaml: Also on a terminal; elsewhere it is always YAML.
        watch: Again after each change, until Ctrl-C.
    """
    connection = _connect(address)
    is_for_people = sys.stdout.isatty() and not as_yaml
    if watch:
        try:
            _watch(connection, name, is_for_people=is_for_people)
        except KeyboardInterrupt:
            pass
        return 0
    status = connection.run(_control.status(connection))
    _check_name(status, name)
    if is_for_people:
        from rich.console import Console

        Console().print(rendered(status, name))
    else:
        typer.echo(status_yaml(status, name), nl=False)
    return 0


def status_yaml(status: Status, name: str | None) -> str:
    """The status in the shape that Ray Serve's users know; this does not change with the tables."""
    from ..serve.schema import status_from_proto

    shown: dict[str, Any] = status_from_proto(status).model_dump(mode="json")
    if name is not None:
        shown = shown["applications"][name]
    return str(yaml.safe_dump(shown, sort_keys=False))


def rendered(status: Status, name: str | None) -> "Group":
    """The tables, for a console of rich."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    shown: list[Table | Text] = []
    for table in status_tables(status, name):
        drawn = Table(
            *table.columns,
            title=table.title,
            title_justify="left",
            box=None,
            pad_edge=False,
            title_style="bold",
        )
        for row in table.rows:
            drawn.add_row(*(Text(cell, style=_STYLES.get(cell, ""), overflow="fold") for cell in row))
        shown += [drawn, Text()]
    return Group(*shown)


_STYLES = {
    "RUNNING": "green",
    "HEALTHY": "green",
    "DEPLOYING": "yellow",
    "STARTING": "yellow",
    "UPDATING": "yellow",
    "UPSCALING": "yellow",
    "DOWNSCALING": "yellow",
    "STOPPING": "yellow",
    "DRAINING": "yellow",
    "UNHEALTHY": "red",
    "DEPLOY_FAILED": "red",
}


def _check_name(status: Status, name: str | None) -> None:
    if name is not None and all(application.name != name for application in status.applications):
        raise SlipknotServeException(f"Application '{name}' does not exist.")


def _watch(connection: "Connection", name: str | None, *, is_for_people: bool) -> None:
    if not is_for_people:
        connection.run(_follow(connection, lambda status: _print_yaml(status, name)))
        return
    from rich.live import Live

    with Live(auto_refresh=False, vertical_overflow="visible") as live:
        connection.run(_follow(connection, lambda status: live.update(rendered(status, name), refresh=True)))


async def _follow(connection: "Connection", show: Any) -> None:
    async with _control.watch(connection) as statuses:
        async for status in statuses:
            show(status)


def _print_yaml(status: Status, name: str | None) -> None:
    """One document each, as a stream of YAML has it; nothing of an application that is not there."""
    if name is None or any(application.name == name for application in status.applications):
        typer.echo("---\n" + status_yaml(status, name), nl=False)
        sys.stdout.flush()
