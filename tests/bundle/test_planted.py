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
from orchestrator_lab.bundle.seen import project
from orchestrator_lab.cassette import read_cassette
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
    assert [path.name for path in recorded_run(tmp_path / "x.olab.zip", "model").cassettes] == [
        "ada.jsonl.zst",
        "bob.jsonl.zst",
    ]
    assert bundle.agents["cwd"][0].endswith(f"/home/{person}/lab")
    for table in TABLES:
        mine, theirs = bundle.tables.frame(table), run.tables.frame(table)
        assert mine.shape == theirs.shape
        numbers = theirs.select_dtypes(exclude=["string", "object"]).columns
        assert mine[numbers].equals(theirs[numbers]), table


SAID = f"form {FORM}, {HOME}/lab, {MAIL}, plantedperson@{HOST}, plantedword"
#: Ways in which programs write a path or an address within other texts.
WRITTEN = {
    "as it is": SAID,
    "JSON with every slash escaped": json.dumps(SAID).replace("/", "\\/"),
    "JSON within JSON": json.dumps(json.dumps({"path": HOME}).replace("/", "\\/")),
    "a link": f"file://{HOME}/lab?to={MAIL.replace('@', '%40')}&at=%2Fhome%2Fplantedperson%2Flab",
    "a link within a link": "https://example.com/?next=%252Fhome%252Fplantedperson%252Flab",
    "Windows": r"C:\Users\plantedperson\lab and C:\\Users\\plantedperson\\lab",
    "shell": f"cd '{HOME}'; HOME={HOME} PATH=/bin:{HOME}/bin:/usr/bin; ssh plantedperson@{HOST}",
    "colours": f"\x1b[1m{HOME[:9]}\x1b[0m{HOME[9:]} \x1b[31m{MAIL[:5]}\x1b[0m{MAIL[5:]}",
}


def planted_everywhere(folder: Path) -> Path:
    """Write a run that holds private texts in each place that a run has, in each way that they are written."""
    from bundle_helpers import tell

    from orchestrator_lab.cassette import Take
    from orchestrator_lab.cassette_writer import CassetteWriter

    both = "\n".join(WRITTEN.values())
    shown = (
        f"{both}\r\n\x1b]0;plantedperson@{HOST}: {HOME}\x07\x1b]8;;file://{HOST}{HOME}\x1b\\here\x1b]8;;\x1b\\".encode()
    )
    config = {
        "cluster": {"name": "duo"},
        "agents": [{"name": "boss", "kind": "chat", "env": {"HOME": HOME, "MAIL": MAIL}}],
    }
    session = json.dumps({"session_id": "s", "env": {"HOME": HOME, "EMAIL": MAIL, "TOKEN": FORM}, "host": HOST})
    lines = "".join(
        f"{json.dumps({'type': 'user', 'cwd': HOME, HOME: text}, ensure_ascii=False)}\n" for text in WRITTEN.values()
    )
    escaped = "".join(f"\\u{ord(char):04x}" for char in f"{HOME}/x {MAIL}")
    parts = {
        "instructions/plantedperson.md": both.encode(),
        f"transcripts/-home-plantedperson-lab/{MAIL}.jsonl": f'{lines}{{"text":"{escaped}"}}\n{{torn {HOME}'.encode(),
        "changes/boss/plantedperson.patch": f"--- a{HOME}/x\n+++ b{HOME}/x\n+{both}\n".encode(),
        "sessions/boss.json": session.encode(),
        "initial/src/plantedperson.py": f"# {both}\n".encode(),
        "initial/windows.txt": f"\ufeff{SAID} {HOME}".encode("utf-16-le"),
        "initial/big-endian.txt": f"\ufeff{SAID} {HOME}".encode("utf-16-be"),
        "initial/latin.csv": f"caf\xe9;{HOME};{MAIL}".encode("latin-1"),
        "config.yaml": f"cluster: {{name: duo}}\nagents: [{{name: boss, kind: chat, work_dir: {HOME}/lab}}]\n".encode(),
        "annotations.jsonl": json.dumps({"message_id": "msg_1", "label": MAIL, "by": "plantedperson"}).encode() + b"\n",
        "logs/supervisor.log": both.encode(),
    }
    pieces = [shown[start : start + 7] for start in range(0, len(shown), 7)]
    path = tell(folder, said=both, shown=pieces, config=config, parts=parts)
    (path / "cassettes").mkdir()
    writer = CassetteWriter(
        path / "cassettes" / "boss.jsonl.zst", agent="boss", places={"home": HOME, "work": f"{HOME}/lab"}, mask=str
    )
    body = {"system": SAID, "messages": [{"role": "user", "content": both}], "metadata": {"user_id": MAIL}}
    deltas = [both[start : start + 5] for start in range(0, len(both), 5)]
    stream = "".join(
        f"event: content_block_delta\ndata: {json.dumps({'type': 'content_block_delta', 'delta': {'text': one}})}\n\n"
        for one in deltas
    )
    received = [stream[start : start + 50] for start in range(0, len(stream), 50)]
    writer.add(
        Take(1, "boss", "POST", "/v1/messages", "main", writer.apart(body), 0.5, status=200, pieces=received,
             headers=[("content-type", "text/event-stream"), ("x-user", MAIL)])
    )  # fmt: skip
    writer.close()
    return path


@pytest.mark.usefixtures("machine")
def test_planted_in_every_place_and_in_every_way(tmp_path: Path) -> None:
    path = planted_everywhere(tmp_path / "runs")
    output = {"output_type": "stream", "name": "stdout", "text": [SAID]}
    cell = {"cell_type": "code", "source": [HOME], "metadata": {"path": HOME}, "outputs": [output]}
    notebook = {"cells": [cell], "metadata": {"author": MAIL}, "nbformat": 4, "nbformat_minor": 5}
    (tmp_path / "plantedperson.ipynb").write_text(json.dumps(notebook))
    done = Run(path).export(
        tmp_path / "x.olab.zip", notebook=tmp_path / "plantedperson.ipynb", privacy={"words": ["plantedword"]}
    )
    with zipfile.ZipFile(tmp_path / "x.olab.zip") as archive:
        archive.extractall(tmp_path / "out")
        assert "planted" not in " ".join(archive.namelist())
    assert b"planted" not in (tmp_path / "x.olab.zip").read_bytes()
    for text in ("planted", "example.org"):
        assert holding(tmp_path / "out", text) == []
        assert holding(tmp_path / "out", text.encode("utf-16-le").decode("latin-1")) == []
        assert holding(tmp_path / "out", text.encode("utf-16-be").decode("latin-1")) == []
        assert holding(tmp_path / "out", "".join(f"\\u{ord(char):04x}" for char in text)) == []
    # The search finds what is there, and each place was there to be searched.
    assert len(holding(path, "planted")) >= len(done.files) - 20
    read = cassette_texts(tmp_path / "out" / "cassettes" / "boss.jsonl.zst")
    assert "/home/u" in read
    assert "planted" not in read


def cassette_texts(path: Path) -> str:
    """Return what a streamed answer says, put together."""
    _, (take,) = read_cassette(path)
    lines = "".join(take.pieces).splitlines()
    said = (json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: "))
    return "".join(event["delta"]["text"] for event in said)
