"""The demonstration: what `make demo` runs."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator_lab import demo
from orchestrator_lab.frames import messages_df, turns_df
from orchestrator_lab.models import DEFAULT_MODEL, installed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PROGRAM = [sys.executable, "-m", "orchestrator_lab", "demo"]


def run(*words: str, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        timeout=170,
        env={**os.environ, **(env or {})},
    )


def check_record(said: str, folder: Path, rounds: int) -> None:
    """What is printed names the run, and the run holds the conversation."""
    (path,) = (folder / "runs").iterdir()
    assert str(path) in said
    assert f"orchestrator-lab runs show runs/{path.name}" in said
    assert f"open_run('runs/{path.name}')" in said
    messages, turns = messages_df(path), turns_df(path)
    assert len(messages) == len(turns) == 3 * rounds
    assert set(messages["status"]) == {"answered"}
    assert turns["output_tokens"].notna().all()
    assert len(re.findall(r"→", said)) >= 3 * rounds


def test_without_a_model(runtime: Path, tmp_path: Path) -> None:
    done = run("--script", "--rounds", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    check_record(done.stdout, tmp_path, 2)
    assert "upside down in the shed" in done.stdout
    assert [entry for entry in runtime.iterdir() if entry.is_dir()] == []


@pytest.mark.local_model
@pytest.mark.slow
@pytest.mark.usefixtures("runtime")
def test_with_the_real_model(tmp_path: Path) -> None:
    if importlib.util.find_spec("xllamacpp") is None:
        pytest.skip("the extra 'local' is not installed")
    if all(model.name != DEFAULT_MODEL for model in installed()):
        pytest.skip(f"{DEFAULT_MODEL} is not on this machine")
    done = run("--rounds", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    check_record(done.stdout, tmp_path, 1)


@pytest.mark.usefixtures("runtime")
def test_it_can_be_kept(tmp_path: Path) -> None:
    done = run("--script", "--rounds", "1", "--keep", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = re.search(r"orchestrator-lab shutdown (demo-\w+)", done.stdout)
    assert found is not None
    lab = [sys.executable, "-m", "orchestrator_lab"]
    said = subprocess.run([*lab, "list", "--json"], capture_output=True, text=True, check=True)
    assert [one["name"] for one in json.loads(said.stdout)] == [found[1]]
    subprocess.run([*lab, "shutdown", found[1]], capture_output=True, check=True)


def test_ctrl_c_ends_it_cleanly(runtime: Path, tmp_path: Path, spawn: Callable[..., Any]) -> None:
    words = [*PROGRAM, "--script", "--rounds", "50"]
    talking = spawn(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not any(b'"turn.ended"' in path.read_bytes() for path in tmp_path.glob("runs/*/journal.jsonl")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    talking.send_signal(signal.SIGINT)
    talking.send_signal(signal.SIGINT)
    _, said = talking.communicate(timeout=60)
    assert talking.returncode == 130
    assert "Traceback" not in said
    assert [entry for entry in runtime.iterdir() if entry.is_dir()] == []


def test_what_is_missing_is_a_sentence(runtime: Path, tmp_path: Path) -> None:
    done = run("--script", cwd=tmp_path, env={"PATH": str(tmp_path)})
    assert done.returncode == 2
    assert done.stderr.startswith("error: there is no tmux on the PATH; install it")
    done = run("--script", cwd=tmp_path, env={"LC_ALL": "de_DE.ISO-8859-1"})
    assert done.returncode == 2
    assert "UTF-8" in done.stderr
    assert not (tmp_path / "runs").exists()
    assert runtime.is_dir()


def test_two_demonstrations_do_not_collide(tmp_path: Path) -> None:
    names = {demo.demo_config(runs_dir=tmp_path, script=True).name for _ in range(20)}
    assert len(names) == 20
