"""What goes into a bundle, and that the same run gives the same bytes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest
from bundle_helpers import PARTS, members, tell

from orchestrator_lab import sealing
from orchestrator_lab.bundle.collecting import OPTIONAL
from orchestrator_lab.bundle.importing import import_bundle
from orchestrator_lab.bundle.verifying import verify_bundle
from orchestrator_lab.errors import ConfigError, DiskFull
from orchestrator_lab.journal.recording import iter_stretches, read_cast
from orchestrator_lab.run import Run, open_run
from orchestrator_lab.schema import TABLES

if TYPE_CHECKING:
    from pathlib import Path

GENERATED = {"README.md", "bundle.json", "ro-crate-metadata.json", "environment.txt", "checksums.sha256"}
NOTEBOOK = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tell(tmp_path / "runs"))


def test_everything_is_in_it_but_what_is_nobodys_business(run: Run, tmp_path: Path) -> None:
    (tmp_path / "night.ipynb").write_text(json.dumps(NOTEBOOK))
    done = run.export(tmp_path / "x.olab.zip", notebook=tmp_path / "night.ipynb")
    found = members(tmp_path / "x.olab.zip")
    run_files = {name for name in PARTS if not name.startswith(("logs/", "journal.clock"))}
    tables = {f"tables/{table}.parquet" for table in TABLES}
    assert set(found) == GENERATED | run_files | tables | {
        *("journal.jsonl", "manifest.json", "panes/boss.cast.zst", "tables/seal.json", "notebook/night.ipynb")
    }
    assert next(iter(found)) == "README.md"
    assert {one.name for one in done.files} == set(found) - {"checksums.sha256"}
    assert found["journal.jsonl"] == (run.path / "journal.jsonl").read_bytes()
    assert found["initial/logo.bin"] == PARTS["initial/logo.bin"]
    sums = dict(line.split("  ")[::-1] for line in found["checksums.sha256"].decode().splitlines())
    assert sums == {n: hashlib.sha256(c).hexdigest() for n, c in found.items() if n != "checksums.sha256"}
    assert done.size == (tmp_path / "x.olab.zip").stat().st_size
    assert oct((tmp_path / "x.olab.zip").stat().st_mode & 0o777) == "0o600"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["night.ipynb", "runs", "x.olab.zip"]
    assert not (run.path / "tables").exists()


def test_other_tools_read_it(run: Run, tmp_path: Path) -> None:
    run.export(tmp_path / "x.olab.zip")
    subprocess.run(["unzip", "-q", tmp_path / "x.olab.zip", "-d", tmp_path / "u"], check=True)
    subprocess.run(["sha256sum", "-c", "--quiet", "checksums.sha256"], cwd=tmp_path / "u", check=True)
    read = pq.read_table(tmp_path / "u" / "tables" / "messages.parquet")
    assert read.column("content").to_pylist() == ["Plan the parser."]
    # Where the run lay is nobody's business, and no two exports would be the same.
    assert str(tmp_path) not in str(read.schema.metadata)


def test_the_same_run_gives_the_same_bytes(run: Run, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / run.run_id
    shutil.copytree(run.path, other)
    for path in other.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    code = "import sys; from orchestrator_lab import open_run; open_run(sys.argv[1]).export(sys.argv[2])"
    environment = {**os.environ, "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", code, other, tmp_path / "b.olab.zip"], check=True, env=environment)
    run.export(tmp_path / "a.olab.zip")
    assert (tmp_path / "a.olab.zip").read_bytes() == (tmp_path / "b.olab.zip").read_bytes()


@pytest.mark.parametrize("privacy", [{}, {"words": ["duo"]}, {"words": ["parser"]}, {"patterns": {"at": "2026-"}}])
def test_tables_of_a_sealed_run_are_those_of_its_journal(
    run: Run, tmp_path: Path, privacy: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing, the run, messages and tools, everything is masked: the same bytes whether the run is sealed or not."""
    run.export(tmp_path / "a.olab.zip", privacy=privacy)
    run.seal()
    taken: list[str] = []
    copied = sealing._copy
    monkeypatch.setattr(sealing, "_copy", lambda source, path: (taken.append(path.stem), copied(source, path))[1])
    Run(run.path).export(tmp_path / "b.olab.zip", privacy=privacy)
    assert (tmp_path / "a.olab.zip").read_bytes() == (tmp_path / "b.olab.zip").read_bytes()
    made = {
        "duo": {"runs", "events"},
        "parser": {"runs", "agents", "messages", "turns", "tool_calls", "events"},
        "at": set(TABLES) - {"alerts", "dialogs", "processes"},  # of which this run has none
    }
    assert set(taken) == set(TABLES) - made.get(
        "".join([*privacy.get("words", []), *privacy.get("patterns", {})]), set()
    )


def test_tables_that_are_not_what_the_seal_says_are_made_again(run: Run, tmp_path: Path) -> None:
    run.export(tmp_path / "a.olab.zip")
    seal = run.seal()
    data = bytearray(seal.file("messages").read_bytes())
    data[40] ^= 1
    seal.file("messages").write_bytes(data)
    facts = json.loads((run.path / "tables" / "seal.json").read_text())
    run.export(tmp_path / "b.olab.zip")
    assert (tmp_path / "a.olab.zip").read_bytes() == (tmp_path / "b.olab.zip").read_bytes()
    facts["package_version"] = "0.0.1"
    (run.path / "tables" / "seal.json").write_text(json.dumps(facts))
    run.export(tmp_path / "c.olab.zip")
    assert (tmp_path / "a.olab.zip").read_bytes() == (tmp_path / "c.olab.zip").read_bytes()


@pytest.mark.parametrize("size", [1 << 20, (1 << 20) + 1, 3 << 20, 3_333_333])
def test_long_files_are_packed_in_pieces(run: Run, tmp_path: Path, size: int) -> None:
    """On all cores; for whoever unpacks them they are as any others."""
    text = " ".join(str(number) for number in range(size // 5)).encode()[:size].ljust(size, b".")
    (run.path / "initial" / "long.txt").write_bytes(text)
    for name in ("a", "b"):
        run.export(tmp_path / f"{name}.olab.zip")
    assert (tmp_path / "a.olab.zip").read_bytes() == (tmp_path / "b.olab.zip").read_bytes()
    assert members(tmp_path / "a.olab.zip")["initial/long.txt"] == text
    with zipfile.ZipFile(tmp_path / "a.olab.zip") as archive:
        info = archive.getinfo("initial/long.txt")
        assert info.compress_type == zipfile.ZIP_DEFLATED
        # What was before is looked back at, over the bounds of pieces: zipfile's own is no smaller.
        assert info.compress_size < len(zlib.compress(text)) * 1.001 + 64
    subprocess.run(["unzip", "-tq", tmp_path / "a.olab.zip"], check=True, stdout=subprocess.DEVNULL)
    assert verify_bundle(tmp_path / "a.olab.zip").ok


def test_a_bundle_is_exported_again(run: Run, tmp_path: Path) -> None:
    run.export(tmp_path / "a.olab.zip", leave_out=["initial", "cassettes"])
    open_run(tmp_path / "a.olab.zip").export(tmp_path / "b.olab.zip", privacy={"words": ["parser"]})
    found = members(tmp_path / "b.olab.zip")
    assert b"Plan the w1____." in found["journal.jsonl"]
    assert set(found) == set(members(tmp_path / "a.olab.zip"))


def test_parts_stay_here(run: Run, tmp_path: Path) -> None:
    done = run.export(tmp_path / "x.olab.zip", leave_out=OPTIONAL)
    found = members(tmp_path / "x.olab.zip")
    assert set(found) == GENERATED | {"journal.jsonl", "manifest.json", "tables/seal.json"} | {
        f"tables/{table}.parquet" for table in TABLES
    }
    assert set(done.left_out) == set(OPTIONAL)
    assert json.loads(found["bundle.json"])["left_out"]["panes"] == "as asked"
    assert b"Left out: " in found["README.md"]


def test_a_large_work_folder_and_links_stay_here(run: Run, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (run.path / "instructions" / "link.md").symlink_to(tmp_path / "secret")
    (run.path / "transcripts" / "folder").symlink_to(tmp_path)
    os.mkfifo(run.path / "sessions" / "pipe")
    done = run.export(tmp_path / "x.olab.zip", initial_limit=100)
    found = members(tmp_path / "x.olab.zip")
    assert not [name for name in found if name.startswith("initial/") or "link" in name or "folder" in name]
    assert done.left_out == {
        "initial": "271 bytes, more than 100",
        "instructions/link.md": "a link",
        "transcripts/folder": "a link",
        "sessions/pipe": "no ordinary file",
    }


def test_a_configuration_that_is_none_stays_here(run: Run, tmp_path: Path) -> None:
    (run.path / "config.yaml").write_text("cluster: {privacy: [")
    (run.path / "instructions" / "falcon.md").symlink_to("/nowhere")
    done = run.export(tmp_path / "x.olab.zip", privacy={"words": ["falcon"]})
    assert done.left_out == {"config.yaml": "it is no YAML", "instructions/w1____.md": "a link"}
    assert b"falcon" not in b"".join(members(tmp_path / "x.olab.zip").values())


def test_a_review_writes_nothing_and_tells_all(run: Run, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    told = run.export(tmp_path / "x.olab.zip", review=True, privacy={"words": ["parser"]})
    assert sorted(tmp_path.rglob("*")) == before
    assert (told.path, told.size) == (None, None)
    done = run.export(tmp_path / "x.olab.zip", privacy={"words": ["parser"]})
    assert told.files == done.files
    assert told.substitutes == done.substitutes
    by_name = {one.name: one for one in told.files}
    assert by_name["journal.jsonl"].masked == {"word": 4}
    assert by_name["transcripts/boss.jsonl"].masked == {"home": 1}
    assert not by_name["initial/logo.bin"].looked_into
    assert ("planted", "u1_____") in {(one.text, one.substitute) for one in told.substitutes}
    assert "initial/logo.bin  256 bytes  not looked into: no text" in str(told)


def damaged(path: Path, number: int) -> int:
    """Damage one piece of a recording, and return where it lies."""
    place = list(iter_stretches(path))[number].offset
    data = bytearray(path.read_bytes())
    data[place + 70] ^= 0xFF
    path.write_bytes(data)
    return place


@pytest.mark.parametrize("mask", [True, False])
def test_a_damaged_recording_is_told_everywhere(tmp_path: Path, mask: bool) -> None:
    path = tell(tmp_path / "runs", shown=[b"one\r\n", b"planted\r\n", b"three\r\n"])
    cast = path / "panes" / "boss.cast.zst"
    place = damaged(cast, 2)
    done = Run(path).export(tmp_path / "x.olab.zip", mask=mask)
    (sentence,) = {one.name: one.damage for one in done.files}["panes/boss.cast.zst"]
    assert f"from byte {place} on" in sentence
    assert f"damaged: {sentence}" in str(done)
    found = members(tmp_path / "x.olab.zip")
    assert json.loads(found["bundle.json"])["damaged"] == {"panes/boss.cast.zst": [sentence]}
    assert f"from byte {place} on" in found["README.md"].decode()
    verified = verify_bundle(tmp_path / "x.olab.zip")
    assert verified.ok
    assert [(one.where, one.what) for one in verified.before] == [("panes/boss.cast.zst", sentence)]
    assert "damaged before it was packed" in str(verified)
    if mask:
        (tmp_path / "made.cast.zst").write_bytes(found["panes/boss.cast.zst"])
        assert read_cast(tmp_path / "made.cast.zst").output() == b"one\r\nthree\r\n"
    else:
        assert found["panes/boss.cast.zst"] == cast.read_bytes()


def test_a_recording_that_cannot_be_read_is_left_out(run: Run, tmp_path: Path) -> None:
    (run.path / "panes" / "boss.cast.zst").write_bytes(b"none")
    done = run.export(tmp_path / "x.olab.zip")
    assert "expected an asciicast v3 header" in done.left_out["panes/boss.cast.zst"]
    assert "panes/boss.cast.zst" not in members(tmp_path / "x.olab.zip")


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"leave_out": ["journal.jsonl"]}, "there is no part 'journal.jsonl' to leave out"),
        ({"notebook": "none.ipynb"}, "there is no such notebook"),
        ({"privacy": {"word": ["x"]}}, "privacy has no key 'word'"),
        ({"privacy": {"patterns": {"x": "("}}}, r"privacy.patterns.x: '\(' is no regular expression"),
        ({"output": "x.tar"}, "a bundle is opened by its name, which ends in .zip"),
    ],
)
def test_what_is_said_wrongly(run: Run, tmp_path: Path, wrong: dict[str, Any], sentence: str) -> None:
    output = tmp_path / wrong.pop("output", "x.olab.zip")
    with pytest.raises(ConfigError, match=sentence):
        run.export(output, **wrong)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_nothing_is_replaced_unasked(run: Run, tmp_path: Path) -> None:
    run.export(tmp_path / "x.olab.zip")
    with pytest.raises(ConfigError, match="exists"):
        run.export(tmp_path / "x.olab.zip")
    run.export(tmp_path / "x.olab.zip", overwrite=True)


def test_a_run_that_is_recorded_is_not_exported(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Run, "status", "running")
    with pytest.raises(ConfigError, match="is being recorded"):
        run.export(tmp_path / "x.olab.zip")


# the crate ----------------------------------------------------------------------------------------


def test_it_is_a_process_run_crate(run: Run, tmp_path: Path) -> None:
    (run.path / "instructions" / "a b#ü.md").write_text("odd name")
    run.export(tmp_path / "x.olab.zip")
    found = members(tmp_path / "x.olab.zip")
    document = json.loads(found["ro-crate-metadata.json"])
    check_crate(document, set(found))


def check_crate(document: dict[str, Any], files: set[str]) -> None:
    """Check what RO-Crate 1.1 and Process Run Crate 0.5 say MUST and SHOULD be."""
    from urllib.parse import quote, unquote

    assert document["@context"] == "https://w3id.org/ro/crate/1.1/context"
    graph = {entity["@id"]: entity for entity in document["@graph"]}
    assert len(graph) == len(document["@graph"]), "an @id is there twice"
    for entity in graph.values():
        assert entity["@type"]
        for value in entity.values():
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, dict):
                    assert set(one) == {"@id"}, "no nested entities"
                    known = one["@id"] in graph or one["@id"].startswith(
                        ("http://schema.org/", "https://w3id.org/ro/c")
                    )
                    assert known, one
    descriptor = graph["ro-crate-metadata.json"]
    assert descriptor["@type"] == "CreativeWork"
    assert descriptor["about"] == {"@id": "./"}
    assert descriptor["conformsTo"] == {"@id": "https://w3id.org/ro/crate/1.1"}
    root = graph["./"]
    assert root["@type"] == "Dataset"
    assert all(root[key] for key in ("name", "description", "datePublished", "license", "hasPart"))
    instant = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00")
    assert instant.fullmatch(root["datePublished"])
    profile = root["conformsTo"]["@id"]
    assert profile.startswith("https://w3id.org/ro/wfrun/process/")
    assert graph[profile]["@type"] == "CreativeWork"
    assert graph[profile]["version"]
    parts = {unquote(one["@id"]) for one in root["hasPart"]}
    assert parts == files - {"ro-crate-metadata.json"}
    assert all(graph[quote(name)]["@type"] == "File" and graph[quote(name)]["encodingFormat"] for name in parts)
    actions = [entity for entity in graph.values() if entity["@type"] == "CreateAction"]
    assert [{"@id": one["@id"]} for one in actions] == [root["mentions"]]
    (action,) = actions
    assert all(action[key] for key in ("name", "description", "instrument", "object", "result", "startTime", "endTime"))
    assert action["actionStatus"] == "http://schema.org/CompletedActionStatus"
    assert all(instant.fullmatch(action[key]) for key in ("startTime", "endTime"))
    assert {"@id": "journal.jsonl"} in action["result"]
    assert {"@id": "config.yaml"} in action["object"]
    for one in action["instrument"]:
        tool = graph[one["@id"]]
        assert tool["@type"] == "SoftwareApplication"
        assert tool["name"]
        assert tool["softwareVersion"]
        assert tool["url"].startswith("https://")
        assert tool["@id"].startswith("https://")


def test_a_full_disk_is_told_of_the_bundle(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not of a folder that is gone by then."""
    run.export(tmp_path / "x.olab.zip")
    open_run(tmp_path / "x.olab.zip")
    before = sorted(tmp_path.rglob("*"))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(sealing, "_write", full)
        with pytest.raises(DiskFull, match=r"y\.olab\.zip cannot be written \(No space left on device\)"):
            run.export(tmp_path / "y.olab.zip")
        with pytest.raises(DiskFull, match=f"{tempfile.gettempdir()} cannot be written"):
            run.export(review=True)
    with monkeypatch.context() as patch:
        patch.setattr("orchestrator_lab.bundle.archive._private", full)
        with pytest.raises(DiskFull, match=rf"{tmp_path}/runs2: run {run.run_id} cannot be unpacked there"):
            import_bundle(tmp_path / "x.olab.zip", tmp_path / "runs2")
    assert [path for path in sorted(tmp_path.rglob("*")) if path.name != "runs2"] == before
