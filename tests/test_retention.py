"""Which runs may go: by number, age and size; and the commands that seal and prune."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_cli import good, run, sentence
from test_frames import delivered
from test_sealing import ended

from orchestrator_lab import messages_df
from orchestrator_lab.beginning import create_run
from orchestrator_lab.errors import EnvironmentProblem
from orchestrator_lab.retention import Kept, expired, look_at, remove
from orchestrator_lab.run import Run

NOW = datetime(2026, 11, 24, tzinfo=UTC)
RUNS = st.lists(
    st.tuples(
        st.floats(0, 400), st.integers(0, 100), st.sampled_from(["completed", "failed", "running", None]), st.booleans()
    ),
    max_size=12,
).map(
    lambda rows: [
        Kept(Path(f"run_{number}"), NOW - timedelta(days=days), size, status, annotated)
        for number, (days, size, status, annotated) in enumerate(sorted(rows, key=lambda row: -row[0]))
    ]
)


@given(RUNS, st.none() | st.integers(0, 12), st.none() | st.floats(0, 400), st.none() | st.integers(0, 600))
def test_what_goes_is_beyond_a_limit_and_nobodys(
    runs: list[Kept], keep: int | None, days: float | None, size: int | None
) -> None:
    going = expired(runs, keep=keep, days=days, size=size, now=NOW)
    left = [one for one in runs if one not in going]
    assert all(one.removable for one in going)
    assert going == [one for one in runs if one in going]
    if keep is not None:
        assert not [one for one in runs[: max(0, len(runs) - keep)] if one.removable and one in left]
    if days is not None:
        assert not [one for one in left if one.removable and one.began and NOW - one.began > timedelta(days=days)]
    if size is not None:
        assert sum(one.size for one in left) <= size or not [one for one in left if one.removable]
    if keep is days is size is None:
        assert going == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three runs that are over, one of them annotated, one without an end, and a damaged one."""
    runs = [ended(tmp_path / "runs") for _ in range(3)]
    Run(runs[0]).annotate("msg_1", label="kept")
    open_ = create_run(tmp_path / "runs", config={}, name="duo")
    (open_ / "journal.jsonl").write_text("".join(event.to_json() + "\n" for event in delivered().events))
    damaged = create_run(tmp_path / "runs", config={}, name="duo")
    (damaged / "manifest.json").write_text("{")
    return tmp_path / "runs"


def test_look_and_remove(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = look_at(folder)
    assert len(runs) == 5
    assert [one.removable for one in sorted(runs, key=lambda one: one.path.name)] == [False, True, True, False, False]
    assert all(one.size > 0 for one in runs)
    going = expired(runs, keep=0)
    assert remove(going) == sum(one.size for one in going)
    assert len(look_at(folder)) == 3
    assert not list(folder.glob(".removed*"))
    monkeypatch.setattr("shutil.rmtree", lambda _: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    with pytest.raises(EnvironmentProblem, match="cannot be removed"):
        remove(look_at(folder)[-1:])


def test_the_commands(folder: Path, tmp_path: Path) -> None:
    home = tmp_path
    said = good("runs", "seal", "--all", cwd=home)
    assert said.count("sealed run_") == 3
    assert "nothing to seal" in good("runs", "seal", "--all", cwd=home)
    one = min(path for path in folder.iterdir() if (path / "tables").is_dir())
    (row,) = json.loads(good("runs", "seal", one.name, "--json", cwd=home))
    assert row["rows"]["messages"] == 1
    assert len(messages_df(one)) == 1
    assert "unsealed" in good("runs", "unseal", one.name, cwd=home)
    assert not (one / "tables").exists()
    assert "name runs, or say --all" in sentence("runs", "seal", cwd=home)
    assert "say what is to be kept" in sentence("runs", "prune", cwd=home)
    assert "2 of 5 runs would be removed" in good("runs", "prune", "--keep", "0", "--dry-run", cwd=home)
    assert "nothing to remove" in good("runs", "prune", "--days", "9999", cwd=home)
    refused = run("runs", "prune", cwd=home, env={"ORCHESTRATOR_RETENTION__KEEP": "0"})
    assert (refused.returncode, len(list(folder.iterdir()))) == (1, 5)
    assert "removed 2 runs" in good("runs", "prune", "--gigabytes", "0", "--yes", cwd=home)
    assert len(list(folder.iterdir())) == 3
    wrong = sentence("runs", "prune", cwd=home, env={"ORCHESTRATOR_RETENTION__KEEP": "many"})
    assert "ORCHESTRATOR_RETENTION__KEEP" in wrong
