"""The metrics of a whole cluster: those of each member whose admin port the status names and we can reach."""

import asyncio

from slipknot_core.admin import fetch_readings
from slipknot_core.metrics import Reading
from slipknot_proto.v1 import controller_pb2

READ_TIMEOUT_S = 5.0


async def cluster_readings(status: controller_pb2.ClusterStatus, token: str = "") -> list[Reading]:
    """Read them all at once; each metric gets the label "member".

    Args:
        status: Names the members.
        token: The admin token, if they want one.

    Raises:
        OSError: A member cannot be reached, or refuses.
        ValueError: Its answer is none.
    """
    members = {"controller": status.admin_address}
    members |= {proxy.proxy_id: proxy.admin_address for proxy in status.proxies}
    members |= {node.node_id: node.admin_address for node in status.nodes}
    shown = {name: address for name, address in members.items() if address}
    found = await asyncio.gather(
        *(fetch_readings(address, READ_TIMEOUT_S, token=token) for address in shown.values())
    )
    return [
        reading.labelled({"member": name})
        for name, readings in zip(shown, found, strict=True)
        for reading in readings
    ]
