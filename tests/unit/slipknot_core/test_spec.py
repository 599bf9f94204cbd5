"""Specs to the wire and back."""

from hypothesis import given
from hypothesis import strategies as st

from slipknot_core.autoscaling_spec import AutoscalingSpec
from slipknot_core.ids import DeploymentId
from slipknot_core.resources import PlacementStrategy, Resources
from slipknot_core.spec import ApplicationSpec, CodeSource, DeploymentSpec, ImportSource, ReplicaLaunch

TEXT = st.text(max_size=20)
NAME = st.text("abcdefgXYZ_-", min_size=1, max_size=10)
SECONDS = st.floats(0, 1e6)
UINT32 = st.integers(0, 2**32 - 1)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
IMPORT_SOURCES = st.builds(
    ImportSource,
    import_path=TEXT,
    args=st.dictionaries(TEXT, JSON, max_size=3),
    working_dir=TEXT,
    env_vars=st.dictionaries(TEXT, TEXT, max_size=3),
    archive=TEXT,
)
PATHS = st.lists(TEXT, max_size=3).map(tuple)
CODE_SOURCES = st.builds(CodeSource, pickle=st.binary(max_size=20), python_path=PATHS) | st.builds(
    CodeSource, import_source=IMPORT_SOURCES, python_path=PATHS
)
AUTOSCALING = st.builds(
    AutoscalingSpec,
    min_replicas=UINT32,
    max_replicas=UINT32,
    initial_replicas=st.none() | UINT32,
    target_ongoing_requests=SECONDS,
    look_back_period_s=SECONDS,
    upscale_delay_s=SECONDS,
    downscale_delay_s=SECONDS,
    downscale_to_zero_delay_s=SECONDS,
    upscaling_factor=SECONDS,
    downscaling_factor=SECONDS,
    aggregation_function=st.sampled_from(["mean", "max", "min"]),
    policy_function=TEXT,
    policy_kwargs=st.dictionaries(TEXT, JSON, max_size=3),
)
DEPLOYMENTS = st.builds(
    DeploymentSpec,
    name=NAME,
    code=CODE_SOURCES,
    num_replicas=UINT32,
    max_ongoing_requests=UINT32,
    max_queued_requests=st.integers(-1, 2**31 - 1),
    user_config_json=TEXT,
    graceful_shutdown_wait_loop_s=SECONDS,
    graceful_shutdown_timeout_s=SECONDS,
    health_check_period_s=SECONDS,
    health_check_timeout_s=SECONDS,
    backpressure_status_code=st.sampled_from([429, 503]),
    backpressure_retry_after_s=st.none() | st.integers(0, 2**31 - 1),
    version=TEXT,
    extra_options_json=TEXT,
    logging_config_json=TEXT,
    max_constructor_attempts=UINT32,
    autoscaling=st.none() | AUTOSCALING,
    rolling_update_percentage=st.floats(0.01, 1),
    max_surge_percent=st.floats(0, 1),
    resources=st.builds(
        Resources,
        num_cpus=SECONDS,
        num_gpus=SECONDS,
        memory_bytes=st.integers(0, 2**60),
        custom=st.dictionaries(TEXT, SECONDS, max_size=2),
        label_selector=st.dictionaries(TEXT, TEXT, max_size=2),
    ),
    max_replicas_per_node=UINT32,
    placement_strategy=st.sampled_from(PlacementStrategy),
    env_vars=st.dictionaries(TEXT, TEXT, max_size=2),
)
ROUTE_PREFIXES = st.none() | TEXT.map(lambda text: f"/{text}")
APPLICATIONS = st.builds(
    ApplicationSpec,
    name=NAME,
    ingress_deployment=NAME,
    deployments=st.lists(DEPLOYMENTS, max_size=3).map(tuple),
    route_prefix=ROUTE_PREFIXES,
    import_source=st.none() | IMPORT_SOURCES,
    docs_path=TEXT,
)
LAUNCHES = st.builds(
    ReplicaLaunch,
    replica_id=TEXT,
    app_name=NAME,
    deployment=DEPLOYMENTS,
    controller_address=TEXT,
    node_id=TEXT,
    socket_dir=TEXT,
    is_ingress=st.booleans(),
    route_prefix=ROUTE_PREFIXES,
    logs_dir=TEXT,
    gpu_ids=st.lists(TEXT, max_size=3).map(tuple),
)


@given(APPLICATIONS)
def test_an_application_survives_the_wire(application: ApplicationSpec) -> None:
    """Every field of it, of its deployments and of their code arrives as it was sent."""
    message = application.to_proto()
    received = type(message).FromString(message.SerializeToString())
    assert ApplicationSpec.from_proto(received) == application


@given(LAUNCHES)
def test_a_launch_survives_the_wire(launch: ReplicaLaunch) -> None:
    """What a replica process reads from its standard input is what its node wrote."""
    message = launch.to_proto()
    received = type(message).FromString(message.SerializeToString())
    assert ReplicaLaunch.from_proto(received) == launch


def _deployment(name: str, user_config_json: str = "") -> DeploymentSpec:
    return DeploymentSpec(name, CodeSource(pickle=b"x"), user_config_json=user_config_json)


def test_the_hash_of_a_user_config_tells_configs_apart() -> None:
    """Equal configs have equal hashes, other configs others, and none has none."""
    first, second = _deployment("a", '{"x": 1}'), _deployment("b", '{"x": 1}')
    assert first.user_config_hash == second.user_config_hash != ""
    assert _deployment("a", '{"x": 2}').user_config_hash != first.user_config_hash
    assert _deployment("a").user_config_hash == ""


def test_an_application_names_its_deployments() -> None:
    """Ids come in the order of the deployments; replacing these leaves the rest alone."""
    application = ApplicationSpec(
        "shop", "b", (_deployment("a"), _deployment("b")), "/shop", docs_path="/docs"
    )
    assert application.deployment_ids() == [DeploymentId("shop", "a"), DeploymentId("shop", "b")]
    changed = application.with_deployments([_deployment("c")])
    assert changed.deployment_ids() == [DeploymentId("shop", "c")]
    assert (changed.route_prefix, changed.docs_path) == ("/shop", "/docs")
