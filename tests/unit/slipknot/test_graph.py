"""Bind graphs: from Applications to specs, and back in a replica."""

import json
import sys
import threading
from collections import deque, namedtuple
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from slipknot import serve
from slipknot._graph import LoadedDeployment, build_application, build_from_import_path, load_deployment
from slipknot.serve import Application
from slipknot.serve.exceptions import RayServeException
from slipknot.serve.handle import DeploymentHandle
from slipknot_core.spec import ApplicationSpec, DeploymentSpec, ImportSource

Handle = namedtuple("Handle", "deployment app")


@serve.deployment
class Model:
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args, self.kwargs = args, kwargs


@serve.deployment
class Other:
    pass


@serve.deployment
def function() -> str:
    return "x"


def through_wire(spec: ApplicationSpec) -> ApplicationSpec:
    return ApplicationSpec.from_proto(type(spec.to_proto()).FromString(spec.to_proto().SerializeToString()))


def load(spec: ApplicationSpec, name: str, app: str = "app") -> LoadedDeployment:
    (deployment,) = [d for d in through_wire(spec).deployments if d.name == name]
    return load_deployment(deployment, app, handle_factory=Handle)


def names(spec: ApplicationSpec) -> list[str]:
    return [deployment.name for deployment in spec.deployments]


def only(spec: ApplicationSpec) -> DeploymentSpec:
    (deployment,) = spec.deployments
    return deployment


def test_one_deployment() -> None:
    """Code, arguments and options of a single deployment arrive."""
    options = Model.options(num_replicas=2, user_config={"a": 1}, max_queued_requests=3)
    spec = build_application(options.bind(1, b=[2]), name="chat", route_prefix="/chat")
    assert (spec.name, spec.route_prefix, spec.ingress_deployment) == ("chat", "/chat", "Model")
    deployment = only(spec)
    assert (deployment.num_replicas, deployment.user_config_json) == (2, '{"a": 1}')
    assert deployment.max_queued_requests == 3
    loaded = load(spec, "Model")
    assert loaded.func_or_class(*loaded.init_args, **loaded.init_kwargs).args == (1,)
    assert loaded.init_kwargs == {"b": [2]}
    assert loaded.http_adapter is None


def test_function() -> None:
    """A function has no arguments."""
    loaded = load(build_application(function.bind()), "function")
    assert loaded.func_or_class() == "x"
    assert (loaded.init_args, loaded.init_kwargs) == ((), {})


def test_adapter() -> None:
    """It travels with the code."""

    def adapter(x: int) -> int:
        return x + 1

    loaded = load(build_application(Model.options(http_adapter=adapter).bind()), "Model")
    assert loaded.http_adapter is not None
    assert loaded.http_adapter(1) == 2


def test_nested_application_becomes_a_handle() -> None:
    """The children come first, the root is the ingress."""
    spec = build_application(Model.bind(Other.bind(), child=function.bind()))
    assert names(spec) == ["Other", "function", "Model"]
    assert spec.ingress_deployment == "Model"
    loaded = load(spec, "Model", "myapp")
    assert loaded.init_args == (Handle("Other", "myapp"),)
    assert loaded.init_kwargs == {"child": Handle("function", "myapp")}


def test_handles_are_real_by_default() -> None:
    """Without a factory of one's own, `DeploymentHandle`."""
    spec = build_application(Model.bind(Other.bind()))
    (handle,) = load_deployment(spec.deployments[1], "myapp").init_args
    assert isinstance(handle, DeploymentHandle)
    assert (handle.deployment_name, handle.app_name) == ("Other", "myapp")


@dataclass
class Config:
    child: Any
    children: list[Any] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Frozen:
    child: Any


class Custom:
    def __init__(self, child: Any) -> None:
        self.child = child


class Slotted:
    __slots__ = ("__private", "child")

    def __init__(self, child: Any) -> None:
        self.child = child
        self.__private = child

    def both(self) -> tuple[Any, Any]:
        return self.child, self.__private


class WithState:
    def __init__(self, child: Any) -> None:
        self.child = child

    def __getstate__(self) -> Any:
        return {"inner": [self.child]}

    def __setstate__(self, state: Any) -> None:
        (self.child,) = state["inner"]


Pair = namedtuple("Pair", "left right")


@pytest.mark.parametrize(
    ("wrap", "unwrap"),
    [
        (lambda c: [1, c], lambda v: v[1]),
        (lambda c: {"a": {"b": c}}, lambda v: v["a"]["b"]),
        (lambda c: {c: 1}, lambda v: next(iter(v))),
        (lambda c: (c, 1), lambda v: v[0]),
        (lambda c: {c}, lambda v: next(iter(v))),
        (lambda c: frozenset([c]), lambda v: next(iter(v))),
        (lambda c: deque([c]), lambda v: v[0]),
        (lambda c: Pair(1, c), lambda v: v.right),
        (lambda c: Config(c), lambda v: v.child),
        (lambda c: Config(None, [c]), lambda v: v.children[0]),
        (Frozen, lambda v: v.child),
        (Custom, lambda v: v.child),
        (Slotted, lambda v: v.both()[1]),
        (WithState, lambda v: v.child),
        (lambda c: lambda: c, lambda v: v()),
        (lambda c: [[[[{"x": Custom((c,))}]]]], lambda v: v[0][0][0][0]["x"].child[0]),
    ],
)
def test_found_at_any_depth(wrap: Callable[[Any], Any], unwrap: Callable[[Any], Any]) -> None:
    """In containers, dataclasses, attributes, slots, own state and closures."""
    spec = build_application(Model.bind(wrap(Other.bind())))
    assert names(spec) == ["Other", "Model"]
    assert unwrap(load(spec, "Model").init_args[0]) == Handle("Other", "app")


def test_the_original_arguments_stay() -> None:
    """Building changes nothing in what the user holds."""
    child = Other.bind()
    children = [child]
    build_application(Model.bind(children))
    assert children == [child]


def test_the_same_node_is_one_deployment() -> None:
    """Shared by two parents and twice in one."""
    shared = Other.bind()
    left, right = Model.options(name="left").bind(shared), Model.options(name="right").bind([shared, shared])
    spec = build_application(Model.bind(left, right))
    assert names(spec) == ["Other", "left", "right", "Model"]
    assert load(spec, "right").init_args == ([Handle("Other", "app")] * 2,)


def test_the_same_class_twice() -> None:
    """Each node is a deployment; names get numbers."""
    spec = build_application(Model.bind(Other.bind(), Other.bind(), Model.bind(), Model.bind()))
    assert names(spec) == ["Other", "Other_1", "Model", "Model_1", "Model_2"]
    assert spec.ingress_deployment == "Model_2"
    assert load(spec, "Model_2").init_args == tuple(
        Handle(name, "app") for name in ("Other", "Other_1", "Model", "Model_1")
    )


def test_the_same_name_given_twice() -> None:
    """Also names that the user gave; a number that is taken is passed over."""
    children = [Other.options(name=name).bind() for name in ("x_1", "x", "x", "x")]
    assert names(build_application(Model.bind(children)))[:-1] == ["x_1", "x", "x_2", "x_3"]


def test_a_chain() -> None:
    """A hundred levels."""
    app = Other.bind()
    for _ in range(100):
        app = Model.bind(app)
    assert len(names(build_application(app))) == 101


def test_a_cycle() -> None:
    """An Application that contains itself is refused, with the way round."""
    children: list[Application] = []
    app = Model.bind(Model.options(name="middle").bind(children))
    children.append(app)
    with pytest.raises(ValueError, match="contains itself: Model → middle → Model"):
        build_application(app)


@pytest.mark.parametrize(
    ("target", "text"),
    [(Model, r"write Model\.bind"), (None, "not None"), (function, "bind"), ("m:app", "'m:app'")],
)
def test_no_application(target: Any, text: str) -> None:
    """Anything else is a TypeError with the remedy."""
    with pytest.raises(TypeError, match=text):
        build_application(target)


@pytest.mark.parametrize(
    "arguments",
    [{"name": ""}, {"route_prefix": "x"}, {"route_prefix": "/x/"}, {"logging_config": {"log_level": "LOUD"}}],
)
def test_arguments_are_checked(arguments: dict[str, Any]) -> None:
    """Before anything is pickled."""
    with pytest.raises(ValueError):
        build_application(Model.bind(threading.Lock()), **arguments)


def test_no_route() -> None:
    """None is kept: not reachable over HTTP."""
    assert through_wire(build_application(Model.bind(), route_prefix=None)).route_prefix is None


def test_logging_of_the_application() -> None:
    """Deployments without their own have that of the application."""
    loud = Model.options(logging_config={"log_level": "DEBUG"})
    spec = build_application(loud.bind(Other.bind()), logging_config={"encoding": "JSON"})
    configs = [json.loads(d.logging_config_json) for d in spec.deployments]
    assert configs == [{"encoding": "JSON"}, {"log_level": "DEBUG"}]


def test_versions() -> None:
    """Each run is a new version, unless stable ones are asked for: then only code and few options count."""
    assert only(build_application(Model.bind())).version != only(build_application(Model.bind())).version

    def stable(app: Application) -> str:
        return only(build_application(app, stable_version=True)).version

    plain = stable(Model.bind(1))
    assert stable(Model.bind(1)) == plain
    assert stable(Model.options(num_replicas=3, user_config=1).bind(1)) == plain
    assert stable(Model.bind(2)) != plain
    assert stable(Model.options(ray_actor_options={"num_cpus": 1}).bind(1)) != plain


def test_two_fastapi_ingresses() -> None:
    """At most one in an application."""
    one = serve.deployment(serve.ingress(FastAPI())(type("One", (), {})))
    two = serve.deployment(serve.ingress(FastAPI())(type("Two", (), {"__init__": lambda self, other: None})))
    assert names(build_application(one.bind())) == ["One"]
    with pytest.raises(RayServeException, match=r"at most one FastAPI ingress.*One, Two"):
        build_application(two.bind(one.bind()))


# --- import paths ---------------------------------------------------------------------------------------

SOURCE = """
import threading
from slipknot import serve

@serve.deployment(num_replicas=2)
class Child:
    def __init__(self, size=0): self.size = size

@serve.deployment(http_adapter=len)
class Parent:
    def __init__(self, children): self.children = children

app = Parent.bind([Child.bind(1), Child.bind(2)])

def build(args):
    return Parent.bind([Child.bind(args.get("size", 0))])

def unpicklable():
    return Parent.bind(threading.Lock())
"""


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImportSource:
    """An application in a module of the user's."""
    (tmp_path / "graph_sample.py").write_text(SOURCE)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "graph_sample", raising=False)
    return ImportSource("graph_sample:app", working_dir=str(tmp_path), env_vars={"A": "1"})


def built(source: ImportSource, *overrides: dict[str, Any]) -> ApplicationSpec:
    return build_from_import_path(source, name="app", route_prefix="/", overrides=overrides)


def test_import_path(source: ImportSource) -> None:
    """Nothing is pickled: each deployment names the source, and replicas build it again."""
    spec = through_wire(built(source))
    assert names(spec) == ["Child", "Child_1", "Parent"]
    assert spec.ingress_deployment == "Parent"
    assert spec.import_source == source
    for deployment in spec.deployments:
        assert deployment.code.import_source == source
        assert deployment.code.pickle == b""
    assert load(spec, "Child_1").init_args == (2,)
    parent = load(spec, "Parent")
    assert parent.init_args == ([Handle("Child", "app"), Handle("Child_1", "app")],)
    assert parent.func_or_class is sys.modules["graph_sample"].Parent.func_or_class
    assert parent.http_adapter is len


def test_builder_arguments(source: ImportSource) -> None:
    """They go with the source and make another version."""
    small, big = (built(replace(source, import_path="graph_sample:build", args={"size": n})) for n in (1, 2))
    assert load(small, "Child").init_args == (1,)
    assert load(big, "Child").init_args == (2,)
    assert small.deployments[0].version != big.deployments[0].version


def test_stable_versions(source: ImportSource) -> None:
    """The same path is the same version; options that are taken over in place do not count."""
    plain = {d.name: d.version for d in built(source).deployments}
    changed = built(source, {"name": "Child", "num_replicas": 5, "user_config": {"a": 1}})
    assert {d.name: d.version for d in changed.deployments} == plain
    restarted = built(source, {"name": "Child", "ray_actor_options": {"num_cpus": 2}})
    assert [d.name for d in restarted.deployments if d.version != plain[d.name]] == ["Child"]
    assert plain["Child"] != plain["Child_1"]


def test_overrides(source: ImportSource) -> None:
    """They go before the options in the code, for the deployment they name."""
    spec = built(source, {"name": "Child_1", "num_replicas": 7, "max_ongoing_requests": 1})
    assert [(d.num_replicas, d.max_ongoing_requests) for d in spec.deployments] == [(2, 5), (7, 1), (1, 5)]


@pytest.mark.parametrize(
    ("overrides", "error", "text"),
    [
        ([{"name": "Nobody"}], ValueError, "'Nobody', but the application has only Child, Child_1, Parent"),
        ([{}], ValueError, "deployment None"),
        ([{"name": "Child"}, {"name": "Child"}], ValueError, "'Child' twice"),
        ([{"name": "Child", "num_replicas": 0}], ValueError, "deployment 'Child': num_replicas"),
        ([{"name": "Child", "replicas": 1}], TypeError, "deployment 'Child': there is no deployment option"),
    ],
)
def test_refused_overrides(source: ImportSource, overrides: Any, error: type[Exception], text: str) -> None:
    """Errors name the deployment."""
    with pytest.raises(error, match=text):
        built(source, *overrides)


def test_unpicklable_argument_of_an_import_path(source: ImportSource) -> None:
    """Arguments are searched by pickling, so they must allow it; the error tells where."""
    with pytest.raises(TypeError, match=r"at args\[0\] of deployment 'Parent'"):
        built(replace(source, import_path="graph_sample:unpicklable"))


def test_a_deployment_that_is_gone(source: ImportSource) -> None:
    """A node with other code says so."""
    child = replace(built(source).deployments[0], name="Removed")
    with pytest.raises(ValueError, match="no deployment 'Removed' here, only Child, Child_1, Parent"):
        load_deployment(child, "app")


@pytest.mark.parametrize(
    ("path", "error"), [("nowhere:app", ImportError), ("x", ValueError), ("os:path", TypeError)]
)
def test_wrong_import_paths(path: str, error: type[Exception]) -> None:
    """Missing, malformed, or something else."""
    with pytest.raises(error, match=path):
        built(ImportSource(path))


def test_a_module_that_is_not_on_the_node_is_named_with_what_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code that comes by value refers to modules by name."""
    (tmp_path / "only_here.py").write_text("class Helper: pass")
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        from only_here import Helper  # type: ignore[import-not-found]

        spec = only(build_application(Model.bind(Helper())))
    del sys.modules["only_here"]
    elsewhere = replace(spec, code=replace(spec.code, python_path=()))
    with pytest.raises(ImportError, match=r"needs the module 'only_here'.* --working-dir DIR"):
        load_deployment(elsewhere, "app")


def test_python_path_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica finds the modules next to the driver's script; missing directories are passed over."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec = only(build_application(Model.bind()))
    code = replace(spec.code, python_path=(str(tmp_path), "/no/such/place"))
    load_deployment(replace(spec, code=code), "app")
    assert sys.path[0] == str(tmp_path)
    assert "/no/such/place" not in sys.path
