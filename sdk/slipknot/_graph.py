"""From a bind graph to an `ApplicationSpec`, and back to one deployment's code in a replica.

The graph is found by pickling: whatever the pickler meets, it meets every Application in a constructor's
arguments, however deep. So the walk, the names and the bytes come out of one pass; the names are the same
whenever the same graph is walked, which is how a replica that rebuilds an application from its import path
finds its own deployment.
"""

import functools
import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from slipknot_core.errors import SlipknotServeException
from slipknot_core.ids import short_id
from slipknot_core.spec import ApplicationSpec, CodeSource, DeploymentSpec, ImportSource

from . import _pickling
from ._builder import import_application
from ._deployment import Application, Deployment
from ._modules import extend_python_path, user_python_path
from ._names import checked_application_name, checked_route_prefix
from ._option_checks import model
from ._options import DeploymentOptions

HandleFactory = Callable[[str, str], Any]
"""(deployment name, application name) to a handle."""


@dataclass(frozen=True, slots=True)
class LoadedDeployment:
    """What a replica constructs and serves."""

    func_or_class: Callable[..., Any]
    init_args: tuple[Any, ...]
    init_kwargs: dict[str, Any]
    http_adapter: Callable[..., Any] | None = None


def build_application(
    app: Application,
    *,
    name: str = "default",
    route_prefix: str | None = "/",
    stable_version: bool = False,
    logging_config: Any = None,
) -> ApplicationSpec:
    """Turn a bind graph into what the controller stores; code and arguments are pickled.

    Args:
        app: The root; its deployment receives the application's requests.
        name: The application's name.
        route_prefix: Where it is reachable over HTTP; None: nowhere.
        stable_version: Equal code and options give equal versions; else each call makes new ones.
        logging_config: Default for the deployments: a `LoggingConfig` or a dict.

    Raises:
        TypeError: `app` is no Application, or something in it cannot be pickled.
        ValueError: A name, the prefix or `logging_config` is not valid, or an Application contains itself.
        SlipknotServeException: Several deployments are FastAPI ingresses.
    """
    _check_is_application(app)
    checked_application_name(name)
    checked_route_prefix(route_prefix)
    logging = model("logging_config", logging_config, class_name="LoggingConfig")
    graph = _Graph(with_code=True)
    ingress = graph.add(app)
    _check_ingresses(graph)
    python_path = user_python_path()
    nonce = "" if stable_version else f"-{short_id(6)}"
    deployments = []
    for node in graph.nodes.values():
        version = _version(node.data, node.options) + nonce
        code = CodeSource(pickle=node.data, python_path=python_path)
        deployments.append(node.options.to_spec(code, version, logging))
    return ApplicationSpec(name, ingress, tuple(deployments), route_prefix)


def build_from_import_path(
    source: ImportSource, *, name: str, route_prefix: str | None, overrides: Sequence[Mapping[str, Any]] = ()
) -> ApplicationSpec:
    """Build an application from its import path; replicas build it again, nothing is pickled.

    Args:
        source: Import path of an Application or of its builder, the builder's arguments, the directory of the
            code.
        name: The application's name.
        route_prefix: Where it is reachable over HTTP; None: nowhere.
        overrides: Options that go before those in the code; each has the deployment's `name`.

    Raises:
        TypeError: The path names something else, an override is of the wrong type, or an argument cannot be
            pickled.
        ValueError: A name, the prefix, the path or an override is not valid, or there is no such deployment.
        ImportError: There is no such module or attribute. What the user's code raises passes unchanged.
        SlipknotServeException: Several deployments are FastAPI ingresses.
    """
    checked_application_name(name)
    checked_route_prefix(route_prefix)
    graph, ingress = _graph_of(source)
    _check_ingresses(graph)
    by_name = _overrides_by_name(overrides, graph)
    code = CodeSource(import_source=source, python_path=user_python_path())
    deployments = [_overridden(node, by_name.get(node.name), code, source) for node in graph.nodes.values()]
    return ApplicationSpec(name, ingress, tuple(deployments), route_prefix, import_source=source)


def options_of_import_path(source: ImportSource) -> list[DeploymentOptions]:
    """The deployments of an application that an import path names, with the options that the code gives them.

    Raises:
        Exception: As `build_from_import_path`.
    """
    graph, _ = _graph_of(source)
    _check_ingresses(graph)
    return [node.options for node in graph.nodes.values()]


class LocalDeployment(NamedTuple):
    """One deployment of an application that stays in this process."""

    spec: DeploymentSpec
    """Without code."""
    code: LoadedDeployment


def local_application(
    app: Application, name: str, handle_factory: HandleFactory
) -> tuple[str, list[LocalDeployment]]:
    """Name the ingress deployment of a bind graph and load all its deployments here, those without children
    first. The code is used as it is; the constructors' arguments are pickled and unpickled.

    Args:
        app: The root.
        name: The application's name.
        handle_factory: Makes handles of nested Applications.

    Raises:
        TypeError: `app` is no Application, or an argument cannot be pickled.
        ValueError: The name is not valid, or an Application contains itself.
    """
    _check_is_application(app)
    checked_application_name(name)
    graph = _Graph(with_code=False)
    ingress = graph.add(app)
    make_handle = functools.partial(_call_factory, handle_factory, name)
    deployments = []
    for node in graph.nodes.values():
        _, (args, kwargs) = _pickling.load(node.data, make_handle)
        spec = node.options.to_spec(CodeSource(), "local", None)
        code = LoadedDeployment(node.deployment.func_or_class, args, kwargs)
        deployments.append(LocalDeployment(spec, code))
    return ingress, deployments


def load_deployment(
    spec: DeploymentSpec, app_name: str, *, handle_factory: HandleFactory | None = None
) -> LoadedDeployment:
    """Get a deployment's code and constructor arguments, in a replica.

    Args:
        spec: What the replica is to run.
        app_name: Its application; nested Applications become handles to deployments of it.
        handle_factory: Makes them; default: `DeploymentHandle`.

    Raises:
        ImportError, ValueError: The code is not here, or has no such deployment.
        Exception: Whatever importing, building or unpickling the user's objects raises.
    """
    make_handle = functools.partial(_call_factory, handle_factory or _new_handle, app_name)
    extend_python_path(spec.code.python_path)
    if spec.code.import_source is None:
        try:
            code, (args, kwargs) = _pickling.load(spec.code.pickle, make_handle)
        except ModuleNotFoundError as error:
            raise ImportError(
                f"the code of deployment {spec.name!r} came by value and needs the module {error.name!r}, "
                "which is not on this node; install it there, or deploy with the directory that has it: "
                "slipknot deploy module:app --working-dir DIR"
            ) from error
        assert code is not None
        func_or_class, adapter = code
        return LoadedDeployment(func_or_class, args, kwargs, adapter)
    graph, _ = _graph_of(spec.code.import_source)
    node = graph.nodes.get(spec.name)
    if node is None:
        raise ValueError(
            f"{spec.code.import_source.import_path!r} has no deployment {spec.name!r} here, only "
            f"{', '.join(graph.nodes)}; do all nodes have the same code?"
        )
    _, (args, kwargs) = _pickling.load(node.data, make_handle)
    return LoadedDeployment(node.deployment.func_or_class, args, kwargs, node.options.http_adapter)


# --- inside -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Node:
    name: str
    deployment: Deployment
    options: DeploymentOptions
    """With the name that it has in this application."""
    data: bytes
    """Pickled (code, arguments), or (None, arguments) if replicas import the code."""


class _Graph:
    """Deployments of one application, those without children first."""

    def __init__(self, *, with_code: bool) -> None:
        self.nodes: dict[str, _Node] = {}
        self._with_code = with_code
        self._names: dict[int, str] = {}
        self._applications: list[Application] = []  # alive, so that ids stay theirs
        self._open: list[Application] = []

    def add(self, app: Application) -> str:
        """Add `app` with all it contains; returns the name of its deployment. Twice is fine."""
        if id(app) in self._names:
            return self._names[id(app)]
        if any(app is waiting for waiting in self._open):
            path = " → ".join(a._deployment.name for a in (*self._open, app))
            raise ValueError(
                f"an Application contains itself: {path}; use serve.get_deployment_handle in one of them"
            )
        self._open.append(app)
        try:
            data = self._dumped(app)
        finally:
            self._open.pop()
        options = app._deployment._options
        options = options.changed({"name": self._free_name(options.name)})
        self.nodes[options.name] = _Node(options.name, app._deployment, options, data)
        self._names[id(app)] = options.name
        self._applications.append(app)
        return options.name

    def _dumped(self, app: Application) -> bytes:
        deployment = app._deployment
        code = (deployment.func_or_class, deployment._options.http_adapter) if self._with_code else None
        return _pickling.dump(code, (app._args, app._kwargs), label=deployment.name, name_of=self.add)

    def _free_name(self, wanted: str) -> str:
        name, number = wanted, 0
        while name in self.nodes:
            number += 1
            name = f"{wanted}_{number}"
        return name


def _graph_of(source: ImportSource) -> tuple[_Graph, str]:
    graph = _Graph(with_code=False)
    ingress = graph.add(import_application(source))
    return graph, ingress


def _overridden(
    node: _Node, override: Mapping[str, Any] | None, code: CodeSource, source: ImportSource
) -> DeploymentSpec:
    options = node.options
    if override is not None:
        try:
            options = options.changed({key: value for key, value in override.items() if key != "name"})
        except (TypeError, ValueError) as error:
            raise type(error)(f"deployment {node.name!r}: {error}") from None
    identity = json.dumps(
        [
            *(node.name, source.import_path, dict(source.args)),
            *(source.working_dir, dict(source.env_vars), source.archive),
        ],
        sort_keys=True,
    )
    return options.to_spec(code, _version(identity.encode(), options), None)


def _overrides_by_name(overrides: Sequence[Mapping[str, Any]], graph: _Graph) -> dict[str, Mapping[str, Any]]:
    by_name: dict[str, Mapping[str, Any]] = {}
    for override in overrides:
        name = override.get("name")
        if name not in graph.nodes:
            raise ValueError(
                f"the config has options for a deployment {name!r}, but the application has only "
                f"{', '.join(graph.nodes)}"
            )
        if name in by_name:
            raise ValueError(f"the config has options for deployment {name!r} twice; merge them")
        by_name[name] = override
    return by_name


def _version(identity: bytes, options: DeploymentOptions) -> str:
    return hashlib.sha256(identity + options.restart_key().encode()).hexdigest()[:12]


def _check_is_application(app: Any) -> None:
    if isinstance(app, Application):
        return
    if isinstance(app, Deployment):
        raise TypeError(f"{app!r} is not bound to arguments yet; write {app.name}.bind(…)")
    raise TypeError(f"an Application is wanted, which is what .bind(…) of a deployment returns, not {app!r}")


def _check_ingresses(graph: _Graph) -> None:
    if "fastapi" not in sys.modules:
        return  # then there is none
    from ._ingress import is_fastapi_ingress

    names = [name for name, node in graph.nodes.items() if is_fastapi_ingress(node.deployment.func_or_class)]
    if len(names) > 1:
        raise SlipknotServeException(
            f"an application has at most one FastAPI ingress (serve.ingress), this one has {len(names)}: "
            f"{', '.join(names)}. Call the others through handles, or deploy them as own applications"
        )


def _call_factory(factory: HandleFactory, app_name: str, deployment_name: str) -> Any:
    return factory(deployment_name, app_name)


def _new_handle(deployment_name: str, app_name: str) -> Any:
    from .serve.handle import DeploymentHandle

    return DeploymentHandle(deployment_name, app_name)
