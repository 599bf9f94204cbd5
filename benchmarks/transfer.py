"""Large bodies: how fast they pass, and how much memory that takes at its peak.

    scripts/transfer --mib 2048

An upload, a download from a handler that yields chunks of 1 MiB, and one that yields chunks of 64 KiB, each
through an embedded cluster. RSS is of all proxy and replica processes, sampled while the body passes: the
peak minus what it was before.
"""

import argparse
import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from slipknot import serve

from .cluster import quiet_cluster, rss_bytes

MIB = 1024 * 1024
SAMPLE_S = 0.05

api = FastAPI()


@serve.deployment(max_ongoing_requests=100)
@serve.ingress(api)
class Body:
    """Takes and gives bodies of any size."""

    @api.post("/upload")
    async def upload(self, request: Request) -> int:
        """How large the body was."""
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
        return size

    @api.get("/download/{mib}/{chunk_bytes}")
    async def download(self, mib: int, chunk_bytes: int) -> StreamingResponse:
        """So many MiB in chunks of so many bytes."""
        return StreamingResponse(_chunks(mib * MIB, chunk_bytes))


async def _chunks(size: int, chunk_bytes: int) -> AsyncIterator[bytes]:
    chunk = bytes(chunk_bytes)
    for _ in range(size // chunk_bytes):
        yield chunk


class Peak:
    """The largest RSS of the cluster while something runs."""

    def __init__(self) -> None:
        self._before = rss_bytes()
        self._largest = dict(self._before)
        self._task = asyncio.create_task(self._sample())

    async def _sample(self) -> None:
        while True:
            self.note()
            await asyncio.sleep(SAMPLE_S)

    def note(self) -> None:
        """Look now."""
        for name, size in rss_bytes().items():
            self._largest[name] = max(self._largest.get(name, 0), size)

    def end(self) -> dict[str, float]:
        """Growth of proxy and replica in MiB."""
        self._task.cancel()
        self.note()
        return {
            name: round((self._largest[name] - self._before[name]) / MIB, 1) for name in ("proxy", "replica")
        }


async def _upload(address: tuple[str, int], mib: int) -> None:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(
        f"POST /upload HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
        f"content-length: {mib * MIB}\r\n\r\n".encode()
    )
    chunk = bytes(256 * 1024)
    for _ in range(mib * 4):
        writer.write(chunk)
        await writer.drain()
    answer = await reader.read()
    writer.close()
    if not answer.endswith(str(mib * MIB).encode()):
        raise RuntimeError(f"the upload was answered with {answer[-200:]!r}")


async def _download(address: tuple[str, int], mib: int, chunk_bytes: int) -> None:
    reader, writer = await asyncio.open_connection(*address, limit=MIB)
    path = f"/download/{mib}/{chunk_bytes}"
    writer.write(f"GET {path} HTTP/1.0\r\nhost: x\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    size = 0
    while chunk := await reader.read(MIB):
        size += len(chunk)
    writer.close()
    if size != mib * MIB:
        raise RuntimeError(f"{size} bytes of {mib * MIB} came after {head!r}")


async def _measure(mib: int, rounds: int) -> list[dict[str, Any]]:
    host, _, port = serve.http_url().removeprefix("http://").rpartition(":")
    address = (host, int(port))
    await _upload(address, 16)
    await _download(address, 16, MIB)
    results = []
    for kind, chunk_bytes in [("upload", 0), ("download", MIB), ("download", 64 * 1024)] * rounds:
        peak, started_s = Peak(), time.monotonic()
        await (_download(address, mib, chunk_bytes) if chunk_bytes else _upload(address, mib))
        elapsed_s = time.monotonic() - started_s
        results.append(
            {
                "kind": kind,
                "chunk_bytes": chunk_bytes,
                "mib": mib,
                "mib_per_s": round(mib / elapsed_s, 1),
                "grown_mib": peak.end(),
            }
        )
    return results


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mib", type=int, default=2048, help="size of a body")
    parser.add_argument("--rounds", type=int, default=1, help="how often each is measured")
    parser.add_argument("--json", action="store_true", help="JSON lines instead of text")
    options = parser.parse_args()
    with quiet_cluster(Body.bind(), request_timeout_s=None):
        results = asyncio.run(_measure(options.mib, options.rounds))
    for result in results:
        if options.json:
            print(json.dumps(result))
            continue
        grown, size = result["grown_mib"], result["chunk_bytes"]
        print(
            f"{result['kind']:<8} {result['mib']} MiB{f' in chunks of {size}' if size else '':<22} "
            f"{result['mib_per_s']:7.1f} MiB/s; grown by {grown['proxy']} MiB (proxy) "
            f"+ {grown['replica']} MiB (replica)"
        )


if __name__ == "__main__":
    main()
