"""The wall clock of all roles is set forward and back by a day: nothing is measured with it.

The clock is libfaketime's (Debian's package `faketime`), so that this machine's own stays as it is.
"""

import time
from functools import partial
from pathlib import Path

import pytest

from slipknot import serve
from tests.support.cluster_status import application, cluster_status, running_replicas, wait_until
from tests.support.load import Load
from tests.support.tcp_cluster import TcpCluster

pytestmark = pytest.mark.timeout(120)

DAY_S = 86_400
LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
LONGER_THAN_ANY_LEASE_S = 12.0
"""What is noticed at all of a member that went away is noticed sooner."""


@serve.deployment(num_replicas=2, health_check_period_s=0.2, health_check_timeout_s=5)
class Says:
    """Names the replica that answers, and calls another deployment on the way."""

    def __init__(self, child: serve.handle.DeploymentHandle) -> None:
        self._child = child

    async def __call__(self) -> str:
        return str(await self._child.remote())


@serve.deployment(num_replicas=2)
class Clock:
    """Tells its wall clock."""

    async def __call__(self) -> float:
        return time.time()


def test_wall_clock_jumps(tmp_path: Path) -> None:
    """No request fails, no replica is lost, nobody else leads; and deploys go on."""
    if not LIBRARIES:
        pytest.skip("libfaketime is not installed: apt-get install faketime")
    clock = tmp_path / "clock"
    clock.write_text("+0\n")
    environment = {
        "LD_PRELOAD": str(LIBRARIES[0]),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    node = {"num_cpus": 16}
    with TcpCluster(tmp_path, nodes=1, node_options=node, environment=environment) as cluster:
        serve.run(Says.bind(Clock.bind()))
        before, epoch = running_replicas(), cluster_status().epoch
        assert len(before) == 4
        with Load(cluster.url) as load:
            for offset_s in (DAY_S, -DAY_S):
                jumped = tmp_path / "jumped"
                jumped.write_text(f"{offset_s:+d}\n")
                jumped.rename(clock)
                wait_until(partial(_all_tell, load, offset_s))
                wait_until(partial(_has_passed, time.monotonic() + LONGER_THAN_ANY_LEASE_S))
                load.wait_for_more(20)
                assert load.failures == []
                assert running_replicas() == before
                serve.run(Clock.bind(), name="new", route_prefix="/new")
                assert _is_about(application("new").deployed_time_s, offset_s)  # the controller's clock, too
                serve.delete("new")
        assert load.failures == []
        assert cluster_status().epoch == epoch


def _all_tell(load: Load, offset_s: int) -> bool:
    return all(_is_about(float(answer.text), offset_s) for answer in load.answers[-2:])


def _is_about(told_s: float, offset_s: int) -> bool:
    return abs(told_s - time.time() - offset_s) < DAY_S / 2


def _has_passed(at_s: float) -> bool:
    return time.monotonic() > at_s
