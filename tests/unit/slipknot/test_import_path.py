"""Import paths."""

import sys
from pathlib import Path
from typing import Any

import pytest

from slipknot._import_path import import_attribute, split_import_path


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's: its name."""
    (tmp_path / "import_path_sample.py").write_text("class Outer:\n    app = 7\napp = 5\n")
    (tmp_path / "import_path_broken.py").write_text("import import_path_missing\n")
    (tmp_path / "import_path_raises.py").write_text("raise RuntimeError('at import')\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("sample", "broken", "raises"):
        monkeypatch.delitem(sys.modules, f"import_path_{name}", raising=False)
    return "import_path_sample"


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("module:app", ("module", "app")),
        ("module.app", ("module", "app")),
        ("a.b.c:app", ("a.b.c", "app")),
        ("a.b.c", ("a.b", "c")),
        ("a.b:C.app", ("a.b", "C.app")),
    ],
)
def test_parts(path: str, parts: tuple[str, str]) -> None:
    """A colon or the last dot parts module and attribute."""
    assert split_import_path(path) == parts


@pytest.mark.parametrize(
    "path", ["", "module", "a:b:c", "module:", ":app", "a..b", ".app", "a b:c", "a/b.py:app", "a-b:c"]
)
def test_malformed(path: str) -> None:
    """The error names the path and the form it should have."""
    with pytest.raises(ValueError, match="'module:attribute'"):
        split_import_path(path)


@pytest.mark.parametrize("path", [None, 3, ["a:b"]])
def test_no_text(path: Any) -> None:
    """Anything but text is a TypeError."""
    with pytest.raises(TypeError, match="is text like"):
        split_import_path(path)


def test_import(module: str) -> None:
    """Both forms, and attributes of attributes."""
    assert import_attribute(f"{module}:app") == 5
    assert import_attribute(f"{module}.app") == 5
    assert import_attribute(f"{module}:Outer.app") == 7


def test_missing_module() -> None:
    """The error tells where it was looked for."""
    with pytest.raises(ImportError, match=r"no module 'import_path_nowhere'.*looked for in"):
        import_attribute("import_path_nowhere:app")


def test_missing_submodule(module: str) -> None:
    """Also below a module that is there."""
    with pytest.raises(ImportError, match=rf"no module '{module}\.sub'"):
        import_attribute(f"{module}.sub:app")


def test_missing_attribute(module: str) -> None:
    """The error lists what the module has."""
    with pytest.raises(ImportError, match=r"has no attribute 'nothing'; it has Outer, app"):
        import_attribute(f"{module}:nothing")


def test_a_module_that_cannot_be_imported(module: str) -> None:
    """What the module itself raises passes unchanged: it is not the path that is wrong."""
    del module
    with pytest.raises(ModuleNotFoundError, match="import_path_missing") as caught:
        import_attribute("import_path_broken:app")
    assert caught.value.name == "import_path_missing"
    with pytest.raises(RuntimeError, match="at import"):
        import_attribute("import_path_raises:app")
