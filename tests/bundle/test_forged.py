"""One byte of a bundle changed: by accident, which `verify` names, and on purpose, which a replay names."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING, Any

import pytest
from bundle_helpers import members

from orchestrator_lab import Cluster, open_run
from orchestrator_lab.bundle.packing import pack
from orchestrator_lab.bundle.verifying import verify_bundle
from orchestrator_lab.cassette import read_cassette
from orchestrator_lab.cassette_writer import CassetteWriter
from orchestrator_lab.errors import ReplayDiverged

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from orchestrator_lab.run import Run

JOURNAL, CASSETTE, SCREEN = "journal.jsonl", "cassettes/ada.jsonl.zst", "panes/ada.cast.zst"
ASKED = ["first question", "second question", "third question"]


@pytest.fixture(scope="module")
def bundle(
    module_runtime: Path, script_config: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A small run with everything that a replay needs."""
    del module_runtime
    config = script_config("ada", script=[{"reply": "answer {n} to {text}"}], lifetime="owner")
    with Cluster.start(config) as cluster:
        for text in ASKED:
            cluster["ada"].ask(text, timeout=60)
    path = tmp_path_factory.mktemp("sent") / "x.olab.zip"
    open_run(cluster.run_dir).export(path)
    return path


@pytest.fixture
def again(runtime: Path, script_config: Callable[..., dict[str, Any]]) -> Callable[[Path], Run]:
    """Ask what a bundle says was asked, strictly on the answers in it."""
    del runtime
    config = script_config("ada", script=[{"reply": "not asked"}], lifetime="owner")

    def replayed(path: Path) -> Run:
        run = open_run(path)
        with Cluster.start(config, mode="replay_strict", run=run, level="model") as cluster:
            for text in run.messages.content:
                cluster["ada"].ask(text, timeout=60)
        return open_run(cluster.run_dir)

    return replayed


def forged(bundle: Path, target: Path, name: str, content: bytes) -> Path:
    """Pack a bundle again with another file in it, its checksums and its own digest those of what it is now."""
    files: dict[str, Any] = {**members(bundle), name: content}
    del files["checksums.sha256"]
    pack(target, files)
    return target


def other_answer(content: bytes, place: Path, old: str, new: str) -> bytes:
    """Return a cassette in which one byte of an answer is another, with the digests of what it says now."""
    place.mkdir()
    (place / "ada.jsonl.zst").write_bytes(content)
    places, takes = read_cassette(place / "ada.jsonl.zst")
    (place / "new").mkdir()
    writer = CassetteWriter(place / "new" / "ada.jsonl.zst", agent="ada", places=places, mask=str)
    changed = 0
    for take in takes:
        take.body = writer.apart(take.body)
        pieces = [piece.replace(old, new) for piece in take.pieces]
        changed += pieces != take.pieces
        take.pieces = pieces
        writer.add(take)
    writer.close()
    assert changed == 1
    return (place / "new" / "ada.jsonl.zst").read_bytes()


@pytest.mark.parametrize("name", [JOURNAL, CASSETTE, SCREEN])
def test_a_byte_that_fell_over(bundle: Path, tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(bundle) as archive:
        info = archive.getinfo(name)
    begin, told = info.header_offset + 30 + len(name), 0
    for place in range(begin, begin + info.compress_size, max(1, info.compress_size // 20)):
        data = bytearray(bundle.read_bytes())
        data[place] ^= 0x04
        (tmp_path / "bad.olab.zip").write_bytes(data)
        (damage,) = verify_bundle(tmp_path / "bad.olab.zip").damages
        if damage.where == "archive":  # deflate has bits that mean nothing
            assert members(tmp_path / "bad.olab.zip") == members(bundle)
            continue
        assert damage.where == name
        told += 1
        assert f"bytes {info.header_offset} to {info.header_offset + info.compress_size} of the archive" in damage.what
    assert told > 15


def test_an_input_that_was_changed(bundle: Path, tmp_path: Path, again: Callable[[Path], Run]) -> None:
    journal = members(bundle)[JOURNAL]
    assert b'"content":"second question"' in journal
    other = journal.replace(b'"content":"second question"', b'"content":"second questioM"')
    path = forged(bundle, tmp_path / "x.olab.zip", JOURNAL, other)
    # The tables still say what was: they are of another journal.
    (damage,) = verify_bundle(path).damages
    assert (damage.where, "another journal" in damage.what) == ("tables/seal.json", True)
    assert open_run(path).messages.content.tolist() == ["first question", "second questioM", "third question"]
    with pytest.raises(ReplayDiverged, match="agent 'ada' asks its model something else") as stopped:
        again(path)
    assert stopped.value.details["diff"].split("\n")[-2:] == ["-user: second question", "+user: second questioM"]


def test_an_answer_that_was_changed(bundle: Path, tmp_path: Path, again: Callable[[Path], Run]) -> None:
    """What was asked next holds it; and when nothing was, its reply is another one than the journal's."""
    cassette = members(bundle)[CASSETTE]
    other = other_answer(cassette, tmp_path / "a", "answer 1 to", "answer 7 to")
    path = forged(bundle, tmp_path / "a.olab.zip", CASSETTE, other)
    assert verify_bundle(path).ok, "this is no signature"
    with pytest.raises(ReplayDiverged, match="agent 'ada' asks its model something else") as stopped:
        again(path)
    diff = stopped.value.details["diff"].split("\n")
    assert [line for line in diff[2:] if line[0] in "+-"] == [
        "-assistant: answer 1 to first question",
        "+assistant: answer 7 to first question",
    ]
    other = other_answer(cassette, tmp_path / "b", "answer 3 to", "answer 7 to")
    path = forged(bundle, tmp_path / "b.olab.zip", CASSETTE, other)
    found = open_run(path).diff(again(path))
    assert not found.equal
    assert "answer 7 to third question" in str(found)


def test_an_answer_that_was_changed_by_hand(bundle: Path, tmp_path: Path, again: Callable[[Path], Run]) -> None:
    """Its own digest is not that of what it says: nothing is started."""
    import zstandard

    with zstandard.ZstdDecompressor().stream_reader(members(bundle)[CASSETTE], read_across_frames=True) as reader:
        text = reader.read()
    path = forged(bundle, tmp_path / "x.olab.zip", CASSETTE, zstandard.compress(text.replace(b"answer 2", b"answer 7")))
    with pytest.raises(ReplayDiverged, match=r"agent 'ada': request \d of its cassette is not what was recorded"):
        again(path)
