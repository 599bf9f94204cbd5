"""Deployments and applications as users declare them."""

import functools
from typing import Any

import pytest

from slipknot import serve
from slipknot.serve import Application, Deployment


class Model:
    pass


def function() -> str:
    return "x"


def test_bare_decorator() -> None:
    """Without parentheses the name is that of the class or function."""
    assert isinstance(serve.deployment(Model), Deployment)
    assert serve.deployment(Model).name == "Model"
    assert serve.deployment(function).name == "function"


def test_decorator_with_options() -> None:
    """With parentheses, options are keywords."""

    @serve.deployment(
        name="x", num_replicas=3, max_ongoing_requests=7, user_config={"a": 1}, max_queued_requests=9
    )
    class Other:
        pass

    assert (Other.name, Other.num_replicas, Other.max_ongoing_requests) == ("x", 3, 7)
    assert (Other.user_config, Other.max_queued_requests) == ({"a": 1}, 9)
    assert Other.func_or_class.__name__ == "Other"
    assert serve.deployment()(Model).name == "Model"
    assert serve.deployment(Model, name="y").name == "y"


def test_properties_of_optional_options() -> None:
    """What is not set is empty."""
    plain = serve.deployment(Model)
    assert plain.ray_actor_options == {}
    assert plain.logging_config is None
    assert plain.backpressure_config is None
    assert plain.options(backpressure_config={"status_code": 429}).backpressure_config == {"status_code": 429}
    assert plain.user_config is None
    assert plain.options(ray_actor_options={"num_cpus": 1}).ray_actor_options == {"num_cpus": 1}


@pytest.mark.parametrize(
    "code", ["text", 3, Model(), functools.partial(function), len, [Model], serve.deployment(Model)]
)
def test_only_classes_and_functions(code: Any) -> None:
    """Anything else is refused at the decorator."""
    with pytest.raises(TypeError, match=r"serve\.deployment makes|is a deployment already"):
        serve.deployment(code)
    with pytest.raises(TypeError, match=r"serve\.deployment makes|is a deployment already"):
        serve.deployment(num_replicas=2)(code)


def test_wrong_options_are_refused_before_the_class_is_there() -> None:
    """The decorator's own line raises."""
    with pytest.raises(TypeError, match="num_replicas"):
        serve.deployment(num_replica=2)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="num_replicas"):
        serve.deployment(num_replicas=0)


def test_options_make_a_copy() -> None:
    """Options not named stay, the original stays as it was."""
    first = serve.deployment(Model, max_ongoing_requests=7)
    second = first.options(name="second", num_replicas=2)
    assert (second.name, second.num_replicas, second.max_ongoing_requests) == ("second", 2, 7)
    assert (first.name, first.num_replicas) == ("Model", 1)
    assert second.options(name=None).name == "second"
    assert second.func_or_class is first.func_or_class


def test_options_with_other_code() -> None:
    """Name and options stay those of the deployment."""
    other = serve.deployment(Model, num_replicas=2).options(func_or_class=function)
    assert (other.func_or_class, other.name, other.num_replicas) == (function, "Model", 2)
    with pytest.raises(TypeError, match=r"serve\.deployment makes"):
        other.options("text")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "error"), [({"x": 1}, TypeError), ({"max_ongoing_requests": 0}, ValueError)]
)
def test_options_are_checked(text: Any, error: type[Exception]) -> None:
    """As in the decorator."""
    with pytest.raises(error):
        serve.deployment(Model).options(**text)


def test_calling_a_deployment() -> None:
    """A deployment is not constructed by calling it; the error says what to do."""
    with pytest.raises(RuntimeError, match=r"Model\.bind"):
        serve.deployment(Model)()


def test_deployments_are_equal_if_code_and_options_are() -> None:
    """And can be keys."""
    deployment = serve.deployment(Model)
    assert deployment == serve.deployment(Model)
    assert deployment.options(num_replicas=2) == deployment.options(num_replicas=2) != deployment
    assert deployment != serve.deployment(type("Model", (), {}))
    assert deployment != "Model"
    assert len({deployment, deployment.options(), deployment.options(user_config={"a": [1]})}) == 2


def test_deriving_from_a_deployment() -> None:
    """It is no class; the error says what is."""
    deployment: Any = serve.deployment(Model)
    with pytest.raises(
        TypeError, match=r"'Model' is no class to derive from; derive from Model\.func_or_class"
    ):

        class _Larger(deployment):
            pass


def test_text_forms() -> None:
    """Both tell the name."""
    assert str(serve.deployment(Model)) == "Deployment(name=Model)"
    assert str(serve.deployment(Model).bind()) == "Application(deployment=Model)"


def test_functions_take_no_arguments() -> None:
    """A function is not constructed."""
    assert isinstance(serve.deployment(function).bind(), Application)
    with pytest.raises(ValueError, match="'function' is a function"):
        serve.deployment(function).bind(1)


def test_applications_are_not_called() -> None:
    """`remote` is on handles only, and so are the methods."""
    application = serve.deployment(Model).bind()
    with pytest.raises(AttributeError, match=r"handle of serve\.run"):
        application.remote()  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="'predict'"):
        application.predict  # type: ignore[attr-defined]  # noqa: B018
