"""docs/options.md says what the roles take."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_options_in_the_docs_are_those_of_the_configs() -> None:
    """If not, run scripts/gen-options."""
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "gen-options", "--check"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
