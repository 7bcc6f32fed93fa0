from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.benchmark
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_driver_is_much_faster_than_libtmux(tmp_path: Path) -> None:
    # The targets are checked by hand on a quiet machine; here is only asked whether something is badly wrong.
    out = tmp_path / "ratios.json"
    script = Path(__file__).with_name("bench_tmux.py")
    done = subprocess.run(
        [sys.executable, str(script), "--quick", "--json", str(out)], capture_output=True, text=True, check=False
    )
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    ratios = {row["name"]: row for row in json.loads(out.read_text())["ratios"]}
    for name in (
        "send keys",
        "capture one pane (50 rows)",
        "capture all 100 panes",
        "state of all 100 panes: life and status",
        "one of 200 pipelined commands",
    ):
        assert ratios[name]["ratio"] > 5, ratios[name]
    assert "byte-exact: True" in ratios["64 000 characters typed, all arrived"]["note"]
    assert "missed 0 of" in ratios["exit told (against polling every 250 ms)"]["note"]
