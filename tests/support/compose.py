"""A cluster of containers, put up by `docker compose`, and what may befall its members."""

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import httpx

from slipknot_core.rpc.channel import new_blocking_channel, token_metadata
from slipknot_core.rpc.credentials import Credentials
from slipknot_proto.v1 import controller_pb2, controller_pb2_grpc

ROOT = Path(__file__).parents[2]
COMMAND_S = 180.0
"""Bound of one docker command; a build is the longest."""
WAIT_S = 60.0
"""Nothing that is waited for takes this long; a bound, not an expectation."""
POLL_S = 0.05


def why_no_engine() -> str:
    """Why containers cannot be run here; empty if they can."""
    for command in (("docker", "version"), ("docker", "compose", "version")):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S)
        except OSError as error:
            return f"there is no Docker: {error}"
        if done.returncode:
            return f"`{' '.join(command)}` says: {done.stderr.strip()[-200:]}"
    return ""


def docker(*arguments: str) -> str:
    """Run a docker command; its output."""
    return _checked(["docker", *arguments], {})


def build_on(base: str, image: str) -> None:
    """Make another image that has all that `base` has."""
    dockerfile = f"FROM {base}\nLABEL made-for={image}\n"
    _checked(["docker", "build", "--quiet", "--tag", image, "-"], {}, text=dockerfile)


class Compose:
    """One project. Use as a context manager: it is taken down at the end, with its volumes."""

    def __init__(self, *files: str, project: str, proxies: int, demo: str = "") -> None:
        self.project = project
        self.ports = _free_ports(2 * proxies)
        self.urls = [f"http://127.0.0.1:{port}" for port in self.ports[:proxies]]
        names: tuple[str, ...] = (
            "SLIPKNOT_HTTP_PORT",
            "SLIPKNOT_HTTP_PORT_2",
            "SLIPKNOT_GATEWAY_PORT",
            "SLIPKNOT_GATEWAY_PORT_2",
        )
        if proxies == 1:
            names = names[::2]
        self.environ = dict(zip(names, map(str, self.ports), strict=True)) | {
            "SLIPKNOT_LOG_LEVEL": "INFO",
            "COMPOSE_PROJECT_NAME": project,
            "COMPOSE_FILE": os.pathsep.join(str(ROOT / file) for file in files),
        }
        """With these variables, `docker compose` means this project."""
        if demo:
            self.environ["SLIPKNOT_DEMO"] = demo
        self._credentials: Credentials | None = None

    def __enter__(self) -> "Compose":
        return self

    def __exit__(self, *_: object) -> None:
        self("kill")
        wait_until(self._is_down, f"{self.project} is down")

    def __repr__(self) -> str:
        return f"<Compose {self.project}>"

    def __call__(self, *arguments: str, **environ: str) -> str:
        """Run a compose command, with further variables; its output."""
        return _checked(["docker", "compose", *arguments], self.environ | environ)

    def _is_down(self) -> bool:
        try:
            self("down", "--volumes", "--remove-orphans", "--timeout", "1")
        except CommandFailed as error:
            # Docker frees the address of a container a moment after it has removed the container.
            if "has active endpoints" in str(error):
                return False
            raise
        return True

    def containers(self, *services: str) -> list[str]:
        """Ids of the running containers of some services."""
        return self("ps", "--quiet", "--status", "running", *services).split()

    def one(self, service: str) -> str:
        """The id of a service's only container, running or not."""
        (found,) = self("ps", "--all", "--quiet", service).split()
        return found

    def logs(self, *services: str) -> str:
        """What they have written, each line with its container's name."""
        return self("logs", "--no-color", *services)

    def status(self) -> Any:
        """What a controller that answers says; None if none does."""
        for container in self.controllers():
            try:
                with new_blocking_channel(f"{address_of(container)}:7000", self.credentials) as channel:
                    stub = controller_pb2_grpc.ControllerServiceStub(channel)
                    response = stub.GetStatus(
                        controller_pb2.GetStatusRequest(),
                        timeout=2.0,
                        metadata=token_metadata(self.credentials),
                    )
            except (
                grpc.RpcError,
                CommandFailed,
            ):  # it does not answer, or its container is just being replaced
                continue
            if response.status.epoch:
                return response.status
        return None

    def scale(self, deployment: str, count: int) -> None:
        """Change a deployment's number of replicas."""
        request = controller_pb2.ScaleDeploymentRequest(
            app_name="default", deployment_name=deployment, num_replicas=count
        )
        for container in self.controllers():
            try:
                with new_blocking_channel(f"{address_of(container)}:7000", self.credentials) as channel:
                    controller_pb2_grpc.ControllerServiceStub(channel).ScaleDeployment(
                        request, timeout=5.0, metadata=token_metadata(self.credentials)
                    )
                return
            except grpc.RpcError as error:
                failure = error
        raise AssertionError(f"no controller would: {failure}")

    def answer(self) -> list[str]:
        """Who of the demo answered, hop by hop; empty if it does not serve yet."""
        with contextlib.suppress(httpx.HTTPError, ValueError):
            response = httpx.get(self.urls[0], timeout=10)
            if response.status_code == 200:
                hops: list[str] = response.json()
                return hops
        return []

    def replicas(self) -> dict[str, str]:
        """Node ids by replica id, of all that run."""
        return {replica.replica_id: replica.node_id for replica in self.running()}

    def running(self) -> list[Any]:
        """All replicas that run, as the status has them."""
        status = self.status()
        applications = () if status is None else status.applications
        return [r for a in applications for d in a.deployments for r in d.replicas if r.state == "RUNNING"]

    @property
    def credentials(self) -> Credentials:
        """Those of a member."""
        if self._credentials is None:
            container = self.controllers()[0]
            self._credentials = Credentials(
                docker("exec", container, "cat", "/run/slipknot/secrets/token").strip()
            )
        return self._credentials

    def controllers(self) -> list[str]:
        """Ids of the running containers of controllers."""
        names = self("config", "--services").split()
        return self.containers(*(name for name in names if name.startswith("controller")))


def address_of(container: str) -> str:
    """Its address on the cluster's network, which this machine can reach."""
    form = "{{range $name, $net := .NetworkSettings.Networks}}{{$name}}={{$net.IPAddress}} {{end}}"
    found = dict(part.split("=") for part in docker("inspect", "--format", form, container).split())
    return next((ip for name, ip in found.items() if ip and not name.endswith("_store")), "")


def network_of(container: str) -> str:
    """The cluster's network."""
    form = "{{range $name, $net := .NetworkSettings.Networks}}{{$name}} {{end}}"
    return next(n for n in docker("inspect", "--format", form, container).split() if not n.endswith("_store"))


def hostname_of(container: str) -> str:
    """Its host name, which is its node id."""
    return docker("inspect", "--format", "{{.Config.Hostname}}", container).strip()


def health_of(container: str) -> str:
    """What its health check says: "starting", "healthy" or "unhealthy"."""
    return docker("inspect", "--format", "{{.State.Health.Status}}", container).strip()


def drop_packets(container: str, *, is_on: bool = True) -> None:
    """Let nothing in or out of a container any more, without a word to anybody; or let it through again."""
    pid = docker("inspect", "--format", "{{.State.Pid}}", container).strip()
    for chain in ("INPUT", "OUTPUT"):
        action = "-I" if is_on else "-D"
        command = ["nsenter", "-t", pid, "-n", "iptables", "-w", action, chain, "!", "-i", "lo", "-j", "DROP"]
        if chain == "OUTPUT":
            command[command.index("-i")] = "-o"
        _checked(command, {})


def wait_until(holds: Callable[[], Any], what: str, timeout_s: float = WAIT_S) -> Any:
    """Wait until `holds()` is true, and return what it returned."""
    deadline_s = time.monotonic() + timeout_s
    while not (result := holds()):
        assert time.monotonic() < deadline_s, f"not within {timeout_s:g} s: {what}"
        time.sleep(POLL_S)
    return result


class CommandFailed(AssertionError):
    """A command ended with an error; what it wrote is in the message."""


def _checked(command: Sequence[str], environ: dict[str, str], *, text: str | None = None) -> str:
    done = subprocess.run(
        command,
        input=text,
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        env=os.environ | environ,
        cwd=ROOT,
    )
    if done.returncode:
        raise CommandFailed(f"{' '.join(command)}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done.stdout


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
