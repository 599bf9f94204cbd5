"""The replica's lease: one stream to the controller, opened again for as long as the replica lives.

What the controller wants comes in on it (reconfigure, drain); state, load and health go out. A controller
that is away changes nothing for the requests; whatever happened meanwhile is told with the next hello.
"""

import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import grpc.aio

from slipknot_core.failures import format_user_traceback
from slipknot_core.rpc.channel import token_metadata
from slipknot_core.rpc.controller_link import ControllerLink, EpochGate
from slipknot_core.spec import DeploymentSpec
from slipknot_core.tasks import TaskOwner
from slipknot_proto.v1 import registry_pb2, registry_pb2_grpc

from .server import ReplicaServer, ReplicaState
from .user_code import UserCode

logger = logging.getLogger("slipknot.serve")

LOAD_PERIOD_S = 0.5
MAX_OUTBOX = 256

Request = registry_pb2.JoinReplicaRequest

_STATES = {
    ReplicaState.STARTING: registry_pb2.ReplicaState.STATE_STARTING,
    ReplicaState.RUNNING: registry_pb2.ReplicaState.STATE_RUNNING,
    ReplicaState.FAILED: registry_pb2.ReplicaState.STATE_FAILED,
    ReplicaState.DRAINING: registry_pb2.ReplicaState.STATE_DRAINING,
    ReplicaState.STOPPED: registry_pb2.ReplicaState.STATE_STOPPED,
}


class Registration:
    """Keeps one replica registered. `on_drain(timeout_s)` is called when the controller wants it to end."""

    def __init__(
        self,
        replica: ReplicaServer,
        on_drain: Callable[[float], None],
        link: ControllerLink,
        gate: EpochGate,
    ) -> None:
        self._replica = replica
        self._on_drain = on_drain
        self._link = link
        self._gate = gate
        self._epoch = 0  # of the welcome on this stream
        self._spec = replica.launch.deployment
        self._tasks = TaskOwner(f"registration {replica.launch.replica_id}")
        self._outbox: deque[Request] = deque(maxlen=MAX_OUTBOX)
        self._wake = asyncio.Event()
        self._failure = ""
        self._is_leaving = False
        self._has_left = asyncio.Event()
        """The stream has ended, or was never begun."""
        self._has_left.set()
        self._load_at_s = 0.0
        self._load_timer: asyncio.TimerHandle | None = None
        self._models_at_s = 0.0
        self._models_told: tuple[str, ...] = ()
        self._models_timer: asyncio.TimerHandle | None = None
        self.user_config_hash = ""

    async def start(self) -> None:
        """Join in the background; needs the replica's address."""
        self._has_left.clear()
        self._replica.on_state = self._tell_state
        self._replica.on_load = self._load_changed
        self._replica.models.on_change = self._models_changed
        self._tasks.spawn(self._keep_joined(), "join")

    async def stop(self, flush_s: float = 1.0) -> None:
        """Say what waits to be said, have it heard, at most `flush_s`, and leave; twice is fine."""
        self._is_leaving = True
        self._wake.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(flush_s):
                await self._has_left.wait()
        for timer in (self._load_timer, self._models_timer):
            if timer is not None:
                timer.cancel()
        await self._tasks.stop()

    def tell_failure(self, error: BaseException) -> None:
        """The user's code could not be built; the state FAILED carries this."""
        self._failure = format_user_traceback(error)
        self._tell_state(self._replica.state)

    def start_health_checks(self) -> None:
        """Run the user's `check_health` for as long as the replica runs."""
        code = self._replica.user_code
        if code is not None and code.has_health_check:
            self._tasks.spawn(self._check_health(code), "health")

    # --- inside -------------------------------------------------------------------------------------

    def _put(self, request: Request) -> None:
        self._outbox.append(request)
        self._wake.set()

    def _state(self) -> registry_pb2.ReplicaState:
        code = self._replica.user_code if self._replica.state is ReplicaState.RUNNING else None
        return registry_pb2.ReplicaState(
            # Also if it was the loading of the code that failed, and while the server stops.
            state=_STATES[ReplicaState.FAILED if self._failure else self._replica.state],
            message=self._failure,
            docs_path=code.docs_path() if code else "",
            has_health_check=code.has_health_check if code else False,
        )

    def _tell_state(self, state: ReplicaState) -> None:
        if state is ReplicaState.FAILED and not self._failure:
            return  # `tell_failure` follows with the reason
        self._put(Request(state=self._state()))

    def _load_changed(self) -> None:
        if self._load_timer is None:
            delay_s = max(0.0, self._load_at_s + LOAD_PERIOD_S - time.monotonic())
            self._load_timer = asyncio.get_running_loop().call_later(delay_s, self._tell_load)

    def _tell_load(self) -> None:
        self._load_timer = None
        self._load_at_s = time.monotonic()
        self._put(self._load())

    def _load(self) -> Request:
        admission = self._replica.admission
        load = registry_pb2.ReplicaLoad(ongoing=admission.ongoing, waiting=admission.waiting)
        return Request(load=load)

    def _models_changed(self) -> None:
        if self._models_timer is None:
            delay_s = max(0.0, self._models_at_s + LOAD_PERIOD_S - time.monotonic())
            self._models_timer = asyncio.get_running_loop().call_later(delay_s, self._tell_models)

    def _tell_models(self) -> None:
        self._models_timer = None
        self._models_at_s = time.monotonic()
        model_ids = self._replica.models.model_ids
        if model_ids != self._models_told:
            self._models_told = model_ids
            self._put(Request(models=registry_pb2.ReplicaModels(model_ids=model_ids)))

    def _hello(self) -> Request:
        launch, state = self._replica.launch, self._state()
        self._models_told = self._replica.models.model_ids
        return Request(
            hello=registry_pb2.ReplicaHello(
                replica_id=launch.replica_id,
                app_name=launch.app_name,
                deployment_name=launch.deployment.name,
                version=launch.deployment.version,
                address=self._replica.address,
                node_id=launch.node_id,
                pid=os.getpid(),
                state=state,
                has_health_check=state.has_health_check,
                user_config_hash=self.user_config_hash or launch.deployment.user_config_hash,
                multiplexed_model_ids=self._models_told,
                rank=launch.rank,
                seen_epoch=self._gate.seen,
            )
        )

    async def _keep_joined(self) -> None:
        while not self._is_leaving:
            address, failure = self._link.address, None
            stub = registry_pb2_grpc.RegistryServiceStub(self._link.channel)
            self._renew_outbox()  # the hello tells all that still matters
            self._put(self._hello())
            if not self._replica.admission.is_idle:
                self._put(self._load())
            call = stub.JoinReplica(
                self._requests(self._outbox), metadata=token_metadata(self._link.credentials)
            )
            try:
                async for response in call:
                    self._has_left.clear()
                    if not self._is_of_leader(response):
                        break
                    self._link.held(address)
                    self._on_response(response)
            except grpc.aio.AioRpcError as error:
                failure = error
                logger.debug("controller_lost %s", error.code().name)
            finally:
                self._has_left.set()
                call.cancel()
                self._renew_outbox()
            await asyncio.sleep(self._link.lost(address, failure))

    def _renew_outbox(self) -> None:
        self._outbox = deque(maxlen=MAX_OUTBOX)
        self._wake.set()

    async def _requests(self, outbox: deque[Request]) -> AsyncIterator[Request]:
        """The messages of one connection. gRPC goes on reading them after the connection was lost: they must
        not take what is meant for the next one.

        Who leaves ends them, and the controller then ends the stream: it has read them all. A cancellation
        would overtake them.
        """
        while outbox is self._outbox:
            while outbox:
                yield outbox[0]
                if outbox:
                    outbox.popleft()
            if self._is_leaving:
                return
            self._wake.clear()
            await self._wake.wait()

    def _is_of_leader(self, response: registry_pb2.JoinReplicaResponse) -> bool:
        """It is not of a controller that led once: nothing of it is done then."""
        if response.HasField("welcome"):
            self._epoch = response.welcome.epoch
        epoch = response.epoch or self._epoch
        if self._gate.admits(epoch):
            return True
        logger.warning("outdated_controller epoch %d, %d was seen", epoch, self._gate.seen)
        return False

    def _on_response(self, response: registry_pb2.JoinReplicaResponse) -> None:
        match response.WhichOneof("message"):
            case "welcome":
                if not response.welcome.accepted:
                    logger.warning("replica_not_wanted %s", response.welcome.message)
                    self._on_drain(self._spec.graceful_shutdown_timeout_s)
            case "reconfigure":
                self._tasks.spawn(self._reconfigure(response.reconfigure), "reconfigure")
            case "prove_alive":
                self._put(Request(alive=registry_pb2.ReplicaAlive()))
            case "drain":
                self._on_drain(response.drain.timeout_s)
            case _:
                pass

    async def _reconfigure(self, command: registry_pb2.Reconfigure) -> None:
        spec = DeploymentSpec.from_proto(command.deployment)
        error = ""
        try:
            wanted = spec.user_config_json if command.user_config_hash != self._config_hash() else ""
            await self._replica.reconfigure(spec.max_ongoing_requests, wanted)
            self._spec = spec
            self.user_config_hash = command.user_config_hash
        except Exception as caught:  # noqa: BLE001 - the user's reconfigure may raise anything; the controller shows it
            error = format_user_traceback(caught)
        report = registry_pb2.ReconfigureReport(user_config_hash=command.user_config_hash, error=error)
        self._put(Request(reconfigured=report))

    def _config_hash(self) -> str:
        return self.user_config_hash or self._replica.launch.deployment.user_config_hash

    async def _check_health(self, code: UserCode) -> None:
        # The first check comes at once: during an update an old replica stays until this one has passed it.
        while True:
            message = ""
            try:
                async with asyncio.timeout(self._spec.health_check_timeout_s):
                    await code.check_health()
            except TimeoutError as error:
                message = str(error) or f"check_health took longer than {self._spec.health_check_timeout_s} s"
            except Exception as error:  # noqa: BLE001 - whatever it raises means unhealthy
                message = format_user_traceback(error)
            if message:
                self._replica.counters.failed_health_checks += 1
                logger.warning("health_check_failed %s", message.rstrip().rpartition("\n")[2])
            self._put(Request(health=registry_pb2.HealthReport(healthy=not message, message=message)))
            await asyncio.sleep(self._spec.health_check_period_s)
