"""Several nodes: where replicas go, what is said when they cannot, what becomes of nodes that fall silent."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from slipknot import _connection, serve
from slipknot._upload import upload_directory
from slipknot_core.archive import digest_of
from slipknot_core.errors import SlipknotServeException
from tests.support.cluster_status import (
    application,
    cluster_status,
    running_replicas,
    wait_for_status,
    wait_until,
)
from tests.support.journal import Gate, Journal
from tests.support.load import Load
from tests.support.processes import descendants, is_alive
from tests.support.tcp_cluster import TcpCluster

pytestmark = pytest.mark.timeout(90)

WAIT_S = 60.0


@serve.deployment(logging_config={"log_level": "WARNING", "enable_access_log": False})
class Here:
    """Says which GPUs it sees, and its version."""

    def __init__(self, version: str = "") -> None:
        self.version = version

    async def __call__(self) -> str:
        """Say it."""
        return f"{os.environ.get('CUDA_VISIBLE_DEVICES', '-')} {self.version}"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TcpCluster]:
    """Two nodes: node-0 with two GPUs in zone a, node-1 with one in zone b; two CPUs each."""
    directory = tmp_path_factory.mktemp("nodes")
    with_gpus = {"num_cpus": 2, "cache_dir": str(directory / "cache")}
    made = TcpCluster(directory, nodes=2, node_options=with_gpus)
    made.nodes[0].config |= {"num_gpus": 2, "labels": {"zone": "a"}, "resources": {"disk": 1}}
    made.nodes[1].config |= {"num_gpus": 1, "labels": {"zone": "b"}}
    with made:
        yield made


@pytest.fixture(autouse=True)
def clean(cluster: TcpCluster) -> Iterator[None]:
    """Nothing stays from one test to the next."""
    yield
    for name in [a.name for a in cluster_status().applications]:
        serve.delete(name)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """What handlers note."""
    with Journal(tmp_path) as opened:
        yield opened


def needing(**options: Any) -> Any:
    """A deployment whose replicas need this of their node."""
    return Here.options(ray_actor_options={"num_cpus": 0, **options})


def places(name: str = "default") -> list[tuple[str, tuple[str, ...]]]:
    """Nodes and GPUs of the replicas that run."""
    replicas = [r for d in application(name).deployments for r in d.replicas if r.state == "RUNNING"]
    return sorted((r.node_id, tuple(r.gpu_ids)) for r in replicas)


def pending(name: str) -> str:
    """Why something waits."""
    found = application(name)
    return str(found.deployments[0].pending_reason) if found and found.deployments else ""


def test_replicas_get_the_gpus_they_ask_for(cluster: TcpCluster) -> None:
    serve.run(needing(num_gpus=0.5).options(num_replicas=6).bind())
    assert places() == [("node-0", ("0",))] * 2 + [("node-0", ("1",))] * 2 + [("node-1", ("0",))] * 2
    seen = {httpx.get(cluster.url).text.split()[0] for _ in range(40)}
    assert seen <= {"0", "1"}
    nodes = {node.node_id: node for node in cluster_status().nodes}
    assert nodes["node-0"].used["GPU"] == nodes["node-0"].offered["GPU"] == 2.0
    assert (nodes["node-0"].offered["CPU"], nodes["node-1"].labels["zone"]) == (2.0, "b")


def test_spread_pack_labels_and_limits(cluster: TcpCluster) -> None:
    serve.run(Here.options(num_replicas=2).bind(), name="spread", route_prefix="/s")
    assert [node for node, _ in places("spread")] == ["node-0", "node-1"]
    serve.run(
        Here.options(num_replicas=2, placement_strategy="pack", ray_actor_options={"num_cpus": 0.5}).bind(),
        name="pack",
        route_prefix="/p",
    )
    assert len({node for node, _ in places("pack")}) == 1
    serve.run(
        needing(label_selector={"zone": "!a"}).options(num_replicas=2).bind(), name="zone", route_prefix="/z"
    )
    assert [node for node, _ in places("zone")] == ["node-1", "node-1"]


def test_what_finds_no_place_waits_says_why_and_starts_when_there_is_one(cluster: TcpCluster) -> None:
    serve.run(needing(num_gpus=2).bind(), name="first", route_prefix="/first")
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(serve.run, needing(num_gpus=2).bind(), name="second", route_prefix="/second")
        reason = "a replica needs 2 GPU; node node-0 has 0 GPU of 2 free, node node-1 offers 1 GPU"
        wait_until(lambda: pending("second") == reason)
        shown = serve.status().applications["second"]
        assert (shown.status, shown.deployments["Here"].replica_states) == ("DEPLOYING", {"PENDING": 1})
        assert reason in shown.message and reason in shown.deployments["Here"].message
        serve.delete("first")
        second.result(WAIT_S)
    assert places("second") == [("node-0", ("0", "1"))]
    # An update that finds no place beside the old version takes its place.
    serve.run(needing(num_gpus=2).bind("v2"), name="second", route_prefix="/second")
    assert httpx.get(f"{cluster.url}/second").text == "0,1 v2"


def test_the_next_controller_knows_what_is_held(cluster: TcpCluster) -> None:
    serve.run(needing(num_gpus=2).bind(), name="first", route_prefix="/first")
    before, epoch = running_replicas("first"), cluster_status().epoch
    cluster.controller.kill()
    cluster.controller.start()
    wait_until(lambda: cluster_status().epoch > epoch and running_replicas("first") == before)
    wait_until(lambda: places("first") == [("node-0", ("0", "1"))])  # its node may come after it
    node = cluster.role("slipknot_replica.node_main", "node-2", cluster.node_config(2) | {"num_gpus": 2})
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(serve.run, needing(num_gpus=2).bind(), name="second", route_prefix="/second")
        wait_until(lambda: "node node-0 has 0 GPU of 2 free" in pending("second"))
        try:
            node.start()
            second.result(WAIT_S)
            assert [node_id for node_id, _ in places("second")] == ["node-2"]
            serve.delete("second")
        finally:
            node.end()


def test_the_replicas_of_a_node_that_falls_silent_are_replaced_and_end_when_it_comes_back(
    cluster: TcpCluster,
) -> None:
    serve.run(needing().options(num_replicas=2, graceful_shutdown_timeout_s=1).bind("v1"))
    before = running_replicas()
    node = cluster.nodes[1]
    stopped = [node.pid, *descendants(node.pid)]
    lost = {r: pid for r, pid in before.items() if pid in stopped}
    assert len(lost) == 1
    with Load(cluster.url, clients=2) as load:
        load.wait_for_more(10)
        silent_s = time.monotonic()
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            wait_until(lambda: len(now := running_replicas()) == 2 and not now.keys() & lost.keys(), WAIT_S)
            sys.stderr.write(f"full count {time.monotonic() - silent_s:.1f} s after the node fell silent\n")
            assert [node_id for node_id, _ in places()] == ["node-0", "node-0"]
            serve.run(needing().options(num_replicas=2).bind("v2"))
            load.wait_for_more(20)
            answered = len(load.answers)
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
        wait_until(lambda: not any(is_alive(pid) for pid in lost.values()), WAIT_S)
        wait_until(lambda: {n.node_id for n in cluster_status().nodes} == {"node-0", "node-1"})
        load.wait_for_more(20)
    assert {answer.text for answer in load.answers[answered:]} == {"- v2"}
    assert not running_replicas().keys() & before.keys()


APP = """
    import os, pathlib
    from slipknot import serve
    from helper import WORD

    VISIBLE = os.environ.get("CUDA_VISIBLE_DEVICES")  # seen while it is imported

    @serve.deployment(ray_actor_options={"num_gpus": 1, "num_cpus": 0})
    class App:
        def __call__(self):
            here = pathlib.Path.cwd()
            return {"word": WORD, "data": pathlib.Path("data/words.txt").read_text(), "gpus": VISIBLE,
                    "files": sorted(p.name for p in here.rglob("*.*") if p.suffix != ".pyc")}

    app = App.bind()
"""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """An application that is on no node."""
    directory = tmp_path / "code"
    (directory / "data").mkdir(parents=True)
    (directory / "its_app.py").write_text(textwrap.dedent(APP))
    (directory / "helper.py").write_text('WORD = "one"\n')
    (directory / "data/words.txt").write_text("read from the working directory")
    (directory / "data/large.bin").write_text("not needed")
    return directory


def run_slipknot(
    cluster: TcpCluster, *arguments: str, cwd: str | Path = "/"
) -> subprocess.CompletedProcess[str]:
    """Run the command against this cluster, somewhere else."""
    return subprocess.run(
        [sys.executable, "-m", "slipknot", *arguments, "--address", cluster.address],
        env={**os.environ, **cluster.credentials.environment()},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )


def slipknot(cluster: TcpCluster, *arguments: str) -> str:
    """The same, of a command that succeeds; what it printed."""
    done = run_slipknot(cluster, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_working_dir_is_uploaded_to_the_nodes(cluster: TcpCluster, code: Path, tmp_path: Path) -> None:
    slipknot(cluster, "deploy", "its_app:app", "--working-dir", str(code))
    answer = httpx.get(cluster.url).json()
    assert answer == {
        "word": "one",
        "data": "read from the working directory",
        "gpus": answer["gpus"],
        "files": ["helper.py", "its_app.py", "large.bin", "words.txt"],
    }
    assert answer["gpus"] in ("0", "1")
    # By a config file, after a change; the node builds it, and leaves out what is excluded.
    (code / "helper.py").write_text('WORD = "two"\n')
    config = tmp_path / "config.yaml"
    config.write_text(
        "applications: [{import_path: 'its_app:app', runtime_env: "
        f"{{working_dir: '{code}', excludes: ['*.bin']}}}}]"
    )
    slipknot(cluster, "deploy", str(config))
    answer = httpx.get(cluster.url).json()
    assert (answer["word"], answer["files"]) == ("two", ["helper.py", "its_app.py", "words.txt"])
    version = application().deployments[0].replicas[0].replica_id
    slipknot(cluster, "deploy", str(config))  # the same content is the same version
    assert application().deployments[0].replicas[0].replica_id == version


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"working_dir": "code/helper.py"}, r"'code/helper.py' \(.*\) is a file; give the directory"),
        ({"working_dir": "elsewhere"}, r"'elsewhere' \(.*\) does not exist"),
        ({"working_dir": "/elsewhere"}, r"ImportError: the working_dir '/elsewhere' does not exist here"),
        ({}, "ImportError: import path 'its_app:app': there is no module 'its_app'"),
        ({"pip": ["numpy"]}, r"applications\.0\.runtime_env\.pip: is not supported; install what"),
    ],
)
def test_code_that_cannot_be_had_is_named_without_our_own_frames(
    cluster: TcpCluster, code: Path, environment: dict[str, Any], words: str
) -> None:
    config = code.parent / "config.yaml"
    application = {"import_path": "its_app:app", "runtime_env": environment}
    config.write_text(json.dumps({"applications": [application]}))
    done = run_slipknot(cluster, "deploy", str(config), cwd=code.parent)
    assert done.returncode == 1 and re.search(words, done.stderr), done.stderr
    assert "slipknot_replica" not in done.stderr


def test_archives_that_the_cluster_does_not_have_or_take(cluster: TcpCluster, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        f"applications: [{{import_path: 'its_app:app', runtime_env: {{archive: '{'0' * 64}'}}}}]"
    )
    slipknot(cluster, "deploy", "--no-wait", str(config))
    assert "has no archive" in wait_for_status("DEPLOY_FAILED").message
    connection = _connection.current()
    (tmp_path / "d").mkdir()
    (tmp_path / "d/x.py").write_text("1")

    async def upload_wrong() -> None:
        from slipknot import _upload

        await _upload._upload(connection, digest_of(b"something else"), b"x" * 10)

    with pytest.raises(SlipknotServeException, match="is not"):
        connection.run(upload_wrong())
    digests = [connection.run(upload_directory(connection, tmp_path / "d")) for _ in range(2)]
    assert digests[0] == digests[1]

    async def together() -> list[str]:
        (tmp_path / "d/y.py").write_text("2")
        return await asyncio.gather(*(upload_directory(connection, tmp_path / "d") for _ in range(3)))

    assert len(set(connection.run(together()))) == 1


def test_what_a_node_that_drains_had_goes_to_others_at_once(
    cluster: TcpCluster, journal: Journal, tmp_path: Path
) -> None:
    """And not to itself, which has the fewest replicas then; it has work until the gate opens."""
    gate, pen = Gate(tmp_path / "gate"), journal.pen

    @serve.deployment(num_replicas=2, ray_actor_options={"num_cpus": 0})
    class Held:
        async def hold(self) -> None:
            pen.note("in")
            await gate.passed()

    handle = serve.run(Held.bind())
    held = [handle.hold.remote() for _ in range(8)]
    journal.wait_for("in", 8)
    node = cluster.nodes[0]
    try:
        node.signal(signal.SIGTERM)
        wait_until(lambda: places() == [("node-1", ()), ("node-1", ())])
        assert "node-0" in {n.node_id for n in cluster_status().nodes}  # it still works
        gate.open()
        for response in held:
            response.result(timeout_s=WAIT_S)
        wait_until(lambda: {n.node_id for n in cluster_status().nodes} == {"node-1"})
    finally:
        gate.open()
        node.end()
        node.start()
