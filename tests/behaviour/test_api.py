"""The public functions: what they refuse, and what they say."""

from typing import Any

import pytest

from slipknot import serve

from .conftest import ServeApp


def plain() -> str:
    return "plain"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"num_replicas": 0}, ValueError),
        ({"num_replicas": 2, "autoscaling_config": {"max_replicas": 3}}, ValueError),
        ({"max_ongoing_requests": 0}, ValueError),
        ({"max_ongoing_requests": None}, ValueError),
        ({"max_queued_requests": 0}, ValueError),
        ({"max_queued_requests": "many"}, TypeError),
        ({"name": 3}, TypeError),
        ({"no_such_option": 1}, TypeError),
    ],
)
def test_options_are_checked_at_decoration_and_in_options(
    options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        serve.deployment(**options)(plain)
    with pytest.raises(error):
        serve.deployment(plain).options(**options)


def test_a_deployment_is_not_called_and_tells_its_name() -> None:
    deployment = serve.deployment(plain)
    with pytest.raises(RuntimeError):
        deployment()
    assert str(deployment) == "Deployment(name=plain)"
    assert deployment.max_ongoing_requests == 5
    assert deployment.options(name="other").name == "other" and deployment.name == "plain"
    with pytest.raises(TypeError):
        serve.deployment("text")  # type: ignore[call-overload]


def test_run_status_and_delete(serve_app: ServeApp) -> None:
    with pytest.raises(TypeError):
        serve.run(plain)  # type: ignore[arg-type]
    serve_app(serve.deployment(plain).bind(), name="seen", route_prefix="/seen")
    assert serve.status().applications["seen"].status == "RUNNING"
    serve.delete("seen")
    serve.delete("seen")
    assert "seen" not in serve.status().applications
