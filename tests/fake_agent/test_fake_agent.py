"""The fake keeps its word: each misbehaviour, on a real terminal, and the truth of it in its log."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FAKE = Path(__file__).resolve().parent / "fake_agent.py"
START, END = b"\x1b[200~", b"\x1b[201~"


class OnTerminal:
    """The fake on a pseudo-terminal."""

    def __init__(self, folder: Path, script: dict[str, Any]) -> None:
        self.log = folder / "truth.jsonl"
        (folder / "script.json").write_text(json.dumps(script))
        self.master, slave = pty.openpty()
        self.resize(80, 24)
        argv = [sys.executable, "-S", "-E", str(FAKE), "--log", str(self.log), "--script", str(folder / "script.json")]
        self.process = subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
        os.close(slave)
        self.shown = b""

    def resize(self, cols: int, rows: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def type(self, data: bytes) -> None:
        while data:
            data = data[os.write(self.master, data[:1024]) :]
            self.read(0.0)

    def read(self, wait_s: float = 0.02) -> bytes:
        while select.select([self.master], [], [], wait_s)[0]:
            with contextlib.suppress(OSError):
                piece = os.read(self.master, 1 << 16)
                self.shown += piece
                if piece:
                    continue
            break
        return self.shown

    def records(self, event: str | None = None) -> list[dict[str, Any]]:
        with contextlib.suppress(FileNotFoundError):
            # What follows the last newline is still being written.
            found = [json.loads(line) for line in self.log.read_text().split("\n")[:-1]]
            return [one for one in found if event in {None, one["event"]}]
        return []

    def until(self, condition: Callable[[], Any], timeout_s: float = 20.0) -> Any:
        deadline = time.monotonic() + timeout_s
        while not (found := condition()):
            assert time.monotonic() < deadline, f"not in time; the log says {self.records()[-5:]}"
            self.read()
        return found

    def shows(self, words: str) -> None:
        # What it logs, it shows a moment later; what is read may end within a character.
        self.until(lambda: words.encode() in self.read())

    def state(self, wanted: str) -> None:
        self.until(lambda: [one["state"] for one in self.records("state")][-1:] == [wanted])

    def control(self, **action: Any) -> None:
        count = len(self.records("control"))
        with Path(f"{self.log}.ctl").open("w") as pipe:
            pipe.write(json.dumps(action) + "\n")
        if action.get("do") not in {"crash", "exit"}:
            self.until(lambda: len(self.records("control")) > count)

    def prompts(self) -> list[str]:
        return [one["prompt"] for one in self.records("submitted")]

    def ended(self) -> int:
        return int(self.until(lambda: None if self.process.poll() is None else (self.process.returncode,))[0])

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait(10)
        os.close(self.master)


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Callable[..., OnTerminal]]:
    running: list[OnTerminal] = []

    def start(ready: str = "idle", **script: Any) -> OnTerminal:
        made = OnTerminal(tmp_path, script)
        running.append(made)
        if ready:
            made.state(ready)
        return made

    yield start
    for one in running:
        one.close()


def test_what_is_pasted_and_typed_is_logged_to_the_byte(fake: Any) -> None:
    one = fake()
    one.type(START + "zwei\rZeilen ☃".encode() + END)
    one.type(b"; more\x7f")
    one.type(b"\r")
    one.until(one.prompts)
    assert one.prompts() == ["zwei\nZeilen ☃; mor"]
    assert [paste["text"] for paste in one.records("paste")] == ["zwei\nZeilen ☃"]
    assert b"".join(bytes.fromhex(keys["hex"]) for keys in one.records("keys")) == b"; more\x7f\r"
    one.shows("took 18 characters")


def test_a_megabyte_in_one_frame(fake: Any) -> None:
    one = fake(collapse_lines=5)
    text = "\n".join(f"line {number}" for number in range(100_000))
    one.type(START + text.replace("\n", "\r").encode() + END)
    one.until(lambda: one.records("paste"))
    one.type(b"\r")
    one.until(one.prompts)
    assert one.prompts() == [text]
    one.shows("[pasted 100000 lines #1]")


@pytest.mark.parametrize(
    ("fault", "lost"), [({"swallow_enter_ms": 300}, 300), ({"swallow_enters": 1}, 0), ({"newline_enter_ms": 300}, 300)]
)
def test_an_enter_is_lost(fake: Any, fault: dict[str, int], lost: int) -> None:
    one = fake(**fault)
    one.type(START + b"hello" + END + b"\r")
    one.until(lambda: one.records("swallowed"))
    assert one.prompts() == []
    time.sleep(lost / 1000)
    one.type(b"\r")
    one.until(one.prompts)
    assert one.prompts() == ["hello\n" if "newline_enter_ms" in fault else "hello"]


@pytest.mark.parametrize("kind", ["trust", "permission", "update", "choice"])
def test_dialogs_preselect_the_option_that_refuses(fake: Any, kind: str) -> None:
    one = fake(ready="dialog", on_start=[{"do": "dialog", "kind": kind}])
    one.type(START + b"a message" + END)
    one.until(lambda: one.records("stray"))
    one.type(b"\r")
    (answered,) = one.until(lambda: one.records("dialog_answered"))
    assert answered["choice"] == one.records("dialog")[0]["options"][-1]
    assert one.prompts() == []
    if kind == "trust":
        assert one.ended() == 1
    else:
        one.state("idle")


def test_input_while_it_works_is_queued_or_ignored(fake: Any) -> None:
    one = fake(turn_ms=600_000)
    one.type(b"first\r")
    one.state("busy")
    one.type(b"second\r")
    one.until(lambda: one.records("queued"))
    assert one.prompts() == ["first"]
    one.control(set={"turn_ms": 0})
    one.type(b"\x03")
    one.until(lambda: len(one.prompts()) == 2)
    assert [queued["prompt"] for queued in one.records("queued")] == ["second"]
    one.state("idle")
    one.control(set={"busy_input": "ignore", "turn_ms": 600_000})
    one.type(b"third\r")
    one.state("busy")
    one.type(b"fourth\r")
    one.until(lambda: one.records("swallowed"))
    one.type(b"\x03")
    one.state("idle")
    assert one.prompts() == ["first", "second", "third"]


def test_what_the_screen_shows_lies(fake: Any) -> None:
    one = fake(ghost="try this", draft="", echo_prompt=True, decoy="spinner", alternate=True)
    one.shows("\x1b[2mtry this")
    assert b"\x1b[?1049h" in one.shown
    one.type(b"hello\r")
    one.until(lambda: b"esc to interrupt" in one.read() and b"you said: hello" in one.shown)
    one.state("idle")
    one.control(set={"decoy": "idle", "turn_ms": 100})
    one.type(b"again\r")
    one.shows("the line is empty now:")
    assert b"\x1b[?1049l" not in one.shown


def test_a_draft_waits_in_the_line(fake: Any) -> None:
    one = fake(draft="half a thou")
    one.shows("› half a thou")
    one.type(b"ght\r")
    one.until(one.prompts)
    assert one.prompts() == ["half a thought"]


@pytest.mark.parametrize("layout", ["full", "scroll"])
def test_a_new_size_is_drawn_anew(fake: Any, layout: str) -> None:
    one = fake(layout=layout, draft="here")
    one.until(lambda: b"here" in one.read())
    one.shown = b""
    one.resize(40, 10)
    one.process.send_signal(signal.SIGWINCH)  # this terminal does not control it
    one.until(lambda: b"here" in one.read())


def test_hung_at_no_cpu_and_deaf_to_sigterm(fake: Any) -> None:
    one = fake(ignore_sigterm=True)
    one.control(do="hang")
    one.state("hung")
    process = psutil.Process(one.process.pid)
    before = sum(process.cpu_times()[:2])
    one.process.terminate()
    one.type(b"anybody?\r")
    time.sleep(0.3)
    assert one.process.poll() is None
    assert sum(process.cpu_times()[:2]) - before < 0.05
    assert one.prompts() == []


def test_limit(fake: Any) -> None:
    one = fake(limit=True)
    one.type(b"hello\r")
    one.state("limited")
    one.shows("usage limit")


@pytest.mark.parametrize("point", ["start", "paste_start", "paste", "enter", "submitted", "turn"])
def test_crashes(fake: Any, point: str) -> None:
    one = fake(ready="" if point == "start" else "idle", crash_at=point, crash_signal=11)
    with contextlib.suppress(OSError):  # the terminal is gone in the middle of it
        one.type(START + b"hello" + END + b"\r")
    assert one.ended() == -11
    assert one.prompts() == (["hello"] if point in {"submitted", "turn"} else [])


def test_exits_at_once(fake: Any) -> None:
    one = fake(ready="", on_start=[{"do": "exit", "status": 7}])
    assert one.ended() == 7


def test_fifty_megabytes_and_everything_a_terminal_may_be_sent(fake: Any) -> None:
    one = fake()
    with Path(f"{one.log}.ctl").open("w") as pipe:
        pipe.write(json.dumps({"do": "flood", "bytes": 50_000_000}) + "\n")
    size = 0
    deadline = time.monotonic() + 60
    while size < 50_000_000 and time.monotonic() < deadline:
        if select.select([one.master], [], [], 1.0)[0]:
            size += len(os.read(one.master, 1 << 16))
    assert size >= 50_000_000
    one.until(lambda: one.records("flooded"))
    one.shown = b""
    one.control(do="garbage")
    one.read()
    with pytest.raises(UnicodeDecodeError):
        one.shown.decode()
    assert len({piece for piece in one.shown.split(b"~") if piece.startswith(b"\x1b")}) > 3000
    one.type(b"still here\r")
    one.until(one.prompts)


def test_quick_to_start(fake: Any) -> None:
    one = fake()
    # Its own time, not the machine's: others may keep that busy.
    assert sum(psutil.Process(one.process.pid).cpu_times()[:2]) < 1.0
