"""One proxy: its sockets, its dispatcher, and its end.

The end: say so (`/-/healthz` 503, `connection: close`), take new connections for the lame-duck time, stop
listening, let ongoing requests finish until the drain timeout, cancel the rest, leave.
"""

import asyncio
import contextvars
import logging
import os
import socket
import ssl
from typing import Any, cast

from uvicorn.config import Config

from slipknot_core import compiled
from slipknot_core.admin import AdminServer
from slipknot_core.logs import component_var
from slipknot_core.loop_lag import LoopLag
from slipknot_core.metrics import Reading, gauge
from slipknot_core.routing.dispatcher import Dispatcher
from slipknot_core.routing.metrics import router_readings
from slipknot_core.rpc.addresses import advertised, is_loopback, join
from slipknot_core.rpc.credentials import NO_CREDENTIALS, Credentials
from slipknot_core.rpc.lasting_server import LastingServer
from slipknot_core.rpc.server import bind, new_server
from slipknot_proto.v1 import discovery_pb2

from .app import ProxyApp
from .config import ProxyConfig
from .drain import Drain
from .gateway import add_gateway
from .http_protocol import HttpProtocol
from .metrics import proxy_readings
from .server_state import ProxyState

logger = logging.getLogger("slipknot.serve")

MAX_UNSENT_BYTES = 128 * 1024
"""The kernel takes no more for a client than this beyond what is on its way: else a client that stops reading
holds megabytes there, and its handler works for nobody until they are full."""

BACKLOG = 2048
FIRST_SNAPSHOT_S = 10.0
"""A controller that is starting again needs less."""


class Proxy:
    """Serves HTTP and the gateway. Belongs to the loop `start` is called on; installs no signal handlers.

    `repr` tells the addresses.
    """

    def __init__(self, config: ProxyConfig) -> None:
        self.config = config
        self.proxy_id = config.proxy_id or f"proxy-{socket.gethostname()}-{os.getpid()}"
        self.http_address = ""
        """"host:port" once started."""
        self.gateway_address = ""
        """"host:port" once started; empty without a gateway."""
        self._loop_lag = LoopLag()
        self._admin = AdminServer(self.readings, token=config.admin_token)
        self._app: ProxyApp | None = None
        self._dispatcher: Dispatcher | None = None
        self._gateway: LastingServer | None = None
        self._server: asyncio.Server | None = None
        self._listener: socket.socket | None = None
        """Of `_server`, if it is our own."""
        self._state: ProxyState | None = None
        self._drain: Drain | None = None

    def __repr__(self) -> str:
        return f"<Proxy {self.proxy_id} at {self.http_address or 'no address yet'}>"

    @property
    def app(self) -> ProxyApp:
        """The ASGI application."""
        assert self._app is not None
        return self._app

    @property
    def dispatcher(self) -> Dispatcher:
        """What sends requests to replicas."""
        assert self._dispatcher is not None
        return self._dispatcher

    @property
    def admin_address(self) -> str:
        """Where metrics are shown, once started; empty: nowhere."""
        return self._admin.address

    async def readings(self) -> list[Reading]:
        """What the admin port shows."""
        connections = 0 if self._state is None else len(self._state.connections)
        return [
            *proxy_readings(self.app, connections),
            *router_readings(self.dispatcher),
            gauge("slipknot_proxy_loop_lag_seconds", "Worst lag of the last 10 s.", self._loop_lag.lag_s),
        ]

    async def start(self) -> None:
        """Listen, follow the controller, and serve once the first snapshot is here.

        Clients that come before wait in the backlog: without a snapshot, nothing is found. A controller that
        stays away is not waited for longer than `FIRST_SNAPSHOT_S`.

        Raises:
            OSError: An address is taken or not ours.
            ValueError: A TLS file is unusable.
        """
        listener = _listen(self.config)
        try:
            self.http_address = _address_of(listener)
            await self._start_members()
            await self._wait_for_snapshot()
            await self._start_http(listener)
        except BaseException:
            listener.close()
            await self.stop()
            raise
        logger.info(
            "proxy_started %s http=%s gateway=%s compiled=%s",
            self.proxy_id,
            self.http_address,
            self.gateway_address or "-",
            "yes" if compiled.is_in_use() else "no",
        )

    def hurry(self) -> None:
        """Cancel what a `stop` under way still waits for."""
        if self._drain is not None:
            self._drain.hurry()

    async def stop(self) -> None:
        """Drain, then end everything; twice and before `start` is fine."""
        server, self._server = self._server, None
        ends = []
        if server is not None and self._drain is not None:
            await self._drain.lame_duck()
            ends.append(self._drain.finish(server, self._listener))
        if self._gateway is not None:
            ends.append(self._gateway.stop(self.config.drain_timeout_s))
        await asyncio.gather(*ends)
        if self._app is not None:
            await self._app.stop()
        await self._admin.stop()
        self._loop_lag.stop()
        if self._dispatcher is not None:
            await self._dispatcher.stop()
        if self._state is not None:
            self._state.close()

    # --- inside -------------------------------------------------------------------------------------------

    async def _wait_for_snapshot(self) -> None:
        try:
            await self.dispatcher.wait_for(lambda snapshot: snapshot.epoch > 0, FIRST_SNAPSHOT_S)
        except TimeoutError:
            logger.warning(
                "controller_silent no snapshot came within %.0f s; serving without", FIRST_SNAPSHOT_S
            )

    async def _start_members(self) -> None:
        """Bind the gateway first: what the controller is told of this proxy contains its address."""
        config = self.config
        self._loop_lag.start()
        if config.admin_address:
            await self._admin.start(config.admin_address)
        if config.gateway_port is not None:
            credentials = NO_CREDENTIALS if self._has_open_gateway else config.credentials
            self._gateway = new_server(credentials)
            self.gateway_address = await self._bind_gateway(self._gateway, credentials)
        dispatcher = self._dispatcher = Dispatcher(
            config.controller_address,
            watcher=f"proxy:{self.proxy_id}",
            node_id=config.node_id,
            credentials=config.credentials,
            proxy=discovery_pb2.ProxyInfo(
                proxy_id=self.proxy_id,
                node_id=config.node_id,
                http_address=self._advertised(self.http_address),
                gateway_address=self._advertised(self.gateway_address),
                pid=os.getpid(),
                gateway_is_open=self._has_open_gateway,
                admin_address=self.admin_address,
            ),
        )
        self._app = ProxyApp(config, dispatcher.open, dispatcher.drop)
        dispatcher.on_snapshot(self._app.on_snapshot)
        if self._gateway is not None:
            add_gateway(self._gateway, dispatcher, self._app)
            await self._gateway.start()
        await dispatcher.start()

    async def _bind_gateway(self, gateway: LastingServer, credentials: Credentials) -> str:
        host, is_open = self.config.gateway_host, self._has_open_gateway
        try:
            address = join(host, self.config.gateway_port or 0)
            return await bind(gateway, address, credentials, is_open=is_open)
        except OSError:
            if not self.config.gateway_port_may_change:
                raise
            return await bind(gateway, join(host, 0), credentials, is_open=is_open)

    @property
    def _has_open_gateway(self) -> bool:
        if self.config.gateway_access == "auto":
            return is_loopback(join(self.config.gateway_host, 0))
        return self.config.gateway_access == "open"

    def _advertised(self, address: str) -> str:
        """An inherited socket is a launcher's, for its own machine."""
        if not address or self.config.listen_fd is not None:
            return address
        return advertised(address, self.config.advertise_host)

    async def _start_http(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        context = contextvars.copy_context()
        context.run(component_var.set, ("proxy", self.config.node_id or socket.gethostname()))
        state = self._state = ProxyState(self.config, context, self.app.serve)
        self._drain = Drain(self.config, state, self.app)
        uvicorn_config = _uvicorn_config(self.config, self.app)
        if listener.family != socket.AF_UNIX and hasattr(socket, "TCP_NOTSENT_LOWAT"):
            # Connections inherit it.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MAX_UNSENT_BYTES)
        self._server = await loop.create_server(
            lambda: HttpProtocol(uvicorn_config, state, {}, loop),
            sock=listener,
            ssl=uvicorn_config.ssl,
            backlog=BACKLOG,
        )
        self._listener = None if self.config.listen_fd is not None else listener


def _uvicorn_config(config: ProxyConfig, app: ProxyApp) -> Config:
    uvicorn_config = Config(
        cast(Any, app),
        http=HttpProtocol,
        ws="websockets-sansio",
        ws_max_size=config.max_ws_message_bytes,
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=bool(config.forwarded_allow_ips),
        forwarded_allow_ips=config.forwarded_allow_ips,
        ssl_keyfile=config.ssl_keyfile,
        ssl_certfile=config.ssl_certfile,
        ssl_keyfile_password=config.ssl_keyfile_password,
        ssl_ca_certs=config.ssl_ca_certs,
        ssl_cert_reqs=ssl.CERT_REQUIRED if config.ssl_ca_certs else ssl.CERT_NONE,
    )
    try:
        uvicorn_config.load()
    except (OSError, ssl.SSLError) as error:
        raise ValueError(
            f"cannot use ssl_certfile={config.ssl_certfile!r}, ssl_keyfile={config.ssl_keyfile!r}: {error}"
        ) from error
    return uvicorn_config


def _listen(config: ProxyConfig) -> socket.socket:
    if config.listen_fd is not None:
        return socket.socket(fileno=config.listen_fd)
    try:
        family, *_, address = socket.getaddrinfo(
            config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot listen on {config.host}:{config.port}: {error.strerror}; choose another host or port",
        ) from error


def _address_of(listener: socket.socket) -> str:
    name = listener.getsockname()
    if isinstance(name, str):
        return f"unix:{name}"
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
