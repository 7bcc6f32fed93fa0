from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from orchestrator_lab.errors import JournalError
from orchestrator_lab.journal.recording import CastWriter, read_cast, to_cast
from orchestrator_lab.journal.seeking import CastReader

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def cast(tmp_path: Path) -> Path:
    path = tmp_path / "a.cast.zst"
    with CastWriter(path, cols=70, rows=20) as writer:
        for number in range(6):
            writer.write(f"line {number} \xff\r\n".encode("latin-1"))
            writer.flush()
        writer.resize(80, 24)
    return path


def test_its_pieces_are_the_whole_recording(cast: Path) -> None:
    whole = read_cast(cast)
    with CastReader(cast) as reader:
        assert len(reader) >= 7  # the header's, each line's
        assert [event for number in range(len(reader)) for event in reader.events(number)] == whole.events
        assert reader.size == (70, 20)
        assert reader.duration_s == whole.duration_s
        for event in whole.events:
            # What came before an instant lies in the piece of the instant, or in an earlier one.
            later = [
                one for number in range(reader.piece_at(event.time_s) + 1, len(reader)) for one in reader.events(number)
            ]
            assert all(one.time_s >= event.time_s for one in later)
        assert reader.piece_at(-1.0) == 0
        assert reader.piece_at(1e9) == len(reader) - 1


def test_a_recording_of_another_program_is_read_too(cast: Path, tmp_path: Path) -> None:
    plain = to_cast(cast, tmp_path / "a.cast", lossless=True)
    with CastReader(plain) as reader:
        assert [event for number in range(len(reader)) for event in reader.events(number)] == read_cast(plain).events
        assert reader.size == (70, 20)
    long = tmp_path / "long.cast"
    lines = [json.dumps({"version": 3, "term": {"cols": 10**9, "rows": "many"}})]
    lines += [json.dumps([0.5, "o", "x" * 9000]) for _ in range(30)]
    long.write_text("\n".join(lines) + "\n")
    with CastReader(long) as reader:
        assert reader.size == (1000, 24)
        assert 1 < len(reader) < 30
        assert reader.duration_s == 15.0
        assert reader.events(reader.piece_at(15.0))[-1].time_s == 15.0


def test_what_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="cannot read the recording"):
        CastReader(tmp_path / "none.cast.zst")
    (tmp_path / "text").write_text("no recording\n")
    with pytest.raises(JournalError, match="expected an asciicast v3 header"):
        CastReader(tmp_path / "text")


def test_a_damaged_piece_is_passed_over_and_told(cast: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = bytearray(cast.read_bytes())
    place = data.index(b"OLC1", 400) + 60  # within the frame of a later piece
    data[place] ^= 0xFF
    cast.write_bytes(data)
    with CastReader(cast) as reader:
        pieces = [reader.events(number) for number in range(len(reader))]
        pieces += [reader.events(number) for number in range(len(reader))]
    assert sum(not piece for piece in pieces[1 : len(reader)]) == 1
    (record,) = caplog.records
    assert "is damaged at byte" in record.message
    with pytest.raises(JournalError, match=r"is damaged at byte \d+ \(.*\): some output is lost there"):
        read_cast(cast)
    with pytest.raises(JournalError, match="is damaged at byte"):
        to_cast(cast, cast.with_suffix(".plain"))
