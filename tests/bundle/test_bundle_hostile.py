"""Bundles that nobody honest makes: refused with a sentence, or shown without doing anything."""

from __future__ import annotations

import io
import json
import struct
import tracemalloc
import warnings
import zipfile
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from bundle_helpers import events, members, repacked, tell
from typer.testing import CliRunner

from orchestrator_lab import frames
from orchestrator_lab.bundle.archive import Archive, Limits
from orchestrator_lab.bundle.importing import import_bundle
from orchestrator_lab.bundle.layout import fault_of_name
from orchestrator_lab.bundle.verifying import verify_bundle
from orchestrator_lab.cli.app import app
from orchestrator_lab.errors import BundleError
from orchestrator_lab.run import Run, open_run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NASTY = "<script>alert(1)</script><img src=x onerror=alert(2)>\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.exe"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of an honest bundle."""
    place = tmp_path_factory.mktemp("honest")
    Run(tell(place / "runs")).export(place / "x.olab.zip")
    return members(place / "x.olab.zip")


def refused(path: Path, place: Path, sentence: str) -> None:
    """Make sure that a bundle is refused by whoever meets it, and that nothing of it is written."""
    readers: list[Callable[[], Any]] = [
        lambda: open_run(path),
        lambda: frames.messages_df(path),
        lambda: import_bundle(path, place / "back"),
    ]
    for read in readers:
        with pytest.raises(BundleError, match=sentence):
            read()
    found = verify_bundle(path)
    assert not found.ok
    assert [one.where for one in found.damages] == ["archive"]
    assert not (place / "back").exists() or not list((place / "back").iterdir())


NAMES = [
    ("../evil", "leads out of its folder"),
    ("panes/../../evil", "leads out of its folder"),
    ("/etc/cron.d/evil", "is absolute"),
    ("C:/evil", "is absolute"),
    ("..\\evil", "holds a backslash"),
    ("panes\\evil", "holds a backslash"),
    ("panes/a\x00.md", "holds control characters"),
    ("panes/\x1b[2J", "holds control characters"),
    ("panes//evil", "has an empty part"),
    ("./evil", "has an empty part"),
    ("panes/NUL.txt", "names a device"),
    ("p/" * 600 + "evil", "is too long"),
    ("é" * 200, "is too long"),
]


@pytest.mark.parametrize(("name", "sentence"), NAMES)
def test_names_that_lead_elsewhere(files: dict[str, bytes], tmp_path: Path, name: str, sentence: str) -> None:
    assert fault_of_name(name) == f"it {sentence}"
    plain = name.replace("\x00", "?")
    path = repacked(tmp_path / "bad.olab.zip", {**files, plain: b"evil"})
    # zipfile would not write such a name as it stands.
    path.write_bytes(path.read_bytes().replace(plain.encode(), name.encode()))
    refused(path, tmp_path, sentence)


def test_links(files: dict[str, bytes], tmp_path: Path) -> None:
    links = {"panes/link.cast": "/etc/passwd"}
    refused(repacked(tmp_path / "bad.olab.zip", files, links=links), tmp_path, "is a link")


@pytest.mark.parametrize("second", ["manifest.json", "Manifest.JSON", "MANIFEST.json"])
def test_the_same_name_twice(files: dict[str, bytes], tmp_path: Path, second: str) -> None:
    path = tmp_path / "bad.olab.zip"
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for name, content in [*files.items(), (second, b"{}")]:
            archive.writestr(name, content)
    refused(path, tmp_path, "twice")


def test_a_file_that_is_a_folder_too(files: dict[str, bytes], tmp_path: Path) -> None:
    path = repacked(tmp_path / "bad.olab.zip", {**files, "manifest.json/x": b""})
    refused(path, tmp_path, "is a file and a folder")


def test_a_bomb(files: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "bad.olab.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        with archive.open("initial/zeros", "w") as member:
            for _ in range(128):
                member.write(bytes(1 << 20))
    tracemalloc.start()
    refused(path, tmp_path, "as no honest file does")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 32 << 20, "it was unpacked"


def test_more_in_all_than_is_believed(files: dict[str, bytes], tmp_path: Path) -> None:
    path = repacked(tmp_path / "x.olab.zip", files)
    with pytest.raises(BundleError, match="would unpack to"):
        Archive(path, limits=Limits(total=10_000))
    with pytest.raises(BundleError, match=r"it holds .* files, more than 5"):
        Archive(path, limits=Limits(files=5))


def test_a_size_that_is_a_lie(files: dict[str, bytes], tmp_path: Path) -> None:
    """The directory says 100 bytes, the file unpacks to a megabyte: no more than was said is ever written."""
    path = repacked(tmp_path / "bad.olab.zip", {**files, "initial/lie": bytes(1 << 20)})
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("initial/lie")
        data = bytearray(path.read_bytes())
    directory = data.rindex(b"PK\x01\x02", 0, data.rindex(b"initial/lie"))
    for place in (info.header_offset + 22, directory + 24):
        assert struct.unpack_from("<I", data, place)[0] == 1 << 20
        struct.pack_into("<I", data, place, 100)
    path.write_bytes(data)
    found = verify_bundle(path)
    assert [one.where for one in found.damages] == ["initial/lie"]
    with pytest.raises(BundleError, match=r"initial/lie.*is damaged|initial/lie.*is not what"):
        import_bundle(path, tmp_path / "back")
    assert list((tmp_path / "back").iterdir()) == []


def test_too_many_files_are_refused_before_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "bad.olab.zip"
    entry = struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 20, 20, 0, 0, 0, 33, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    count = 2_000_000
    with path.open("wb") as file:
        file.write(entry * count)
        # As many as fit the short form are said, the directory's length tells more.
        file.write(struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 60_000, 60_000, len(entry) * count, 0, 0))
    tracemalloc.start()
    with pytest.raises(BundleError, match=r"its directory has .* bytes, more than"):
        Archive(path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 1 << 20


def test_files_that_share_bytes(files: dict[str, bytes], tmp_path: Path) -> None:
    path = repacked(tmp_path / "bad.olab.zip", {**files, "initial/one": b"a" * 2000, "initial/two": b"a" * 2000})
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        one, two = (archive.getinfo(f"initial/{name}") for name in ("one", "two"))
    place = data.rindex(struct.pack("<I", two.header_offset) + b"initial/two")
    data[place : place + 4] = struct.pack("<I", one.header_offset)
    path.write_bytes(data)
    refused(path, tmp_path, "share bytes")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_ways_to_pack(files: dict[str, bytes], tmp_path: Path, method: int) -> None:
    path = tmp_path / "bad.olab.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    refused(path, tmp_path, "is packed by method")


def test_one_that_is_encrypted(files: dict[str, bytes], tmp_path: Path) -> None:
    path = repacked(tmp_path / "bad.olab.zip", files)
    data = bytearray(path.read_bytes())
    place = data.rindex(b"PK\x01\x02", 0, data.rindex(b"manifest.json"))
    data[place + 8] |= 1
    path.write_bytes(data)
    refused(path, tmp_path, "is encrypted")


@pytest.mark.parametrize("content", [b"", b"PK", b"no zip file at all" * 100, b"PK\x05\x06" + bytes(18)])
def test_what_is_no_bundle(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.olab.zip"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"is no zip file|is no bundle of a run"):
        open_run(path)
    assert not verify_bundle(path).ok


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("manifest.json", b"[]", "names no run"),
        ("manifest.json", b'{"run_id": "../../evil"}', "names no run"),
        ("manifest.json", b'{"run_id": ".ssh"}', "names no run"),
        ("manifest.json", b"[" * 100_000, "is no JSON"),
        ("bundle.json", b"[]", "does not say its format as a number"),
        ("bundle.json", b'{"format": true, "schema_version": 1}', "does not say its format as a number"),
        ("bundle.json", b'{"format": 99, "schema_version": 1}', "is of format 99, .* install a newer one"),
        ("bundle.json", b'{"format": 1, "schema_version": 99}', "is of schema 99, .* install a newer one"),
    ],
)
def test_facts_that_are_none(files: dict[str, bytes], tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    path = repacked(tmp_path / "bad.olab.zip", {**files, name: content})
    with pytest.raises(BundleError, match=sentence):
        open_run(path)
    assert not list(tmp_path.glob("**/evil*"))


def parquet(frame: pd.DataFrame) -> bytes:
    out = io.BytesIO()
    frame.to_parquet(out)
    return out.getvalue()


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"PAR1" + bytes(400) + b"PAR1",
        b"PAR1" + b"\xff" * 60 + struct.pack("<I", 0x7FFFFFFF) + b"PAR1",
        parquet(pd.DataFrame({"message_id": ["msg_1"]})),
        parquet(pd.DataFrame({name: [[1, 2]] for name in ["content", "sender"]})),
    ],
)
def test_broken_tables_are_passed_over(
    files: dict[str, bytes], tmp_path: Path, broken: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = repacked(tmp_path / "bad.olab.zip", {**files, "tables/messages.parquet": broken})
    assert open_run(path).messages["content"].tolist() == ["Plan the parser."]
    assert "the journal is read instead" in caplog.text
    assert frames.messages_df(path, columns="content")["content"].tolist() == ["Plan the parser."]
    # It is as it was packed, by its checksums; that the tables are not those of the seal is told.
    assert [one.where for one in verify_bundle(path).damages] == ["tables/messages.parquet"]


def test_tables_of_another_journal_are_passed_over(files: dict[str, bytes], tmp_path: Path) -> None:
    more = files["journal.jsonl"].replace(b"Plan the parser.", b"Plan the whole parser.")
    path = repacked(tmp_path / "bad.olab.zip", {**files, "journal.jsonl": more})
    assert open_run(path).messages["content"].tolist() == ["Plan the whole parser."]
    assert verify_bundle(path).damages[0].where == "tables/seal.json"


def test_what_is_said_in_it_does_nothing(files: dict[str, bytes], tmp_path: Path) -> None:
    lines = events(files)
    for event in lines:
        for key in ("content", "reply", "output", "name", "role", "program"):
            if key in event.get("attributes", {}):
                event["attributes"][key] = f"boss{NASTY}" if key == "name" else NASTY
    journal = b"".join(json.dumps(event).encode() + b"\n" for event in lines) + b"\xff{torn\n"
    manifest = {**json.loads(files["manifest.json"]), "name": NASTY, "experiment": NASTY, "tags": [NASTY]}
    kept = {name: data for name, data in files.items() if not name.startswith("tables/")}
    path = repacked(
        tmp_path / "bad.olab.zip", {**kept, "journal.jsonl": journal, "manifest.json": json.dumps(manifest).encode()}
    )
    run = open_run(path)
    assert run.messages["content"].tolist() == [NASTY]
    for page in (run.conversation().to_html(), run.conversation()._repr_html_(), run._repr_html_()):
        assert "<script" not in page
        assert "<img" not in page
    for command in (
        ["runs", "show", str(path)],
        ["runs", "show", "--full", str(path)],
        ["runs", "open", str(path)],
        ["runs", "verify", str(path)],
        ["logs", str(path)],
    ):
        shown = CliRunner().invoke(app, command, env={"COLUMNS": "200"})
        assert shown.exit_code == (command[1] == "verify"), shown.output
        assert "\x1b" not in shown.output
        assert "\x9b" not in shown.output
    again = run.export(tmp_path / "again.olab.zip")
    assert again.path is not None
    page = members(again.path)["README.md"].decode()
    assert "<script" not in page.replace("\\<", "")
    assert "\x1b" not in page


def test_a_recording_that_is_none_is_said(files: dict[str, bytes], tmp_path: Path) -> None:
    from orchestrator_lab.errors import JournalError

    path = repacked(tmp_path / "bad.olab.zip", {**files, "panes/boss.cast.zst": b"\x28\xb5\x2f\xfd" + bytes(50)})
    run = open_run(path)
    with pytest.raises(JournalError):
        run.screen("boss")
