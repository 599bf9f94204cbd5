"""`slipknot.testing` and its pytest plugin."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from slipknot import serve
from slipknot.testing import Cluster

pytest_plugins = ["pytester"]


@serve.deployment
def hello() -> str:
    return "hello"


def test_a_cluster_is_started_once() -> None:
    """`start` while it runs is a no-op, also within the `with` block."""
    with Cluster() as cluster:
        url = cluster.url
        cluster.start()
        assert cluster.url == url == serve.http_url()


def test_a_cluster_can_be_started_again() -> None:
    cluster = Cluster()
    for _ in range(2):
        with cluster:
            cluster.run(hello.bind())
            assert httpx.get(cluster.url).text == "hello"
        cluster.stop()


def test_clusters_in_each_other() -> None:
    """The one opened last is the process's, whichever ends first."""
    with Cluster() as outer:
        with Cluster() as inner:
            assert serve.http_url() == inner.url
        assert serve.http_url() == outer.url
        last = Cluster()
        last.start()
        outer.stop()
        assert serve.http_url() == last.url
        last.stop()
    assert not serve.status().proxies


@serve.deployment
class Hangs:
    """Takes what it is asked for and keeps it."""

    started = threading.Event()

    async def __call__(self) -> None:
        Hangs.func_or_class.started.set()  # type: ignore[attr-defined]
        await asyncio.Event().wait()


def test_a_cluster_does_not_wait_for_what_is_under_way() -> None:
    """Its client is told; a test that leaves a request or a WebSocket open ends all the same."""
    with ThreadPoolExecutor(1) as aside:
        with Cluster() as cluster:
            cluster.run(Hangs.bind())
            response = aside.submit(httpx.get, cluster.url, timeout=60.0)
            assert Hangs.func_or_class.started.wait(10)  # type: ignore[attr-defined]
        assert response.result().status_code == 503


def test_shutdown_leaves_the_cluster_of_the_test() -> None:
    """Code under test may end what it takes for its own cluster; the next application runs in the same."""
    with Cluster() as cluster:
        cluster.run(hello.bind())
        serve.shutdown()
        serve.shutdown()
        assert serve.status().applications == {}
        assert httpx.get(cluster.url).status_code == 404
        cluster.run(hello.bind())
        assert serve.http_url() == cluster.url
        assert httpx.get(cluster.url).text == "hello"


def test_an_application_that_fails_to_deploy_is_gone_after_its_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest
        from slipknot import serve

        @serve.deployment
        class Broken:
            def __init__(self):
                raise ValueError("broken")

        def test_fails(serve_app):
            with pytest.raises(RuntimeError, match="broken"):
                serve_app(Broken.bind())

        def test_is_gone(slipknot_cluster):
            assert serve.status().applications == {}
        """
    )
    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(passed=2)
