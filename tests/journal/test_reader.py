from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orchestrator_lab.errors import JournalError
from orchestrator_lab.journal import JournalReader, JournalWriter, read_events, reader

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def test_each_look_reads_only_what_is_new(path: Path) -> None:
    looker = JournalReader(path)
    assert looker.read() == []
    with JournalWriter(path, run_id="run_x") as writer:
        writer.append("note")
        assert [event.seq for event in looker.read()] == [1]
        assert looker.read() == []
        writer.append("note")
        writer.append("note")
        assert [event.seq for event in looker.read()] == [2, 3]
        assert looker.offset == path.stat().st_size


def test_line_without_its_newline_waits(path: Path) -> None:
    with JournalWriter(path, run_id="run_x") as writer:
        writer.append("note")
        writer.append("note", text="日本")
    data = path.read_bytes()
    end = data.index(b"\n") + 1
    for cut in range(end, len(data)):
        path.write_bytes(data[:cut])
        events, offset = read_events(path)
        assert (len(events), offset) == (1, end)
    path.write_bytes(data)
    assert [event.seq for event in read_events(path, offset=end)[0]] == [2]


@pytest.mark.parametrize("damage", [b"\0\0", b"{}", b"[1]", b"1", b'{"seq":', b"\xff\xfe", b"null"])
def test_damaged_line_is_skipped_and_named(path: Path, damage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with JournalWriter(path, run_id="run_x") as writer:
        writer.append("note")
        first = writer._size
        writer.append("note")
    data = path.read_bytes()
    path.write_bytes(data[:first] + damage + b"\n" + data[first:])
    assert [event.seq for event in read_events(path)[0]] == [1, 2]
    assert "line 2 from there is damaged" in caplog.text
    assert str(path) in caplog.text


def test_pieces_join(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with JournalWriter(path, run_id="run_x") as writer:
        for number in range(20):
            writer.append("note", text="日本\u2028" * number)
    whole = read_events(path)
    monkeypatch.setattr(reader, "_PIECE", 37)
    assert read_events(path) == whole


def test_unknown_events_and_keys_pass(path: Path) -> None:
    path.write_text(
        '{"seq":1,"event":"later.kind","at":"2026-01-01T00:00:00.000000Z","monotonic_s":0,'
        '"attributes":{"a":1},"new_key":2}\n'
    )
    (event,), _ = read_events(path)
    assert (event.event, event.level, event.attributes) == ("later.kind", "info", {"a": 1})


def test_missing_and_replaced_journals_are_named(path: Path) -> None:
    with pytest.raises(JournalError, match="there is no journal"):
        read_events(path)
    with pytest.raises(JournalError, match="cannot be read"):
        read_events(path.parent)
    with JournalWriter(path, run_id="run_x") as writer:
        writer.append("note")
    looker = JournalReader(path)
    looker.read()
    path.write_bytes(b"")
    with pytest.raises(JournalError, match="was replaced"):
        looker.read()
    path.unlink()
    with pytest.raises(JournalError, match="is gone"):
        looker.read()
