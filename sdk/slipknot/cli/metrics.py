"""`slipknot metrics`."""

import typer

from slipknot_core.errors import SlipknotServeException
from slipknot_core.exposition import expose
from slipknot_core.settings import cluster_settings

from .. import _control
from .._metrics import cluster_readings
from .cluster import _connect


def show_metrics(match: str, address: str | None) -> int:
    """Print the metrics of all members whose names contain `match`."""
    connection = _connect(address)
    status = connection.run(_control.status(connection))
    readings = connection.run(cluster_readings(status, cluster_settings().admin_token))
    if not readings:
        raise SlipknotServeException("no member of this cluster has an admin port; see docs/metrics.md")
    shown = [reading for reading in readings if match in reading.name]
    typer.echo(expose(shown)[1].decode(), nl=False)
    return 0
