"""The examples of the HTTP guide, as their readers run them: as scripts, and with `slipknot run`.

The scripts use port 8000 as the guide has it, so they run one at a time, also across test runs.
"""

import contextlib
import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx
import pytest
import yaml
from websockets.sync.client import connect

from tests.support.console import own_output
from tests.support.processes import descendants, is_alive

pytestmark = pytest.mark.timeout(90)

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "guide"
APPLICATIONS = sorted(path for path in EXAMPLES.glob("*.py") if path.stem != "websocket_client")
WAIT_S = 40.0
"""Nothing that is waited for takes this long; a bound, not an expectation."""
DEFAULT_KEEP_ALIVE_S = 5


class Console:
    """A command and what it writes; both streams in one, as on a terminal."""

    def __init__(self, arguments: Sequence[str], cwd: Path, env: dict[str, str]) -> None:
        self._file = tempfile.NamedTemporaryFile()  # noqa: SIM115 - `close` closes it
        self.process = subprocess.Popen(
            [sys.executable, "-u", *arguments],
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=self._file,
            stderr=subprocess.STDOUT,
        )

    @property
    def output(self) -> str:
        return Path(self._file.name).read_text()

    def wait_for(self, pattern: str) -> str:
        """Wait until the output matches; returns the first group, or all of the match."""
        deadline_s = time.monotonic() + WAIT_S
        while not (match := re.search(pattern, self.output, re.MULTILINE)):
            assert time.monotonic() < deadline_s and self.process.poll() is None, (pattern, self.output)
            time.sleep(0.01)
        return match.group(match.lastindex or 0)

    def end(self) -> None:
        """Wait for its end."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(WAIT_S)

    def interrupt(self) -> int:
        """Ctrl-C; returns the exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(WAIT_S)

    def close(self) -> None:
        """End it, however it is."""
        if self.process.poll() is None:
            try:
                self.interrupt()
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._file.close()


Start = Callable[..., Console]
RunScript = Callable[..., str]


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    """Start Python with arguments; what is still there at the end gets a Ctrl-C."""
    started: list[Console] = []
    with tempfile.TemporaryDirectory(prefix="sk-", dir="/tmp") as directory:  # short: sockets go in there
        base = {"SLIPKNOT_RUNTIME_DIR": f"{directory}/r", "NO_COLOR": "1", "COLUMNS": "200"}

        def begin(*arguments: str, cwd: Path = ROOT, **env: str) -> Console:
            started.append(Console(arguments, cwd, {**os.environ, **base, **env}))
            return started[-1]

        yield begin
        for console in started:
            console.close()


@pytest.fixture
def port_8000() -> Iterator[None]:
    """Port 8000 is ours."""
    with open(Path(tempfile.gettempdir()) / "slipknot-tests-port-8000.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        deadline_s = time.monotonic() + WAIT_S
        while not is_free(8000):
            assert time.monotonic() < deadline_s, "somebody else serves on port 8000"
            time.sleep(0.05)
        yield


@pytest.fixture
def run_script(start: Start, port_8000: None, tmp_path: Path) -> RunScript:
    """Run an example to its end, without lines that contain one of `without`; returns its output."""

    def run(name: str, *, without: Sequence[str] = ()) -> str:
        path = EXAMPLES / name
        if without:
            lines = path.read_text().splitlines()
            kept = [line for line in lines if not any(part in line for part in without)]
            assert len(kept) == len(lines) - len(without)
            path = tmp_path / name
            path.write_text("\n".join(kept))
        console = start(str(path), cwd=path.parent)
        console.wait_for(r"Added \d+ replica")
        children = descendants(console.process.pid)
        console.end()
        assert console.process.returncode == 0, console.output
        assert "Traceback" not in console.output
        assert "cleanup_failed" not in console.output, "the handlers of the guide do nothing wrong"
        assert children
        assert not any(map(is_alive, children))
        assert is_free(8000)
        return console.output

    return run


def is_free(port: int) -> bool:
    """Nobody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def own_lines(output: str) -> list[str]:
    """What the script itself printed: neither logs nor what other processes printed."""
    return [line for line in own_output(output).splitlines() if not re.match(r"\(|[A-Z]+ \d{4}-", line)]


def words_of(output: str, replica: str) -> list[str]:
    """What a replica printed, in order, without its logs."""
    lines = re.findall(rf"^\(ServeReplica:{replica} pid=\d+\) (.*)$", output, re.MULTILINE)
    return [line for line in lines if not re.match(r"[A-Z]+ \d{4}-", line)]


# --- as scripts ---


@pytest.mark.parametrize("path", APPLICATIONS, ids=lambda path: path.stem)
def test_only_the_import_is_ours(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if re.search(r"\bslipknot\b", line)]
    assert lines == ["from slipknot import serve"]


@pytest.mark.parametrize(
    ("name", "last_line"),
    [
        ("starlette_handler.py", "{'a': 'b', 'c': 'd'}"),
        ("fastapi_hello.py", "Hello, world!"),
        ("fastapi_multi_routes.py", "Hello from Serve!"),
        ("fastapi_bring_your_own.py", "Hello from the root!"),
    ],
)
def test_a_request_and_its_answer(run_script: RunScript, name: str, last_line: str) -> None:
    assert own_lines(run_script(name)) == [last_line]


def test_single_requests_are_answered_in_batches(run_script: RunScript) -> None:
    output = run_script("../batching.py")
    assert own_lines(output) == [str([str(n * n) for n in range(16)]), "['0 1 ', '0 1 2 ']"]
    sizes = [int(size) for size in re.findall(r"a batch of (\d+)", output)]
    assert sum(sizes) == 16 and len(sizes) < 16


def test_requests_go_where_their_model_is(run_script: RunScript) -> None:
    output = run_script("../multiplexing.py")
    names = ("ant", "bee", "cat", "dog", "eel")
    assert own_lines(output) == [f"{name} answers {question}" for question in range(2) for name in names]
    loaded = [output.count(f"loading {name}") for name in names]
    assert min(loaded) == 1 and sum(loaded) < 10  # five; more if the machine is too busy to tell in time
    assert "unloaded" in output


def test_a_client_that_leaves(run_script: RunScript) -> None:
    output = run_script("disconnect.py")
    assert words_of(output, "default_startled") == ["Replica received request!", "Request got cancelled!"]
    assert own_lines(output) == ["The client has left."]
    assert re.search(r"^\(ServeReplica:.*GET / CANCELLED ", output, re.MULTILINE)


def test_a_shielded_call_goes_on(run_script: RunScript) -> None:
    output = run_script("shield.py")
    assert words_of(output, "default_SnoringSleeper") == [
        "SnoringSleeper received request!",
        "SnoringSleeper's request was cancelled!",
        "ZZZ",
    ]


def test_numbers_come_one_by_one(run_script: RunScript) -> None:
    output = run_script("stream_numbers.py")
    results = re.findall(r"^Got result (\d\.\d)s after start: '(\d+)'$", output, re.MULTILINE)
    assert [number for _, number in results] == [str(number) for number in range(10)]
    assert len(results) == len(own_lines(output))
    times = [float(time_s) for time_s, _ in results]
    assert times == sorted(times)
    assert times[-1] > times[0], "they came all at once"
    assert re.search(
        r"^\(ServeReplica:default_StreamingResponder pid=\d+\) .*GET / 200 ", output, re.MULTILINE
    )


@pytest.mark.parametrize(
    "without", [(), ("time.sleep(0.5)", "response.close()")], ids=["as it is", "without a pause at the end"]
)
def test_a_stream_ends_when_its_client_leaves(run_script: RunScript, without: Sequence[str]) -> None:
    output = run_script("stream_until_disconnect.py", without=without)
    own = own_lines(output)
    assert [line.partition(" start: ")[2] for line in own[:-1]] == [f"'{number}'" for number in range(11)]
    assert own[-1] == "Client disconnecting"
    assert words_of(output, "default_StreamingResponder") == ["Cancelled! Exiting."]
    assert output.index("Client disconnecting") < output.index("Cancelled! Exiting.")


def test_a_websocket_echo_and_its_client(run_script: RunScript) -> None:
    output = run_script("websocket_echo.py")
    assert own_lines(output) == ["Every echo came back."]
    assert words_of(output, "default_EchoServer") == ["Client disconnected."]


# --- keep-alive ---


def idle_time_s(url: str) -> float:
    """How long, from a request on, a connection stays open."""
    host, _, port = url.removeprefix("http://").rstrip("/").partition(":")
    with socket.create_connection((host, int(port)), timeout=WAIT_S) as connection:
        started_s = time.monotonic()
        connection.sendall(b"GET /?a=b HTTP/1.1\r\nhost: test\r\n\r\n")
        received = b""
        while data := connection.recv(65536):
            received += data
    assert received.startswith(b"HTTP/1.1 200 "), received
    assert received.endswith(b'{"a":"b"}'), received
    return time.monotonic() - started_s


@pytest.mark.parametrize(
    ("env", "expected_s"),
    [
        ({}, 2),
        ({"SLIPKNOT_SERVE_HTTP_KEEP_ALIVE_TIMEOUT_S": "3"}, 3),
        ({"RAY_SERVE_HTTP_KEEP_ALIVE_TIMEOUT_S": "3"}, 3),
    ],
    ids=["config file", "environment", "environment by its old name"],
)
def test_keep_alive(start: Start, port_8000: None, env: dict[str, str], expected_s: int) -> None:
    console = start("-m", "slipknot", "run", "examples/guide/keep_alive.yaml", **env)
    url = console.wait_for(r"serves at (http://\S+)")
    assert url == "http://127.0.0.1:8000/"
    assert expected_s <= idle_time_s(url) < DEFAULT_KEEP_ALIVE_S
    assert console.interrupt() == 0


# --- with `slipknot run` ---


@pytest.fixture(scope="module")
def deployed(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Console, str]]:
    """All examples in one cluster, each under a prefix of its own: the console, and the URL."""
    names = [path.stem for path in APPLICATIONS]
    applications = [
        {"name": name, "route_prefix": f"/{name}", "import_path": f"examples.guide.{name}:app"}
        for name in names
    ]
    config = tmp_path_factory.mktemp("guide") / "all.yaml"
    config.write_text(yaml.safe_dump({"http_options": {"port": 0}, "applications": applications}))
    console = start("-m", "slipknot", "run", str(config))
    urls = {console.wait_for(rf"'{name}' serves at (http://\S+)/{name}$") for name in names}
    assert len(urls) == 1
    yield console, urls.pop()
    children = descendants(console.process.pid)
    assert console.interrupt() == 0
    assert children
    assert not any(map(is_alive, children))


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/starlette_handler?a=b&c=d", {"a": "b", "c": "d"}),
        ("GET", "/fastapi_hello", "Hello, world!"),
        ("GET", "/fastapi_hello/", "Hello, world!"),
        ("GET", "/fastapi_multi_routes", "Hello, world!"),
        ("POST", "/fastapi_multi_routes/Serve", "Hello from Serve!"),
        ("GET", "/fastapi_bring_your_own", "Hello from the root!"),
    ],
)
def test_deployed_together(deployed: tuple[Console, str], method: str, path: str, body: object) -> None:
    _, url = deployed
    assert httpx.request(method, url + path, follow_redirects=True).json() == body


def test_documentation_is_generated(deployed: tuple[Console, str]) -> None:
    _, url = deployed
    schema = httpx.get(f"{url}/fastapi_multi_routes/openapi.json").json()
    assert {path: set(methods) for path, methods in schema["paths"].items()} == {
        "/": {"get"},
        "/{subpath}": {"post"},
    }
    assert "/fastapi_multi_routes/openapi.json" in httpx.get(f"{url}/fastapi_multi_routes/docs").text


def test_cancellations_of_deployed_examples(deployed: tuple[Console, str]) -> None:
    console, url = deployed
    for name, received, cancelled in (
        ("disconnect", "Replica received request!", "Request got cancelled!"),
        ("shield", "SnoringSleeper received request!", "SnoringSleeper's request was cancelled!"),
    ):
        host, _, port = url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(f"GET /{name} HTTP/1.1\r\nhost: test\r\n\r\n".encode())
            console.wait_for(rf"^\(ServeReplica:{name}_\w+ pid=\d+\) {received}$")
            assert cancelled not in console.output
        console.wait_for(rf"^\(ServeReplica:{name}_\w+ pid=\d+\) {cancelled}$")
    console.wait_for(r"^\(ServeReplica:shield_SnoringSleeper pid=\d+\) ZZZ$")


def test_streams_of_deployed_examples(deployed: tuple[Console, str]) -> None:
    console, url = deployed
    with httpx.stream("GET", f"{url}/stream_until_disconnect") as response:
        chunks = response.iter_text()
        assert [next(chunks) for _ in range(3)] == ["0", "1", "2"]
        assert "Cancelled! Exiting." not in console.output
    console.wait_for(r"^\(ServeReplica:stream_until_disconnect_\w+ pid=\d+\) Cancelled! Exiting\.$")
    assert httpx.get(f"{url}/stream_numbers?max=3").text == "012"
    assert httpx.get(f"{url}/stream_numbers?max=0").text == ""


def test_websocket_of_deployed_examples(deployed: tuple[Console, str]) -> None:
    console, url = deployed
    with connect(url.replace("http:", "ws:") + "/websocket_echo/") as websocket:
        for text in ("Eureka!", "I've found it!"):
            websocket.send(text)
            assert websocket.recv(WAIT_S) == text
    console.wait_for(r"^\(ServeReplica:websocket_echo_EchoServer pid=\d+\) Client disconnected\.$")
