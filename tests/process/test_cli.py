"""The `slipknot` command as its users run it: in a process of its own."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.support.processes import descendants, is_alive

WAIT_S = 30.0
"""Nothing that is waited for takes this long; a bound, not an expectation."""
COMMAND = (sys.executable, "-m", "slipknot")

APP = """
    import asyncio, os
    from slipknot import serve

    @serve.deployment
    class Says:
        def __init__(self, text):
            self.text = text

        async def __call__(self, request):
            if request.query_params.get("hang"):
                print("hanging", flush=True)
                await asyncio.Event().wait()
            return self.text

    app = Says.bind("hello")

    def build(args):
        return Says.bind(args["text"] + args.get("end", "."))

    @serve.deployment
    class Broken:
        def __init__(self):
            raise ZeroDivisionError("no luck today")

        def __call__(self):
            return "never"

    broken = Broken.bind()
    scaled = Says.options(autoscaling_config={"min_replicas": 2, "max_replicas": 3}).bind("scaled")
    OPTIONS = {
        "num_replicas": 2,
        "max_queued_requests": 9,
        "max_replicas_per_node": 2,
        "rolling_update_percentage": 0.5,
        "max_surge_percent": 0.1,
        "placement_strategy": "pack",
        "ray_actor_options": {"num_cpus": 0.1, "runtime_env": {"env_vars": {"A": "b"}}},
    }
    tuned = Says.options(**OPTIONS, user_config={"sizes": (1, 2)}).bind("tuned")
    not_an_app = 42
"""


class Running:
    """A command that goes on; its output is read along."""

    def __init__(self, arguments: Sequence[str], app_dir: Path, env: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=app_dir,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._lines: list[str] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @property
    def output(self) -> str:
        with self._news:
            return "".join(self._lines)

    def wait_for(self, pattern: str, count: int = 1) -> re.Match[str]:
        """Wait until the output matches so many times; returns the last match."""

        def found() -> list[re.Match[str]]:
            return list(re.finditer(pattern, "".join(self._lines)))

        with self._news:
            assert self._news.wait_for(
                lambda: len(found()) >= count or not self._reader.is_alive(), WAIT_S
            ), f"{pattern!r} did not come:\n{''.join(self._lines)}"
            assert len(found()) >= count, f"{pattern!r} did not come:\n{''.join(self._lines)}"
            return found()[-1]

    def url(self) -> str:
        """Wait until it serves."""
        return self.wait_for(r"serves at (http://\S+)").group(1)

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def wait(self) -> int:
        """Wait for its end; returns the exit status."""
        status = self.process.wait(WAIT_S)
        self._reader.join(WAIT_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self._lines.append(line)
                self._news.notify_all()


@pytest.fixture(scope="module")
def env() -> Iterator[dict[str, str]]:
    """An environment in which no other cluster is found."""
    directory = tempfile.mkdtemp(prefix="sk-", dir="/tmp")  # short: Unix sockets go in there
    yield {**os.environ, "SLIPKNOT_RUNTIME_DIR": f"{directory}/r", "COLUMNS": "120", "NO_COLOR": "1"}
    shutil.rmtree(directory)


@pytest.fixture
def usual_env(env: dict[str, str]) -> dict[str, str]:
    """The same, where a test's `env` is what it changes."""
    return env


@pytest.fixture
def app_dir(tmp_path: Path) -> Path:
    """A directory with an application."""
    (tmp_path / "cli_app.py").write_text(textwrap.dedent(APP))
    return tmp_path


@pytest.fixture
def command(app_dir: Path, usual_env: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command to its end."""

    def run(
        *arguments: str, stdin: str = "", env: Mapping[str, str] = {}
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *arguments],
            cwd=app_dir,
            env={**usual_env, **env},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
        )

    return run


@pytest.fixture
def start(app_dir: Path, usual_env: dict[str, str]) -> Iterator[Callable[..., Running]]:
    """Start a command that goes on; ended with the test."""
    started: list[Running] = []

    def begin(*arguments: str, env: Mapping[str, str] = {}) -> Running:
        started.append(Running(arguments, app_dir, {**usual_env, **env}))
        return started[-1]

    yield begin
    for running in started:
        running.process.kill()
        running.wait()


def is_open(url: str) -> bool:
    """Somebody listens there."""
    host, _, port = url.removeprefix("http://").partition("/")[0].partition(":")
    try:
        socket.create_connection((host, int(port))).close()
    except ConnectionRefusedError:
        return False
    return True


def write_config(directory: Path, **changes: Any) -> str:
    """A config of one application, with its HTTP port chosen by the system."""
    application = {"import_path": "cli_app:build", "args": {"text": "configured"}}
    config = {"http_options": {"port": 0}, "applications": [application], **changes}
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    return "config.yaml"


# --- run ---


def test_run_serves_an_import_path_until_ctrl_c(start: Callable[..., Running]) -> None:
    running = start("run", "cli_app:app", "--port", "0")
    url = running.url()
    assert httpx.get(url).text == "hello"
    children = descendants(running.process.pid)
    running.interrupt()
    assert running.wait() == 0
    assert "Traceback" not in running.output
    assert not is_open(url)
    assert not any(map(is_alive, children))


def test_run_hears_an_interrupt_that_its_parent_had_ignored(start: Callable[..., Running]) -> None:
    """Shells without job control start what is in the background that way."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        running = start("run", "cli_app:app", "--port", "0")
    finally:
        signal.signal(signal.SIGINT, before)
    assert httpx.get(running.url()).text == "hello"
    running.interrupt()
    assert running.wait() == 0


def test_run_ends_in_order_when_it_is_terminated(start: Callable[..., Running]) -> None:
    """As containers and services are stopped: what runs is finished, destructors are called."""
    running = start("run", "cli_app:app", "--port", "0")
    children = descendants(running.process.pid)
    assert httpx.get(running.url()).text == "hello"
    running.process.terminate()
    assert running.wait() == 0
    assert "Shutting down." in running.output
    assert "replica_drained" in running.output
    assert not any(map(is_alive, children))


def test_run_passes_arguments_to_the_builder(start: Callable[..., Running]) -> None:
    running = start("run", "cli_app:build", "text=a=b", "end=!", "--port", "0", "--route-prefix", "/x")
    assert running.url().endswith("/x")
    assert httpx.get(running.url()).text == "a=b!"


def test_run_serves_a_config(start: Callable[..., Running], app_dir: Path) -> None:
    running = start("run", write_config(app_dir))
    url = running.url()
    assert httpx.get(url).text == "configured."
    running.interrupt()
    assert running.wait() == 0
    assert not is_open(url)


def test_run_ends_at_an_interrupt_that_was_swallowed(start: Callable[..., Running], app_dir: Path) -> None:
    """As it is in the import of a library that is not written in Python, which can only print it."""
    file = app_dir / "cli_app.py"
    swallowed = """
    class Finalised:
        def __del__(self):
            print("importing", flush=True)
            threading.Event().wait()

    import threading
    Finalised()
    """
    file.write_text(textwrap.dedent(swallowed) + file.read_text())
    running = start("run", "cli_app:app", "--port", "0")
    running.wait_for("importing")
    running.interrupt()
    assert running.wait() == 0
    assert "serves at" not in running.output


@pytest.mark.timeout(90)
def test_ctrl_c_twice_ends_at_once_whatever_still_runs(start: Callable[..., Running]) -> None:
    running = start("run", "cli_app:app", "--port", "0")
    url = running.url()
    children = descendants(running.process.pid)

    def ask() -> None:
        with contextlib.suppress(httpx.HTTPError):
            httpx.get(f"{url}?hang=1", timeout=60)

    client = threading.Thread(target=ask)
    client.start()
    running.wait_for("hanging")
    running.interrupt()
    running.wait_for("Shutting down")
    running.interrupt()
    running.wait()
    client.join(WAIT_S)
    assert "Traceback" not in running.output
    deadline_s = time.monotonic() + WAIT_S
    while any(map(is_alive, children)):
        assert time.monotonic() < deadline_s
        time.sleep(0.005)
    assert not is_open(url)


def test_run_reloads_when_a_file_changes(start: Callable[..., Running], app_dir: Path) -> None:
    running = start("run", "cli_app:app", "--port", "0", "--reload")
    url = running.url()
    file = app_dir / "cli_app.py"
    file.write_text(file.read_text().replace("Says.bind(", "Says.bind('re' + "))
    running.wait_for("serves at", 2)
    assert httpx.get(url).text == "rehello"
    file.write_text("this is no Python")
    running.wait_for("SyntaxError")
    assert httpx.get(url).text == "rehello"
    file.write_text(textwrap.dedent(APP))
    running.wait_for("serves at", 3)
    assert httpx.get(url).text == "hello"


def test_run_reloads_beside_a_file_that_cannot_be_looked_at(
    start: Callable[..., Running], app_dir: Path
) -> None:
    """Editors and version control make and remove files at any moment; a link to nothing stands for them."""
    (app_dir / "gone.py").symlink_to(app_dir / "nowhere.py")
    running = start("run", "cli_app:app", "--port", "0", "--reload")
    url = running.url()
    file = app_dir / "cli_app.py"
    file.write_text(file.read_text().replace("Says.bind(", "Says.bind('re' + "))
    running.wait_for("serves at", 2)
    assert httpx.get(url).text == "rehello"


@pytest.mark.parametrize("option", ["--non-blocking", "--no-blocking"])
def test_run_that_does_not_block_ends_once_it_serves(command: Any, option: str) -> None:
    done = command("run", "cli_app:app", option, "--port", "0")
    assert done.returncode == 0, done.stderr
    assert "serves at http://" in done.stdout + done.stderr


def test_run_of_a_constructor_that_fails_ends_with_its_traceback(command: Any) -> None:
    done = command("run", "cli_app:broken", "--port", "0")
    assert done.returncode == 1
    assert "ZeroDivisionError: no luck today" in done.stderr
    assert 'cli_app.py", line' in done.stderr


def test_run_with_a_port_that_is_taken_says_so(command: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = command("run", "cli_app:app", "--port", str(port))
    assert done.returncode == 1
    assert f"127.0.0.1:{port}" in done.stderr
    assert "in use" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere:app"], "nowhere"),
        (["cli_app:nothing"], "nothing"),
        (["cli_app:not_an_app"], "42|int"),
        (["a:b:c"], "more than one ':'"),
        (["cli_app:app", "text=x"], "arg"),
        (["cli_app:build", "text"], "KEY=VALUE"),
        (["missing.yaml"], "missing.yaml"),
    ],
)
def test_run_names_what_it_cannot_run(command: Any, arguments: list[str], message: str) -> None:
    done = command("run", *arguments, "--port", "0")
    assert done.returncode == 1
    assert re.search(message, done.stderr)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("import not_installed_here", r"ModuleNotFoundError: .*'not_installed_here'"),
        ("raise RuntimeError('not today')", "RuntimeError: not today"),
        ("def f(:", "SyntaxError"),
        ("def app():\n    raise ValueError('not built')", "ValueError: not built"),
        ("from slipknot import serve\nserve.deployment(max_ongoing_requests=0)", "ValueError: max_ongoing"),
    ],
)
def test_what_the_users_own_code_raises_is_shown_with_its_line(
    command: Any, app_dir: Path, module: str, expected: str
) -> None:
    (app_dir / "faulty.py").write_text(module)
    done = command("run", "faulty:app", "--port", "0")
    assert done.returncode == 1
    assert re.search(expected, done.stderr)
    assert re.search(r'faulty.py", line [12]', done.stderr)
    assert "importlib" not in done.stderr
    assert "call_user_code" not in done.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("applications: [", r"config.yaml is not YAML: line \d"),
        ("- 1", "must hold a mapping"),
        ("aplications: []", "aplications"),
        ("applications: [{name: a}]", r"applications\[?\.?0\]?\.import_path"),
        ("applications: [{import_path: 'a:b:c'}]", r"applications\[?\.?0\]?\.import_path"),
        (
            "applications: [{name: a, import_path: 'm:a', route_prefix: /a}, "
            "{name: a, import_path: 'm:a', route_prefix: /b}]",
            "applications.* same name: 'a'",
        ),
        (
            "applications: [{name: a, import_path: 'm:a'}, {name: b, import_path: 'm:a'}]",
            "applications.* same route_prefix: '/'",
        ),
        (
            "applications: [{import_path: 'm:a', deployments: [{name: D, num_replicas: -1}]}]",
            r"deployments\[?\.?0\]?\.num_replicas",
        ),
        ("{http_options: {port: many}, applications: []}", r"http_options\.port"),
        ("applications: [{import_path: 'nowhere:app'}]", "nowhere"),
    ],
)
def test_an_invalid_config_is_refused_with_the_path_of_its_key(
    command: Any, app_dir: Path, text: str, message: str
) -> None:
    (app_dir / "config.yaml").write_text(text)
    done = command("run", "config.yaml", "--port", "0")
    assert done.returncode == 1
    assert re.search(message, done.stderr), done.stderr


# --- A cluster in the background ---


@pytest.fixture(scope="module")
def background(env: dict[str, str]) -> Iterator[str]:
    """A cluster started with `slipknot start`; gives its URL."""
    started = subprocess.run(
        [*COMMAND, "start", "--http-port", "0"], env=env, capture_output=True, text=True, timeout=WAIT_S
    )
    assert started.returncode == 0, started.stderr
    match = re.search(r"HTTP: (\S+),", started.stdout)
    assert match is not None, started.stdout
    yield f"http://{match.group(1)}"
    ended = subprocess.run(
        [*COMMAND, "shutdown", "-y"], env=env, capture_output=True, text=True, timeout=WAIT_S
    )
    assert ended.returncode == 0, ended.stderr
    assert not is_open(f"http://{match.group(1)}")


def test_nothing_is_deployed_at_first(background: str, command: Any) -> None:
    status = command("status")
    assert (status.returncode, yaml.safe_load(status.stdout)["applications"]) == (0, {})
    config = command("config")
    assert (config.returncode, config.stdout.strip()) == (0, "No config has been deployed.")


def test_deploy_status_config(background: str, command: Any, app_dir: Path) -> None:
    deployed = command("deploy", write_config(app_dir))
    assert deployed.returncode == 0, deployed.stderr
    assert httpx.get(background).text == "configured."
    status = yaml.safe_load(command("status").stdout)["applications"]["default"]
    assert (status["status"], status["deployments"]["Says"]["status"]) == ("RUNNING", "HEALTHY")
    assert yaml.safe_load(command("status", "-n", "default").stdout)["status"] == "RUNNING"
    config = yaml.safe_load(command("config").stdout)
    assert config["applications"][0]["import_path"] == "cli_app:build"
    assert yaml.safe_load(command("config", "-n", "default").stdout)["args"] == {"text": "configured"}
    assert command("status", "-n", "nobody").returncode == 1
    assert command("config", "-n", "nobody").returncode == 1


def test_deploy_of_an_import_path_adds_an_application(background: str, command: Any) -> None:
    done = command("deploy", "cli_app:build", "text=added", "--name", "added", "--route-prefix", "/added")
    assert done.returncode == 0, done.stderr
    assert httpx.get(f"{background}/added").text == "added."


def test_http_options_of_a_running_cluster_are_ignored_with_a_warning(
    background: str, command: Any, app_dir: Path
) -> None:
    done = command("deploy", write_config(app_dir, http_options={"port": 12345}))
    assert done.returncode == 0, done.stderr
    assert re.search(r"http_options.*(ignored|stay|restart)", done.stderr), done.stderr
    assert httpx.get(background).text == "configured."


def test_a_deploy_that_fails_ends_with_status_1(background: str, command: Any) -> None:
    done = command("deploy", "cli_app:broken", "--name", "broken", "--route-prefix", "/broken")
    assert done.returncode == 1
    assert "ZeroDivisionError: no luck today" in done.stderr


def test_run_with_a_running_cluster_starts_one_of_its_own(
    background: str, start: Callable[..., Running]
) -> None:
    running = start("run", "cli_app:app", "--port", "0")
    url = running.url()
    assert url != background
    running.interrupt()
    assert running.wait() == 0
    assert is_open(background)


def test_shutdown_asks_first(background: str, command: Any) -> None:
    done = command("shutdown", stdin="n\n")
    assert done.returncode == 1
    assert is_open(background)


def test_commands_are_for_the_cluster_in_the_background_rather_than_for_one_of_a_program(
    background: str, start: Callable[..., Running], command: Any
) -> None:
    url = start("run", "cli_app:app", "--port", "0").url()
    done = command("deploy", "cli_app:build", "text=behind", "--name", "behind", "--route-prefix", "/behind")
    assert done.returncode == 0, done.stderr
    assert httpx.get(f"{background}/behind").text == "behind."
    assert httpx.get(f"{url}/behind").text == "hello"  # the one application of the other cluster has "/"


def test_of_several_clusters_none_is_shut_down_by_chance(start: Callable[..., Running], command: Any) -> None:
    directory = tempfile.mkdtemp(prefix="sk-", dir="/tmp")
    own = {"SLIPKNOT_RUNTIME_DIR": directory}
    first, second = (start("run", "cli_app:app", "--port", "0", env=own).url() for _ in range(2))
    refused = command("shutdown", "-y", env=own)
    assert refused.returncode == 1
    for url in (first, second):
        assert url.removeprefix("http://").rstrip("/") in refused.stderr
        assert httpx.get(url).text == "hello"
    addresses = re.findall(r"unix:\S+", refused.stderr)
    done = command("shutdown", "-y", "--address", addresses[0], env=own)
    assert done.returncode == 0, done.stderr
    assert command("status", env=own).returncode == 0
    assert command("shutdown", "-y", env=own).returncode == 0
    assert not is_open(first) and not is_open(second)
    shutil.rmtree(directory)


# --- The rest ---


def test_without_a_cluster_each_command_says_so(command: Any, tmp_path: Path, env: dict[str, str]) -> None:
    env = {**env, "SLIPKNOT_RUNTIME_DIR": tempfile.mkdtemp(prefix="sk-", dir="/tmp")}
    for arguments, status in ((["status"], 1), (["config"], 1), (["shutdown", "-y"], 0)):
        done = subprocess.run([*COMMAND, *arguments], env=env, capture_output=True, text=True, timeout=WAIT_S)
        assert done.returncode == status
        assert "no cluster runs here" in (done.stdout + done.stderr).lower()
        assert "Traceback" not in done.stderr
    shutil.rmtree(env["SLIPKNOT_RUNTIME_DIR"])


def test_build_writes_a_config_that_runs(command: Any, start: Callable[..., Running], app_dir: Path) -> None:
    done = command("build", "cli_app:app", "-o", "built.yaml")
    assert done.returncode == 0, done.stderr
    config = yaml.safe_load((app_dir / "built.yaml").read_text())
    assert [d["name"] for d in config["applications"][0]["deployments"]] == ["Says"]
    running = start("run", "built.yaml", "--port", "0", "--host", "127.0.0.1")
    assert httpx.get(running.url()).text == "hello"


def test_build_writes_all_options_of_the_code(command: Any) -> None:
    """What the code says holds for whoever deploys the file as it was written."""
    done = command("build", "cli_app:scaled", "cli_app:tuned")
    assert done.returncode == 0, done.stderr
    scaled, tuned = (a["deployments"][0] for a in yaml.safe_load(done.stdout)["applications"])
    assert "num_replicas" not in scaled
    bounds = (scaled["autoscaling_config"][key] for key in ("min_replicas", "max_replicas"))
    assert tuple(bounds) == (2, 3)
    options = ("num_replicas", "max_queued_requests", "max_replicas_per_node", "rolling_update_percentage")
    assert [tuned[option] for option in options] == [2, 9, 2, 0.5]
    assert (tuned["max_surge_percent"], tuned["placement_strategy"]) == (0.1, "pack")
    assert tuned["user_config"] == {"sizes": [1, 2]}
    assert tuned["ray_actor_options"] == {"num_cpus": 0.1, "runtime_env": {"env_vars": {"A": "b"}}}


def test_build_of_several_gives_each_a_name_and_a_prefix(command: Any) -> None:
    config = yaml.safe_load(command("build", "cli_app:app", "cli_app:broken").stdout)
    assert [(a["name"], a["route_prefix"]) for a in config["applications"]] == [
        ("app1", "/app1"),
        ("app2", "/app2"),
    ]


@pytest.mark.parametrize(
    "name",
    [
        "run",
        "start",
        "deploy",
        "status",
        "config",
        "build",
        "shutdown",
        "controller",
        "proxy",
        "node",
        "health",
    ],
)
def test_each_command_has_help(command: Any, name: str) -> None:
    done = command(name, "--help")
    assert done.returncode == 0
    assert re.match(rf"\s*usage: .*slipknot {name} ", done.stdout, re.IGNORECASE)


@pytest.mark.parametrize(
    "arguments", [["no-such-command"], ["run"], ["run", "cli_app:app", "--no-such-option"]]
)
def test_a_wrong_command_line_ends_with_status_2(command: Any, arguments: list[str]) -> None:
    done = command(*arguments)
    assert done.returncode == 2
    assert "Usage" in done.stderr


@pytest.mark.parametrize(
    ("role", "options", "message"),
    [
        ("controller", "{}", "address"),
        ("controller", '{"address": "0.0.0.0:0"}', "refusing to listen on '0.0.0.0:0'"),
        ("controller", '{"address": "unix:/tmp/x", "color": 1}', "color"),
        ("controller", "no json", "JSON"),
        ("proxy", "{}", "controller_address"),
        ("proxy", "no json", "JSON"),
        ("node", "{}", "controller_address"),
        ("node", '{"color": 1}', "color"),
        ("node", "no json", "JSON"),
    ],
)
def test_a_role_with_wrong_options_names_them(command: Any, role: str, options: str, message: str) -> None:
    done = command(role, "--config-json", options)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_roles_put_together_by_hand_make_a_cluster(
    start: Callable[..., Running], app_dir: Path, env: dict[str, str]
) -> None:
    directory = tempfile.mkdtemp(prefix="sk-", dir="/tmp")
    address, health = f"unix:{directory}/controller.sock", f"unix:{directory}/health.sock"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    start("controller", "--config-json", f'{{"address": "{address}"}}')
    start(
        "node",
        "--controller-address",
        address,
        "--node-id=here",
        "--socket-dir",
        directory,
        "--health-address",
        health,
    )
    options = {"controller_address": address, "node_id": "here", "gateway_port": 0}
    start("proxy", "--config-json", json.dumps(options), "--host=127.0.0.1", f"--port={port}")
    done = subprocess.run(
        [*COMMAND, "deploy", "cli_app:app", "-a", address],
        cwd=app_dir,
        env=env,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )
    assert done.returncode == 0, done.stderr
    with httpx.Client(transport=httpx.HTTPTransport(retries=10)) as client:
        assert client.get(f"http://127.0.0.1:{port}").text == "hello"
    for where, status in ((address, 0), (health, 0), (f"unix:{directory}/nobody.sock", 1)):
        assert subprocess.run([*COMMAND, "health", where], env=env, timeout=WAIT_S).returncode == status
    end = [*COMMAND, "shutdown", "-y", "-a", address]
    ended = subprocess.run(end, env=env, capture_output=True, text=True, timeout=WAIT_S)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "All applications have ended" in ended.stdout
    assert "The cluster has ended" not in ended.stdout
    assert subprocess.run([*COMMAND, "health", address], env=env, timeout=WAIT_S).returncode == 0
    shutil.rmtree(directory)
