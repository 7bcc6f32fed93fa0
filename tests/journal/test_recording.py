from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator_lab.errors import JournalError
from orchestrator_lab.journal.recording import CastWriter, iter_cast, read_cast, to_cast

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "boss.cast.zst"


def check_v3(text: str) -> list[list[Any]]:
    """Check a plain asciicast line by line against the v3 description."""
    assert text.endswith("\n")
    lines = text.split("\n")[:-1]
    header = json.loads(lines[0])
    assert header["version"] == 3
    assert isinstance(header["term"]["cols"], int)
    assert isinstance(header["term"]["rows"], int)
    assert isinstance(header["timestamp"], int)
    events = [json.loads(line) for line in lines[1:]]
    for interval, code, data in events:
        assert isinstance(interval, int | float)
        assert interval >= 0
        assert round(interval, 3) == interval
        assert isinstance(data, str)
        data.encode()
        if code == "r":
            cols, rows = data.split("x")
            assert int(cols) > 0
            assert int(rows) > 0
        elif code == "x":
            int(data)
        else:
            assert code in {"o", "i", "m"}
    return events


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.binary(max_size=40) | st.text(max_size=20).map(lambda text: text.encode()), max_size=12),
    st.sets(st.integers(0, 12)),
)
def test_bytes_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes], flushed: set[int]
) -> None:
    path = tmp_path_factory.mktemp("cast") / "x.cast.zst"
    with CastWriter(path, cols=80, rows=24) as writer:
        for number, chunk in enumerate(chunks):
            writer.write(chunk)
            if number in flushed:
                writer.flush()
    assert read_cast(path).output() == b"".join(chunks)
    plain = to_cast(path, path.with_name("plain.cast"), lossless=True)
    assert read_cast(plain).output() == b"".join(chunks)
    text = to_cast(path, path.with_name("strict.cast")).read_text(encoding="utf-8")
    output = "".join(data for _, code, data in check_v3(text) if code == "o")
    kept = b"".join(chunks).decode("utf-8", "surrogateescape")
    assert output == "".join("\ufffd" if "\udc80" <= c <= "\udcff" else c for c in kept)


def test_a_character_split_between_reads_is_one_character(path: Path) -> None:
    with CastWriter(path, cols=80, rows=24) as writer:
        for byte in "混🎉".encode():
            writer.write(bytes([byte]))
    assert [event.data for event in read_cast(path).events] == ["混", "🎉"]


def test_every_kind_of_event(path: Path) -> None:
    begun = time.monotonic()
    with CastWriter(path, cols=80, rows=24, title='ボス "x"') as writer:
        writer.write(b"hello\r\n")
        time.sleep(0.05)
        writer.resize(100, 30)
        resized_s = time.monotonic() - begun
        writer.mark("naïve \udcff")
        writer.write(b"\xe6")
        writer.exit(137)
    recording = read_cast(path)
    assert recording.header["title"] == 'ボス "x"'
    assert abs(recording.header["timestamp"] - time.time()) < 10
    assert [(event.code, event.data) for event in recording.events] == [
        ("o", "hello\r\n"),
        ("r", "100x30"),
        ("m", "naïve \udcff"),
        ("o", "\udce6"),
        ("x", "137"),
    ]
    assert 0.05 <= recording.events[1].time_s <= resized_s + 0.001
    assert recording.duration_s == recording.events[-1].time_s
    check_v3(to_cast(path, path.with_suffix(".plain")).read_text())


def test_times_do_not_drift(path: Path) -> None:
    with CastWriter(path, cols=80, rows=24) as writer:
        for _ in range(300):
            writer.write(b".")
            time.sleep(0.0013)
        before = writer.offset_s
        writer.write(b"end")
        after = writer.offset_s
    assert before - 0.02 <= read_cast(path).duration_s <= after + 0.02


def test_any_zstd_tool_reads_it(path: Path) -> None:
    with CastWriter(path, cols=80, rows=24) as writer:
        for _ in range(5):
            writer.write("混 hello\r\n".encode())
            writer.flush()
    with path.open("rb") as file:
        reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
        content = reader.read().decode()
    assert content.split("\n")[:-1] == list(iter_cast(path))
    if (zstd := shutil.which("zstd")) is not None:
        done = subprocess.run([zstd, "-dc", str(path)], check=True, capture_output=True)
        assert done.stdout.decode() == content


def test_recordings_compressed_by_others_are_read(path: Path, tmp_path: Path) -> None:
    with CastWriter(path, cols=80, rows=24) as writer:
        writer.write(b"\xffhello")
        writer.mark("x")
    plain = to_cast(path, tmp_path / "x.cast", lossless=True)
    other = tmp_path / "other.cast.zst"
    other.write_bytes(zstandard.compress(plain.read_bytes(), 10))
    assert read_cast(other) == read_cast(plain) == read_cast(path)
    other.write_bytes(zstandard.compress(plain.read_bytes(), 10)[:-6])
    plain.write_text(plain.read_text()[:-3])
    assert read_cast(plain).torn_bytes > 0
    assert read_cast(plain).output() == b"\xffhello"


@pytest.mark.parametrize("cut", [1, 5, 20, 47, 48, 60])
def test_a_torn_end_is_left_out_and_cut_off_by_the_next_writer(path: Path, cut: int) -> None:
    with CastWriter(path, cols=80, rows=24) as writer:
        writer.write(b"kept")
        writer.flush()
        whole = path.stat().st_size
        writer.write(b"lost " + os.urandom(40))
    os.truncate(path, min(path.stat().st_size - 1, whole + cut))
    torn = read_cast(path)
    assert torn.output() == b"kept"
    assert torn.torn_bytes == path.stat().st_size - whole
    with CastWriter(path, cols=90, rows=24) as writer:
        assert writer.started_at == pytest.approx(torn.header["timestamp"], abs=1.5)
        writer.write(b" and more")
    recording = read_cast(path)
    assert recording.torn_bytes == 0
    assert recording.output() == b"kept and more"
    assert ("r", "90x24") in {(event.code, event.data) for event in recording.events}
    check_v3(to_cast(path, path.with_suffix(".plain")).read_text())


def test_time_goes_on_in_a_continued_recording(path: Path) -> None:
    with CastWriter(path, cols=80, rows=24) as writer:
        told = time.monotonic()
        writer.write(b"a")
        began = writer.started_at
    time.sleep(0.3)
    with CastWriter(path, cols=80, rows=24) as writer:
        # However long this machine took besides.
        assert 0.29 <= writer.gap_s <= time.monotonic() - told + 0.01
        assert writer.started_at == began
        writer.write(b"b")
        paused = time.monotonic() - told
        earlier, offset, later = time.time() - began, writer.offset_s, time.time() - began
        assert earlier - 0.1 <= offset <= later + 0.1
    events = {event.data: event.time_s for event in read_cast(path).events}
    assert 0.29 <= events["b"] - events["a"] <= paused + 0.01
    assert "recording resumed" in events


def test_a_writer_killed_in_the_middle_leaves_a_readable_file(path: Path) -> None:
    program = (
        "import sys, time\nfrom pathlib import Path\n"
        "from orchestrator_lab.journal.recording import CastWriter\n"
        "writer = CastWriter(Path(sys.argv[1]), cols=80, rows=24)\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    writer.write(b'x' * 5000)\n    writer.flush()\n"
    )
    for _ in range(3):
        child = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        size, deadline = path.stat().st_size, time.monotonic() + 30
        while path.stat().st_size < size + 5000:  # some dozens of pieces
            assert time.monotonic() < deadline
            time.sleep(0.01)
        child.kill()
        child.communicate()
        assert set(read_cast(path).output()) == {ord("x")}


def test_only_the_pieces_asked_for(path: Path) -> None:
    with CastWriter(path, cols=80, rows=24) as writer:
        for number in range(6):
            writer.write(b"%d" % number)
            writer.flush()
            time.sleep(0.05)
    everything = read_cast(path)
    assert everything.output() == b"012345"
    start, end = everything.events[2].time_s, everything.events[4].time_s
    part = read_cast(path, start_s=start, end_s=end)
    assert part.events == everything.events[2:5]
    assert part.header == everything.header


def test_a_full_disk_is_survived_and_marked(path: Path) -> None:
    # A limit on the size of files fails a write as a full disk does: in its middle.
    _soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with CastWriter(path, cols=80, rows=24) as writer:
        writer.write(b"before")
        writer.flush()
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100, hard))
            writer.write(os.urandom(10_000))
            writer.flush()
            assert writer.error is not None
            assert str(path) in writer.error
            time.sleep(0.05)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (_soft, hard))
        assert read_cast(path).output() == b"before"
        writer.write(b" after")
        writer.flush()
        assert writer.error is None
    recording = read_cast(path)
    assert recording.output() == b"before after"
    assert [event.data for event in recording.events if event.code == "m"] == [
        "recording gap: the disk was full or failed"
    ]
    assert recording.events[1].time_s >= 0.05


def test_a_full_disk_at_the_very_beginning_still_gives_a_header(path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
        writer = CastWriter(path, cols=80, rows=24)
        assert writer.error is not None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with writer:
        writer.write(b"after")
    assert read_cast(path).header["version"] == 3
    assert read_cast(path).output() == b"after"


def test_wrong_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="cannot read the recording"):
        read_cast(tmp_path / "nowhere")
    for content in (b"", b"hello\n", b'{"version": 2}\n', b"\x28\xb5\x2f\xfd garbage"):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(JournalError, match="asciicast v3 header"):
            read_cast(tmp_path / "x")
    (tmp_path / "x").write_bytes(b'{"version": 3, "term": {"cols": 1, "rows": 1}}\n[1]\n')
    with pytest.raises(JournalError, match="expected an asciicast event"):
        read_cast(tmp_path / "x")
    with pytest.raises(JournalError, match="is no recording"):
        CastWriter(tmp_path / "x", cols=80, rows=24)
    with pytest.raises(JournalError, match="cannot open the recording"):
        CastWriter(tmp_path / "nowhere" / "x", cols=80, rows=24)
