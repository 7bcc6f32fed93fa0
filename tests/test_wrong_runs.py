"""Every wrong source of tables: one clear sentence from each function and command, and whatever can be read is read."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from any_journal import Step, make_run, write
from test_frames import FRAMES

from orchestrator_lab import frames
from orchestrator_lab.errors import JournalError, OrchestratorLabError, RunNotFound
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
#: Tables of which these runs have no rows.
_WITHOUT_ROWS = {"tool_calls", "dialogs", "states", "alerts", "processes"}
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


@pytest.mark.parametrize(
    "wrong",
    [
        {"schema_version": "two"},
        {"schema_version": None, "run_id": 7, "versions": 3, "git": [1], "config": "x", "params": {"a": [None]}},
        {"git": {"work_dir": "none"}, "started_at": 5, "seed": "many", "tags": {}, "mode": ["live"], "name": {}},
    ],
)
def test_a_manifest_that_holds_something_else(wrong: dict[str, object], path: Path) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, **wrong}))
    assert [len(table(path)) for table in FRAMES.values()][:3] == [1, 1, 1]
    for command in (("runs", "list", path.parent), ("runs", "show", path), ("logs", path)):
        done = orchestrator(*command, cwd=path.parent)
        assert done.returncode == 0, done


def test_a_damaged_manifest_among_others(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = good(path.parent, "run_2")
    (other / "manifest.json").write_text("{")
    with pytest.raises(JournalError, match="the manifest cannot be read"):
        frames.messages_df(other)
    for name, table in FRAMES.items():
        caplog.clear()
        frame = table(path.parent)
        assert frame["run_id"].eq("run_2").sum() == frame["run_id"].eq("run_1").sum() == len(frame) / 2, name
        (sentence,) = caplog.messages
        assert sentence.startswith(f"{other / 'manifest.json'}: the manifest cannot be read")
        assert sentence.endswith("its journal alone is read")


@pytest.mark.parametrize("place", ["x" * 5000, "~no_such_user/runs", "/dev/null", "loop"])
def test_places_that_are_none(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    for table in FRAMES.values():
        with pytest.raises(RunNotFound, match=r"there is no run at|cannot be read as a run \("):
            table(place)
    for command in (("runs", "list", place), ("logs", place), ("export", place, "--to", "csv", "-o", "out")):
        assert orchestrator(*command, cwd=tmp_path).returncode == 2


LOCKED = """
import json, logging, sys
from orchestrator_lab import frames
from orchestrator_lab.errors import OrchestratorLabError
logging.basicConfig(format="%(message)s", level="WARNING")
for name in json.loads(sys.argv[2]):
    try:
        frame = getattr(frames, f"{name}_df")(sys.argv[1])
        print(name, sorted(set(frame["run_id"])))
    except OrchestratorLabError as error:
        print(name, type(error).__name__, error)
"""


@pytest.mark.parametrize("locked", ["the folder", "a run", "a journal", "a manifest"])
def test_what_one_may_not_read(locked: str, path: Path) -> None:
    good(path.parent, "run_2")
    target = {"the folder": path.parent, "a run": path, "a journal": path / "journal.jsonl"}.get(locked)
    target = target or path / "manifest.json"
    # Root may read everything, unless it gives up what lets it.
    prefix: list[str] = []
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root without setpriv may read everything")
        prefix = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--inh-caps", "-all"]
    before = target.stat().st_mode
    target.chmod(0)
    try:
        names = list(FRAMES)
        command = [*prefix, sys.executable, "-c", LOCKED, str(path.parent), json.dumps(names)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    finally:
        target.chmod(before)
    assert done.returncode == 0, done
    assert "Permission denied" in (done.stdout if locked == "the folder" else done.stderr)
    lines = done.stdout.splitlines()
    assert len(lines) == len(names)
    for name, line in zip(names, lines, strict=True):
        if locked == "the folder":
            assert line.startswith(f"{name} RunNotFound {path.parent} cannot be read as a run (Permission denied)")
        elif name not in _WITHOUT_ROWS:
            read = ["run_1", "run_2"] if locked == "a manifest" else ["run_2"]
            assert line == f"{name} {read}"


def test_what_is_no_source_at_all() -> None:
    for wrong in (3, None, object()):
        for table in FRAMES.values():
            with pytest.raises(OrchestratorLabError, match="cannot read runs from"):
                table(wrong)
