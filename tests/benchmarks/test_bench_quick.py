from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# Goals are checked on a quiet machine and kept in docs/benchmarks.md. Here is only asked whether something is badly
# wrong, always against a baseline that took turns with it in the same run.

pytestmark = pytest.mark.timeout(600)


def figures(tmp_path: Path, script: str, *options: str) -> dict[str, dict[str, Any]]:
    out = tmp_path / "figures.json"
    command = [sys.executable, str(Path(__file__).with_name(script)), "--quick", "--json", str(out), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    return {row["name"]: row for row in json.loads(out.read_text())["figures"]}


@pytest.mark.benchmark
def test_a_message_costs_little_more_than_one_sent_by_hand(tmp_path: Path) -> None:
    found = figures(tmp_path, "bench_messages.py", "--kind", "chat")
    for name in ("chat: ask() to acceptance", "chat: ask() to the reply"):
        assert found[name]["ratio"] < 4, found[name]


@pytest.mark.benchmark
@pytest.mark.slow
def test_recording_costs_a_turn_nothing_that_is_felt(tmp_path: Path) -> None:
    found = figures(tmp_path, "bench_record.py", "--kind", "chat")
    assert found["chat: a turn, recorded"]["ratio"] < 2, found


@pytest.mark.benchmark
def test_recorded_runs_replay_the_same_and_faster(tmp_path: Path) -> None:
    for name, found in figures(tmp_path, "bench_replay.py").items():
        assert found["ratio"] < 1, name


@pytest.mark.benchmark
@pytest.mark.slow
def test_a_reply_comes_at_once_when_its_turn_ends(tmp_path: Path) -> None:
    found = figures(tmp_path, "bench_turn_end.py")
    assert found["end of a turn told by hook"]["ratio"] < 1 / 10, found
    assert found["end of a turn told by a marker on the screen"]["ratio"] < 1 / 2, found


@pytest.mark.benchmark
@pytest.mark.slow
def test_the_end_of_an_agent_is_told_at_once(tmp_path: Path) -> None:
    found = figures(tmp_path, "bench_exit.py")
    assert found["kill -9 to the event with its signal, median"]["ratio"] < 1 / 5, found


@pytest.mark.benchmark
@pytest.mark.slow
def test_a_bundle_is_checked_and_opened_like_a_folder(tmp_path: Path) -> None:
    found = figures(tmp_path, "bench_bundle.py")
    assert found["verify"]["ratio"] < 4, found
    assert found["open, and its messages, beside a folder"]["ratio"] < 4, found


@pytest.mark.benchmark
@pytest.mark.slow
def test_long_runs_are_read_faster_than_by_hand(tmp_path: Path) -> None:
    found = figures(tmp_path, "bench_tables.py")
    assert found["5,000 messages: journal, first load"]["ratio"] < 1.5, found
    assert found["5,000 messages: 10 new messages"]["ratio"] < 0.5, found


@pytest.mark.benchmark
def test_importing_the_package_is_nearly_free(tmp_path: Path) -> None:
    found = figures(tmp_path, "bench_import.py")
    assert found["import orchestrator_lab"]["ratio"] < 5, found
    assert found["orchestrator-lab --help"]["ratio"] < 25, found
