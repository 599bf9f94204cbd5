"""The public API as a module: what it exports and what importing it costs."""

import importlib.util
import inspect
import os
import pickle
import subprocess
import sys
from typing import Any, get_type_hints

import grpc
import pytest
from fastapi import FastAPI

import slipknot
from slipknot import serve
from slipknot.serve import exceptions
from slipknot.serve.handle import DeploymentHandle, DeploymentResponse, DeploymentResponseGenerator
from slipknot_core import errors

HEAVY = (
    "pydantic",
    "fastapi",
    "starlette",
    "uvicorn",
    "grpc",
    "google.protobuf",
    "cloudpickle",
    "yaml",
    "asyncio",
)

EXPORTED = [
    "Application",
    "ControllerOptions",
    "Deployment",
    "HTTPOptions",
    "RunTarget",
    "TracingConfig",
    "batch",
    "cancelled",
    "delete",
    "deployment",
    "get_app_handle",
    "get_deployment_handle",
    "get_multiplexed_model_id",
    "get_replica_context",
    "get_request_context",
    "ingress",
    "metrics",
    "multiplexed",
    "run",
    "run_many",
    "shutdown",
    "shutdown_async",
    "start",
    "status",
    "config",
    "context",
    "exceptions",
    "handle",
    "http_adapters",
    "http_url",
    "schema",
]


class Ready:
    def __call__(self) -> str:
        return "ready"


def run_python(code: str) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_costs_next_to_nothing() -> None:
    """No heavy module is imported before something is used."""
    loaded = run_python("import sys\nfrom slipknot import serve\nprint(*sys.modules)").split()
    assert not set(HEAVY) & set(loaded)


def test_declaring_needs_no_web_framework() -> None:
    """A script without FastAPI does not pay for it."""
    loaded = run_python(
        "import sys\nfrom slipknot import serve\n"
        "serve.deployment(type('M', (), {})).bind()\nprint(*sys.modules)"
    )
    assert not {"pydantic", "fastapi", "starlette", "yaml", "cloudpickle"} & set(loaded.split())


def test_exported_names() -> None:
    """The list that users rely on."""
    assert sorted(serve.__all__) == sorted(EXPORTED) == dir(serve)


@pytest.mark.parametrize("name", EXPORTED)
def test_every_name_can_be_fetched(name: str) -> None:
    """And is documented."""
    home = serve._MODULE_OF.get(name, f"slipknot.serve.{name}")
    if importlib.util.find_spec(home) is None:
        pytest.skip(f"{home} is not written yet")
    assert getattr(serve, name).__doc__


@pytest.mark.parametrize("module", ["api", "grpc_util"])
def test_modules_that_applications_of_ray_serve_import(module: str) -> None:
    """By their path, and as attributes; what is in `serve.api` is what `serve` itself has."""
    loaded = importlib.import_module(f"slipknot.serve.{module}")
    assert getattr(serve, module) is loaded
    for name in loaded.__all__:
        assert getattr(loaded, name).__doc__
        assert module != "api" or getattr(loaded, name) is getattr(serve, name)


def test_unknown_names() -> None:
    """As any module answers."""
    with pytest.raises(AttributeError, match=r"module 'slipknot\.serve' has no attribute 'sparkle'"):
        serve.sparkle  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(AttributeError, match="module 'slipknot' has no attribute 'sparkle'"):
        slipknot.sparkle  # noqa: B018


def test_package() -> None:
    """The clients are fetched when they are used."""
    assert dir(slipknot) == sorted(slipknot.__all__)
    assert slipknot.__version__.count(".") == 2
    if importlib.util.find_spec("slipknot.client") is not None:
        assert slipknot.Client.__name__ == "Client"


def test_exceptions() -> None:
    """All that slipknot reports, and the name that Ray Serve's users catch."""
    assert exceptions.RayServeException is exceptions.SlipknotServeException is errors.SlipknotServeException
    assert {error.__name__ for error in errors.BY_REASON.values()} < set(exceptions.__all__)
    for name in exceptions.__all__:
        assert issubclass(getattr(exceptions, name), Exception)


def test_annotations_that_applications_of_ray_serve_have() -> None:
    """Handles and responses can say what is behind them; without it they are of anything."""
    handle: DeploymentHandle[Any] = DeploymentHandle("Model", "default")

    async def text(response: DeploymentResponse[str], items: DeploymentResponseGenerator[int]) -> str:
        return await response + str([item async for item in items])

    assert get_type_hints(text)["response"] == DeploymentResponse[str]
    assert pickle.loads(pickle.dumps(handle)) == handle == DeploymentHandle[str]("Model", "default")


def test_keywords_that_applications_of_ray_serve_pass() -> None:
    """Also those that have no effect here."""
    assert serve.ingress(app=FastAPI())().__name__ == "ASGIIngressDeployment"
    assert inspect.signature(serve.start).bind("EveryNode", {}, {}, {}, {"enabled": True}, {}).kwargs == {}
    target = serve.RunTarget(serve.deployment(Ready).bind(), external_scaler_enabled=True)
    handles = serve.run_many(
        [target, serve.RunTarget(target.target, "second", "/second")],
        blocking=False,
        wait_for_ingress_deployment_creation=True,
        wait_for_applications_running=True,
        _local_testing_mode=True,
        controller_options=serve.config.ControllerOptions(),
    )
    try:
        assert [handle.remote().result() for handle in handles] == ["ready", "ready"]
        assert [handle.app_name for handle in handles] == ["default", "second"]
    finally:
        serve.shutdown()


@pytest.mark.parametrize("option", ["http_options", "grpc_options", "logging_config"])
def test_options_of_the_cluster_that_are_no_options(option: str) -> None:
    """The error names the one that is wrong, and nothing was started."""
    with pytest.raises(TypeError, match=f"{option} must be a dict or an object of its class, not 'x'"):
        serve.start(**{option: "x"})  # type: ignore[arg-type]
    assert serve.status().applications == {}


def test_the_status_error_of_grpc_services_can_be_caught() -> None:
    """Applications import its name, although nothing here raises it."""
    cause = ValueError("no such user")
    error = serve.exceptions.gRPCStatusError(cause, grpc.StatusCode.NOT_FOUND, "nobody")
    assert isinstance(error, serve.exceptions.RayServeException)
    assert (str(error), error.original_exception) == ("no such user", cause)
    assert (error.code, error.details) == (grpc.StatusCode.NOT_FOUND, "nobody")
