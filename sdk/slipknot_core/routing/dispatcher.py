"""One for each process that sends requests: the last snapshot, a router for each deployment, and the watch
that feeds them.

The data path never waits for the controller: when it is away, everything goes on with the last snapshot.
"""

import asyncio
import logging
import time
from collections.abc import Callable

import grpc.aio
from mypy_extensions import mypyc_attr

from slipknot_proto.v1 import discovery_pb2, discovery_pb2_grpc, replica_pb2

from ..deadline import Deadline
from ..errors import (
    ApplicationNotFoundError,
    BackPressureError,
    DeploymentUnavailableError,
    RequestTimeoutError,
    SlipknotServeException,
)
from ..ids import DeploymentId, short_id
from ..request_context import RequestContext
from ..rpc.channel import token_metadata, translate_error
from ..rpc.controller_link import ControllerLink, EpochGate
from ..rpc.credentials import NO_CREDENTIALS, Credentials
from ..tasks import TaskOwner
from .credit import SpareCredit
from .demand import DemandReporter
from .exchange import Exchange
from .router import Router
from .snapshot import EMPTY, Snapshot

logger = logging.getLogger("slipknot.serve")

UNKNOWN_APPLICATION_WAIT_S = 5.0
"""A call to an application that no snapshot has named yet waits so long for one that does."""

OnSnapshot = Callable[[Snapshot], None]


@mypyc_attr(allow_interpreted_subclasses=True)
class Dispatcher:
    """Sends requests to deployments. Belongs to the loop it was started on; `repr` tells the snapshot and the
    routers.

    Args:
        controller_address: "unix:/path" or "host:port"; of several controllers, separated by commas.
        watcher: Who this is, for the controller's log.
        node_id: Replicas of this node are preferred.
        credentials: What this process proves itself with; empty on private Unix sockets.
        proxy: What the controller shows of this process if it is a proxy.
    """

    def __init__(
        self,
        controller_address: str,
        *,
        watcher: str,
        node_id: str = "",
        credentials: Credentials = NO_CREDENTIALS,
        proxy: discovery_pb2.ProxyInfo | None = None,
    ) -> None:
        self.controller_address = controller_address
        self.snapshot = EMPTY
        self.snapshot_at_s: float | None = None
        """When it came, by the monotonic clock."""
        self.is_connected = False
        self.refused = asyncio.Event()
        """The controller does not accept this process's credentials; `failure` says why."""
        self.failure: Exception | None = None
        """Why the last attempt to watch failed."""
        self._node_id = node_id
        self.credentials = credentials
        self._request = discovery_pb2.WatchRequest(watcher=watcher, proxy=proxy)
        self._tasks = TaskOwner(f"dispatcher {watcher}")
        self.link = ControllerLink(controller_address, credentials)
        """The way to the leading controller."""
        self.gate = EpochGate()
        """The largest epoch that this process has seen."""
        self._routers: dict[DeploymentId, Router] = {}
        self._seen_applications: set[str] = set()
        self._listeners: list[OnSnapshot] = []
        self._demand: DemandReporter | None = None
        self._spare = SpareCredit()

    def __repr__(self) -> str:
        return f"<Dispatcher {self.snapshot.epoch}.{self.snapshot.version}: {len(self._routers)} routers>"

    async def start(self) -> None:
        """Begin to watch; does not wait for the first snapshot."""
        caller = f"{self._request.watcher}:{short_id()}"
        self._demand = DemandReporter(caller, self._waiting, self.link, self._tasks)
        self._tasks.spawn(self._watch(), "watch")

    @property
    def queued(self) -> int:
        """Requests that wait for a replica, over all deployments."""
        return sum(router.queued for router in self._routers.values())

    @property
    def routers(self) -> tuple[Router, ...]:
        """Those that have been used, of deployments that are gone too."""
        return tuple(self._routers.values())

    async def stop(self) -> None:
        """End all exchanges and connections; twice and before `start` is fine."""
        self._demand = None
        await self._tasks.stop()
        routers, self._routers = self._routers, {}
        await asyncio.gather(*(router.close() for router in routers.values()))
        await self.link.close()

    def on_snapshot(self, callback: OnSnapshot) -> Callable[[], None]:
        """Call `callback` with each newer snapshot, on the loop; returns what ends that."""
        self._listeners.append(callback)
        return lambda: self._listeners.remove(callback) if callback in self._listeners else None

    async def wait_for(self, predicate: Callable[[Snapshot], bool], timeout_s: float) -> Snapshot:
        """Wait for a snapshot that fulfils `predicate`; the present one counts.

        Raises:
            TimeoutError: None came in time.
        """
        if predicate(self.snapshot):
            return self.snapshot
        found: asyncio.Future[Snapshot] = asyncio.get_running_loop().create_future()

        def look(snapshot: Snapshot) -> None:
            if not found.done() and predicate(snapshot):
                found.set_result(snapshot)

        forget = self.on_snapshot(look)
        try:
            async with asyncio.timeout(timeout_s):
                return await found
        finally:
            forget()

    def open(
        self,
        deployment_id: DeploymentId,
        first: replica_pb2.CallFrame,
        deadline: Deadline,
        *,
        context: RequestContext | None = None,
        repeatable: bool = False,
    ) -> Exchange:
        """Begin an exchange; it is queued or sent at once, and its errors come out of `Exchange.next`.

        Args:
            deployment_id: Where to.
            first: Carries the Open; its application, deployment, slot and deadline are filled in here.
            deadline: When to give up.
            context: The request that this exchange belongs to: it is cancelled with it.
            repeatable: It does no harm if the request runs twice: it may be sent to another replica although
                the first one may have begun it.
        """
        open_ = first.open
        open_.app_name, open_.deployment_name = deployment_id
        open_.wait_for_slot = True
        router = self._router(deployment_id)
        exchange = Exchange(first, deadline, router, context, spare=self._spare, repeatable=repeatable)
        if deadline.has_expired():
            exchange.fail(RequestTimeoutError(f"Request {open_.request_id} timed out."))
        elif context is not None and not context.adopt(exchange, exchange.cancel):
            exchange.cancel_with_parent(context.cancel_origin)
        else:
            router.submit(exchange)
        return exchange

    def drop(self, deployment_id: DeploymentId) -> BackPressureError | None:
        """Refuse a request that would be one too many in the deployment's queue; None: `open` it."""
        router = self._routers.get(deployment_id)
        return None if router is None else router.drop()

    def apply(self, snapshot: Snapshot) -> bool:
        """Take `snapshot` if it is newer; False if not."""
        if not snapshot.is_newer_than(self.snapshot):
            return False
        self.gate.admits(snapshot.epoch)
        self.snapshot, self.snapshot_at_s = snapshot, time.monotonic()
        self._seen_applications.update(snapshot.applications)
        for deployment_id, router in self._routers.items():
            self._update(router, deployment_id)
        for listener in tuple(self._listeners):
            listener(snapshot)
        return True

    # --- inside -------------------------------------------------------------------------------------

    def _router(self, deployment_id: DeploymentId) -> Router:
        router = self._routers.get(deployment_id)
        if router is None:
            router = Router(
                deployment_id,
                node_id=self._node_id,
                credentials=self.credentials,
                on_waiting=self._on_waiting,
            )
            if not self._update(router, deployment_id):
                return router  # fails what it gets; not kept, or wrong names would pile up
            self._routers[deployment_id] = router
            if deployment_id.app_name not in self._seen_applications:
                asyncio.get_running_loop().call_later(
                    UNKNOWN_APPLICATION_WAIT_S, self._give_up, deployment_id
                )
        return router

    def _on_waiting(self, router: Router) -> None:
        if self._demand is not None:
            self._demand.notice(router.deployment_id, has_replicas=router.has_replicas)

    def _waiting(self) -> dict[DeploymentId, int]:
        routers = self._routers.values()
        return {r.deployment_id: r.queued for r in routers if r.is_autoscaled and r.queued}

    def _update(self, router: Router, deployment_id: DeploymentId) -> bool:
        """Bring `router` to the snapshot; False if its deployment does not exist."""
        route = self.snapshot.deployment(deployment_id)
        if route is not None:
            router.update(route)
            return True
        error = self._absence(deployment_id)
        if error is not None:
            router.remove(error)
        return error is None

    def _absence(self, deployment_id: DeploymentId) -> SlipknotServeException | None:
        """Why there is no route; None if one may still come."""
        app_name, name = deployment_id
        application = self.snapshot.applications.get(app_name)
        if application is not None:
            known = ", ".join(sorted(application.deployments)) or "none"
            return ApplicationNotFoundError(
                f"Application {app_name!r} has no deployment {name!r}; its deployments: {known}."
            )
        if app_name in self._seen_applications:
            return DeploymentUnavailableError(
                f"Application {app_name!r} was deleted; deploy it again to call {name!r}."
            )
        return None

    def _give_up(self, deployment_id: DeploymentId) -> None:
        router = self._routers.get(deployment_id)
        if router is not None and deployment_id.app_name not in self._seen_applications:
            router.remove(
                DeploymentUnavailableError(f"Application {deployment_id.app_name!r} does not exist.")
            )
            # The next call makes a new router and waits anew.
            self._routers.pop(deployment_id)

    async def _watch(self) -> None:
        while True:
            address = self.link.address
            stub = discovery_pb2_grpc.DiscoveryServiceStub(self.link.channel)
            self._request.seen_epoch = self.gate.seen
            call = stub.Watch(self._request, metadata=token_metadata(self.credentials))
            failure: grpc.aio.AioRpcError | None = None
            try:
                async for response in call:
                    if not self._on_snapshot_of(response.snapshot):
                        break
                    self.is_connected = True
                    self.link.held(address)
            except grpc.aio.AioRpcError as error:
                failure = error
                if self.is_connected:
                    logger.warning("controller_lost %s; serving on with the last snapshot", error.code().name)
                self.failure = translate_error(error)
            finally:
                self.is_connected = False
                call.cancel()
            pause_s = self.link.lost(address, failure)
            if self.link.is_refused:
                self.refused.set()
            await asyncio.sleep(pause_s)

    def _on_snapshot_of(self, message: discovery_pb2.Snapshot) -> bool:
        """Take a snapshot; False: it is of a controller that led once."""
        if message.epoch < self.gate.seen:
            logger.warning("outdated_controller epoch %d, %d was seen", message.epoch, self.gate.seen)
            return False
        self.apply(Snapshot.from_proto(message))
        return True
