"""pytest fixtures: applications under test in a cluster of this process.

    def test_greets(serve_app):
        running = serve_app(app)
        assert running.client.get("/").text == "hello"

The cluster starts once for the whole test run, an application takes a few tens of milliseconds, and each is
deleted at the end of its test (`serve_app`) or module (`serve_app_module`).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import httpx

    from slipknot._deployment import Application
    from slipknot.serve.handle import DeploymentHandle
    from slipknot.testing import Cluster


class RunningApp:
    """An application under test.

    Args:
        name: Its name.
        handle: To its ingress deployment.
        url: Its URL, without a slash at the end.
        websocket_url: The same for WebSockets.
    """

    def __init__(self, name: str, handle: "DeploymentHandle", url: str, websocket_url: str) -> None:
        self.name = name
        self.handle = handle
        self.url = url
        self.websocket_url = websocket_url
        self._client: httpx.Client | None = None

    def __repr__(self) -> str:
        return f"<RunningApp {self.name} at {self.url}>"

    @property
    def client(self) -> "httpx.Client":
        """An httpx client whose base URL is the application's."""
        if self._client is None:
            import httpx

            self._client = httpx.Client(base_url=self.url, timeout=30.0)
        return self._client

    def close(self) -> None:
        """Close the client."""
        if self._client is not None:
            self._client.close()


ServeApp = Callable[..., RunningApp]


@pytest.fixture(scope="session")
def slipknot_cluster() -> "Iterator[Cluster]":
    """The cluster in this process."""
    from slipknot.testing import Cluster

    with Cluster() as cluster:
        yield cluster


@pytest.fixture
def serve_app(slipknot_cluster: "Cluster") -> Iterator[ServeApp]:
    """Deploy applications for one test: `serve_app(app, name="default", route_prefix="/") -> RunningApp`."""
    with _deploying(slipknot_cluster) as deploy:
        yield deploy


@pytest.fixture(scope="module")
def serve_app_module(slipknot_cluster: "Cluster") -> Iterator[ServeApp]:
    """Deploy applications for one module."""
    with _deploying(slipknot_cluster) as deploy:
        yield deploy


@contextmanager
def _deploying(cluster: "Cluster") -> Iterator[ServeApp]:
    running: list[RunningApp] = []
    names: set[str] = set()

    def deploy(target: "Application", *, name: str = "default", route_prefix: str | None = "/") -> RunningApp:
        # Also if it fails: what failed to deploy is there, and would be seen by the next test.
        names.add(name)
        handle = cluster.run(target, name=name, route_prefix=route_prefix)
        prefix = (route_prefix or "/").rstrip("/")
        app = RunningApp(name, handle, cluster.url + prefix, cluster.websocket_url + prefix)
        running.append(app)
        return app

    try:
        yield deploy
    finally:
        for app in running:
            app.close()
        for name in names:
            cluster.delete(name)
