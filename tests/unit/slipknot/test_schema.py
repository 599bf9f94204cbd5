"""The config file."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from slipknot._option_checks import CHECKS, REMOVED
from slipknot.serve.config import LoggingConfig, ProxyLocation
from slipknot.serve.schema import ControllerOptions, DeploymentSchema, ServeDeploySchema, load_config_file

APP = {"import_path": "m:app"}


def errors(values: Any) -> dict[str, str]:
    """Messages by path."""
    with pytest.raises(ValidationError) as caught:
        ServeDeploySchema.model_validate(values)
    return {".".join(map(str, e["loc"])): e["msg"] for e in caught.value.errors()}


def app_errors(**values: Any) -> dict[str, str]:
    """The same for one application, by path within it."""
    found = errors({"applications": [{**APP, **values}]})
    return {path.removeprefix("applications.0").removeprefix("."): text for path, text in found.items()}


def test_defaults() -> None:
    """Only the applications and their import paths are required; nothing listens beyond loopback unasked."""
    config = ServeDeploySchema.model_validate({"applications": [APP]})
    (application,) = config.applications
    assert (application.name, application.route_prefix) == ("default", "/")
    assert config.http_options.host == "127.0.0.1"
    assert config.proxy_location is ProxyLocation.EveryNode
    assert config.grpc_options.port == 9000


def test_everything() -> None:
    """A file with every key is read, and comes back as JSON with what was set and nothing else."""
    values: dict[str, Any] = {
        "proxy_location": "HeadOnly",
        "http_options": {
            "host": "0.0.0.0",
            "port": 8001,
            "keep_alive_timeout_s": 7,
            "request_timeout_s": 3.0,
        },
        "grpc_options": {"port": 9001, "grpc_servicer_functions": ["m:f"]},
        "controller_options": {"runtime_env": {"env_vars": {"A": "1"}}},
        "logging_config": {"encoding": "JSON", "log_level": "DEBUG"},
        "tracing_config": {"enabled": True, "exporter_import_path": "m:e", "sampling_ratio": 0.5},
        "target_capacity": 50.0,
        "applications": [
            {
                "name": "a",
                "route_prefix": "/a",
                "import_path": "package.module.app",
                "runtime_env": {"working_dir": "/x", "env_vars": {"A": "1"}},
                "args": {"model": "small", "n": [1, 2]},
                "autoscaling_policy": {"policy_function": "m:f"},
                "external_scaler_enabled": False,
                "logging_config": {"enable_access_log": False},
                "deployments": [
                    {
                        "name": "M",
                        "num_replicas": 2,
                        "user_config": {"a": None},
                        "backpressure_config": {"status_code": 429},
                    },
                    {
                        "name": "N",
                        "num_replicas": "auto",
                        "autoscaling_config": {"min_replicas": 3, "max_replicas": 5},
                    },
                ],
            },
            {"name": "b", "route_prefix": None, "import_path": "m:b"},
            {"name": "c", "route_prefix": None, "import_path": "m:c"},
        ],
    }
    dumped = ServeDeploySchema.model_validate(values).model_dump(mode="json", exclude_unset=True)
    scaling = dumped["applications"][0]["deployments"][1].pop("autoscaling_config")
    assert scaling.items() >= values["applications"][0]["deployments"][1].pop("autoscaling_config").items()
    assert json.loads(json.dumps(dumped)) == values


def test_every_option_of_a_deployment() -> None:
    """Those that JSON can express, and no others."""
    assert DeploymentSchema.model_fields.keys() == CHECKS.keys() - REMOVED.keys() - {"http_adapter"}


@pytest.mark.parametrize(
    ("values", "path", "text"),
    [
        ({"name": ""}, "name", "empty"),
        ({"name": 3}, "name", "must be text"),
        ({"route_prefix": "x"}, "route_prefix", "write '/x'"),
        ({"route_prefix": "/x/"}, "route_prefix", "write '/x'"),
        ({"import_path": "nonsense"}, "import_path", "'module:attribute'"),
        ({"import_path": "a:b:c"}, "import_path", "more than one ':'"),
        ({"import_path": None}, "import_path", "not None"),
        ({"host": "0.0.0.0"}, "", "host does not belong to an application; write it below http_options"),
        ({"port": 8000}, "", "port does not belong to an application"),
        ({"args": [1]}, "args", "dictionary"),
        ({"runtime_env": {"pip": ["x"]}}, "runtime_env.pip", "not permitted"),
        ({"runtime_env": {"working_dir": "s3://bucket/x.zip"}}, "runtime_env.working_dir", "not the URI"),
        ({"runtime_env": {"env_vars": {"A": True}}}, "runtime_env.env_vars.A", "string"),
        ({"runtime_env": {"env_vars": ["A=1"]}}, "runtime_env.env_vars", "dictionary"),
        ({"logging_config": {"level": "INFO"}}, "logging_config.level", "not permitted"),
        ({"deployments": [{}]}, "deployments.0.name", "required"),
        ({"deployments": [{"name": 3}]}, "deployments.0.name", "must be text"),
        (
            {"deployments": [{"name": "M", "num_replicas": 0}]},
            "deployments.0.num_replicas",
            "1 to 1000, not 0",
        ),
        ({"deployments": [{"name": "M", "num_replicas": 1.5}]}, "deployments.0.num_replicas", "whole number"),
        ({"deployments": [{"name": "M", "replicas": 1}]}, "deployments.0.replicas", "not permitted"),
        (
            {"deployments": [{"name": "M", "placement_group_bundles": [{"CPU": 1}]}]},
            "deployments.0",
            "placement_group_bundles is not supported: there are no placement groups here",
        ),
        (
            {"deployments": [{"name": "M"}, {"name": "N", "max_ongoing_requests": None}]},
            "deployments.1.max_ongoing_requests",
            "must not be None",
        ),
        (
            {"deployments": [{"name": "M", "autoscaling_config": {"max_replicas": 0}}]},
            "deployments.0.autoscaling_config",
            "max_replicas",
        ),
        (
            {"deployments": [{"name": "M", "num_replicas": "auto", "autoscaling_config": 3}]},
            "deployments.0.autoscaling_config",
            "not 3",
        ),
        (
            {"deployments": [{"name": "M", "backpressure_config": {"x": 1}}]},
            "deployments.0.backpressure_config",
            "x",
        ),
        (
            {"deployments": [{"name": "M", "num_replicas": 2, "autoscaling_config": {}}]},
            "deployments.0",
            "contradict",
        ),
        (
            {"deployments": [{"name": "M"}, {"name": "M"}]},
            "deployments",
            "deployments 0 and 1 have the same name: 'M'",
        ),
    ],
)
def test_refused_applications(values: dict[str, Any], path: str, text: str) -> None:
    """The error is at the key that is wrong."""
    found = app_errors(**values)
    assert text in found[path]


@pytest.mark.parametrize(
    ("values", "path", "text"),
    [
        ({}, "applications", "required"),
        ({"applications": None}, "applications", "list"),
        ({"applications": [{}]}, "applications.0.import_path", "required"),
        ({"applications": [], "http_option": {}}, "http_option", "not permitted"),
        ({"applications": [], "proxy_location": "x"}, "proxy_location", "EveryNode"),
        ({"applications": [], "http_options": {"port": "x"}}, "http_options.port", "integer"),
        ({"applications": [], "grpc_options": {"x": 1}}, "grpc_options.x", "not permitted"),
        ({"applications": [], "target_capacity": 101}, "target_capacity", "100"),
        ({"applications": [APP, APP]}, "applications", "applications 0 and 1 have the same name: 'default'"),
        (
            {"applications": [APP, {**APP, "name": "b", "route_prefix": "/b"}, {**APP, "name": "c"}]},
            "applications",
            "applications 0 and 2 have the same route_prefix: '/'",
        ),
    ],
)
def test_refused_files(values: dict[str, Any], path: str, text: str) -> None:
    """Also at the top."""
    found = errors(values)
    assert text in found[path]


def test_options_that_ray_serve_alone_has_may_be_null() -> None:
    """As in code."""
    plain = DeploymentSchema(name="M")
    assert DeploymentSchema(name="M", placement_group_strategy=None) == plain  # type: ignore[call-arg]


def test_options_of_the_controller() -> None:
    """They may be left out, or be null."""
    assert ServeDeploySchema(applications=[], controller_options=None).controller_options is None
    assert ServeDeploySchema(applications=[]).controller_options == ControllerOptions()


def test_unknown_keys_of_an_application_are_named(caplog: pytest.LogCaptureFixture) -> None:
    """They are for a newer release; it is said that they are ignored."""
    with caplog.at_level(logging.WARNING, logger="slipknot.serve"):
        config = ServeDeploySchema.model_validate({"applications": [{**APP, "name": "x", "sparkle": 1}]})
    assert "sparkle" in caplog.text
    assert "'x'" in caplog.text
    assert "sparkle" not in config.model_dump()["applications"][0]


def test_numbers_in_the_environment() -> None:
    """YAML reads 1 as a number; the environment has text."""
    values = {"applications": [{**APP, "runtime_env": {"env_vars": {"A": 1, "B": 1.5, "C": "x"}}}]}
    (application,) = ServeDeploySchema.model_validate(values).applications
    assert application.runtime_env.env_vars == {"A": "1", "B": "1.5", "C": "x"}


def test_auto_with_a_part_of_autoscaling() -> None:
    """The word "auto" fills in the rest, as in code."""
    schema = DeploymentSchema.model_validate(
        {"name": "M", "num_replicas": "auto", "autoscaling_config": {"min_replicas": 3}}
    )
    assert schema.autoscaling_config is not None
    assert schema.autoscaling_config["max_replicas"] == 100


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    return file


def test_load(tmp_path: Path) -> None:
    """YAML, and JSON, which is YAML."""
    loaded = load_config_file(
        write(tmp_path, "logging_config: {log_level: debug}\napplications:\n- import_path: m:app\n")
    )
    assert loaded.applications[0].import_path == "m:app"
    assert loaded.logging_config == LoggingConfig(log_level="DEBUG")
    assert load_config_file(str(write(tmp_path, '{"applications": []}'))).applications == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("applications:\n  - a: b: c\n", "config.yaml is not YAML: line 2, column 9"),
        ("a: \x00", "config.yaml is not YAML: "),
        ("", "must hold a mapping with the key 'applications', not NoneType"),
        ("- a\n", "not list"),
        ("{}", "applications: is required"),
        (
            "applications:\n- import_path: m:app\n  deployments:\n"
            "  - {name: A}\n  - {name: B, num_replicas: 0}\n",
            "applications.0.deployments.1.num_replicas: "
            "num_replicas must be a whole number from 1 to 1000, not",
        ),
        ("applications: []\nhttp_optoins: {}\n", "http_optoins: there is no such key; check its spelling"),
        (
            "applications: []\nhttp_options: {port: many}\n",
            "http_options.port: Input should be a valid integer",
        ),
    ],
)
def test_refused_texts(tmp_path: Path, text: str, expected: str) -> None:
    """The error names the file, and the line or the path of the key."""
    with pytest.raises(ValueError) as caught:
        load_config_file(write(tmp_path, text))
    assert expected in str(caught.value)
    assert "config.yaml" in str(caught.value)


def test_all_errors_at_once(tmp_path: Path) -> None:
    """One line each."""
    with pytest.raises(ValueError) as caught:
        load_config_file(write(tmp_path, "applications: 3\nhttp_options: {port: -1, host: ''}\n"))
    assert len(str(caught.value).splitlines()) == 4


def test_missing_file(tmp_path: Path) -> None:
    """Python's own error says it best."""
    with pytest.raises(FileNotFoundError):
        load_config_file(tmp_path / "nothing.yaml")
