"""Sealed runs: the same tables as from the journal, less read, and nothing believed that is not of this journal."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from test_frames import FRAMES, delivered, write

from orchestrator_lab import frames, sealing
from orchestrator_lab.errors import DiskFull, EnvironmentProblem, JournalError
from orchestrator_lab.journal import JournalWriter
from orchestrator_lab.run import Run, open_run
from orchestrator_lab.schema import TABLES

if TYPE_CHECKING:
    from pathlib import Path


def ended(folder: Path) -> Path:
    return write(folder, delivered()(11, "run.ended", status="completed").events)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return ended(tmp_path)


def journal_never_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the journal was read")

    monkeypatch.setattr("orchestrator_lab.journal.reader.JournalReader._pieces", refuse)


@pytest.mark.parametrize("table", FRAMES)
def test_the_same_table_from_the_files_alone(table: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live = FRAMES[table](path)
    seal = Run(path).seal()
    assert seal.rows[table] == len(live)
    journal_never_read(monkeypatch)
    sealed = FRAMES[table](path)
    pd.testing.assert_frame_equal(sealed, live)
    assert sealed.attrs == live.attrs
    pd.testing.assert_frame_equal(Run(path).tables.frame(table), live)
    names = list(reversed(live.columns.tolist()))[:3]
    pd.testing.assert_frame_equal(FRAMES[table](path, columns=names), live[names])
    assert oct((path / "tables" / f"{table}.parquet").stat().st_mode & 0o777) == "0o600"
    # By other tools, too.
    assert len(pd.read_parquet(seal.file(table))) == len(live)


def test_many_runs_sealed_and_not(tmp_path: Path) -> None:
    paths = [ended(tmp_path) for _ in range(4)]
    live = {table: FRAMES[table](tmp_path) for table in TABLES}
    for one in (paths[1], paths[2]):
        Run(one).seal()
    for table in TABLES:
        pd.testing.assert_frame_equal(FRAMES[table](tmp_path), live[table])
    assert frames.messages_df(tmp_path, agents="nobody").dtypes.equals(live["messages"].dtypes)


def test_a_journal_that_grew_is_read(path: Path) -> None:
    Run(path).seal()
    with JournalWriter(path / "journal.jsonl", run_id=path.name) as writer:
        writer.append("note", agent="boss", text="one more")
    assert sealing.open_seal(path) is None
    assert frames.events_df(path)["event"].iloc[-1] == "note"
    assert Run(path).seal().rows["events"] == len(frames.events_df(path))
    assert sealing.open_seal(path) is not None


@pytest.mark.parametrize("what", ["a table", "a damaged table", "the facts", "another schema"])
def test_what_is_missing_or_damaged_is_told_and_the_journal_read(
    path: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    live = frames.messages_df(path)
    seal = Run(path).seal()
    facts = path / "tables" / "seal.json"
    if what == "a table":
        seal.file("messages").unlink()
    elif what == "a damaged table":
        seal.file("messages").write_bytes(seal.file("messages").read_bytes()[:-40])
    elif what == "the facts":
        facts.write_text("{")
    else:
        facts.write_text(json.dumps(json.loads(facts.read_text()) | {"schema_version": 999}))
    pd.testing.assert_frame_equal(frames.messages_df(path), live)
    assert "the journal is read instead" in caplog.text


def test_unsealed(path: Path) -> None:
    run = Run(path)
    assert not run.unseal()
    run.seal()
    assert run.unseal()
    assert not (path / "tables").exists()
    assert not list(path.glob(".tables*"))
    assert len(frames.messages_df(path)) == 1


def test_a_place_that_cannot_be_written_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Run(path).seal()
    before = sorted(path.rglob("*"))

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pyarrow.parquet.ParquetWriter.write_table", full)
    with pytest.raises(DiskFull, match="its tables cannot be written"):
        Run(path).seal()
    assert sorted(path.rglob("*")) == before
    monkeypatch.undo()
    monkeypatch.setattr("orchestrator_lab.sealing._array", lambda chunks, _: chunks.to_pandas().iloc[::-1].array)
    with pytest.raises(JournalError, match="is not what was written"):
        Run(path).seal()
    assert sorted(path.rglob("*")) == before


def test_two_at_once(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(EnvironmentProblem, match="is being sealed by another process"):
            Run(path).seal()
    finally:
        os.close(handle)
    Run(path).seal()


@pytest.mark.parametrize("at", ["_check", "_digest", "_write_facts", "_replace", "_put_aside", "sync_folder"])
def test_killed_while_it_seals(path: Path, at: str) -> None:
    """Whatever line it is: the tables are those of before, or of after, or the journal is read."""
    live = {table: FRAMES[table](path) for table in TABLES}
    Run(path).seal()
    code = f"""
        import os, signal, sys
        from orchestrator_lab import sealing
        from orchestrator_lab.run import Run
        sealing.{at} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        Run(sys.argv[1]).seal()
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(path)], check=False, env=os.environ)
    assert done.returncode == -signal.SIGKILL
    for table in TABLES:
        pd.testing.assert_frame_equal(FRAMES[table](path), live[table])
    Run(path).seal()
    assert not list(path.glob(".tables*"))
    assert open_run(path).messages.equals(live["messages"])
