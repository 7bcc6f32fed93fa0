"""Every wrong source of tables: one clear sentence from each function and command, and whatever can be read is read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from any_journal import Step, make_run, write
from test_frames import FRAMES

from orchestrator_lab import frames
from orchestrator_lab.errors import OrchestratorLabError, RunNotFound
from orchestrator_lab.run import Run
from orchestrator_lab.schema import TABLES

if TYPE_CHECKING:
    from pathlib import Path

STEPS = (
    Step("run.started", {"name": "duo"}),
    Step("agent.added", {"agent": "ada", "agent_id": "agt_1", "name": "ada", "kind": "chat"}),
    Step("message.queued", {"message_id": "msg_1", "sender": "user", "recipient": "ada", "content": "hello"}),
    Step("message.claimed", {"message_id": "msg_1"}),
    Step("turn.started", {"agent": "ada", "turn_id": "trn_1"}),
    Step("run.ended", {"status": "completed"}),
)
#: Lines that are no event, and what is said of each.
DAMAGED = {
    "no JSON": (b"\0\0garbage{", "Expecting value"),
    "no UTF-8": (b'{"seq":2,"event":"\xff"}', "utf-8"),
    "cut": (b'{"seq":2,"event":"no', "Unterminated string"),
    "no object": (b"[1]", "JSON object, not a list"),
    "no envelope": (b'{"seq":2}', "it has no 'event'"),
    "a name that is none": (
        b'{"seq":2,"event":["a"],"at":"x","monotonic_s":1}',
        "its 'event' is of type list",
    ),
    "a clock that is none": (b'{"seq":2,"event":"note","at":"x","monotonic_s":"y"}', "'monotonic_s' is of type str"),
    "an agent that is none": (
        b'{"seq":2,"event":"agent.state","at":"x","monotonic_s":1,"agent":["x"]}',
        "its 'agent' is of type list",
    ),
    "an id that is none": (
        b'{"seq":2,"event":"message.queued","at":"x","monotonic_s":1,"message_id":{}}',
        "its 'message_id' is of type dict",
    ),
    "attributes that are none": (
        b'{"seq":2,"event":"message.queued","at":"x","monotonic_s":1,"message_id":"m","attributes":[1]}',
        "its 'attributes' is of type list, not dict",
    ),
    "nested too deep": (b"[" * 100_000, "recursion"),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "runs").mkdir()
    return good(tmp_path / "runs", "run_1")


def good(folder: Path, run_id: str) -> Path:
    path = make_run(folder, run_id)
    list(write(path, STEPS))
    return path


def orchestrator(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator_lab", *map(str, words)],
        env={**os.environ, "COLUMNS": "400", "ORCHESTRATOR_RUNTIME_DIR": str(cwd / "runtime")},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert "this is a bug" not in done.stderr
    return done


@pytest.mark.parametrize("what", ["nothing", "a file", "a binary file", "a file of lines", "a journal's place"])
def test_what_is_no_run(what: str, tmp_path: Path) -> None:
    place = tmp_path / "place"
    if what == "a file":
        place.write_text("hello\n")
    elif what == "a binary file":
        place.write_bytes(os.urandom(200))
    elif what == "a file of lines":
        place = tmp_path / "place.jsonl"
        place.write_bytes(b'\xff\x00\n{"a":1}\n[1]\n')
    elif what == "a journal's place":
        place = tmp_path / "journal.jsonl" / "deeper"
        (tmp_path / "journal.jsonl").touch()
    said = set()
    for table in FRAMES.values():
        with pytest.raises(RunNotFound) as caught:
            table(place)
        said.add(str(caught.value))
    (sentence,) = said
    assert str(place) in sentence
    assert "expected a run folder" in sentence
    for command in (("runs", "list", place), ("logs", place), ("export", place, "--to", "csv", "-o", tmp_path / "out")):
        done = orchestrator(*command, cwd=tmp_path)
        assert done.returncode == 2, done
        assert str(place) in done.stderr
        assert not (tmp_path / "out").exists()


def test_a_glob_that_matches_nothing_gives_empty_tables_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, table in FRAMES.items():
        caplog.clear()
        frame = table(tmp_path / "none*")
        assert [str(dtype) for dtype in frame.dtypes] == [column.dtype for column in TABLES[name]]
        assert frame.empty
        assert caplog.messages == [f"nothing matches {tmp_path / 'none*'}: its tables are empty"]


def test_an_empty_run(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for journal_is_there in (True, False):
        (path / "journal.jsonl").unlink()
        if journal_is_there:
            (path / "journal.jsonl").touch()
        for name, table in FRAMES.items():
            assert len(table(path)) == (name == "runs")
        assert frames.runs_df(path)["event_count"].tolist() == [0]
    done = orchestrator("logs", path, cwd=path.parent)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert caplog.messages == []


@pytest.mark.parametrize("damage", DAMAGED)
@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_a_damaged_line_is_told_and_the_others_are_read(
    damage: str, where: str, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = {name: table(path) for name, table in FRAMES.items()}
    journal = path / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    line, reason = DAMAGED[damage]
    lines.insert({"first": 0, "middle": 3, "last": len(lines)}[where], line + b"\n")
    journal.write_bytes(b"".join(lines))
    for name, table in FRAMES.items():
        caplog.clear()
        assert table(path).equals(wanted[name])
        (sentence,) = caplog.messages
        assert str(journal) in sentence
        assert reason in sentence
    assert [event.event for event in Run(path).events()] == [step.event for step in STEPS]
    Run(path).seal()
    assert frames.messages_df(path).equals(wanted["messages"])


def test_damaged_lines_in_a_shell(path: Path) -> None:
    journal = path / "journal.jsonl"
    for line, _ in DAMAGED.values():
        journal.write_bytes(line + b"\n" + journal.read_bytes())
    done = orchestrator("logs", path, cwd=path.parent)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == len(STEPS)
    assert done.stderr.count("is damaged and was skipped") == len(DAMAGED)
    done = orchestrator("export", path, "--to", "jsonl", "--table", "messages", "-o", path / "m.jsonl", cwd=path.parent)
    assert done.returncode == 0
    assert json.loads((path / "m.jsonl").read_text())["content"] == "hello"


def test_attributes_of_other_types_are_shown_as_they_are(path: Path) -> None:
    steps = [
        Step("conversation.started", {"agents": 7, "rounds": []}),
        Step("agent.exited", {"agent": "ada", "exit_code": [1]}),
        Step("gateway.response", {"duration_s": "long"}),
        Step("process.sample", {"rss_bytes": {}, "cpu_percent": [2]}),
    ]
    list(write(path, steps))
    done = orchestrator("logs", path, "--last", "4", cwd=path.parent)
    assert done.returncode == 0
    assert [line.split()[1] for line in done.stdout.splitlines() if "agent.exited" not in line] == [
        "conversation.started",
        "gateway.response",
        "process.sample",
    ]
    assert "agents=7" in done.stdout
    for table in FRAMES.values():
        table(path)


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "overwritten", "another table's", "a folder"])
def test_a_parquet_file_that_cannot_be_read(damage: str, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    wanted = {name: table(path) for name, table in FRAMES.items()}
    seal = Run(path).seal()
    other = dict.fromkeys(FRAMES, seal.file("events").read_bytes()) | {"events": seal.file("runs").read_bytes()}
    for name in FRAMES:
        file = seal.file(name)
        data = file.read_bytes()
        file.unlink()
        if damage == "empty":
            file.touch()
        elif damage == "cut":
            file.write_bytes(data[:-40])
        elif damage == "overwritten":
            file.write_bytes(data[:4] + b"\xff" * (len(data) - 12) + data[-8:])
        elif damage == "another table's":
            file.write_bytes(other[name])
        elif damage == "a folder":
            file.mkdir()
    for name, table in FRAMES.items():
        caplog.clear()
        assert table(path).equals(wanted[name])
        (sentence,) = set(caplog.messages)
        assert sentence.startswith(f"{seal.file(name)} cannot be read (")
        assert sentence.endswith("); the journal is read instead, seal the run again")
        assert "\n" not in sentence
    again = Run(path)
    again.seal()
    caplog.clear()
    assert frames.messages_df(path).equals(wanted["messages"])
    assert caplog.messages == []


def test_runs_of_a_newer_version_among_others(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    newer = good(path.parent, "run_2")
    manifest = json.loads((newer / "manifest.json").read_text())
    (newer / "manifest.json").write_text(json.dumps({**manifest, "schema_version": 99, "later_key": [1]}))
    list(write(newer, [Step("later.kind", {"later_key": 1}), Step("message.later", {"message_id": "msg_1"})]))
    Run(path).seal()
    for name, table in FRAMES.items():
        caplog.clear()
        frame = table(path.parent)
        assert set(frame["run_id"]) <= {"run_1", "run_2"}
        assert frame["run_id"].eq("run_1").sum() == len(table(path))
        assert [str(dtype) for dtype in frame.dtypes] == [column.dtype for column in TABLES[name]]
        (sentence,) = {one for one in caplog.messages if "schema" in one}
        assert f"{newer / 'manifest.json'} was written by a newer orchestrator-lab (schema 99" in sentence
    assert frames.events_df(newer)["event"].tolist()[-2:] == ["later.kind", "message.later"]
    done = orchestrator("runs", "list", path.parent, "--json", cwd=path.parent)
    assert [row["run_id"] for row in json.loads(done.stdout)] == ["run_1", "run_2"]
    assert done.stderr.count("newer orchestrator-lab") == 1


def test_what_is_no_source_at_all() -> None:
    for wrong in (3, None, object()):
        for table in FRAMES.values():
            with pytest.raises(OrchestratorLabError, match="cannot read runs from"):
                table(wrong)
