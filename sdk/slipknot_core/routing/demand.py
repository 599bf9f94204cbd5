"""Tells the controller how many requests of this process wait for a replica of an autoscaled deployment.

Nothing is sent while nothing waits. A request that finds no replica at all is told at once, since a replica
is started for it; queues that only grow and shrink are told four times a second. The last report, an empty
one, says that nothing waits any more; if it is lost, the controller forgets the one before by itself.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

import grpc.aio

from slipknot_proto.v1 import discovery_pb2, discovery_pb2_grpc

from ..ids import DeploymentId
from ..rpc.channel import token_metadata
from ..rpc.controller_link import ControllerLink
from ..tasks import TaskOwner

logger = logging.getLogger("slipknot.serve")

PERIOD_S = 0.25
RENEW_S = 1.0
"""An unchanged report is sent again after this time; the controller forgets it after three."""
SEND_TIMEOUT_S = 2.0

Waiting = Mapping[DeploymentId, int]


class DemandReporter:
    """For one process. Belongs to the loop it is used on; `repr` tells the last report.

    Args:
        caller: Unique among all callers.
        waiting: Counts the requests that wait, by deployment; only what is above 0.
        link: The way to the controller.
        tasks: Owns the task that reports.
    """

    def __init__(
        self,
        caller: str,
        waiting: Callable[[], Waiting],
        link: ControllerLink,
        tasks: TaskOwner,
    ) -> None:
        self._caller = caller
        self._waiting = waiting
        self._link = link
        self._tasks = tasks
        self._sent: Waiting = {}
        self._sent_at_s = 0.0
        self._hurry = asyncio.Event()
        self._is_reporting = False

    def __repr__(self) -> str:
        return f"<DemandReporter {self._caller}: {sum(self._sent.values())} reported>"

    def notice(self, deployment_id: DeploymentId, *, has_replicas: bool) -> None:
        """A request waits."""
        if not has_replicas and deployment_id not in self._sent:
            self._hurry.set()
        if not self._is_reporting:
            self._is_reporting = True
            self._tasks.spawn(self._report(), "report demand")

    async def _report(self) -> None:
        try:
            while True:
                await self._pause()
                waiting = self._waiting()
                is_news = waiting != self._sent
                if is_news or (waiting and time.monotonic() - self._sent_at_s >= RENEW_S):
                    await self._send(waiting)
                if not waiting and not self._waiting():
                    return
        finally:
            self._is_reporting = False

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(PERIOD_S):
                await self._hurry.wait()
        except TimeoutError:
            pass
        self._hurry.clear()

    async def _send(self, waiting: Waiting) -> None:
        request = discovery_pb2.ReportDemandRequest(
            caller=self._caller,
            queued=[
                discovery_pb2.QueuedRequests(app_name=i.app_name, deployment_name=i.name, count=count)
                for i, count in waiting.items()
            ],
        )
        try:
            stub = discovery_pb2_grpc.DiscoveryServiceStub(self._link.channel)
            await stub.ReportDemand(
                request, timeout=SEND_TIMEOUT_S, metadata=token_metadata(self._link.credentials)
            )
        except grpc.aio.AioRpcError as error:
            logger.debug("demand_not_reported %s", error.code().name)
            self._sent = {}  # not known there: what waits is told again
            return
        self._sent, self._sent_at_s = waiting, time.monotonic()
