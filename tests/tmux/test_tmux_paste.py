from __future__ import annotations

import contextlib
import os
import resource
import time
from typing import TYPE_CHECKING

import pytest
from _tmux_helpers import Receiver, wait_for
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator_lab.errors import TmuxError
from orchestrator_lab.tmux import TmuxDriver
from orchestrator_lab.tmux.paste import check_key

if TYPE_CHECKING:
    from pathlib import Path


TEXTS = [
    "one line",
    "trailing ;",
    "trailing \\;",
    "trailing \\",
    "日本語 と 🚀👩‍👩‍👧 ß",
    "quotes ' \" ` and $(touch /tmp/no) ${HOME} #{pid} %1",
    "a\tb\ttabs",
    "/slash",
    "!bang",
    "#hash",
    "@at",
    "-p -d",
    " ",
    "x" * 16_384,
]


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_texts_arrive_as_they_are(driver: TmuxDriver, receiver: Receiver, text: str) -> None:
    driver.paste(receiver.pane, text)
    data = text.encode()
    assert receiver.got(len(data)) == data


# what tmux's parser knows, newlines, and any other character that a text may have
WORDS = st.sampled_from(
    [*"'\";\\$~#{}%^[]=\n\r\t ", "${HOME}", "#{pid}", "\\n", "\\;", " ; ", "'\\''", "--", "\x1b", "\x7f"]
)
ANY = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4)


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(WORDS | ANY, min_size=1, max_size=12).map("".join), min_size=8, max_size=16))
def test_any_text_arrives_to_the_byte(driver: TmuxDriver, receiver: Receiver, texts: list[str]) -> None:
    before = receiver.file.stat().st_size
    for text in texts:
        driver.paste(receiver.pane, text, keep_newlines=True)
    want = "".join(texts).encode()
    assert receiver.got(before + len(want))[before:] == want


def test_bytes_that_are_no_text(driver: TmuxDriver, receiver: Receiver) -> None:
    data = bytes(range(256)) * 2
    driver.paste(receiver.pane, data, keep_newlines=True)
    assert receiver.got(len(data)) == data


@pytest.mark.parametrize("size", [4, 10_000], ids=["inline", "by file"])
def test_enter_in_the_same_breath(driver: TmuxDriver, receiver: Receiver, size: int) -> None:
    text = b"x" * size
    assert driver.paste(receiver.pane, text, mark="it's #1:1", submit=True) is True
    assert driver.paste_mark(receiver.pane) == "it's #1:1"
    assert driver.paste(receiver.pane, b"y") is False
    # Somebody took the carriage return away: the text is typed, and the caller is told that Enter was not.
    driver.run("delete-buffer", "-b", f"olab-{os.getpid()}-return")
    assert driver.paste(receiver.pane, b"z", submit=True) is False
    driver.enter(receiver.pane)
    assert receiver.got(size + 4) == text + b"\ryz\r"


def test_without_its_mark_nothing_is_typed(driver: TmuxDriver, receiver: Receiver, folder: Path) -> None:
    dead = driver.create_pane("short", ["true"], cwd=folder).pane_id
    wait_for(lambda: any(pane.dead for pane in driver.panes()))
    with pytest.raises(TmuxError, match="has ended"):
        driver.paste(dead, "x", mark="m:1", submit=True)
    assert driver.paste_mark(dead) == ""
    # A text that was not loaded is not pasted, and neither is Enter.
    driver.run("set-option", "-p", "-t", receiver.pane, "@olab_typed", "before:1")
    driver._typist._buffers = folder / "nowhere"
    with pytest.raises(TmuxError, match="cannot be written"):
        driver.paste(receiver.pane, "x" * 10_000, mark="m:2", submit=True)
    assert driver.paste_mark(receiver.pane) == "before:1"
    driver._typist._buffers = folder / "buffers"
    driver.paste(receiver.pane, "y")
    assert receiver.got(1) == b"y"


def test_what_was_typed_is_in_no_log(driver: TmuxDriver, receiver: Receiver) -> None:
    driver.paste(receiver.pane, "s3cret", submit=True)
    receiver.got(7)
    assert "s3cret" not in "".join(driver.server.cmd("show-messages").stdout)


def test_newlines(driver: TmuxDriver, receiver: Receiver) -> None:
    driver.paste(receiver.pane, "a\nb\n")
    driver.paste(receiver.pane, "c\nd\n", keep_newlines=True)
    driver.enter(receiver.pane)
    driver.paste(receiver.pane, "")
    assert receiver.got(9) == b"a\rb\rc\nd\n\r"


def test_ten_megabytes_to_the_byte(driver: TmuxDriver, receiver: Receiver) -> None:
    block = "".join(TEXTS) + "".join(map(chr, range(32, 127)))
    data = (block * (10_000_000 // len(block.encode()) + 1)).encode()
    driver.paste(receiver.pane, data, keep_newlines=True)
    assert receiver.got(len(data), 60) == data


def test_bracketed_only_when_the_program_asked(driver: TmuxDriver, folder: Path) -> None:
    asked = Receiver(driver, folder, "printf '\\033[?2004h';")
    driver.paste(asked.pane, "x")
    driver.paste(asked.pane, "y", bracketed=False)
    assert asked.got(14) == b"\x1b[200~x\x1b[201~y"
    plain = Receiver(driver, folder)
    driver.paste(plain.pane, "x")
    driver.enter(plain.pane)
    assert plain.got(2) == b"x\r"


def test_arrives_while_somebody_scrolls(driver: TmuxDriver, receiver: Receiver) -> None:
    driver.run("copy-mode", "-t", receiver.pane)
    driver.paste(receiver.pane, "text", bracketed=False)
    driver.enter(receiver.pane)
    assert receiver.got(5) == b"text\r"
    assert driver.panes()[0].in_mode
    driver.press(receiver.pane, "Escape")
    assert receiver.got(6) == b"text\r\x1b"
    assert not driver.panes()[0].in_mode


def test_keeps_its_marks_while_somebody_scrolls(driver: TmuxDriver, folder: Path) -> None:
    asked = Receiver(driver, folder, "printf '\\033[?2004h';")
    driver.run("copy-mode", "-t", asked.pane)
    driver.paste(asked.pane, "x", framed=True)
    assert asked.got(13) == b"\x1b[200~x\x1b[201~"
    assert driver.panes()[0].in_mode
    # Whether the program asked is not known here, and tmux can tell only at the end of the history.
    driver.paste(asked.pane, "y")
    assert asked.got(26) == b"\x1b[200~x\x1b[201~\x1b[200~y\x1b[201~"
    assert not driver.panes()[0].in_mode


def test_keys(driver: TmuxDriver, receiver: Receiver) -> None:
    for key in ("Up", "C-c", "y", ";", "~", "BSpace", "é"):
        driver.press(receiver.pane, key)
    want = b"\x1b[A\x03y;~\x7f" + "é".encode()
    assert receiver.got(len(want)) == want
    for wrong in ("Entr", "", "ab", "C-", "Ctrl-c", "\n"):
        with pytest.raises(TmuxError, match="names no key"):
            driver.press(receiver.pane, wrong)
    assert check_key("C-M-x") == "C-M-x"


def test_files_are_private_and_leave_nothing(driver: TmuxDriver, receiver: Receiver, folder: Path) -> None:
    buffers = folder / "buffers"
    assert buffers.stat().st_mode & 0o777 == 0o700
    driver.paste(receiver.pane, "secret")
    driver.enter(receiver.pane)
    receiver.got(7)
    assert list(buffers.iterdir()) == []
    with pytest.raises(TmuxError):
        driver.paste("%99", "secret")
    assert list(buffers.iterdir()) == []
    names = driver.run("list-buffers", "-F", "#{buffer_name} #{buffer_size}")
    assert names == [f"olab-{os.getpid()}-return 1"]
    driver.run("delete-buffer", "-b", f"olab-{os.getpid()}-return")
    driver.enter(receiver.pane)
    assert receiver.got(8) == b"secret\r\r"


def test_a_dead_pane_takes_nothing_and_harms_nobody(driver: TmuxDriver, folder: Path) -> None:
    # tmux 3.3a itself crashes when it pastes into a dead pane
    pane = driver.create_pane("short", ["true"], cwd=folder).pane_id
    wait_for(lambda: driver.panes()[0].dead)
    for act in (
        lambda: driver.paste(pane, "x"),
        lambda: driver.enter(pane),
        lambda: driver.press(pane, "y"),
    ):
        with pytest.raises(TmuxError, match="has ended") as caught:
            act()
        assert caught.value.details["dead"] is True
        assert caught.value.details["executed"] == "no"
    for act in (
        lambda: driver.paste("%99", "x"),
        lambda: driver.enter("%99"),
        lambda: driver.press("%99", "y"),
        lambda: driver.capture("%99"),
        lambda: driver.pane("%99"),
        lambda: driver.respawn("%99", ["true"], cwd=folder),
    ):
        with pytest.raises(TmuxError, match=r"no pane %99|find pane: %99"):
            act()
    with pytest.raises(TmuxError, match="is no pane id"):
        driver.paste("lab:0", "x")
    with contextlib.suppress(TmuxError):  # newer versions refuse
        driver.pipe(pane, ["cat"])
    assert driver.capture(pane)
    assert driver.respawn(pane, ["cat"], cwd=folder).dead is False
    assert driver.alive


def test_no_pane_dies_while_text_flies(driver: TmuxDriver, folder: Path) -> None:
    # the pane may end between any two instants
    for i in range(15):
        pane = driver.create_pane("racer", ["sleep", f"0.0{i % 10}"], cwd=folder).pane_id
        ended = time.monotonic() + 0.15
        while time.monotonic() < ended:
            try:
                driver.paste(pane, "text")
                driver.enter(pane)
            except TmuxError as error:
                assert error.details["executed"] == "no"  # noqa: PT017 - it may also not be raised
                break
    assert driver.alive


def test_unread_input(driver: TmuxDriver, folder: Path) -> None:
    pane = driver.create_pane("deaf", ["sh", "-c", "stty raw -echo; exec sleep 60"], cwd=folder).pane_id
    wait_for(lambda: not driver.terminal_modes(pane).canonical)
    assert driver.unread_input(pane) == 0
    driver.paste(pane, "12345")
    wait_for(lambda: driver.unread_input(pane) == 5)
    assert driver.terminal_modes(pane).echo is False
    with pytest.raises(TmuxError, match="no pane"):
        driver.unread_input("%99")


def test_a_full_disk_types_nothing(driver: TmuxDriver, receiver: Receiver, folder: Path) -> None:
    # a limit of the process stands in for the disk's
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(TmuxError, match=r"cannot be written to .*; nothing was typed") as caught:
            driver.paste(receiver.pane, "x" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.details["executed"] == "no"
    assert list((folder / "buffers").iterdir()) == []
    driver.paste(receiver.pane, "after")
    assert receiver.got(5) == b"after"


def test_what_a_killed_driver_left_is_removed(driver: TmuxDriver, folder: Path) -> None:
    (folder / "buffers" / "olab-1-7").write_text("secret")
    driver.run("set-buffer", "-b", "olab-1-7", "secret")
    driver.run("set-buffer", "-b", "somebody's", "text")
    with TmuxDriver.adopt(driver.socket):
        assert list((folder / "buffers").iterdir()) == []
        assert driver.run("list-buffers", "-F", "#{buffer_name}") == ["somebody's"]
