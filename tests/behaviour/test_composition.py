"""Applications of several deployments: what `bind` makes of nested applications."""

from typing import Any

import pytest

from slipknot import serve
from slipknot.serve.exceptions import SlipknotServeException

from .conftest import ServeApp


class Holder:
    """Keeps an application in an attribute."""

    def __init__(self, model: Any) -> None:
        self.model = model


@serve.deployment
class Model:
    def __init__(self, factor: int) -> None:
        self._factor = factor

    async def __call__(self, value: int) -> int:
        return value * self._factor

    async def where(self) -> tuple[str, str]:
        replica = serve.get_replica_context()
        return replica.deployment, replica.replica_id


@serve.deployment
class Asks:
    def __init__(self, models: list[Any], named: dict[str, Any], holder: Holder) -> None:
        self._handles = [*models, *named.values(), holder.model]

    async def __call__(self, value: int) -> list[int]:
        return [await handle.remote(value) for handle in self._handles]

    async def names(self) -> list[tuple[str, str]]:
        return [await handle.where.remote() for handle in self._handles]

    async def by_name(self) -> int:
        found: int = await serve.get_deployment_handle("Model_1").remote(10)
        return found


def test_nested_applications_become_handles_and_a_shared_one_is_one_deployment(serve_app: ServeApp) -> None:
    shared, other = Model.bind(2), Model.bind(3)
    handle = serve_app(Asks.bind([shared, other], {"again": shared}, Holder(other))).handle
    assert handle.remote(10).result() == [20, 30, 20, 30]
    names = handle.names.remote().result()
    assert [name for name, _ in names] == ["Model", "Model_1", "Model", "Model_1"]
    assert len(set(names)) == 2
    assert handle.by_name.remote().result() == 30


def test_an_application_is_no_handle() -> None:
    with pytest.raises(AttributeError):
        _ = Model.bind(1).remote


def test_what_cannot_be_pickled_is_refused_at_deploy(serve_app: ServeApp) -> None:
    with pytest.raises((TypeError, SlipknotServeException), match=r"generator|pickle"):
        serve_app(Model.bind(number for number in range(3)))
