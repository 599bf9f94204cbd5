"""What users declare: deployments (code with options) and applications (a deployment bound to arguments).

Both are descriptions; nothing runs until `serve.run`.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, Unpack, overload

from ._options import DeploymentOptions, OptionValues


class Application:
    """A deployment bound to its constructor's arguments. Give it to `serve.run`, or bind it into another one.

    Where it stands in the arguments of another deployment, that deployment gets a `DeploymentHandle` instead
    of it: directly, or in a list, a dict, or an attribute of any object. The same Application used twice is
    one deployment.
    """

    __slots__ = ("_args", "_deployment", "_kwargs")

    def __init__(self, deployment: "Deployment", args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self._deployment = deployment
        self._args = args
        self._kwargs = dict(kwargs)

    def __repr__(self) -> str:
        return f"Application(deployment={self._deployment.name})"

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            if name == "remote":
                text = "an Application only describes what is to run; .remote() is on the handle of serve.run"
            else:
                text = (
                    f"'Application' object has no attribute {name!r}; its methods are called through a handle"
                )
            raise AttributeError(text, name=name, obj=self)


class Deployment:
    """A class or function with options. Made by `serve.deployment`; `bind` makes an application of it."""

    def __init__(self, func_or_class: Callable[..., Any], options: DeploymentOptions) -> None:
        self._func_or_class = func_or_class
        self._options = options

    def __repr__(self) -> str:
        return f"Deployment(name={self.name})"

    def __eq__(self, other: object) -> bool:
        """The same code with the same options."""
        if not isinstance(other, Deployment):
            return NotImplemented
        return self._func_or_class is other._func_or_class and self._options == other._options

    def __hash__(self) -> int:
        return hash((self._func_or_class, self.name))

    def __mro_entries__(self, _bases: tuple[Any, ...]) -> NoReturn:
        """Python asks when somebody derives a class from this.

        Raises:
            TypeError: Always.
        """
        raise TypeError(
            f"deployment {self.name!r} is no class to derive from; derive from {self.name}.func_or_class, or "
            "from the class before it is decorated"
        )

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Always raises.

        Raises:
            RuntimeError: A deployment is not constructed by calling it.
        """
        raise RuntimeError(
            f"deployment {self.name!r} cannot be constructed by calling it; write {self.name}.bind(…) and "
            f"give that to serve.run. For the plain class or function use {self.name}.func_or_class"
        )

    def bind(self, *args: Any, **kwargs: Any) -> Application:
        """Bind the constructor's arguments.

        Args:
            *args: Of the constructor; Applications among them, at any depth, become handles.
            **kwargs: The same by name.

        Raises:
            ValueError: There are arguments, but this is a function, which is not constructed.
        """
        if (args or kwargs) and not inspect.isclass(self._func_or_class):
            raise ValueError(
                f"deployment {self.name!r} is a function, which is not constructed; bind it without arguments"
            )
        return Application(self, args, kwargs)

    def options(
        self, func_or_class: Callable[..., Any] | None = None, **options: Unpack[OptionValues]
    ) -> "Deployment":
        """A copy with other options; those not named stay as they are.

        Args:
            func_or_class: Code in place of this deployment's; None: the same.
            **options: As for `serve.deployment`.

        Raises:
            TypeError: There is no such option, or its value is of the wrong type.
            ValueError: A value is not allowed, or two contradict each other.
        """
        if func_or_class is not None:
            _check_code(func_or_class)
        return Deployment(func_or_class or self._func_or_class, self._options.changed(options))

    @property
    def name(self) -> str:
        """Unique in the application; a second one of the same name gets a number."""
        return self._options.name

    @property
    def func_or_class(self) -> Callable[..., Any]:
        """What was decorated."""
        return self._func_or_class

    @property
    def num_replicas(self) -> int:
        """Number of replicas; with autoscaling, the number to begin with."""
        return self._options.num_replicas

    @property
    def user_config(self) -> Any:
        """Given to `reconfigure`; None: it is not called."""
        return self._options.user_config

    @property
    def max_ongoing_requests(self) -> int:
        """Requests that one replica runs at once."""
        return self._options.max_ongoing_requests

    @property
    def max_queued_requests(self) -> int:
        """Requests that each caller may queue; -1: no limit."""
        return self._options.max_queued_requests

    @property
    def backpressure_config(self) -> Mapping[str, Any] | None:
        """As JSON values; None: 503 without a Retry-After."""
        return self._options.backpressure_config

    @property
    def ray_actor_options(self) -> Mapping[str, Any]:
        """Resources of a replica."""
        return self._options.ray_actor_options or {}

    @property
    def logging_config(self) -> Mapping[str, Any] | None:
        """As JSON values; None: that of the application."""
        return self._options.logging_config


@overload
def deployment(_func_or_class: Callable[..., Any], /, **options: Unpack[OptionValues]) -> Deployment: ...


@overload
def deployment(
    _func_or_class: None = None, /, **options: Unpack[OptionValues]
) -> Callable[[Callable[..., Any]], Deployment]: ...


def deployment(
    _func_or_class: Callable[..., Any] | None = None, /, **options: Unpack[OptionValues]
) -> Deployment | Callable[[Callable[..., Any]], Deployment]:
    """Make a deployment of a class or function; a decorator, with or without parentheses.

        @serve.deployment(num_replicas=2)
        class Model: ...

    Args:
        _func_or_class: What handles requests; a class is constructed once in each replica.
        **options: `name`, `num_replicas`, `max_ongoing_requests` and more; see
            `slipknot._options.OptionValues`.

    Raises:
        TypeError: It is neither class nor function, there is no such option, or its value is of the wrong
            type.
        ValueError: The value of an option is not allowed, or two contradict each other.
    """

    def decorate(func_or_class: Callable[..., Any]) -> Deployment:
        _check_code(func_or_class)
        return Deployment(func_or_class, DeploymentOptions(name=func_or_class.__name__).changed(options))

    if _func_or_class is None:
        # Wrong options are reported at the line of the decorator, before the class is made.
        DeploymentOptions(name="unnamed").changed(options)
        return decorate
    return decorate(_func_or_class)


def _check_code(code: Any) -> None:
    if isinstance(code, Deployment):
        raise TypeError(
            f"{code.name!r} is a deployment already; use {code.name}.options(…) for other options"
        )
    if not inspect.isclass(code) and not inspect.isfunction(code):
        raise TypeError(
            f"serve.deployment makes deployments of classes and functions, not of {code!r}; wrap it in a "
            "function, or write @serve.deployment() with keywords only"
        )
