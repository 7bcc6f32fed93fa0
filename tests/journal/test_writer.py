from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator_lab.errors import DiskFull, JournalError
from orchestrator_lab.journal import Event, JournalWriter, SecretMask, read_events

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def test_line_is_the_documented_envelope(path: Path) -> None:
    with JournalWriter(path, run_id="run_x") as writer:
        event = writer.append("message.accepted", agent="boss", message_id="msg_1", source="hook", attempt=None, n=2)
    line = json.loads(path.read_text())
    assert list(line) == [
        "seq", "event", "at", "monotonic_s", "agent", "message_id", "source", "level", "attributes",
    ]  # fmt: skip
    assert line["attributes"] == {"n": 2}
    assert line["at"].endswith("Z")
    assert len(line["at"]) == len("2026-11-23T06:00:00.123456Z")
    assert Event.from_json(path.read_text()) == event
    assert path.stat().st_mode & 0o777 == 0o600


def test_journal_can_be_opened_by_its_owner_only_whatever_the_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        JournalWriter(path, run_id="run_x").close()
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} <= {0o600}


def test_attributes_are_what_a_reader_will_see(path: Path) -> None:
    odd = {"path": Path("a"), "tuple": (1, {2}), "nan": float("nan"), "bytes": b"\xff", 3: None}
    with JournalWriter(path, run_id="run_x") as writer:
        event = writer.append("note", event="not the envelope's", odd=odd, text="\u2028\udc80日本")
    (again,), _ = read_events(path)
    assert again == event
    assert again.attributes["odd"] == {
        "path": "a",
        "tuple": [1, [2]],
        "nan": None,
        "bytes": "\ufffd",
        "3": None,
    }


def test_secrets_are_masked_everywhere_and_widths_kept(path: Path) -> None:
    mask = SecretMask(["s3cret", "s3cret-longer"])
    with JournalWriter(path, run_id="run_x", mask=mask) as writer:
        event = writer.append(
            "note", agent="s3cret", source="s3cret", text="a s3cret-longer b", deep=[{"s3cret": "s3cret"}]
        )  # fmt: skip
    assert "s3cret" not in path.read_text()
    assert event.attributes["text"] == "a ************* b"
    assert event.attributes["deep"] == [{"******": "******"}]


def test_subscribers_see_events_and_cannot_break_the_journal(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[int] = []

    def fail(_: Event) -> None:
        raise RuntimeError("no")

    with JournalWriter(path, run_id="run_x", on_event=fail) as writer:
        stop = writer.subscribe(lambda event: seen.append(event.seq))
        writer.append("note")
        stop()
        stop()
        writer.append("note")
    assert seen == [1]
    assert len(read_events(path)[0]) == 2
    assert "failed on event 1" in caplog.text


def test_second_writer_is_turned_away(path: Path) -> None:
    with JournalWriter(path, run_id="run_x"), pytest.raises(JournalError, match="another process writes"):
        JournalWriter(path, run_id="run_x")
    JournalWriter(path, run_id="run_x").close()


def test_closed_writer_says_so(path: Path) -> None:
    writer = JournalWriter(path, run_id="run_x")
    writer.close()
    writer.close()
    with pytest.raises(JournalError, match="closed"):
        writer.append("note")


def test_missing_folder_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="cannot be opened"):
        JournalWriter(tmp_path / "none" / "journal.jsonl", run_id="run_x")


def test_numbers_and_clock_go_on_after_a_restart(path: Path) -> None:
    started = time.monotonic()
    with JournalWriter(path, run_id="run_x") as writer:
        writer.append("note")
    time.sleep(0.05)
    with JournalWriter(path, run_id="run_x") as writer:
        second = writer.append("note")
    elapsed = time.monotonic() - started
    assert second.seq == 2
    assert 0.05 <= second.monotonic_s <= elapsed


def test_clock_goes_on_by_the_wall_after_a_reboot(path: Path) -> None:
    started = time.monotonic()
    with JournalWriter(path, run_id="run_x") as writer:
        writer.append("note")
    clock = path.with_name("journal.clock")
    clock.write_text(json.dumps({**json.loads(clock.read_text()), "boot_id": "another"}))
    time.sleep(0.02)
    for _ in range(2):
        with JournalWriter(path, run_id="run_x") as writer:
            assert 0.02 <= writer.append("note").monotonic_s < time.monotonic() - started + 1
        clock.write_text("damaged")


def test_every_cut_of_the_last_line_is_repaired(path: Path) -> None:
    with JournalWriter(path, run_id="run_x") as writer:
        writer.append("note", text="first 日本")
        whole = writer._size
        writer.append("note", text="second 日本")
    data = path.read_bytes()
    for cut in range(whole, len(data)):
        path.write_bytes(data[:cut])
        assert [event.seq for event in read_events(path)[0]] == [1]
        with JournalWriter(path, run_id="run_x") as writer:
            assert writer.repaired == cut - whole
            assert writer.append("note").seq == 2
        assert [event.seq for event in read_events(path)[0]] == [1, 2]


def test_damaged_last_lines_do_not_reset_the_numbers(path: Path) -> None:
    with JournalWriter(path, run_id="run_x") as writer:
        for _ in range(3):
            writer.append("note")
    with path.open("ab") as file:
        file.write(b"\0" * 100 + b"\n{}\n[1]\n")
    with JournalWriter(path, run_id="run_x") as writer:
        assert writer.repaired == 0
        assert writer.append("note").seq == 4


def test_tail_longer_than_one_block_is_found(path: Path) -> None:
    with JournalWriter(path, run_id="run_x") as writer:
        writer.append("note", text="x" * 300_000)
    with path.open("ab") as file:
        file.write(b"y" * 200_000)
    with JournalWriter(path, run_id="run_x") as writer:
        assert (writer.repaired, writer.seq) == (200_000, 1)


async def test_waiters_share_flushes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushes: list[int] = []
    real = JournalWriter._flush

    def counted(self: JournalWriter) -> int:
        flushes.append(self.seq)
        time.sleep(0.02)
        return real(self)

    monkeypatch.setattr(JournalWriter, "_flush", counted)
    with JournalWriter(path, run_id="run_x") as writer:

        async def one() -> None:
            event = writer.append("note")
            await writer.asynced()
            assert writer._synced >= event.seq

        await asyncio.gather(*(one() for _ in range(50)))
        assert len(flushes) <= 2
        await writer.asynced()  # nothing new: no flush
        assert len(flushes) <= 2


async def test_waiter_that_gives_up_leaves_the_others_their_flush(path: Path) -> None:
    with JournalWriter(path, run_id="run_x") as writer:
        writer.append("note")
        first = asyncio.create_task(writer.asynced())
        second = asyncio.create_task(writer.asynced())
        await asyncio.sleep(0)
        first.cancel()
        await second
        assert writer._synced == writer._size
        with pytest.raises(asyncio.CancelledError):
            await first


_FILL = """
    import sys
    from pathlib import Path
    from orchestrator_lab.errors import DiskFull
    from orchestrator_lab.journal import JournalWriter, read_events
    path = Path(sys.argv[1])
    writer = JournalWriter(path, run_id="run_x")
    room = path.with_name("room")
    count = 0
    try:
        while count < 100_000:
            writer.append("note", text="x" * 900)
            count += 1
    except DiskFull as error:
        assert str(path) in error.message, error
    else:
        raise SystemExit("the disk never filled")
    size = path.stat().st_size
    events, offset = read_events(path)
    assert offset == size, (offset, size)           # the half line was cut off
    assert [event.seq for event in events] == list(range(1, count + 1))
    try:
        writer.append("note", text="x" * 9000)
    except DiskFull:
        pass
    else:
        raise SystemExit("it fitted after all")
    assert path.stat().st_size == size
    if room.exists():
        room.unlink()                               # somebody frees space: it goes on
        assert writer.append("note", text="again").seq == count + 1
        writer.sync()
    writer.close()
    print("held", count)
"""


def test_file_size_limit_stops_with_whole_lines(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_FILL), str(path)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("held")


def test_full_disk_stops_with_whole_lines_and_goes_on(tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("needs unshare(1) to mount a small disk")
    script = (
        'mount -t tmpfs -o size=256k tmpfs "$1" || exit 77; '
        'head -c 65536 /dev/zero > "$1/room"; exec "$2" -c "$3" "$1/journal.jsonl"'
    )
    done = subprocess.run(
        [unshare, "-rm", "sh", "-c", script, "sh", str(tmp_path), sys.executable,
         textwrap.dedent(_FILL)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"cannot mount a small disk here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[1]) > 50


def test_no_space_on_the_real_full_device() -> None:
    if not os.access("/dev/full", os.W_OK):
        pytest.skip("needs /dev/full")
    writer = JournalWriter.__new__(JournalWriter)
    writer.path, writer._size, writer._fd = Path("/dev/full"), 0, os.open("/dev/full", os.O_WRONLY)
    writer._problems = {}
    try:
        with pytest.raises(DiskFull, match="disk is full"):
            writer._write(b"x\n")
        assert "disk is full" in (writer.problem or "")
    finally:
        os.close(writer._fd)


def test_kill_in_the_middle_of_writing_loses_no_whole_line(path: Path, spawn: Callable[..., Any]) -> None:
    code = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from orchestrator_lab.journal import JournalWriter
        writer = JournalWriter(Path(sys.argv[1]), run_id="run_x")
        while True:
            event = writer.append("note", text="x" * 20_000)
            sys.stdout.write(f"{event.seq}\\n")
            sys.stdout.flush()
        """
    )
    last = 0
    for _ in range(3):
        process = spawn([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
        for _, line in zip(range(300), process.stdout, strict=False):
            told = int(line)
        process.send_signal(signal.SIGKILL)
        told = max([told, *(int(line) for line in process.stdout if line.endswith("\n"))])
        numbers = [event.seq for event in read_events(path)[0]]
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(numbers) >= told > last  # what was told is there
        last = told


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.dictionaries(st.from_regex(r"[a-z_]{1,8}x", fullmatch=True), _json), max_size=4),
    text=st.text(st.characters(), min_size=1),
    cut=st.integers(min_value=0, max_value=10_000),
)  # fmt: skip
def test_whatever_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, values: list[dict[str, object]], text: str, cut: int
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    with JournalWriter(path, run_id="run_x") as writer:
        written = [writer.append("note", agent=text, **value) for value in values]
    assert read_events(path)[0] == written
    # A journal cut anywhere gives a prefix.
    data = path.read_bytes()
    path.write_bytes(data[: min(cut, len(data))])
    prefix, offset = read_events(path)
    assert prefix == written[: len(prefix)]
    path.write_bytes(data)
    assert prefix + read_events(path, offset=offset)[0] == written


def test_two_lone_surrogates_that_make_one_character_are_told_as_they_are_read(path: Path) -> None:
    with JournalWriter(path, run_id="run_x") as writer:
        event = writer.append("note", text="\ud83d" + "\ude00")
        alone = writer.append("note", text="\ud83d")
    assert event.attributes == {"text": "\N{GRINNING FACE}"}
    assert read_events(path)[0] == [event, alone]
