"""The runs that come with the notebooks, at their other level: the real programs on the recorded answers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.claude, pytest.mark.codex, pytest.mark.slow, pytest.mark.timeout(600)]

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


@pytest.mark.parametrize("name", ["04_record_and_replay", "05_share_a_run"])
def test_the_real_programs_do_it_again(
    runtime: Path, tmp_path: Path, claude_command: str, codex_command: str, name: str
) -> None:
    """A team of Claude Codes, a Claude Code with a Codex: each request is one that was recorded, or this would stop."""
    del runtime
    folders = {str(Path(command).parent) for command in (claude_command, codex_command)}
    environ = {
        **os.environ,
        "HOME": str(tmp_path),  # what a login shell of somebody's own says would stand in what agents see
        "ORCHESTRATOR_LAB_LEVEL": "model",
        "ORCHESTRATOR_LAB_MODE": "replay_strict",
        "PATH": os.pathsep.join([*folders, os.environ["PATH"]]),
    }
    options = ["-q", "-p", "no:cacheprovider", "--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=240"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(NOTEBOOKS / f"{name}.ipynb")],
        env=environ,
        cwd=NOTEBOOKS.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]
