"""What a controller answers while another one leads: reads, from the leader if it can be asked, else from the
store.
"""

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import grpc.aio

from slipknot_core.errors import ControllerUnavailableError
from slipknot_core.rpc.channel import new_channel, token_metadata
from slipknot_core.rpc.credentials import Credentials
from slipknot_proto.v1 import controller_pb2, controller_pb2_grpc

from .applications import read_applied_config, read_records
from .messages import status_message
from .nodes_engine import NodesView
from .store import StateStore, StoreUnavailable

logger = logging.getLogger("slipknot.serve")

ASK_TIMEOUT_S = 2.0
"""For the leader to answer; then the store is read."""

Status = controller_pb2.ClusterStatus


class Standby:
    """Reads for others. `repr` tells the leader that was asked last.

    Args:
        store: The cluster's.
        credentials: For the leader.
        own_address: Of this controller, never asked.
    """

    def __init__(self, store: StateStore, credentials: Credentials, own_address: str) -> None:
        self._store = store
        self._credentials = credentials
        self._own_address = own_address
        self._address = ""
        self._channel: grpc.aio.Channel | None = None

    def __repr__(self) -> str:
        return f"<Standby, leader {self._address or 'unknown'}>"

    async def status(self, leader_address: str) -> Status:
        """The leader's status; without a leader what is stored, with nothing running that anybody knows of.

        Raises:
            ControllerUnavailableError: Neither can be had.
        """
        stub = await self._stub(leader_address)
        if stub is not None:
            try:
                response = await stub.GetStatus(controller_pb2.GetStatusRequest(), timeout=ASK_TIMEOUT_S)
            except grpc.aio.AioRpcError as error:
                logger.debug("leader_not_asked %s", error.code().name)
            else:
                return self._as_told_here(response.status)
        with _translated():
            records = await read_records(self._store)
        return self._as_told_here(status_message(0, 0, records, {}, ((), NodesView((), {}))))

    async def statuses(self, leader_address: str) -> AsyncIterator[Status]:
        """The leader's statuses until it is lost; without a leader one of what is stored."""
        stub = await self._stub(leader_address)
        if stub is None:
            yield await self.status("")
            return
        call = stub.WatchStatus(
            controller_pb2.WatchStatusRequest(), metadata=token_metadata(self._credentials)
        )
        try:
            async for response in call:
                yield self._as_told_here(response.status)
        except grpc.aio.AioRpcError as error:
            raise ControllerUnavailableError(f"the leader was lost: {error.code().name}") from None
        finally:
            call.cancel()

    async def config_json(self) -> str:
        """The config last applied; empty if none."""
        with _translated():
            return await read_applied_config(self._store)

    async def close(self) -> None:
        """Let go of the leader; calling it twice is fine."""
        channel, self._channel, self._address = self._channel, None, ""
        if channel is not None:
            await channel.close(None)

    def _as_told_here(self, status: Status) -> Status:
        told = Status()
        told.CopyFrom(status)
        told.answered_by = self._own_address
        return told

    async def _stub(self, address: str) -> controller_pb2_grpc.ControllerServiceStub | None:
        if not address or address == self._own_address:
            return None
        if address != self._address:
            await self.close()
            self._address, self._channel = address, new_channel(address, self._credentials)
        return controller_pb2_grpc.ControllerServiceStub(self._channel)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except StoreUnavailable as error:
        raise ControllerUnavailableError(
            f"no controller leads, and the store cannot be read: {error}"
        ) from None
