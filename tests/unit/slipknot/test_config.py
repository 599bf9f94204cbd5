"""Options as pydantic models."""

import logging
from typing import Any

import pytest
from pydantic import ValidationError

from slipknot.serve.config import (
    KEEP_ALIVE_VARIABLES,
    AutoscalingConfig,
    BackpressureConfig,
    GrpcOptions,
    HTTPOptions,
    LoggingConfig,
    ProxyLocation,
    RequestRouterConfig,
    gRPCOptions,
    keep_alive_timeout_from,
)

OURS, RAYS = KEEP_ALIVE_VARIABLES


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEEP_ALIVE_VARIABLES:
        monkeypatch.delenv(name, raising=False)


def policy(context: Any) -> int:
    return 1


class MyRouter:
    pass


def test_http_defaults() -> None:
    """Loopback, port 8000, no request timeout, five seconds of keep-alive."""
    options = HTTPOptions()
    assert (options.host, options.port, options.root_path) == ("127.0.0.1", 8000, "")
    assert options.request_timeout_s is None
    assert options.keep_alive_timeout_s == 5
    assert options.max_body_bytes is None


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"port": 65536}, "port"),
        ({"port": -1}, "port"),
        ({"host": ""}, "host"),
        ({"request_timeout_s": 0}, "request_timeout_s"),
        ({"request_timeout_s": -1}, "request_timeout_s"),
        ({"request_timeout_s": float("inf")}, "request_timeout_s"),
        ({"keep_alive_timeout_s": -1}, "keep_alive_timeout_s"),
        ({"keep_alive_timeout_s": 1.5}, "keep_alive_timeout_s"),
        ({"root_path": "x"}, "does not begin with '/'"),
        ({"max_header_bytes": 10}, "max_header_bytes"),
        ({"max_body_bytes": 0}, "max_body_bytes"),
        ({"max_ws_message_bytes": 0}, "max_ws_message_bytes"),
        ({"ssl_keyfile": "k"}, "ssl_certfile is missing"),
        ({"ssl_certfile": "c"}, "ssl_keyfile is missing"),
        ({"ssl_ca_certs": "c"}, "needs ssl_keyfile and ssl_certfile"),
        ({"middlewares": [1]}, "serve.ingress"),
    ],
)
def test_refused_http_options(options: dict[str, Any], text: str) -> None:
    """A wrong value is a ValueError that names the option."""
    with pytest.raises(ValueError, match=text):
        HTTPOptions(**options)


def test_tls_needs_key_and_certificate() -> None:
    """Both together are fine."""
    assert HTTPOptions(ssl_keyfile="k", ssl_certfile="c", ssl_ca_certs="a").ssl_certfile == "c"


@pytest.mark.parametrize(("given", "kept"), [("", ""), ("/", ""), ("/api", "/api")])
def test_root_path(given: str, kept: str) -> None:
    """The root is no prefix."""
    assert HTTPOptions(root_path=given).root_path == kept


def test_unknown_http_options_are_named(caplog: pytest.LogCaptureFixture) -> None:
    """Newer files can be read; what is ignored is said."""
    with caplog.at_level(logging.WARNING, logger="slipknot.serve"):
        assert HTTPOptions(**{"port": 1, "sparkle": 2}).port == 1  # type: ignore[arg-type]
    assert "sparkle" in caplog.text


@pytest.mark.parametrize("option", [{}, {"keep_alive_timeout_s": 7}])
def test_the_environment_wins(monkeypatch: pytest.MonkeyPatch, option: dict[str, int]) -> None:
    """The variable goes before the option and the default; our name before the alias."""
    monkeypatch.setenv(RAYS, "20")
    assert HTTPOptions(**option).keep_alive_timeout_s == 20  # type: ignore[arg-type]
    monkeypatch.setenv(OURS, "30")
    assert HTTPOptions(**option).keep_alive_timeout_s == 30  # type: ignore[arg-type]


@pytest.mark.parametrize("name", KEEP_ALIVE_VARIABLES)
@pytest.mark.parametrize("text", ["", "x", "-1", "1.5"])
def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    """Text that is no number of seconds is refused with the variable's name."""
    monkeypatch.setenv(name, text)
    with pytest.raises(ValueError, match=name):
        HTTPOptions()
    with pytest.raises(ValueError, match=name):
        keep_alive_timeout_from({name: text})


def test_no_variable() -> None:
    """Without a variable the environment asks for nothing."""
    assert keep_alive_timeout_from({}) is None


def test_grpc_options() -> None:
    """Port 9000 by default; unknown keys are refused; both spellings are one class."""
    assert GrpcOptions is gRPCOptions
    assert gRPCOptions().port == 9000
    with pytest.raises(ValidationError):
        gRPCOptions.model_validate({"prot": 1})


@pytest.mark.parametrize("value", ["EveryNode", ProxyLocation.EveryNode])
def test_proxy_location(value: str) -> None:
    """Text and enum are the same."""
    assert ProxyLocation(value) is ProxyLocation.EveryNode == "EveryNode"


@pytest.mark.parametrize("value", ["everywhere", 3])
def test_refused_proxy_location(value: Any) -> None:
    """The refusal lists what there is."""
    with pytest.raises(ValueError, match="Disabled, HeadOnly, EveryNode"):
        ProxyLocation(value)


def test_autoscaling_defaults() -> None:
    """Those that Ray Serve's users know."""
    config = AutoscalingConfig()
    assert (config.min_replicas, config.initial_replicas, config.max_replicas) == (1, None, 1)
    assert config.target_ongoing_requests == 2
    assert (config.look_back_period_s, config.upscale_delay_s, config.downscale_delay_s) == (30, 30, 600)
    assert config.aggregation_function == "mean"


@pytest.mark.parametrize(
    "values",
    [
        {"min_replicas": 3, "max_replicas": 2},
        {"min_replicas": 2, "initial_replicas": 1, "max_replicas": 3},
        {"initial_replicas": 4, "max_replicas": 3},
        {"min_replicas": -1},
        {"max_replicas": 0},
        {"target_ongoing_requests": 0},
        {"upscale_delay_s": -1},
        {"downscale_delay_s": -0.1},
        {"look_back_period_s": 0},
        {"upscaling_factor": 0},
        {"aggregation_function": "median"},
        {"min_replica": 1},
    ],
)
def test_refused_autoscaling(values: dict[str, Any]) -> None:
    """Numbers out of range or out of order, and unknown keys."""
    with pytest.raises(ValueError):
        AutoscalingConfig(**values)


def test_policies_become_import_paths() -> None:
    """A function or class is kept by its name, so that it can be written as JSON."""
    config = AutoscalingConfig(policy={"policy_function": policy})  # type: ignore[arg-type]
    assert config.policy is not None
    assert config.policy.policy_function == f"{__name__}:policy"
    router = RequestRouterConfig(request_router_class=MyRouter)  # type: ignore[arg-type]
    assert router.request_router_class == f"{__name__}:MyRouter"


@pytest.mark.parametrize("values", [{"status_code": 500}, {"retry_after_s": -1}, {"retry": 1}])
def test_refused_backpressure(values: dict[str, Any]) -> None:
    """503 or 429, a retry in whole seconds, and nothing else."""
    with pytest.raises(ValueError):
        BackpressureConfig(**values)
    assert BackpressureConfig(status_code=429, retry_after_s=3).retry_after_s == 3


@pytest.mark.parametrize(
    ("given", "kept"), [("debug", "DEBUG"), ("INFO", "INFO"), (logging.WARNING, "WARNING"), (40, "ERROR")]
)
def test_log_levels(given: Any, kept: str) -> None:
    """A level is a name in any case, or its number."""
    assert LoggingConfig(log_level=given).log_level == kept


@pytest.mark.parametrize(
    "values", [{"log_level": "LOUD"}, {"log_level": 3.5}, {"log_level": True}, {"encoding": "XML"}, {"x": 1}]
)
def test_refused_logging(values: dict[str, Any]) -> None:
    """Unknown levels, encodings and keys."""
    with pytest.raises(ValueError):
        LoggingConfig(**values)


def test_logging_encoding_in_any_case() -> None:
    """ "json" is JSON."""
    assert LoggingConfig(encoding="json").encoding == "JSON"  # type: ignore[arg-type]
