"""A cluster is backed up, everything is deleted, and it is brought back and goes on; whatever happens in between."""

from __future__ import annotations

import json
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
import yaml
from power_cut import events, power_cut, until
from test_cli import good, run, sentence

from orchestrator_lab import Cluster, frames, messages_df, open_run
from orchestrator_lab.backup import create_backup, find_backup, find_backups, restore_backup, verify_backup
from orchestrator_lab.backup.collecting import collect_setup
from orchestrator_lab.beginning import create_run
from orchestrator_lab.errors import BackupError, ClusterExists, ConfigError, EnvironmentProblem
from orchestrator_lab.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TABLES = {name: getattr(frames, name) for name in frames.__all__ if name.endswith("_df")}
SCRIPT = [{"reply": "{agent} read {text}"}]
SECRET = "sk-ant-0123456789abcdefghij"


def tables(run_dir: Path) -> dict[str, pd.DataFrame]:
    return {name: read(run_dir) for name, read in TABLES.items()}


def team(place: Path, **cluster: Any) -> Path:
    """Write a cluster's folder: a configuration that names files, and settings."""
    place.mkdir(parents=True, exist_ok=True)
    (place / "prompts").mkdir()
    (place / "prompts" / "ada.md").write_text("You are Ada, and brief.\n")
    (place / "script.yaml").write_text(yaml.safe_dump(SCRIPT))
    (place / "cluster.yaml").write_text(
        yaml.safe_dump(
            {
                "cluster": {"name": "team", "gateway": {"mode": "script", "script": "script.yaml"}, **cluster},
                "agents": [
                    {"name": "ada", "kind": "chat", "instructions_file": "prompts/ada.md"},
                    {"name": "bob", "kind": "chat"},
                ],
            }
        )
    )
    return place


def ended(place: Path, *, said: str = "Plan the parser.") -> Path:
    """Write a run that is over."""
    from bundle.bundle_helpers import tell

    return tell(place, said=said)


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".*") if path.name != ".env"]


# the rehearsal -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("runtime")
def test_everything_is_deleted_and_the_cluster_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, kept = team(tmp_path / "team"), tmp_path / "kept"
    (home / ".env").write_text(f"ORCHESTRATOR_RETENTION__KEEP=9\nANTHROPIC_API_KEY={SECRET}\n")
    monkeypatch.chdir(home)
    with Cluster.start() as cluster:
        cluster["ada"].ask("long ago", timeout=30)
    first = cluster.run_dir
    cluster = Cluster.start()
    cluster["ada"].ask("one", timeout=30)
    cluster.converse(["ada", "bob"], "go", rounds=1)
    until(lambda: len(events(cluster.run_dir, "message.answered")) >= 2)
    run_dir = power_cut(cluster)
    before = {path: tables(path) for path in (first, run_dir)}
    config = (home / "cluster.yaml").read_bytes()

    good("backup", "create", "--to", str(kept))
    shutil.rmtree(home)
    assert "the current folder does not exist any more" in sentence("backup", "restore", "--in", str(kept))
    home.mkdir()
    monkeypatch.chdir(home)
    told = json.loads(good("backup", "restore", "--in", str(kept), "--json"))

    assert told["resumable"] == [str(run_dir)]
    assert (home / "cluster.yaml").read_bytes() == config
    assert (home / "prompts" / "ada.md").read_text() == "You are Ada, and brief.\n"
    assert (home / ".env").read_text() == "ORCHESTRATOR_RETENTION__KEEP='9'\n"
    for path, known in before.items():
        for name, frame in tables(path).items():
            pd.testing.assert_frame_equal(frame, known[name])
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert hidden(home) == []
    cluster = Cluster.start(resume=run_dir)
    try:
        assert cluster["ada"].ask("after", timeout=30).reply == "ada read after"
        said = [json.loads(line) for line in (run_dir / "transcripts" / "ada.jsonl").read_text().splitlines()]
        assert [one["message"]["content"] for one in said if one["type"] == "user"][:1] == ["one"]
        assert (
            len({one.attributes["session_id"] for one in events(run_dir, "agent.started") if one.agent == "ada"}) == 1
        )
    finally:
        cluster.shutdown()
    rows = open_run(run_dir).messages
    earlier = before[run_dir]["messages_df"]["message_id"]
    assert rows["message_id"].tolist()[: len(earlier)] == earlier.tolist()
    assert open_run(run_dir).status == "completed"


@pytest.mark.usefixtures("runtime")
def test_a_run_is_backed_up_while_it_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = team(tmp_path / "team")
    monkeypatch.chdir(home)
    with Cluster.start() as cluster:
        cluster["ada"].ask("one", timeout=30)
        asking = threading.Event()

        def ask() -> None:
            while not asking.is_set():
                cluster["bob"].ask("again", timeout=30)

        thread = threading.Thread(target=ask)
        thread.start()
        try:
            made = create_backup(to=tmp_path / "kept").backup
        finally:
            asking.set()
            thread.join()
        assert verify_backup(made).ok
        with pytest.raises(ClusterExists, match="is being recorded"):
            restore_backup(made, home, overwrite=True)
        restored = restore_backup(made, tmp_path / "else")
        (copy,) = restored.runs
        assert restored.resumable == (copy,)
        assert (Run(copy).status, Run(cluster.run_dir).status) == (None, "running")
        rows = messages_df(copy)
        assert "ada read one" in Run(copy).turns["reply"].tolist()
        # It tells nothing that the run does not.
        whole = messages_df(cluster.run_dir).set_index("message_id")
        assert set(rows["message_id"]) <= set(whole.index)
    # What has ended since is newer than the backup, which has come as far as its journal had.
    again = create_backup(to=tmp_path / "kept").backup
    assert [one["status"] for one in again.runs] == ["completed"]
    assert [one["status"] for one in made.runs] == ["running"]


# secrets -------------------------------------------------------------------------------------------


SECRETS = {
    "plain": f"KEY_OF_ADA: {SECRET}",
    "quoted": f"KEY_OF_ADA: '{SECRET}'",
    "flow": f"{{KEY_OF_ADA: {SECRET}, OTHER: x}}",
    "escaped": 'KEY_OF_ADA: "sk-ant-\\x30123456789abcdefghij"',
    "folded": f"KEY_OF_ADA: >-\n        {SECRET}",
    "short": "KEY_OF_ADA: 'hunter'",
    "word": "PASSWORD: correct horse battery staple",
}


@pytest.mark.parametrize("written", SECRETS.values(), ids=SECRETS.keys())
def test_no_secret_of_the_configuration_is_kept(tmp_path: Path, written: str) -> None:
    home = tmp_path / "team"
    home.mkdir()
    indent = "" if written.startswith("{") else "\n      "
    text = (
        "# how we work\n"
        "cluster:\n  name: team\n  alerts: {notify: ['mailto://lab:s3cret-word@example.org']}\n"
        f"agents:\n  - name: ada\n    kind: chat\n    env: {indent}{written}\n    instructions_file: ada.md\n"
    )
    (home / "cluster.yaml").write_text(text)
    (home / "ada.md").write_text(f"Use {SECRET} and say {'t0ken-of-the-lab'}.\n")
    (home / ".env").write_text(
        "LAB_TOKEN=t0ken-of-the-lab\nORCHESTRATOR_RUNS_DIR=it's here\n"
        'ORCHESTRATOR_CLUSTER__ALERTS={"notify": ["slack://abc/def"]}\nORCHESTRATOR_RUNTIME_DIR=/nowhere\n'
    )
    made = create_backup(home, tmp_path / "kept")
    everything = b"".join(path.read_bytes() for path in made.backup.path.rglob("*") if path.is_file())
    for secret in (SECRET, SECRET[10:], "hunter", "battery staple", "s3cret-word", "t0ken-of-the-lab", "abc/def"):
        assert secret.encode() not in everything, secret
    kept = yaml.safe_load((made.backup.path / "config" / "cluster.yaml").read_text())
    assert kept["cluster"]["name"] == "team"
    assert next(iter(kept["agents"][0]["env"].values())) == "***"
    assert {"cluster.yaml", "ada.md", "ORCHESTRATOR_CLUSTER__ALERTS"} == set(made.masked)
    restored = restore_backup(made.backup, tmp_path / "new")
    assert any("cluster.yaml held secrets" in note for note in restored.notes)
    assert (tmp_path / "new" / ".env").read_text() == (
        "# ORCHESTRATOR_CLUSTER__ALERTS: a secret, which a backup does not hold\nORCHESTRATOR_RUNS_DIR='it\\'s here'\n"
    )


def test_comments_stay_and_what_holds_no_secret_is_kept_to_the_byte(tmp_path: Path) -> None:
    home = team(tmp_path / "team")
    outside = tmp_path / "shared.md"
    outside.write_text("for all\n")
    text = (home / "cluster.yaml").read_text().replace("prompts/ada.md", "../shared.md") + "# the end\n"
    (home / "cluster.yaml").write_text(text)
    setup = collect_setup(home, {})
    assert setup.files["cluster.yaml"].decode() == text
    assert setup.outside == {"outside/1/shared.md": str(outside)}
    (home / "cluster.yaml").write_text(text + f"# once it was {SECRET}\n")
    assert collect_setup(home, {}).files["cluster.yaml"].decode() == text + "# once it was ***\n"


# many, and which stay ------------------------------------------------------------------------------


def test_what_has_not_changed_is_kept_once_and_old_ones_go(tmp_path: Path) -> None:
    home, kept = team(tmp_path / "team"), tmp_path / "kept"
    run_dir = ended(home / "runs")
    first = create_backup(home, kept)
    second = create_backup(home, kept)
    name = first.backup.bundle(run_dir.name)
    assert name.stat().st_ino == second.backup.bundle(run_dir.name).stat().st_ino
    assert second.new < first.new
    # A damaged one is not taken over; one that has changed is written anew.
    data = name.read_bytes()
    name.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    (kept / ".removed-20250101T000000.000Z-team").mkdir()  # of a removal that was killed
    third = create_backup(home, kept, keep=2)
    assert hidden(kept) == []
    assert verify_backup(third.backup).ok
    assert third.removed == (first.backup.path,)
    Run(run_dir).annotate("msg_1", label="kept")
    fourth = create_backup(home, kept)
    assert fourth.backup.bundle(run_dir.name).read_bytes() != third.backup.bundle(run_dir.name).read_bytes()
    # Another cluster's are nobody's business, and the newest stays whatever its age.
    other = create_backup(team(tmp_path / "other"), kept)
    last = create_backup(home, kept, days=0)
    assert {one.path for one in find_backups(kept)[0]} == {other.backup.path, last.backup.path}
    assert find_backup(None, kept, place=home).path == last.backup.path
    with pytest.raises(BackupError, match="holds backups of several clusters"):
        find_backup(None, kept)


def test_a_run_that_cannot_be_kept_is_told_and_the_others_are_kept(tmp_path: Path) -> None:
    home = team(tmp_path / "team")
    good_one, damaged = ended(home / "runs"), create_run(home / "runs", config={}, name="team")
    (damaged / "journal.jsonl").write_text("")
    (damaged / "manifest.json").write_text("{")
    done = run("backup", "create", str(home), "--to", str(tmp_path / "kept"))
    assert done.returncode == 1
    assert f"note: run {damaged.name} is not in the backup" in done.stderr
    (made,) = find_backups(tmp_path / "kept")[0]
    assert [one["run_id"] for one in made.runs] == [good_one.name]


# damage --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup of a cluster with two runs."""
    place = tmp_path_factory.mktemp("backup")
    home = team(place / "team")
    ended(home / "runs")
    ended(home / "runs", said="Once more.")
    return create_backup(home, place / "kept").backup.path


def verified(backup: Any) -> None:
    found = verify_backup(backup)
    if not found.ok:
        raise BackupError(repr(found))


def test_any_damage_is_named_and_nothing_of_it_is_restored(made: Path, tmp_path: Path) -> None:
    copy = tmp_path / made.name
    for path in sorted(one for one in made.rglob("*") if one.is_file()):
        shutil.copytree(made, copy)
        damaged = copy / path.relative_to(made)
        data = damaged.read_bytes()
        if not data:
            shutil.rmtree(copy)
            continue
        damaged.write_bytes(data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 4]) + data[len(data) // 2 + 1 :])
        name = damaged.relative_to(copy).as_posix()
        if name == "backup.json":
            with pytest.raises(BackupError, match=r"backup\.json"):
                verified(find_backup(copy, tmp_path))
        else:
            found = find_backup(copy, tmp_path)
            checked = verify_backup(found)
            assert not checked.ok
            assert name == "checksums.sha256" or any(one.where.startswith(name) for one in checked.damages)
            with pytest.raises(BackupError, match=r"is damaged, first at|is no digest and name"):
                restore_backup(found, tmp_path / "new")
        assert not (tmp_path / "new").exists()
        shutil.rmtree(copy)


def test_what_is_missing_or_was_added_is_named_and_the_rest_can_be_had(made: Path, tmp_path: Path) -> None:
    copy = tmp_path / made.name
    shutil.copytree(made, copy)
    backup = find_backup(copy, tmp_path)
    lost, left = (one["run_id"] for one in backup.runs)
    backup.bundle(lost).unlink()
    (copy / "runs" / "more.txt").write_text("more")
    text = good_status("backup", "verify", str(copy), code=1)
    assert f"runs/{lost}.olab.zip: it is missing" in text
    assert "runs/more.txt: it is not in checksums.sha256: it was put there later" in text
    said = sentence("backup", "restore", str(copy), "--into", str(tmp_path / "new"))
    assert f"is damaged, first at runs/{lost}.olab.zip: it is missing; nothing was restored" in said
    good("backup", "restore", str(copy), "--into", str(tmp_path / "new"), "--run", left)
    assert [path.name for path in (tmp_path / "new" / "runs").iterdir()] == [left]
    assert "holds no run 'run_x'" in sentence("backup", "restore", str(copy), "--run", "run_x")


def good_status(*words: str, code: int) -> str:
    done = run(*words)
    assert done.returncode == code, done.stderr
    return str(done.stdout)


def test_names_that_lead_elsewhere_are_refused(made: Path, tmp_path: Path) -> None:
    copy = tmp_path / made.name
    shutil.copytree(made, copy)
    facts = json.loads((copy / "backup.json").read_text())
    for change in (
        {"files": {"../../.bashrc": None}},
        {"runs_dir": "../../elsewhere"},
        {"runs": [{**facts["runs"][0], "run_id": "../x"}]},
        {"runs": [{**facts["runs"][0], "run_id": "."}]},
        {"runs": [{**facts["runs"][0], "run_id": ""}]},
        {"created_at": 3},
        {"format": 99},
    ):
        (copy / "backup.json").write_text(json.dumps({**facts, **change}))
        with pytest.raises(BackupError, match=r"does not say what it should|reads up to 1"):
            find_backup(copy, tmp_path)


# beside what is there ------------------------------------------------------------------------------


def test_nothing_that_is_there_is_replaced_unasked(made: Path, tmp_path: Path) -> None:
    backup, home = find_backup(made, tmp_path), tmp_path / "team"
    first = restore_backup(backup, home)
    assert len(first.runs) == 2
    # All of it is there: nothing is written.
    again = restore_backup(backup, home)
    assert (again.files, again.runs, len(again.same)) == ((), (), len(first.files) + 2)
    mine = first.runs[0]
    (mine / "annotations.jsonl").write_text("")
    (home / "cluster.yaml").write_text("mine\n")
    (home / "notes.txt").write_text("mine too\n")
    shutil.rmtree(first.runs[1])
    said = sentence("backup", "restore", str(made), "--into", str(home))
    assert "is there already and differs from the backup" in said
    assert "(and 1 more)" in said
    assert not first.runs[1].exists()
    third = restore_backup(backup, home, overwrite=True)
    assert set(third.runs) == set(first.runs)
    assert (home / "cluster.yaml").read_bytes() == (made / "config" / "cluster.yaml").read_bytes()
    assert (mine / "annotations.jsonl").stat().st_size
    assert (home / "notes.txt").read_text() == "mine too\n"
    assert hidden(home) == []
    (home / "script.yaml").unlink()
    (home / "script.yaml").mkdir()
    with pytest.raises(BackupError, match="is a folder, and the backup has a file of this name"):
        restore_backup(backup, home, overwrite=True)


def test_runs_that_lay_elsewhere(tmp_path: Path) -> None:
    home, elsewhere = team(tmp_path / "team", runs_dir=str(tmp_path / "data")), tmp_path / "data"
    run_dir = ended(elsewhere)
    backup = create_backup(home, tmp_path / "kept").backup
    shutil.rmtree(elsewhere)
    assert restore_backup(backup, home).runs == (run_dir,)
    new = restore_backup(backup, tmp_path / "new")
    assert new.runs == (tmp_path / "new" / "runs" / run_dir.name,)
    assert "the runs lay in" in new.notes[0]
    third = restore_backup(backup, tmp_path / "third", runs_dir=tmp_path / "more")
    assert third.runs == (tmp_path / "more" / run_dir.name,)


# kill -9 -------------------------------------------------------------------------------------------

#: Does what it is told in children, which end in the middle: at a call of what brings names or bytes to the disk.
KILLED = """
import json, os, signal, sys
from pathlib import Path
from orchestrator_lab.backup import create_backup, find_backup, restore_backup
import orchestrator_lab.run, orchestrator_lab.bundle.exporting, pandas, pyarrow.parquet

def counted(name, left):
    real = getattr(os, name)
    def call(*args, **named):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **named)
    setattr(os, name, call)

for line in sys.stdin:
    calls, what, where, place = json.loads(line)
    out, into = os.pipe()
    pid = os.fork()
    if not pid:
        left = [calls]
        for name in ("rename", "replace", "fsync", "link", "mkdir"):
            counted(name, left)
        create_backup(where, place) if what == "create" else restore_backup(find_backup(where, Path(where)), place)
        os.write(into, str(left[0]).encode())
        os._exit(0)
    os.close(into)
    print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), os.read(out, 99).decode()]), flush=True)
    os.close(out)
"""


@pytest.fixture
def killed(spawn: Callable[..., subprocess.Popen[Any]]) -> Callable[[int, str, Path, Path], int | None]:
    """Create or restore a backup in a process that is killed at its nth call; how many it had if it was not."""
    worker = spawn([sys.executable, "-c", KILLED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert worker.stdin is not None
    assert worker.stdout is not None
    told, said = worker.stdin, worker.stdout

    def run(calls: int, what: str, where: Path, place: Path) -> int | None:
        told.write(json.dumps([calls, what, str(where), str(place)]) + "\n")
        told.flush()
        code, left = json.loads(said.readline())
        assert code in {0, -signal.SIGKILL}
        return None if code else calls - int(left)

    return run


def moments(calls: int, *, last: int) -> list[int]:
    """Return at which of so many calls to kill: here and there, and at every other of the last."""
    return [*range(0, calls - last, max(1, (calls - last) // 5)), *range(calls - last, calls, 2)]


def test_a_backup_that_is_killed_is_none(made: Path, tmp_path: Path, killed: Any) -> None:
    home, kept = made.parent.parent / "team", tmp_path / "kept"
    calls = killed(1 << 20, "create", home, tmp_path / "other")
    assert calls > 30
    for moment in moments(calls, last=6):
        assert killed(moment, "create", home, kept) is None
        # The last call is the one that brings the new name to the disk.
        found, faults = find_backups(kept)
        assert len(found) <= (moment == calls - 2)
        assert all(verify_backup(one).ok for one in found)
        assert faults == []
    one = create_backup(home, kept).backup
    assert hidden(kept) == []  # what was left is cleared away
    assert verify_backup(one).ok
    assert stat.S_IMODE(one.path.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in one.path.rglob("*") if file.is_file()} == {0o600}


@pytest.mark.parametrize("there", [False, True], ids=["new", "beside"])
def test_a_restore_that_is_killed_leaves_nothing_half_done(
    made: Path, tmp_path: Path, killed: Any, there: bool
) -> None:
    def place(name: str) -> Path:
        folder = tmp_path / name
        if there:
            (folder / "runs").mkdir(parents=True)
        return folder

    backup = find_backup(made, tmp_path)
    whole = {path.name: tables(path) for path in restore_backup(backup, tmp_path / "whole").runs}
    calls = killed(1 << 20, "restore", made, place("counted"))
    assert calls > 60
    seen = set()
    for moment in moments(calls, last=16 if there else 6):
        folder = place(f"k{moment}")
        assert killed(moment, "restore", made, folder) is None
        runs = folder / "runs"
        named = [path for path in runs.iterdir() if not path.name.startswith(".")] if runs.exists() else []
        seen.add((len(named), (folder / "cluster.yaml").exists()))
        for path in named:
            for name in ("messages_df", "events_df"):
                pd.testing.assert_frame_equal(TABLES[name](path), whole[path.name][name])
        # Once more finishes it, and clears away what was left.
        if len(named) == 1 or not moment:
            assert len(restore_backup(backup, folder).same) == len(named)
            assert {path.name for path in runs.iterdir()} == set(whole)
            assert hidden(folder) == []
    # Into a new folder in one step; beside what is there one run after the other, the configuration last.
    assert (0, False) in seen
    assert seen <= ({(0, False), (1, False), (2, False), (2, True)} if there else {(0, False), (2, True)})
    assert ((1, False) in seen) == there


# errors --------------------------------------------------------------------------------------------


def test_what_is_wrong_is_said_in_one_sentence(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    file, home = tmp_path / "file", made.parent.parent / "team"
    file.write_text("")
    assert f"there is no backup in {tmp_path / 'data'}" in sentence("backup", "verify")
    for message, call in {
        "there is no backup 'x'": lambda: find_backup("x", made.parent),
        "is no backup: it holds no backup.json": lambda: find_backup(tmp_path, made.parent),
        "cannot be read as a folder of backups": lambda: find_backups(file),
    }.items():
        with pytest.raises(BackupError, match=re.escape(message)):
            call()
    with pytest.raises(EnvironmentProblem, match="the backup cannot be written there"):
        create_backup(home, file / "x")
    with pytest.raises(EnvironmentProblem, match="the backup cannot be restored there"):
        restore_backup(find_backup(made, made.parent), file / "x")
    with pytest.raises(ConfigError, match="does not exist"):
        create_backup(tmp_path / "nowhere")


def test_a_folder_without_a_configuration_has_its_runs_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended(tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ORCHESTRATOR_BACKUP__DIR", str(tmp_path / "kept"))
    monkeypatch.setenv("ORCHESTRATOR_BACKUP__KEEP", "1")
    create_backup()
    good("backup", "create")
    (only,) = json.loads(good("backup", "list", "--json"))
    assert only["cluster"] is None
    assert len(only["runs"]) == 1
    assert "completed" in good("backup", "list", "--runs")


def test_instants_are_in_order(tmp_path: Path) -> None:
    home = team(tmp_path / "team")
    made = [create_backup(home, tmp_path / "kept").backup for _ in range(3)]
    assert [one.path for one in find_backups(tmp_path / "kept")[0]] == [one.path for one in made]
    assert datetime.now(UTC) - made[0].created_at < timedelta(minutes=5)
