"""Which of a checkout's modules are taken: the compiled ones, or their sources."""

import importlib
import os
import subprocess
import sys
import tomllib
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from slipknot_core.compiled import SHARED, SOURCES, SWITCH, is_fresh

ROOT = Path(__file__).parents[3]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Two sources of last week, compiled yesterday."""
    for name in ("a.py", "b.py"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1_000_000, 1_000_000))
    folder = tmp_path / "compiled"
    folder.mkdir()
    (folder / SOURCES).write_text("a.py\nb.py\n")
    _library(tmp_path).touch()
    os.utime(_library(tmp_path), (2_000_000, 2_000_000))
    return tmp_path


def _library(checkout: Path) -> Path:
    return checkout / "compiled" / (SHARED + EXTENSION_SUFFIXES[0])


def test_newer_than_all_sources(checkout: Path) -> None:
    """Then they are what the sources say."""
    assert is_fresh(str(checkout))


def test_an_edited_source(checkout: Path) -> None:
    """One is enough: compiled modules are parts of one library."""
    (checkout / "b.py").touch()
    assert not is_fresh(str(checkout))


def test_a_source_that_is_gone(checkout: Path) -> None:
    """It was moved, or another branch was checked out."""
    (checkout / "a.py").unlink()
    assert not is_fresh(str(checkout))


def test_nothing_for_this_python(checkout: Path) -> None:
    """Another version's modules do not count."""
    _library(checkout).rename(checkout / "compiled" / f"{SHARED}.cpython-300-other.so")
    assert not is_fresh(str(checkout))


def test_never_compiled(tmp_path: Path) -> None:
    """The sources run."""
    assert not is_fresh(str(tmp_path))


def test_classes_with_bases_of_other_packages_are_not_compiled() -> None:
    """Their types are out of sight when they are compiled: `super().__init__` would be that of `object`."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    sources = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["custom"]["modules"]
    names = [".".join(Path(source).with_suffix("").parts[1:]) for source in sources]
    bases = {
        base.__module__.partition(".")[0]
        for name in names
        for kind in vars(importlib.import_module(name)).values()
        if isinstance(kind, type) and kind.__module__ == name
        for base in kind.__mro__
    }
    assert bases <= {"slipknot_core", "slipknot_proxy", "builtins", "typing", "enum"}


@pytest.mark.parametrize("switch", ["0", "1"])
def test_the_switch(switch: str) -> None:
    """With 0 the sources run, whatever lies there; all packages with compiled modules agree."""
    code = (
        "import slipknot_core.routing.session as a, slipknot_core.deadline as b;"
        "import slipknot_proxy.http_request as c;"
        "from slipknot_core.compiled import is_in_use, is_fresh;"
        "kinds = {module.__file__.endswith('.py') for module in (a, b, c)};"
        "print(is_in_use(), is_fresh(), kinds)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, SWITCH: switch},
        capture_output=True,
        text=True,
        check=True,
    )
    is_in_use, _, kinds = done.stdout.split(maxsplit=2)
    if switch == "0":
        assert (is_in_use, kinds) == ("False", "{True}\n")
    else:
        assert done.stdout in {"True True {False}\n", "False False {True}\n"}
