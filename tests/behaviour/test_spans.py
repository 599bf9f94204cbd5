"""The spans of proxy, handle calls and replicas, where tracing is on; in a cluster in this process."""

import asyncio
import io
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from slipknot.testing import Cluster
from slipknot_core import tracing
from slipknot_core.logs import LoggingSettings, configure_logging
from tests.support.journal import Gate, Journal
from tests.support.raw_http import RawClient

from .trace_apps import HEADERS, PARENT, TRACE, Leaf, Root

trace = pytest.importorskip("opentelemetry.trace", reason="needs OpenTelemetry: pip install slipknot[otel]")
from tests.support import spans  # noqa: E402

StatusCode = trace.StatusCode


@pytest.fixture(scope="module")
def journal_and_gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Journal, Gate]]:
    directory = tmp_path_factory.mktemp("tracing")
    with Journal(directory) as journal:
        yield journal, Gate(directory / "gate")


@pytest.fixture(scope="module")
def traced(journal_and_gate: tuple[Journal, Gate]) -> Iterator[Cluster]:
    journal, gate = journal_and_gate
    config = {"enabled": True, "exporter_import_path": "tests.support.spans:keep"}
    with Cluster(tracing_config=config) as cluster:
        cluster.run(Root.bind(Leaf.bind(journal.pen, gate)))
        yield cluster
        gate.open()
    assert tracing.active is None


def wait_for_spans(is_so: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    async def wait() -> dict[str, Any]:
        async with asyncio.timeout(10):
            while not is_so(found := spans.kept()):
                await asyncio.sleep(0.01)
        return found

    return asyncio.run(wait())


PROXY, ROOT = "proxy GET /deep/{name}", "replica default/Root GET /deep/{name}"
CALL, LEAF = "call default/Leaf.__call__", "replica default/Leaf CALL __call__"


def test_each_hop_has_a_span_below_that_of_its_caller(traced: Cluster) -> None:
    """Client > proxy > replica > handle call > replica, in one trace; user code sees its own span's id."""
    seen = httpx.get(f"{traced.url}/deep/a", headers=HEADERS).json()
    found = wait_for_spans(lambda found: {PROXY, ROOT, CALL, LEAF} <= found.keys())
    parents = [trace.format_span_id(found[name].parent.span_id) for name in (PROXY, ROOT, CALL, LEAF)]
    own = [trace.format_span_id(found[name].context.span_id) for name in (PROXY, ROOT, CALL, LEAF)]
    assert parents == [PARENT, *own[:3]]
    assert seen == [[f"00-{TRACE}-{own[1]}-01", "vendor=1"], [f"00-{TRACE}-{own[3]}-01", "vendor=1"]]
    assert found[PROXY].attributes["slipknot.status"] == "200"
    assert found[LEAF].attributes["slipknot.deployment"] == "Leaf"
    assert found[PROXY].status.status_code is not StatusCode.ERROR


def test_the_headers_name_the_span_of_the_replica(traced: Cluster) -> None:
    """A framework that makes spans of its own takes the parent from there, whatever the client sent."""
    context, headers = httpx.get(f"{traced.url}/headers", headers=HEADERS).json()
    assert headers == context
    with connect(f"{traced.websocket_url}/headers") as websocket:
        context, headers = json.loads(websocket.recv(10))
    assert headers == context


def test_a_trace_begins_where_there_is_none(traced: Cluster) -> None:
    """And goes through all hops."""
    root, leaf = httpx.get(f"{traced.url}/deep/a").json()
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[13]", root[0])
    assert root[0].split("-")[1] == leaf[0].split("-")[1]
    assert root[0] != leaf[0]
    not_sampled = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
    root, leaf = httpx.get(f"{traced.url}/deep/a", headers=not_sampled).json()
    assert root[0].endswith("-00") and root[0].split("-")[1] == leaf[0].split("-")[1] == TRACE


def test_failed_and_cancelled_spans_are_marked(
    traced: Cluster, journal_and_gate: tuple[Journal, Gate]
) -> None:
    """With the reason, at each hop."""
    assert httpx.get(f"{traced.url}/fail").status_code == 500
    failed = ("proxy GET /fail", "replica default/Root GET /fail", "call default/Leaf.fail")
    found = wait_for_spans(lambda found: set(failed) <= found.keys())
    assert {found[name].status.status_code for name in failed} == {StatusCode.ERROR}
    journal, _ = journal_and_gate

    async def leave() -> None:
        client = await RawClient.connect(traced.url.removeprefix("http://"))
        client.get("/stand")
        await journal.wait_for_async("begun")
        client.close()
        await journal.wait_for_async("cancelled")

    asyncio.run(leave())
    leaf, call = "replica default/Leaf CALL stand", "call default/Leaf.stand"
    root = "replica default/Root GET /stand"
    found = wait_for_spans(lambda found: {leaf, call, root} <= found.keys())
    for name, reason in (
        (root, "CLIENT_DISCONNECTED"),
        (call, "PARENT_CANCELLED"),
        (leaf, "PARENT_CANCELLED"),
    ):
        assert found[name].attributes["slipknot.cancel_reason"] == reason, name
        assert found[name].status.status_code is StatusCode.ERROR


def test_logs_name_the_trace(traced: Cluster) -> None:
    """JSON lines of proxy and replica carry the ids of trace and span, and the matched route."""
    stream = io.StringIO()
    configure_logging("test", "1", LoggingSettings(encoding="JSON"), stream=stream)
    try:
        httpx.get(f"{traced.url}/deep/b", headers={**HEADERS, "x-request-id": "logged"})
        wait_for_spans(lambda _: stream.getvalue().count("/deep/{name} 200") == 2)
    finally:
        configure_logging("test", "1", LoggingSettings())
    lines = [json.loads(line) for line in stream.getvalue().splitlines() if "/deep/{name} 200" in line]
    assert {line["trace_id"] for line in lines} == {TRACE}
    assert len({line["span_id"] for line in lines}) == 2
    assert {line["route"] for line in lines} == {"/deep/{name}"}
    assert {line["request_id"] for line in lines} == {"logged"}
    assert {line["component_name"] for line in lines} == {"proxy", "default_Root"}


@pytest.mark.parametrize(
    "config",
    [
        {"enabled": "yes"},
        {"enabled": True, "sampling_ratio": 2},
        {"enabled": True, "exporter_import_path": "no_colon"},
        {"unknown": 1},
    ],
)
def test_configs_that_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="tracing"):
        Cluster(tracing_config=config)


@pytest.mark.parametrize(
    "path", ["no.such.module:x", "tests.support.spans:missing", "tests.support.spans:broken"]
)
def test_exporters_that_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(path))):
        tracing.configure(tracing.TracingSettings(enabled=True, exporter_import_path=path))
    assert tracing.active is None
