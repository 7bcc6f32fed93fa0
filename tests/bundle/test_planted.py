"""What was planted in a run is searched for in every byte of what the lab kept, and of what left the machine."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import zstandard

from orchestrator_lab.bundle import privacy
from orchestrator_lab.bundle.privacy import project
from orchestrator_lab.cluster import Cluster
from orchestrator_lab.journal.recording import read_cast
from orchestrator_lab.modes import recorded_run
from orchestrator_lab.run import Run, open_run
from orchestrator_lab.schema import TABLES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEY = "plantedkey-0123456789-ABCDEFGHIJ"
FORM = "sk-ant-plantedform0123456789"
HOME = "/home/plantedperson"
MAIL = "planted.mail@example.org"
HOST = "planted-host"
#: What must not leave, in the pieces by which it would be known.
PRIVATE = ("plantedkey", "plantedform", "plantedperson", "planted.mail", "planted-host", "plantedword")


@pytest.fixture(scope="module")
def run(
    module_runtime: Path, script_config: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Run]:
    """A real cluster that was told everything that is nobody's business."""
    del module_runtime
    work = tmp_path_factory.mktemp("home") / "home" / "plantedperson" / "lab"
    work.mkdir(parents=True)
    said = f"key {KEY}, form {FORM}, {HOME}/lab, {MAIL}, plantedperson@{HOST}, plantedword"
    config = script_config(
        script=[{"reply": f"\x1b[1mplanted\x1b[0mperson has read: {{text}} and {said}"}],
        agents={
            name: {"env": {"SOME_API_KEY": KEY}, "instructions": f"Ask {MAIL} in {HOME}."} for name in ("ada", "bob")
        },
        work_dir=str(work),
        privacy={"words": ["plantedword"], "patterns": {"secret": "planted(?P<hide>pattern)"}},
    )
    with Cluster.start(config) as cluster:
        cluster["ada"].ask(f"Read this: {said}", timeout=60)
        cluster["bob"].ask(" ".join([said, HOME] * 6), timeout=60)
    return Run(cluster.run.path)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(privacy.socket, "gethostname", lambda: f"{HOST}.lan")
    monkeypatch.setattr(privacy.getpass, "getuser", lambda: "plantedperson")


def unpacked(path: Path) -> bytes:
    """Return a file as it can be read, and every table in the texts of its cells."""
    if path.suffix == ".zst":
        with zstandard.ZstdDecompressor().stream_reader(path.read_bytes(), read_across_frames=True) as reader:
            raw = reader.read()
        if not path.name.endswith(".cast.zst"):
            return raw
        output = read_cast(path).output().decode("utf-8", "replace")
        shown = [output, project(output).text, project(output, loose=True).text]
        return raw + "\n".join(shown).encode("utf-8", "replace")
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        table = pq.read_table(path)
        return json.dumps([str(table.schema.metadata), table.to_pylist()], default=str, ensure_ascii=False).encode()
    return path.read_bytes()


def holding(folder: Path, text: str) -> list[str]:
    """Return the files that hold a text, as they are or unpacked, and those in whose names it stands."""
    found = []
    for place, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            path = Path(place) / name
            if text in name or (path.is_file() and (text.encode() in path.read_bytes() + unpacked(path))):
                found.append(path.relative_to(folder).as_posix())
    return sorted(found)


def test_what_the_lab_knows_to_be_secret_is_nowhere_in_the_run(run: Run) -> None:
    assert holding(run.path, KEY) == []
    # The search finds what is there.
    assert {"journal.jsonl", "panes/ada.cast.zst", "instructions/ada.md"} <= set(holding(run.path, MAIL))


@pytest.mark.usefixtures("machine")
def test_what_is_private_is_nowhere_in_the_bundle(run: Run, tmp_path: Path) -> None:
    from bundle_helpers import members

    notebook = {"cells": [{"source": [f"cd {HOME} # {MAIL}"]}], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (tmp_path / "plantedperson.ipynb").write_text(json.dumps(notebook))
    (run.path / "initial").mkdir()
    (run.path / "initial" / "plantedperson.txt").write_text(f"{HOME} plantedpattern\n")
    done = run.export(tmp_path / "x.olab.zip", notebook=tmp_path / "plantedperson.ipynb")
    raw = (tmp_path / "x.olab.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "x.olab.zip") as archive:
        archive.extractall(tmp_path / "out")
    for text in (*PRIVATE, "plantedpattern"):
        assert text.encode() not in raw
        assert holding(tmp_path / "out", text) == [], text
    # What was masked is told, and everything else is still there.
    assert {"home", "email", "host", "user", "key", "word", "secret"} <= set(done.masked)
    by_name = {one.name: one.masked for one in done.files}
    assert by_name["panes/ada.cast.zst"]["home"] >= 2
    assert by_name["journal.jsonl"]["email"] >= 2
    assert "privacy" not in json.loads(members(tmp_path / "x.olab.zip")["manifest.json"])["config"]["cluster"]


@pytest.mark.usefixtures("machine")
def test_it_is_the_same_text_everywhere(run: Run, tmp_path: Path) -> None:
    done = run.export(tmp_path / "x.olab.zip")
    bundle = open_run(tmp_path / "x.olab.zip")
    person, mail = (
        next(one.substitute for one in done.substitutes if one.text == text) for text in ("plantedperson", MAIL)
    )
    content = bundle.messages["content"][0]
    assert f"/home/{person}/lab, {mail}, {person}@" in content
    assert len(content) == len(run.messages["content"][0])
    screen = "".join(bundle.screen("bob").text.split())
    assert mail in screen
    assert f"/home/{person}" in screen
    # What was recorded of the models goes along, and can be replayed.
    assert bundle.replayable() == dict.fromkeys(("ada", "bob"), ("data", "terminal", "model"))
    assert [path.name for path in recorded_run(tmp_path / "x.olab.zip").cassettes] == ["ada.jsonl.zst", "bob.jsonl.zst"]
    assert bundle.agents["cwd"][0].endswith(f"/home/{person}/lab")
    for table in TABLES:
        mine, theirs = bundle.tables.frame(table), run.tables.frame(table)
        assert mine.shape == theirs.shape
        numbers = theirs.select_dtypes(exclude=["string", "object"]).columns
        assert mine[numbers].equals(theirs[numbers]), table
