"""Work folders in backups: kept as they are, brought back only where nothing else is."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from bundle.bundle_helpers import tell
from test_cli import good, run, sentence

from orchestrator_lab.backup import create_backup, restore_backup, verify_backup
from orchestrator_lab.errors import BackupError

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "sk-ant-0123456789abcdefghij"
SHELL = {"kind": "program", "command": ["sh"], "turn_end": {"quiet_s": 1}}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A cluster whose agents work in its own folder, and one of them elsewhere."""
    home, other = tmp_path / "team", tmp_path / "elsewhere" / "data"
    for folder in (home / "src", other):
        folder.mkdir(parents=True)
    agents = [
        {"name": "ada", **SHELL, "env": {"SOME_TOKEN": SECRET}},
        {"name": "bob", **SHELL, "work_dir": str(other)},
        {"name": "cy", "kind": "chat"},
    ]
    (home / "cluster.yaml").write_text(yaml.safe_dump({"cluster": {"name": "team"}, "agents": agents}))
    (home / ".env").write_text(f"ORCHESTRATOR_RETENTION__KEEP=9\nANTHROPIC_API_KEY={SECRET}\n")
    (home / "src" / "run.sh").write_text(f"#!/bin/sh\necho {SECRET}\n")
    (home / "src" / "run.sh").chmod(0o755)
    (home / "link").symlink_to("src/run.sh")
    (other / "numbers").write_bytes(bytes(range(256)))
    tell(home / "runs")
    return home


def create(home: Path, to: Path) -> Any:
    return create_backup(home, to, work_folders=True)


def test_work_folders_come_back_where_nothing_is(home: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    done = create(home, home / "backups")
    assert [(one["path"], one["files"], one["why"]) for one in done.work] == [
        (str(home), 2, None),  # neither runs nor backups nor .env
        (str(other / "data"), 1, None),
    ]
    backup = done.backup
    assert verify_backup(backup).ok
    shutil.move(backup.path, tmp_path / "kept")
    backup = type(backup)(tmp_path / "kept", backup.created_at, backup.cluster, backup.folder, backup.facts)
    written = (home / "cluster.yaml").read_bytes()
    shutil.rmtree(home)
    shutil.rmtree(other)
    back = restore_backup(backup, home)
    assert back.work == (home, other / "data")
    assert (home / "src" / "run.sh").read_text() == f"#!/bin/sh\necho {'*' * len(SECRET)}\n"
    assert os.access(home / "src" / "run.sh", os.X_OK)
    assert (home / "link").read_text() == (home / "src" / "run.sh").read_text()
    assert (other / "data" / "numbers").read_bytes() == bytes(range(256))
    # The configuration is the one that is kept beside: its secrets are masked by name.
    assert (home / "cluster.yaml").read_bytes() != written
    assert "*" * len(SECRET) not in (home / "cluster.yaml").read_text()
    # What was cut off is finished by another restore; what is somebody's stays.
    (home / "src" / "run.sh").unlink()
    assert restore_backup(backup, home).work == (home, other / "data")
    assert (home / "src" / "run.sh").exists()
    (home / "src" / "mine").write_text("mine")
    (other / "data" / "numbers").write_text("changed")
    left = restore_backup(backup, home)
    assert left.work == ()
    assert [note for note in left.notes if note.startswith("the work folder")] == [
        f"the work folder {home} was left as it is: {home / 'src' / 'mine'} is not of the backup",
        f"the work folder {other / 'data'} was left as it is: {other / 'data' / 'numbers'} is not of the backup",
    ]
    assert (other / "data" / "numbers").read_text() == "changed"


def test_a_rehearsal_touches_no_folder_of_the_original(home: Path, tmp_path: Path) -> None:
    backup = create(home, tmp_path / "backups").backup
    shutil.rmtree(tmp_path / "elsewhere")
    back = restore_backup(backup, tmp_path / "rehearsal")
    assert back.work == (tmp_path / "rehearsal", tmp_path / "rehearsal" / "work" / "data")
    assert not (tmp_path / "elsewhere").exists()
    assert (
        f"the work folder {tmp_path / 'elsewhere' / 'data'} is in {tmp_path / 'rehearsal' / 'work' / 'data'}"
        in back.notes
    )
    only = restore_backup(backup, tmp_path / "one", runs=[backup.runs[0]["run_id"]])
    assert only.work == ()


def test_damage_is_found_and_nothing_is_restored(home: Path, tmp_path: Path) -> None:
    backup = create(home, tmp_path / "backups").backup
    place = backup.path / "work.zip"
    data = bytearray(place.read_bytes())
    data[len(data) // 2] ^= 1
    place.write_bytes(data)
    assert [one.where for one in verify_backup(backup).damages] == ["work.zip"]
    with pytest.raises(BackupError, match=r"first at work\.zip"):
        restore_backup(backup, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_by_command(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    (home / "large").mkdir()
    for number in range(3):
        (home / "large" / str(number)).write_text("x")
    config = yaml.safe_load((home / "cluster.yaml").read_text())
    config["cluster"]["initial_state"] = {"max_files": 3}
    (home / "cluster.yaml").write_text(yaml.safe_dump(config))
    done = run("backup", "create", "--to", str(tmp_path / "b"), "--work-folders")
    assert done.returncode == 1
    assert f"the work folder {home} is not in the backup: it holds more than 3 files (max_files)" in done.stderr
    assert "1 file of work folders" in done.stdout
    assert "of work folders" not in good("backup", "create", "--to", str(tmp_path / "b"))
    (home / "cluster.yaml").unlink()
    told = sentence("backup", "create", "--to", str(tmp_path / "b"), "--work-folders")
    assert "has no configuration that names work folders: leave out --work-folders" in told
    told = good("backup", "restore", "--in", str(tmp_path / "b"), "--into", str(tmp_path / "c"), "--json")
    assert json.loads(told)["work"] == []
