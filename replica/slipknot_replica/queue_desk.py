"""Serves `ReplicaService.ShareQueue`: reads what callers say to the bank, and tells them what it answers."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import grpc.aio

from slipknot_core.tasks import TaskOwner
from slipknot_proto.v1 import replica_pb2

from .queue_bank import Answer, QueueBank

logger = logging.getLogger("slipknot.serve")


class QueueDesk:
    """The callers of one bank."""

    def __init__(self, tasks: TaskOwner) -> None:
        self.bank = QueueBank()
        self._tasks = tasks

    def __repr__(self) -> str:
        return f"<QueueDesk {self.bank!r}>"

    async def serve(self, context: Any) -> None:
        """Serve one caller until its stream ends."""
        caller = _Caller(context, self)
        try:
            while (request := await context.read()) is not grpc.aio.EOF:
                self.spread(
                    self.bank.update(
                        caller,
                        declared=request.declared,
                        given_back=request.given_back,
                        wanted=request.wanted,
                        bound=request.bound,
                    )
                )
        finally:
            caller.is_gone = True
            self.spread(self.bank.close(caller))

    def spread(self, answers: Mapping[Any, Answer]) -> None:
        """Tell each caller its answer soon."""
        for caller, answer in answers.items():
            caller.post(answer, self._tasks)


class _Caller:
    def __init__(self, context: Any, desk: QueueDesk) -> None:
        self.is_gone = False
        self._context = context
        self._desk = desk
        self._unsaid: Answer | None = None
        self._writer: asyncio.Task[None] | None = None

    def post(self, answer: Answer, tasks: TaskOwner) -> None:
        """Answers that were not sent yet become one."""
        before = self._unsaid or Answer(0, 0, 0)
        self._unsaid = Answer(
            before.granted + answer.granted, before.ask_back + answer.ask_back, answer.unmet
        )
        if self._writer is None and not self.is_gone:
            self._writer = tasks.spawn(self._write(), "queue-desk-write")

    async def _write(self) -> None:
        try:
            while self._unsaid is not None and not self.is_gone:
                answer, self._unsaid = self._unsaid, None
                await self._context.write(
                    replica_pb2.ShareQueueResponse(
                        granted=answer.granted,
                        ask_back=answer.ask_back,
                        unmet=answer.unmet,
                        callers=self._desk.bank.callers,
                    )
                )
        except Exception as error:  # noqa: BLE001 - gRPC raises private classes when the caller has gone
            logger.debug("stream_broken %s", error)
        finally:
            self._writer = None
