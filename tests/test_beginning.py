from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from orchestrator_lab.beginning import create_run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("program", "told"),
    [
        (f"{sys.prefix}/bin/orchestrator-lab", "bin/orchestrator-lab"),
        ("/srv/study/analysis.py", "/srv/study/analysis.py"),
        ("analysis.py", "analysis.py"),
        ("", ""),
    ],
    ids=["installed", "a script", "beside", "none"],
)
def test_an_installed_program_is_told_by_its_place_below_pythons_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, told: str
) -> None:
    monkeypatch.setattr(sys, "argv", [program])
    run_dir = create_run(tmp_path, name="lab", config={}, work_dir=tmp_path)
    assert json.loads((run_dir / "manifest.json").read_text(encoding="utf-8"))["command"] == told
