"""Code for clusters on other machines: packed here, uploaded once, named by its content."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import grpc.aio

from slipknot_core.archive import digest_of, pack
from slipknot_core.deadline import Deadline
from slipknot_core.errors import ControllerUnavailableError, NotLeaderError
from slipknot_core.rpc.channel import token_metadata, translate_error
from slipknot_proto.v1 import controller_pb2

from . import _control

if TYPE_CHECKING:
    from ._connection import Connection

CHUNK_BYTES = 512 * 1024
UPLOAD_TIMEOUT_S = 120.0


def is_remote(address: str) -> bool:
    """The cluster at this address may not see this machine's files."""
    return not address.startswith("unix:")


async def upload_directory(connection: "Connection", directory: Path, excludes: Sequence[str] = ()) -> str:
    """Have the content of a directory in the cluster; returns the archive's name.

    Args:
        connection: To the cluster.
        directory: What is in it.
        excludes: Patterns of what is not needed, as in .gitignore.

    Raises:
        ValueError: There is too much in it, a link leads out of it, or a pattern is not supported.
        SlipknotServeException: The cluster did not take it.
    """
    data = await asyncio.to_thread(pack, directory, excludes)
    digest = digest_of(data)
    request = controller_pb2.FindArchiveRequest(digest=digest)
    found = await _control.call(connection, "FindArchive", request, again=True)
    if not found.exists:
        await _upload(connection, digest, data)
    return digest


async def _upload(connection: "Connection", digest: str, data: bytes) -> None:
    async def parts() -> AsyncIterator[controller_pb2.UploadArchiveRequest]:
        for at in range(0, len(data), CHUNK_BYTES):
            yield controller_pb2.UploadArchiveRequest(
                digest="" if at else digest, data=data[at : at + CHUNK_BYTES]
            )

    link, deadline = connection.dispatcher.link, Deadline.after(UPLOAD_TIMEOUT_S)
    metadata = token_metadata(connection.dispatcher.credentials)
    while True:
        address = link.address
        try:
            await connection.controller.UploadArchive(
                parts(), timeout=deadline.remaining_s(), metadata=metadata
            )
            return
        except grpc.aio.AioRpcError as error:
            failure, pause_s = error, link.lost(address, error)
        translated = translate_error(failure)
        if not isinstance(translated, NotLeaderError | ControllerUnavailableError) or deadline.has_expired():
            raise translated from None
        await asyncio.sleep(max(pause_s, _control.RETRY_PAUSE_S))
