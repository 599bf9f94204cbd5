"""`RegistryService`: the streams by which replicas and nodes are members."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import grpc
import grpc.aio

from slipknot_core.archive import ArchiveError
from slipknot_core.errors import ConflictError, ProtocolError
from slipknot_core.ids import DeploymentId
from slipknot_core.resources import Resources
from slipknot_core.spec import ApplicationSpec
from slipknot_core.tasks import TaskOwner
from slipknot_proto.v1 import registry_pb2, registry_pb2_grpc

from .coordinator import Coordinator
from .identities import Incarnations
from .leases import DrainOrder, Lease, Order, ProveAliveOrder
from .lifecycle import ReplicaState
from .nodes_engine import (
    BuildCommand,
    Command,
    LeavingNoted,
    NodeInfo,
    NodeSession,
    PolicyCommand,
    StartCommand,
    StopCommand,
)
from .observed import ObservedDeployment, Registration
from .placement import Holding, NodeOffer
from .policies import PolicyOutcome
from .seat import Seat

HELLO_TIMEOUT_S = 10.0
"""A stream whose first message does not come in this time is ended."""

SILENCE_S = 4.0
"""A node agent that says nothing for so long, four times its usual pause, counts as gone until it returns.
"""

_State = registry_pb2.ReplicaState
_REGISTRATION_STATE = {
    _State.STATE_RUNNING: ReplicaState.RUNNING,
    _State.STATE_DRAINING: ReplicaState.DRAINING,
    _State.STATE_STOPPED: ReplicaState.DRAINING,
}


class RegistryService(registry_pb2_grpc.RegistryServiceServicer):
    """Translates streams into calls of the coordinator's, and its orders into messages.

    A stream belongs to one term: it ends with it, and nothing is sent on it any more, for the member to come
    again and find the leader.
    """

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._incarnations = Incarnations()

    async def JoinReplica(
        self, request_iterator: AsyncIterator[registry_pb2.JoinReplicaRequest], context: Any
    ) -> None:
        """As documented in registry.proto."""
        coordinator = self._seat.leading()
        hello = await _first(request_iterator, "hello")
        await coordinator.hear_epoch(hello.seen_epoch)
        deployment_id = DeploymentId(hello.app_name, hello.deployment_name)
        lease, refusal = coordinator.replica_joined(deployment_id, _registration(hello))
        await context.write(
            registry_pb2.JoinReplicaResponse(
                epoch=coordinator.epoch,
                welcome=registry_pb2.ReplicaWelcome(
                    epoch=coordinator.epoch, accepted=lease is not None, message=refusal
                ),
            )
        )
        if lease is None:
            # It drains now and closes the stream when it has; ending it here would make it join again.
            async for _ in request_iterator:
                pass
            return
        if hello.state.state == _State.STATE_FAILED:
            _on_replica_state(coordinator, lease, hello.state)
        try:
            await _until_one_ends(
                _read_replica(coordinator, lease, request_iterator),
                _write_orders(coordinator, lease, context),
            )
        finally:
            coordinator.replica_left(lease)

    async def JoinNode(
        self, request_iterator: AsyncIterator[registry_pb2.JoinNodeRequest], context: Any
    ) -> None:
        """As documented in registry.proto."""
        coordinator = self._seat.leading()
        hello = await _first(request_iterator, "hello")
        if not self._incarnations.admit(hello.node_id, hello.incarnation):
            raise ConflictError(
                f"another agent has joined as node {hello.node_id!r} since; give each node an id of its own, "
                "and end this agent"
            )
        await coordinator.hear_epoch(hello.seen_epoch)
        engine = coordinator.engine
        session = engine.joined(_node_info(hello), _holdings(hello))
        try:
            welcome = registry_pb2.NodeWelcome(epoch=coordinator.epoch)
            await context.write(registry_pb2.JoinNodeResponse(epoch=coordinator.epoch, welcome=welcome))
            await _until_one_ends(
                _read_node(coordinator, session, request_iterator),
                _write_commands(coordinator, session, context),
            )
        finally:
            engine.left(session)

    async def FetchArchive(self, request: registry_pb2.FetchArchiveRequest, context: Any) -> None:
        """As documented in registry.proto."""
        try:
            async for data in self._seat.leading().archives.read(request.digest):
                await context.write(registry_pb2.FetchArchiveResponse(data=data))
        except ArchiveError as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(error))


async def _read_replica(
    coordinator: Coordinator, lease: Lease, requests: AsyncIterator[registry_pb2.JoinReplicaRequest]
) -> None:
    async for request in requests:
        lease.heard_at_s = time.monotonic()
        match request.WhichOneof("message"):
            case "alive":
                continue
            case "load":
                coordinator.load_reported(lease, request.load.ongoing)
                continue
            case "models":
                coordinator.models_reported(lease, frozenset(request.models.model_ids))
                continue
            case "state":
                is_known = _on_replica_state(coordinator, lease, request.state)
            case "health":
                is_known = coordinator.replica_reported(lease, _health(lease, request.health))
            case "reconfigured":
                is_known = coordinator.replica_reported(lease, _reconfigured(lease, request.reconfigured))
            case kind:
                raise ProtocolError(f"a replica sent {kind or 'an empty message'} where it reports")
        if not is_known:
            return


def _on_replica_state(coordinator: Coordinator, lease: Lease, state: registry_pb2.ReplicaState) -> bool:
    return coordinator.replica_reported(lease, partial(_note_state, lease.replica_id, state))


async def _read_node(
    coordinator: Coordinator, session: NodeSession, requests: AsyncIterator[registry_pb2.JoinNodeRequest]
) -> None:
    engine = coordinator.engine
    async for request in _while_heard(requests, SILENCE_S):
        session.heard_at_s = time.monotonic()
        match request.WhichOneof("message"):
            case "alive":
                pass
            case "replica_exited":
                exited = request.replica_exited
                engine.process_exited(session, exited.replica_id, _last_words(exited))
            case "build_result":
                result = request.build_result
                outcome = result.error or ApplicationSpec.from_proto(result.application)
                engine.build_finished(session, result.build_id, outcome)
            case "leaving":
                engine.leaving(session)
            case "policy_result":
                answer = request.policy_result
                evaluated = PolicyOutcome(answer.result_json, answer.error)
                engine.policy_evaluated(session, answer.evaluation_id, evaluated)
            case kind:
                raise ProtocolError(f"a node sent {kind or 'an empty message'} where it reports")


async def _while_heard(requests: AsyncIterator[Any], silence_s: float) -> AsyncIterator[Any]:
    """The messages, until there is none for `silence_s`."""
    iterator = aiter(requests)
    while True:
        try:
            async with asyncio.timeout(silence_s):
                request = await anext(iterator)
        except (StopAsyncIteration, TimeoutError):
            return
        yield request


async def _first(requests: AsyncIterator[Any], kind: str) -> Any:
    try:
        async with asyncio.timeout(HELLO_TIMEOUT_S):
            request = await anext(aiter(requests), None)
    except TimeoutError:
        raise ProtocolError(f"the stream did not begin with {kind} within {HELLO_TIMEOUT_S:g} s") from None
    found = request.WhichOneof("message") if request is not None else None
    if request is None or found != kind:
        raise ProtocolError(f"the stream must begin with {kind}, not with {found or 'nothing'}")
    return getattr(request, kind)


async def _until_one_ends(reading: Any, writing: Any) -> None:
    """Run both; when one ends, the stream does. Raises what it raised."""
    owner = TaskOwner("lease")
    tasks = (owner.spawn(reading, "read"), owner.spawn(writing, "write"))
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await owner.stop()
    for task in done:
        task.result()


async def _write_orders(coordinator: Coordinator, lease: Lease, context: grpc.aio.ServicerContext) -> None:
    while (order := await lease.outbox.get()) is not None:
        message = _order_message(order)
        if not coordinator.is_leading():
            return
        message.epoch = coordinator.epoch
        await context.write(message)


async def _write_commands(
    coordinator: Coordinator, session: NodeSession, context: grpc.aio.ServicerContext
) -> None:
    while (command := await session.outbox.get()) is not None:
        message = _command_message(command)
        if not coordinator.is_leading():
            return
        message.epoch = coordinator.epoch
        await context.write(message)


def _order_message(order: Order) -> registry_pb2.JoinReplicaResponse:
    if isinstance(order, ProveAliveOrder):
        return registry_pb2.JoinReplicaResponse(prove_alive=registry_pb2.ProveAlive())
    if isinstance(order, DrainOrder):
        return registry_pb2.JoinReplicaResponse(drain=registry_pb2.DrainReplica(timeout_s=order.timeout_s))
    return registry_pb2.JoinReplicaResponse(
        reconfigure=registry_pb2.Reconfigure(
            deployment=order.spec.to_proto(), user_config_hash=order.spec.user_config_hash
        )
    )


def _command_message(command: Command) -> registry_pb2.JoinNodeResponse:
    match command:
        case StartCommand(launch):
            start = registry_pb2.StartReplica(launch=launch.to_proto())
            return registry_pb2.JoinNodeResponse(start_replica=start)
        case StopCommand(replica_id, grace_s):
            stop = registry_pb2.StopReplica(replica_id=replica_id, grace_s=grace_s)
            return registry_pb2.JoinNodeResponse(stop_replica=stop)
        case LeavingNoted():
            return registry_pb2.JoinNodeResponse(leaving_noted=registry_pb2.LeavingNoted())
        case PolicyCommand(evaluation_id, call):
            evaluate = registry_pb2.EvaluatePolicy(
                evaluation_id=evaluation_id,
                policy_function=call.policy_function,
                kwargs_json=call.kwargs_json,
                context_json=call.context_json,
                source=call.source.to_proto(),
                python_path=call.python_path,
                timeout_s=call.timeout_s,
                for_application=call.for_application,
            )
            return registry_pb2.JoinNodeResponse(evaluate_policy=evaluate)
        case BuildCommand(build_id, name, build, timeout_s):
            message = registry_pb2.BuildApplication(
                build_id=build_id,
                name=name,
                route_prefix=build.route_prefix or "",
                has_route_prefix=build.route_prefix is not None,
                source=build.source.to_proto(),
                overrides_json=build.overrides_json,
                timeout_s=timeout_s,
            )
            return registry_pb2.JoinNodeResponse(build_application=message)


def _node_info(hello: registry_pb2.NodeHello) -> NodeInfo:
    offer = NodeOffer(
        hello.node_id,
        hello.num_cpus,
        tuple(hello.gpu_ids),
        hello.memory_bytes,
        dict(hello.custom_resources),
        dict(hello.labels),
    )
    return NodeInfo(hello.node_id, hello.hostname, hello.pid, offer, hello.admin_address)


def _holdings(hello: registry_pb2.NodeHello) -> list[Holding]:
    told = {replica.replica_id: replica for replica in hello.replicas}
    return [
        Holding(
            replica_id,
            DeploymentId(replica.app_name, replica.deployment_name),
            hello.node_id,
            Resources.from_proto(replica.resources),
            tuple(replica.gpu_ids),
            replica.version,
        )
        for replica_id in hello.replica_ids
        for replica in (told.get(replica_id, registry_pb2.HeldReplica()),)
    ]


def _registration(hello: registry_pb2.ReplicaHello) -> Registration:
    return Registration(
        replica_id=hello.replica_id,
        version=hello.version,
        address=hello.address,
        node_id=hello.node_id,
        pid=hello.pid,
        user_config_hash=hello.user_config_hash,
        has_health_check=hello.has_health_check,
        state=_REGISTRATION_STATE.get(hello.state.state, ReplicaState.STARTING),
        model_ids=frozenset(hello.multiplexed_model_ids),
        rank=hello.rank,
    )


def _note_state(
    replica_id: str, state: registry_pb2.ReplicaState, observed: ObservedDeployment, now_s: float
) -> None:
    match state.state:
        case _State.STATE_RUNNING:
            observed.running(
                replica_id, now_s, docs_path=state.docs_path, has_health_check=state.has_health_check
            )
        case _State.STATE_FAILED:
            observed.start_failed(replica_id, state.message, now_s)
        case _State.STATE_DRAINING:
            observed.leaving(replica_id, now_s)
        case _State.STATE_STOPPED:
            observed.leaving(replica_id, now_s, is_done=True)
        case _:
            pass


def _health(lease: Lease, report: registry_pb2.HealthReport) -> Callable[[ObservedDeployment, float], None]:
    def take_note(observed: ObservedDeployment, now_s: float) -> None:
        observed.health_reported(
            lease.replica_id, is_healthy=report.healthy, message=report.message, now_s=now_s
        )

    return take_note


def _reconfigured(
    lease: Lease, report: registry_pb2.ReconfigureReport
) -> Callable[[ObservedDeployment, float], None]:
    def take_note(observed: ObservedDeployment, _now_s: float) -> None:
        observed.reconfigured(lease.replica_id, report.user_config_hash, report.error)

    return take_note


def _last_words(exited: registry_pb2.ReplicaExited) -> str:
    code = exited.exit_code
    how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
    return f"The process of replica {exited.replica_id} {how}.\n{exited.detail}".rstrip()
