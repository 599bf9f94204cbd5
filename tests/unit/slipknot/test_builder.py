"""From what an import path names to an Application."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field

from slipknot import serve
from slipknot._builder import build, import_application
from slipknot.serve import Application
from slipknot_core.spec import ImportSource


@serve.deployment
class Model:
    def __init__(self, *args: Any) -> None:
        pass


class Arguments(BaseModel):
    size: int = Field(gt=0)


def no_parameter() -> Application:
    return Model.bind()


def one(args: dict[str, Any]) -> Application:
    return Model.bind(args)


def optional(args: dict[str, Any] | None = None) -> Application:
    return Model.bind(args)


def typed(args: Arguments) -> Application:
    return Model.bind(args)


def unresolvable(args: "NoSuchThing") -> Application:  # type: ignore[name-defined]  # noqa: F821
    return Model.bind(args)


def two(a: int, b: int) -> Application:
    return Model.bind(a, b)


def keyword_only(*, size: int) -> Application:
    return Model.bind(size)


def wrong() -> Any:
    return Model


def bound_args(application: Application) -> Any:
    return application._args


def test_application() -> None:
    """One that is bound already is taken as it is."""
    application = Model.bind()
    assert build(application, {}, "m:app") is application
    with pytest.raises(ValueError, match=r"built already, so it takes no arguments: size"):
        build(application, {"size": 1}, "m:app")


@pytest.mark.parametrize(
    ("builder", "args", "bound"),
    [
        (no_parameter, {}, ()),
        (one, {"a": 1}, ({"a": 1},)),
        (one, {}, ({},)),
        (optional, {}, (None,)),
        (optional, {"a": 1}, ({"a": 1},)),
        (typed, {"size": "3"}, (Arguments(size=3),)),
        (unresolvable, {"a": 1}, ({"a": 1},)),
    ],
)
def test_builders(builder: Any, args: dict[str, Any], bound: Any) -> None:
    """No parameter or one: a dict, or a model that checks it."""
    assert bound_args(build(builder, args, "m:f")) == bound


@pytest.mark.parametrize(
    ("target", "args", "error", "text"),
    [
        (no_parameter, {"a": 1}, ValueError, "takes no argument"),
        (typed, {"size": 0}, ValueError, r"args\.size"),
        (typed, {}, ValueError, r"args\.size: is required"),
        (two, {}, TypeError, "requires a, b"),
        (keyword_only, {}, TypeError, "requires size"),
        (wrong, {}, TypeError, "must return an Application"),
        (Model, {}, TypeError, r"let the import path name Model\.bind"),
        (Arguments, {}, TypeError, "an Application or a function"),
        (7, {}, TypeError, "not int 7"),
    ],
)
def test_refusals(target: Any, args: dict[str, Any], error: type[Exception], text: str) -> None:
    """Errors name the import path and what is wrong with it."""
    with pytest.raises(error, match=text) as caught:
        build(target, args, "m:x")
    assert "m:x" in str(caught.value)


def test_what_a_builder_raises_passes() -> None:
    """It is the user's own error."""

    def failing() -> Application:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        build(failing, {}, "m:f")


def test_working_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules are imported from the directory of the source."""
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))  # restores sys.path afterwards
    (tmp_path / "builder_sample.py").write_text(
        "from slipknot import serve\n@serve.deployment\nclass M: pass\napp = M.bind()\n"
    )
    source = ImportSource("builder_sample:app", working_dir=str(tmp_path))
    assert import_application(source) is import_application(source)


def test_missing_working_dir() -> None:
    """The error names the directory."""
    with pytest.raises(ImportError, match="'/no/such/place' does not exist here"):
        import_application(ImportSource("m:app", working_dir="/no/such/place"))
