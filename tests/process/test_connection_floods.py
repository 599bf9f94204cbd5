"""Thousands of connections to the gRPC ports that say nothing, or not enough: whoever has business there is
served, and the connections do not stay for ever.
"""

import select
import socket
import time
from collections import Counter
from pathlib import Path

import httpx
import psutil
import pytest

from slipknot import serve
from slipknot.client import Client
from tests.support.cluster_status import application, cluster_status, running_replicas, wait_until
from tests.support.load import Load
from tests.support.tcp_cluster import TcpCluster

pytestmark = pytest.mark.timeout(240)

CONNECTIONS = 2_000
WAIT_S = 60.0
"""A bound, not an expectation."""
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\0\0\0\4\0\0\0\0\0"
HALF_HEADERS = b"\0\1\0\1\4\0\0\0\1"
BEGINNINGS = (b"", b"PRI * HT", PREFACE, PREFACE + SETTINGS[:5], PREFACE + SETTINGS + HALF_HEADERS)
"""What a connection says before it falls silent: nothing, half a preface, a preface, half its settings, half
a request. It reads what it gets and answers nothing, not even a ping."""
MORE_FDS = 100
"""Of a process: what its own business may add in the meantime."""


@serve.deployment
class Echo:
    """Answers."""

    async def __call__(self) -> str:
        return "well"


def flood(address: str) -> list[socket.socket]:
    """Open connections to one port and leave them."""
    host, port = address.rsplit(":", 1)
    opened = []
    for number in range(CONNECTIONS):
        opened.append(socket.create_connection((host, int(port)), timeout=WAIT_S))
        if said := BEGINNINGS[number % len(BEGINNINGS)]:
            opened[-1].sendall(said)
    return opened


def until_closed(opened: list[socket.socket]) -> Counter[bytes]:
    """Wait until the other end has closed every connection; counts those that it has not, by beginning."""
    poll, waiting = select.poll(), {}
    for number, connection in enumerate(opened):
        connection.setblocking(False)
        poll.register(connection, select.POLLIN)
        waiting[connection.fileno()] = (connection, BEGINNINGS[number % len(BEGINNINGS)])
    deadline_s = time.monotonic() + WAIT_S
    while waiting and time.monotonic() < deadline_s:
        for fd, _ in poll.poll(200):
            try:
                is_open = bool(waiting[fd][0].recv(65536))
            except ConnectionError:
                is_open = False
            if not is_open:
                poll.unregister(fd)
                waiting.pop(fd)[0].close()
    return Counter(beginning for _, beginning in waiting.values())


def test_silent_connections(tmp_path: Path) -> None:
    """The cluster serves through the flood, its members stay, and the floods' descriptors come back although
    nobody closes them."""
    with TcpCluster(tmp_path, nodes=1, node_options={"num_cpus": 8}) as cluster:
        serve.run(Echo.bind())
        gateway = cluster.proxies[0].ready_line.split()[2]
        (replica,) = application().deployments[0].replicas
        targets = {
            cluster.address: cluster.controller.pid,
            replica.address: replica.pid,
            gateway: cluster.proxies[0].pid,
        }
        members = (cluster_status().epoch, running_replicas())
        before = {address: psutil.Process(pid).num_fds() for address, pid in targets.items()}
        with Load(cluster.url) as load:
            for number, (address, pid) in enumerate(targets.items()):
                opened = flood(address)
                try:
                    wait_until(lambda pid=pid: psutil.Process(pid).num_fds() > CONNECTIONS / 2)
                    load.wait_for_more(20)
                    assert httpx.get(cluster.url, timeout=WAIT_S).text == "well"  # a new connection
                    with Client(gateway, credentials=cluster.credentials) as client:
                        assert client.get_app_handle("default").remote().result() == "well"
                    name = f"during-{number}"
                    serve.run(Echo.bind(), name=name, route_prefix=f"/{name}")  # a new replica registers
                    serve.delete(name)
                    assert until_closed(opened) == {}
                finally:
                    for connection in opened:
                        connection.close()
                bound = before[address] + MORE_FDS
                wait_until(lambda pid=pid, bound=bound: psutil.Process(pid).num_fds() < bound)
        assert load.failures == []
        assert (cluster_status().epoch, running_replicas()) == members
