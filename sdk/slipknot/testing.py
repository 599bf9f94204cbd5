"""A whole cluster in this process, for tests: controller, proxy, node and replicas on real gRPC sockets and a
real HTTP port.

    from slipknot.testing import Cluster

    def test_greets():
        with Cluster() as cluster:
            cluster.run(app)
            assert httpx.get(cluster.url).text == "hello"

What is real: every role's own code, the gRPC streams between them, HTTP, cancellation, deadlines, admission,
pickling of the application. What is not: processes. All roles and all `async` user code share one event loop
in a background thread, so a handler that blocks the loop blocks the cluster, and `os._exit` ends the test
run. For those tests use an embedded cluster.

`slipknot.pytest_plugin` offers the same as fixtures.
"""

import asyncio
import logging
import shutil
import threading
from collections.abc import Coroutine, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from slipknot_core.runtime_dir import RuntimeDir

from . import _connection

if TYPE_CHECKING:
    from ._deployment import Application
    from ._in_process import Roles
    from .serve.handle import DeploymentHandle

logger = logging.getLogger("slipknot.serve")

T = TypeVar("T")

START_TIMEOUT_S = 30.0

DRAIN_TIMEOUT_S = 0.5
"""For what clients have under way when the test is over: they are not waited for as in production."""


class Cluster:
    """A cluster in this process. A context manager; `repr` tells its URL.

    While it is open it is the cluster of this process: `serve.run`, `serve.status` and handles use it too.

    Args:
        http_options: As for `serve.start`; the default port is any free one, and what is under way at the end
            has half a second (`drain_timeout_s`).
        logging_config: Checked as for `serve.start`, and without effect: lines go where this process has them
            go, in pytest to `caplog`.
        tracing_config: As for `serve.start`; without, tracing is off.
    """

    def __init__(
        self,
        http_options: Mapping[str, Any] | None = None,
        logging_config: Mapping[str, Any] | None = None,
        *,
        tracing_config: Mapping[str, Any] | None = None,
    ) -> None:
        from ._cluster_options import cluster_options

        self._options = cluster_options(
            None,
            {"port": 0, "drain_timeout_s": DRAIN_TIMEOUT_S, **(http_options or {})},
            None,
            logging_config,
            tracing_config=tracing_config or {},
        )
        self._runtime_dir: RuntimeDir | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._roles: Roles | None = None
        self._before: _connection.Connection | None = None

    def __repr__(self) -> str:
        return f"<Cluster {self.url if self._roles else 'closed'}>"

    def __enter__(self) -> "Cluster":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Root URL of the proxy, without a slash at its end."""
        return f"http{self._secure}://{self._running.http_address}"

    @property
    def websocket_url(self) -> str:
        """The same for WebSockets."""
        return f"ws{self._secure}://{self._running.http_address}"

    @property
    def gateway_address(self) -> str:
        """Address of the gRPC gateway, for `slipknot.Client` and grpcurl."""
        return self._running.gateway_address

    @property
    def controller_address(self) -> str:
        """gRPC address of the controller."""
        return self._running.controller_address

    def start(self) -> None:
        """Start all roles; while it runs a no-op."""
        if self._roles is not None:
            return
        from ._in_process import Roles

        self._runtime_dir = RuntimeDir.create()
        started = threading.Event()
        self._thread = threading.Thread(
            target=self._run_loop, args=(started,), name="slipknot-cluster", daemon=True
        )
        self._thread.start()
        started.wait(START_TIMEOUT_S)
        self._roles = Roles(self._options, self._runtime_dir)
        try:
            self._call(self._roles.start())
        except BaseException:
            self.stop()
            raise
        self._before = _connection.install(self._roles.connection)

    def stop(self) -> None:
        """Drain and end all roles; twice is fine."""
        roles, self._roles = self._roles, None
        if roles is not None:
            if roles.has_connection:
                self._hand_back(roles.connection)
            self._call(roles.stop())
        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(START_TIMEOUT_S)
            self._loop = self._thread = None
        if self._runtime_dir is not None:
            shutil.rmtree(self._runtime_dir.path, ignore_errors=True)
            self._runtime_dir.remove()

    def run(
        self, target: "Application", *, name: str = "default", route_prefix: str | None = "/"
    ) -> "DeploymentHandle":
        """Deploy an application; as `serve.run`."""
        from . import serve

        return serve.run(target, name=name, route_prefix=route_prefix)

    def delete(self, name: str = "default") -> None:
        """Delete an application; as `serve.delete`."""
        from . import serve

        serve.delete(name)

    def delete_all(self) -> None:
        """Delete every application."""
        from . import _control

        connection = self._running.connection
        connection.run(_control.delete_all(connection))

    def replica_servers(self) -> "list[Any]":
        """The replicas' servers, for assertions on their counters and slots."""
        return self._running.replica_servers()

    def metrics(self) -> str:
        """What the admin ports of all roles would show, as Prometheus's text."""
        from slipknot_core.exposition import expose

        return expose(self._call(self._running.readings()))[1].decode()

    # --- inside -------------------------------------------------------------------------------------

    @property
    def _secure(self) -> str:
        return "s" if self._options.http.get("ssl_certfile") else ""

    @property
    def _running(self) -> "Roles":
        if self._roles is None:
            raise RuntimeError("the cluster is not running; use `with Cluster() as cluster:`")
        return self._roles

    def _hand_back(self, own: _connection.Connection) -> None:
        """What was this process's cluster before is it again, unless one opened later is, or it has ended."""
        before, self._before = self._before, None
        if _connection.installed() is own:
            _connection.install(None if before is None or before.is_closed else before)

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(START_TIMEOUT_S)

    def _run_loop(self, started: threading.Event) -> None:
        import uvloop

        loop = self._loop = uvloop.new_event_loop()
        asyncio.set_event_loop(loop)
        loop.call_soon(started.set)
        try:
            loop.run_forever()
            _finish(loop)
        finally:
            asyncio.set_event_loop(None)
            loop.close()


def _finish(loop: asyncio.AbstractEventLoop) -> None:
    """End what user code has left behind, as `asyncio.run` does."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks, timeout=2.0))
    loop.run_until_complete(loop.shutdown_asyncgens())
