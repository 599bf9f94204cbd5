"""What other processes can import, and from where."""

import importlib
import json
import os
import sys
import sysconfig
import types
from pathlib import Path
from types import ModuleType

import fastapi.routing
import pytest

import slipknot._graph
from slipknot._modules import extend_python_path, is_importable, is_library, user_python_path


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """On sys.path; modules imported from it are forgotten afterwards."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    importlib.invalidate_caches()
    return tmp_path


def imported(directory: Path, name: str) -> ModuleType:
    file = directory.joinpath(*name.split(".")).with_suffix(".py")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("")
    importlib.invalidate_caches()
    return importlib.import_module(name)


@pytest.mark.parametrize("module", [json, sys, fastapi.routing, pytest, slipknot._graph, importlib])
def test_libraries(module: ModuleType) -> None:
    """Python, installed packages, and slipknot itself wherever it lies."""
    assert is_library(module)
    assert is_importable(module)


def test_main_is_not_importable() -> None:
    """Another process has another `__main__`."""
    assert not is_importable(sys.modules["__main__"])


@pytest.mark.parametrize("name", ["modules_plain", "modules_package.inner", "modules_package.deep.inner"])
def test_modules_on_the_path(directory: Path, name: str) -> None:
    """Modules and packages of the user's, with and without `__init__`."""
    module = imported(directory, name)
    assert is_importable(module)
    assert not is_library(module)


def test_modules_made_by_hand() -> None:
    """There is nothing to import."""
    module = types.ModuleType("modules_by_hand")
    assert not is_importable(module)
    sys.modules["modules_by_hand"] = module
    try:
        assert not is_importable(module)
    finally:
        del sys.modules["modules_by_hand"]


def test_another_module_of_the_same_name(directory: Path) -> None:
    """A name that would give another file elsewhere."""
    module = imported(directory, "modules_shadowed")
    module.__file__ = str(directory / "other" / "modules_shadowed.py")
    assert not is_importable(module)


def test_a_directory_that_left_the_path(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other processes are told the path as it is now."""
    module = imported(directory, "modules_left")
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(directory)])
    assert not is_importable(module)


def test_user_python_path(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Directories of the user's in their order; no library, none missing, none twice, none relative."""
    (directory / "a").mkdir()
    (directory / "a.zip").write_bytes(b"")
    libraries = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    entries = [str(directory / "a"), "", str(directory), str(directory / "missing"), str(directory / "a.zip")]
    monkeypatch.setattr(sys, "path", [*entries, str(directory), *libraries])
    monkeypatch.chdir(directory)
    assert user_python_path() == (str(directory / "a"), str(directory))


def test_extend_python_path(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing goes first in its order; what is there stays where it is."""
    first, second, present = (directory / name for name in ("first", "second", "present"))
    for each in (first, second, present):
        each.mkdir()
    monkeypatch.setattr(sys, "path", ["start", str(present)])
    wanted = [str(first), str(present), "/no/such/place", str(second), str(first)]
    extend_python_path(wanted)
    extend_python_path(wanted)
    assert sys.path == [str(first), str(second), "start", str(present)]
    assert os.path.isdir(sys.path[0])
