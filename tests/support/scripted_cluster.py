"""A controller and replicas that do what a test says, for the real proxy in front of them.

async with scripted_proxy() as cluster:
    client = await cluster.connect()
    client.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    exchange = await cluster.replica.next_exchange()
    exchange.respond(200, b"hello")
"""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc.aio

from slipknot_core.rpc.server import bind, new_server
from slipknot_proto.v1 import discovery_pb2, discovery_pb2_grpc, replica_pb2, replica_pb2_grpc
from slipknot_proto.v1.payload_pb2 import CancelReason
from slipknot_proxy.main import Proxy, ProxyConfig
from tests.support.raw_http import RawClient

WAIT_S = 5.0


class ScriptedExchange:
    """One exchange as the replica sees it; the test plays the handler."""

    def __init__(self, open_: replica_pb2.Open, stream: "ScriptedStream") -> None:
        self.open = open_
        self.cancel: replica_pb2.Cancel | None = None
        self.ended = asyncio.Event()
        """The stream is over: the caller has cancelled the RPC, or has gone."""
        self.body = bytearray(open_.http.body)
        self.body_complete = open_.http.end_of_body
        self._stream = stream
        self._frames: asyncio.Queue[replica_pb2.CallFrame] = asyncio.Queue()
        self._cancel_came = asyncio.Event()

    # --- what came ---

    def take(self, frame: replica_pb2.CallFrame) -> None:
        """Take a frame of the caller."""
        if frame.WhichOneof("frame") == "cancel":
            self.cancel = frame.cancel
            self._cancel_came.set()
            self.reply(cancelled=replica_pb2.Cancelled(reason=frame.cancel.reason, origin="replica"))
        else:
            self._frames.put_nowait(frame)

    async def next_frame(self, kind: str) -> Any:
        """The caller's next frame, which must be a `kind`; returns its content."""
        async with asyncio.timeout(WAIT_S):
            frame = await self._frames.get()
        assert frame.WhichOneof("frame") == kind, frame
        return getattr(frame, kind)

    async def read_body(self, until: Callable[[bytes], bool] | None = None) -> bytes:
        """Take body frames and grant credit, until `until` says so of what came, or it is complete."""
        while not self.body_complete and not (until is not None and until(bytes(self.body))):
            chunk = await self.next_frame("body")
            parts = (chunk.data, *chunk.more)
            self.body += b"".join(parts)
            self.body_complete = chunk.end_of_body
            self.reply(credit=replica_pb2.Credit(byte_count=sum(map(len, parts)) + 64 * len(parts)))
        return bytes(self.body)

    async def cancelled(self) -> CancelReason:
        """Wait until the exchange was cancelled, reason and RPC both; returns the reason."""
        async with asyncio.timeout(WAIT_S):
            await self._cancel_came.wait()
            await self.ended.wait()
        assert self.cancel is not None
        assert self.cancel.origin
        return self.cancel.reason

    def no_frame_came(self) -> bool:
        """Nothing that was not taken yet."""
        return self._frames.empty()

    # --- what goes ---

    def reply(self, **frame: Any) -> None:
        """Send one frame, given as its field of ReplyFrame."""
        self._stream.send(replica_pb2.ReplyFrame(**frame))

    def reply_together(self, *frames: replica_pb2.ReplyFrame) -> None:
        """Send frames in one message."""
        self._stream.send(*frames)

    def grant(self, byte_count: int) -> None:
        """Let the caller send more."""
        self.reply(credit=replica_pb2.Credit(byte_count=byte_count))

    def start(
        self, status: int = 200, headers: tuple[bytes, ...] = (), body: bytes = b"", *, end: bool = False
    ) -> None:
        """Begin an HTTP response."""
        self.reply(
            response_start=replica_pb2.ResponseStart(
                status=status, headers=headers, body=body, end_of_body=end
            )
        )

    def respond(self, status: int, body: bytes, *headers: bytes) -> None:
        """Send a whole HTTP response."""
        self.start(status, (b"content-length", b"%d" % len(body), *headers), body, end=True)

    def chunk(self, data: bytes, *, end: bool = False) -> None:
        """Send a part of the body."""
        self.reply(body=replica_pb2.BodyChunk(data=data, end_of_body=end))

    def fail(self, reason: str, message: str = "boom") -> None:
        """End the exchange with a failure."""
        self.reply(failure=replica_pb2.Failure(error={"reason": reason, "message": message}))

    def refuse_busy(self) -> None:
        """Do not admit it."""
        self.reply(
            refused=replica_pb2.Refused(reason=replica_pb2.Refused.REASON_BUSY, ongoing=1, max_ongoing=1)
        )

    def drop_stream(self) -> None:
        """Break the stream, as a replica that dies."""
        self._stream.drop()


class ScriptedStream:
    """One `Call`."""

    def __init__(self) -> None:
        self.outgoing: asyncio.Queue[tuple[replica_pb2.ReplyFrame, ...] | None] = asyncio.Queue()
        self.exchange: ScriptedExchange | None = None

    def send(self, *frames: replica_pb2.ReplyFrame) -> None:
        """Send frames in one message."""
        self.outgoing.put_nowait(frames)

    def drop(self) -> None:
        """End it with an error."""
        self.outgoing.put_nowait(None)

    async def read(self, requests: AsyncIterator[replica_pb2.CallRequest], opened: Any) -> None:
        """Take what comes."""
        async for message in requests:
            for frame in message.frames:
                if frame.WhichOneof("frame") == "open":
                    self.exchange = ScriptedExchange(frame.open, self)
                    opened(self.exchange)
                elif self.exchange is not None:
                    self.exchange.take(frame)


class ScriptedReplica(replica_pb2_grpc.ReplicaServiceServicer):
    """A replica whose requests are answered by the test, or by `handler` if it is set."""

    def __init__(self) -> None:
        self.handler: Callable[[ScriptedExchange], None] | None = None
        self.opened_count = 0
        self.stream_count = 0
        self._exchanges: asyncio.Queue[ScriptedExchange] = asyncio.Queue()

    async def next_exchange(self) -> ScriptedExchange:
        """The next request that arrives."""
        async with asyncio.timeout(WAIT_S):
            return await self._exchanges.get()

    async def Call(self, request_iterator: Any, context: Any) -> None:
        """Serve one stream."""
        self.stream_count += 1
        stream = ScriptedStream()
        writer = asyncio.create_task(self._write(stream, context), name="scripted replica writes")
        reader = asyncio.create_task(
            stream.read(request_iterator, self._on_open), name="scripted replica reads"
        )
        try:
            await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
            if writer.done() and not reader.done():
                await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        finally:
            if stream.exchange is not None:
                stream.exchange.ended.set()  # first: the cancellation may come only now, to what follows
            for task in (reader, writer):
                task.cancel()
            await asyncio.wait((reader, writer))
            for task in (reader, writer):
                if not task.cancelled():
                    task.exception()

    def _on_open(self, exchange: ScriptedExchange) -> None:
        self.opened_count += 1
        if self.handler is not None:
            self.handler(exchange)
        else:
            self._exchanges.put_nowait(exchange)

    async def _write(self, stream: ScriptedStream, context: Any) -> None:
        while (frames := await stream.outgoing.get()) is not None:
            await context.write(replica_pb2.CallResponse(frames=frames))


class ScriptedController(discovery_pb2_grpc.DiscoveryServiceServicer):
    """Sends the snapshots that the test gives it."""

    def __init__(self) -> None:
        self.requests: list[discovery_pb2.WatchRequest] = []
        self._snapshot = discovery_pb2.Snapshot(epoch=1, version=1)
        self._changed = asyncio.Condition()

    async def publish(self, *applications: discovery_pb2.ApplicationRoute) -> int:
        """Send a newer snapshot; returns its version."""
        async with self._changed:
            version = self._snapshot.version + 1
            self._snapshot = discovery_pb2.Snapshot(epoch=1, version=version, applications=applications)
            self._changed.notify_all()
        return version

    async def Watch(self, request: Any, context: Any) -> None:
        """Send the newest snapshot, then each newer one."""
        self.requests.append(request)
        sent = 0
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda after=sent: self._snapshot.version > after)
                snapshot = self._snapshot
            sent = snapshot.version
            await context.write(discovery_pb2.WatchResponse(snapshot=snapshot))


class ScriptedCluster:
    """The proxy with a scripted controller and one scripted replica."""

    def __init__(self, directory: Path) -> None:
        self.controller = ScriptedController()
        self.replica = ScriptedReplica()
        self.proxy: Proxy
        self._directory = directory
        self._servers: list[grpc.aio.Server] = []
        self._clients: list[RawClient] = []

    @property
    def url(self) -> str:
        """Of the proxy."""
        return f"http://{self.proxy.http_address}"

    @property
    def websocket_url(self) -> str:
        """Of the proxy."""
        return f"ws://{self.proxy.http_address}"

    @property
    def controller_address(self) -> str:
        """Of the scripted controller."""
        return f"unix:{self._directory}/controller.sock"

    @property
    def replica_address(self) -> str:
        """Of the scripted replica."""
        return f"unix:{self._directory}/replica.sock"

    async def start(self, options: dict[str, Any], *, with_app: bool) -> None:
        """Start everything; `with_app`: the application "default" at "/"."""
        await self.start_replica()
        controller = new_server()
        discovery_pb2_grpc.add_DiscoveryServiceServicer_to_server(self.controller, controller)
        await bind(controller, self.controller_address)
        await controller.start()
        self._servers.append(controller)
        self.proxy = Proxy(
            ProxyConfig.from_options(
                {"port": 0, "gateway_port": None, "drain_timeout_s": 0.2} | options,
                controller_address=self.controller_address,
            )
        )
        await self.proxy.start()
        if with_app:
            await self.deploy(self.app())

    async def start_replica(self) -> None:
        """Serve the replica."""
        server = new_server()
        replica_pb2_grpc.add_ReplicaServiceServicer_to_server(self.replica, server)
        await bind(server, self.replica_address)
        await server.start()
        self._servers.insert(0, server)

    async def stop_replica(self) -> None:
        """Kill the replica."""
        await self._servers.pop(0).stop(0)

    async def stop_controller(self) -> None:
        """Kill the controller."""
        await self._servers.pop().stop(0)

    def app(
        self, name: str = "default", prefix: str = "/", *, max_ongoing_requests: int = 100, **deployment: Any
    ) -> discovery_pb2.ApplicationRoute:
        """An application whose ingress is on the scripted replica."""
        replica = discovery_pb2.ReplicaRoute(
            replica_id=f"{name}#Ingress#r1",
            address=self.replica_address,
            max_ongoing_requests=max_ongoing_requests,
        )
        values: dict[str, Any] = {
            "name": "Ingress",
            "max_ongoing_requests": max_ongoing_requests,
            "max_queued_requests": -1,
            "backpressure_retry_after_s": -1,
            "replicas": [replica],
        }
        return discovery_pb2.ApplicationRoute(
            name=name,
            route_prefix=prefix,
            ingress_deployment="Ingress",
            deployments=[discovery_pb2.DeploymentRoute(**values | deployment)],
        )

    async def deploy(self, *applications: discovery_pb2.ApplicationRoute) -> None:
        """Publish applications and wait until the proxy routes to them."""
        version = await self.controller.publish(*applications)
        await self.proxy.dispatcher.wait_for(lambda snapshot: snapshot.version >= version, WAIT_S)

    async def connect(self, **options: Any) -> RawClient:
        """A raw client of the proxy."""
        client = await RawClient.connect(self.proxy.http_address, **options)
        self._clients.append(client)
        return client

    async def stop(self) -> None:
        """End everything."""
        for client in self._clients:
            client.abort()
        await self.proxy.stop()
        for server in self._servers:
            await server.stop(0)


@contextlib.asynccontextmanager
async def scripted_proxy(*, with_app: bool = True, **options: Any) -> AsyncIterator[ScriptedCluster]:
    """A proxy with `options` in front of a scripted replica."""
    with tempfile.TemporaryDirectory(prefix="slipknot-") as directory:
        cluster = ScriptedCluster(Path(directory))
        try:
            await cluster.start(options, with_app=with_app)
            yield cluster
        finally:
            await cluster.stop()
