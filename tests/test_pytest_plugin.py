"""The pytest plugin, as users have it: in a pytest of its own, from outside."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import psutil
from nbformat.v4 import new_code_cell, new_notebook, new_output
from power_cut import until

from orchestrator_lab import Cluster

if TYPE_CHECKING:
    from collections.abc import Callable

PLUGIN = "orchestrator_lab.pytest_plugin"
CONFIG = """
CONFIG = {
    "cluster": {"name": "tried", "gateway": {"script": [{"reply": "{agent}: {text}"}]}},
    "agents": [{"name": "ada", "kind": "chat"}],
}
"""
#: A test whose agent starts something that outlives it, in a session of its own.
TESTS = """
import os, sys

def test_it_costs_nothing_until_it_is_used():
    loaded = [one for one in sys.modules if one.startswith("orchestrator_lab")]
    assert loaded == ["orchestrator_lab", "orchestrator_lab.pytest_plugin"]

def test_a_cluster_is_started_and_left(cluster, tmp_path):
    started = cluster({**CONFIG, "cluster": {**CONFIG["cluster"], "work_dir": str(tmp_path)}})
    assert started["ada"].ask("hello", timeout=60).reply == "ada: hello"
    assert started.run_dir.parent == tmp_path / "runs"
    (tmp_path.parent.parent / "home").write_text(os.environ["ORCHESTRATOR_RUNTIME_DIR"])

def test_a_run_is_replayed(replay_run):
    again = replay_run(BUNDLE)
    assert again.run.manifest["mode"] == "replay_strict"
    assert again["ada"].ask("hello", timeout=60).reply == "ada: hello"

def test_something_survives(cluster, tmp_path):
    import subprocess

    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
"""


def outside(folder: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run pytest where this suite's own conftest and settings are not seen."""
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    argv = [sys.executable, "-m", "pytest", "-p", PLUGIN, "-p", "no:cacheprovider", "--basetemp", str(folder / "t")]
    env = {**os.environ, "COLUMNS": "200", **environ}
    argv += words
    return subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=150)


def test_clusters_end_with_their_test_and_what_survives_fails_it(
    runtime: Path, script_config: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    del runtime
    with Cluster.start(script_config("ada")) as recorded:
        recorded["ada"].ask("hello", timeout=60)
    recorded.run.export(tmp_path / "night.olab.zip")
    (tmp_path / "test_it.py").write_text(
        f"{CONFIG}\nBUNDLE = {str(tmp_path / 'night.olab.zip')!r}\n{TESTS}", encoding="utf-8"
    )
    done = outside(tmp_path, "-q", ORCHESTRATOR_LAB_MODE="live")
    assert re.search(r"^4 passed, 1 error", done.stdout, re.MULTILINE), done.stdout + done.stderr
    assert "ERROR test_it.py::test_something_survives - Failed: this test left processes behind" in done.stdout
    told = re.search(r"(\d+) \S+ -c import time; time\.sleep\(600\)", done.stdout)
    assert told is not None, done.stdout
    until(lambda: not psutil.pid_exists(int(told[1])))  # whoever inherits it looks after it a moment later
    assert not Path((tmp_path / "home").read_text(encoding="utf-8")).exists()
    assert not list(tmp_path.glob("*runs*"))
    assert not list(tmp_path.glob("*-replay"))


def test_nbval_takes_the_sanitizers_by_a_word(tmp_path: Path) -> None:
    cell = new_code_cell("print('run_' + 'a' * 26, '127.0.0.1:' + str(4321))", execution_count=1)
    cell.outputs = [new_output("stream", name="stdout", text="run_... 127.0.0.1:...\n")]
    path = tmp_path / "n.ipynb"
    nbformat.write(new_notebook(cells=[cell]), path)
    words = ("--nbval", "--nbval-current-env", "--nbval-sanitize-with", "orchestrator-lab", "-q", str(path))
    done = outside(tmp_path, *words)
    assert "1 passed" in done.stdout, done.stdout


def test_pytest_finds_it_by_itself() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    # Under another name than the module's, who says -p would have it twice, which pytest refuses.
    assert project["entry-points"]["pytest11"] == {PLUGIN: PLUGIN}
    assert importlib.import_module(PLUGIN).cluster
