"""What handlers learn about the request and the replica that they run in, at every hop."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi import FastAPI

from slipknot import serve

from .conftest import ServeApp


def facts() -> dict[str, Any]:
    request, replica = serve.get_request_context(), serve.get_replica_context()
    return {
        "id": request.request_id,
        "route": request.route,
        "app": [request.app_name, replica.app_name],
        "deployment": replica.deployment,
        "servable": type(replica.servable_object).__name__,
    }


@serve.deployment
class Below:
    def __call__(self) -> dict[str, Any]:
        return facts()


@serve.deployment(max_ongoing_requests=20)
class Above:
    def __init__(self, below: Any) -> None:
        self._below = below

    async def __call__(self, request: Any) -> list[dict[str, Any]]:
        return [facts(), await self._below.remote()]


def test_both_hops_see_the_same_request(serve_app: ServeApp) -> None:
    app = serve_app(Above.bind(Below.bind()), name="ctx", route_prefix="/ctx")

    def ask(name: str) -> None:
        answer = app.client.get("", headers={"x-request-id": name})
        common = {"id": name, "route": "/ctx", "app": ["ctx", "ctx"]}
        assert answer.json() == [
            {**common, "deployment": "Above", "servable": "Above"},
            {**common, "deployment": "Below", "servable": "Below"},
        ]
        assert answer.headers.get_list("x-request-id") == [name]

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(ask, [f"id-{n}" for n in range(20)]))
        list(pool.map(ask, ["same"] * 20))
    made = [app.client.get("").headers["x-request-id"] for _ in range(2)]
    assert made[0] != made[1] and {len(name) for name in made} == {36}


def test_the_route_of_a_fastapi_ingress_is_its_template(serve_app: ServeApp) -> None:
    api = FastAPI()

    @serve.deployment
    @serve.ingress(api)
    class Users:
        @api.get("/user/{user_id}")
        async def user(self, user_id: str) -> str:
            return serve.get_request_context().route

    app = serve_app(Users.bind(), name="ctx", route_prefix="/ctx")
    assert app.client.get("/user/7").json() == "/ctx/user/{user_id}"


def test_outside_a_request_the_context_is_empty() -> None:
    assert serve.get_request_context().request_id == ""
    assert serve.get_multiplexed_model_id() == ""
    with pytest.raises(serve.exceptions.SlipknotServeException):
        serve.get_replica_context()


def test_replicas_have_ranks(serve_app: ServeApp) -> None:
    """Those of a new version, too, though they start while the old ones still have theirs."""

    @serve.deployment(num_replicas=3, max_ongoing_requests=1)
    class Ranked:
        def __init__(self, version: str) -> None:
            self.version = version

        async def __call__(self) -> tuple[str, int, int]:
            replica = serve.get_replica_context()
            await asyncio.sleep(0.01)  # so that the others get some, too
            return replica.replica_id, replica.rank, replica.world_size

    def ranks(handle: Any, count: int) -> dict[str, int]:
        found: dict[str, int] = {}
        while len(found) < count:
            answers = [response.result() for response in [handle.remote() for _ in range(12)]]
            assert {answer[2] for answer in answers} == {count}
            found |= {replica_id: rank for replica_id, rank, _ in answers}
        return found

    first = ranks(serve_app(Ranked.bind("1"), name="ranked").handle, 3)
    assert sorted(first.values()) == [0, 1, 2]
    more = ranks(serve_app(Ranked.options(num_replicas=4).bind("2"), name="ranked").handle, 4)
    assert sorted(more.values()) == [0, 1, 2, 3]
    assert not first.keys() & more.keys()


def test_the_tasks_of_a_replica_can_be_looked_at(serve_app: ServeApp) -> None:
    """Ours are among them, also those of a handle; each has a coroutine with a name."""

    @serve.deployment
    class Looks:
        def __init__(self, below: Any) -> None:
            self._below = below

        async def __call__(self, request: Any) -> list[str]:
            await self._below.remote()
            return [task.get_coro().__qualname__ for task in asyncio.all_tasks()]  # type: ignore[union-attr]

    app = serve_app(Looks.bind(Below.bind()), name="looks", route_prefix="/looks")
    assert len(app.client.get("").raise_for_status().json()) > 1
