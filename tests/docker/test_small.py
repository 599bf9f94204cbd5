"""The small form: one command, and a cluster of containers answers; more nodes are used."""

import contextlib
import json
import re
import time

import httpx

from tests.support.compose import Compose, build_on, docker, health_of, hostname_of, wait_until


def test_one_command_brings_up_three_hops_over_two_nodes(small: Compose, figures: list[str]) -> None:
    began_s = time.monotonic()
    hops = wait_until(lambda: small.answer(), "the demo answers")
    figures.append(f"small form: answers {time.monotonic() - began_s:.1f} s after `up --detach` returned")
    assert [hop.split(" on ")[0] for hop in hops] == ["ingress", "middle", "leaf"]
    nodes = {hostname_of(container) for container in small.containers("node")}
    assert {hop.split(" on ")[1] for hop in hops} == nodes and len(nodes) == 2


def test_a_cancelled_request_is_seen_on_each_node(small: Compose) -> None:
    wait_until(lambda: small.answer(), "the demo answers")
    request_id = "cancelled-by-the-test"
    with contextlib.suppress(httpx.ReadTimeout):
        httpx.get(f"{small.urls[0]}/hang", headers={"x-request-id": request_id}, timeout=1.0)
    wanted = {
        "ingress was cancelled while it waited for the middle",
        "middle was cancelled while it waited for the leaf",
        "leaf was cancelled while it waited for ever",
    }

    def seen() -> dict[str, str]:
        pattern = rf"\[(\w+)\] {request_id}: (\w+ was cancelled while it [\w ]+) \("
        return {text: node for node, text in re.findall(pattern, small.logs("node"))}

    found = wait_until(lambda: now if (now := seen()).keys() >= wanted else None, "all hops say so")
    assert len(set(found.values())) == 2


def test_every_role_is_healthy_and_no_role_is_root(small: Compose) -> None:
    wait_until(lambda: small.answer(), "the demo answers")
    containers = small.containers("controller", "proxy", "node")
    assert len(containers) == 4

    wait_until(lambda: {health_of(c) for c in containers} == {"healthy"}, "all are healthy")
    for container in containers:
        assert docker("exec", container, "id", "-u").strip() == "10001"
        config = json.loads(docker("inspect", container))[0]
        assert config["Config"]["Entrypoint"] == ["slipknot"] and config["HostConfig"]["Init"]
    assert docker("exec", containers[0], "stat", "-c", "%a", "/run/slipknot/secrets/token").strip() == "600"


def test_another_node_is_used(small: Compose, figures: list[str]) -> None:
    wait_until(lambda: len(small.replicas()) == 3, "three replicas run")
    before = set(small.replicas().values())
    began_s = time.monotonic()
    small("up", "--detach", "--no-recreate", "--scale", "node=3", "node")
    wait_until(lambda: (status := small.status()) and len(status.nodes) == 3, "the third node has joined")
    figures.append(f"small form: `--scale node=3` has joined after {time.monotonic() - began_s:.1f} s")
    began_s = time.monotonic()
    small.scale("Leaf", 4)
    wait_until(lambda: set(small.replicas().values()) > before, "the third node runs a replica")
    figures.append(f"small form: a new node runs a replica after {time.monotonic() - began_s:.1f} s")
    wait_until(lambda: len(small.replicas()) == 6, "all replicas run")


def test_the_controller_may_go_and_come_back(small: Compose, figures: list[str]) -> None:
    wait_until(lambda: small.answer(), "the demo answers")
    before = small.replicas()
    docker("kill", small.one("controller"))
    for _ in range(20):
        assert small.answer()
    docker("start", small.one("controller"))
    began_s = time.monotonic()
    wait_until(lambda: small.replicas() == before, "the same replicas are known again")
    figures.append(
        f"small form: a restarted controller knows all replicas after {time.monotonic() - began_s:.1f} s"
    )


def test_a_token_is_needed(small: Compose) -> None:
    """The ports of the cluster are not open to whoever gets there."""
    wait_until(lambda: small.answer(), "the demo answers")
    container = small.one("controller")
    wrong = ("-e", "SLIPKNOT_CLUSTER_TOKEN_FILE=", "-e", "SLIPKNOT_CLUSTER_TOKEN=wrong-wrong-wrong-wrong")
    asking = ("sh", "-c", "slipknot status 2>&1 || true")
    refused = docker("exec", *wrong, container, *asking)
    assert "token" in refused and "RUNNING" not in refused, refused


def test_an_image_of_ones_own_is_not_built_over(small: Compose) -> None:
    """`build`, with which `up` begins, makes the image of this repository, not the one in SLIPKNOT_IMAGE."""
    image = f"{small.project}-own:1"
    build_on("slipknot:local", image)
    try:
        own = docker("images", "--quiet", image)
        small("build", SLIPKNOT_IMAGE=image)
        assert docker("images", "--quiet", image) == own
    finally:
        docker("rmi", image)
