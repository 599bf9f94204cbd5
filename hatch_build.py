"""Compiles the modules that each request goes through, when slipknot is installed or a wheel is built.

They are ordinary Python and run as such, too: where there is no C compiler, or with SLIPKNOT_COMPILED=0, the
installation has no compiled modules, which does no harm but to speed. Which modules: pyproject.toml,
`tool.hatch.build.targets.wheel.hooks.custom`. How a checkout takes them: `slipknot_core/compiled.py`.

`python hatch_build.py` compiles if a source has changed since the last time; it needs mypy and setuptools.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent
MYPY_CONFIG = """
[mypy]
mypy_path = {roots}
explicit_package_bases = True
namespace_packages = True
# The types of other packages are there in one installation and missing in the next: never look at them.
no_site_packages = True
ignore_missing_imports = True
"""

sys.path.insert(0, str(ROOT / "sdk"))  # nothing is installed yet
from slipknot_core.compiled import FOLDER as _FOLDER  # noqa: E402
from slipknot_core.compiled import SHARED, SOURCES, SWITCH, is_fresh  # noqa: E402

sys.path.pop(0)
FOLDER = Path(_FOLDER)

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run as a program, without a build
    BuildHookInterface = object


class CompileHook(BuildHookInterface):  # type: ignore[misc]
    """Puts compiled modules into wheels, and into the folder `compiled` for an editable installation."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before the wheel is put together."""
        if os.environ.get(SWITCH) == "0":
            return
        try:
            failure = compile_if_changed()
        except OSError as error:  # no room, a read-only checkout
            failure = f"slipknot has no compiled modules: {error}"
        if failure:
            self.app.display_warning(failure)
        elif version != "editable":
            build_data["pure_python"] = False
            build_data["infer_tag"] = True
            for path in FOLDER.rglob(f"*{EXTENSION_SUFFIXES[0]}"):
                build_data["force_include"][str(path)] = str(path.relative_to(FOLDER))


def compile_if_changed() -> str:
    """Bring the folder `compiled` up to date; returns why that cannot be done, or nothing."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    sources = settings["targets"]["wheel"]["hooks"]["custom"]["modules"]
    if is_fresh() and (FOLDER / SOURCES).read_text().splitlines() == sources:
        return ""
    began_ns = time.time_ns()
    with tempfile.TemporaryDirectory(dir=ROOT, prefix=".compiling-") as name:
        out = Path(name, "out")
        arguments = [sys.executable, __file__, name, *settings["dev-mode-dirs"], "--", *sources]
        done = subprocess.run(
            arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        if done.returncode:
            return f"{done.stdout}\nThis is why slipknot has no compiled modules; it is slower without them."
        for library in out.glob(f"{SHARED}.*"):
            os.utime(library, ns=(began_ns, began_ns))  # a source that was edited meanwhile is newer
        (out / SOURCES).write_text("\n".join(sources) + "\n")
        shutil.rmtree(FOLDER, ignore_errors=True)
        os.rename(out, FOLDER)
    return ""


def run_mypyc(folder: Path, roots: list[str], sources: list[str]) -> None:
    """Compile sources into `folder/out`; ends the process if that fails."""
    from mypyc.build import mypycify
    from setuptools import Distribution

    config = folder / "mypy.ini"
    config.write_text(MYPY_CONFIG.format(roots=", ".join(roots)))
    modules = mypycify(
        [f"--config-file={config}", f"--cache-dir={folder / 'cache'}", *sources],
        group_name=SHARED.removesuffix("__mypyc"),
        target_dir=str(folder / "c"),
        opt_level="2",
        debug_level="0",
    )
    # Not `setup`: it would read pyproject.toml, which is hatchling's.
    build = Distribution({"name": "slipknot", "ext_modules": modules}).get_command_obj("build_ext")
    build.build_lib = str(folder / "out")
    build.build_temp = str(folder / "o")
    build.ensure_finalized()
    build.run()


if __name__ == "__main__":
    if "--" in sys.argv:
        end = sys.argv.index("--")
        run_mypyc(Path(sys.argv[1]), sys.argv[2:end], sys.argv[end + 1 :])
    else:
        sys.exit(compile_if_changed() or 0)
