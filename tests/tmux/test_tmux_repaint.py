"""tmux's picture of a pane, painted into a fresh pane, is the same picture: cells, cursor and modes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from _tmux_helpers import wait_for
from hypothesis import given
from hypothesis import strategies as st

from orchestrator_lab.errors import TmuxError
from orchestrator_lab.tmux.repaint import MODES, PaneModes, paint, parse_modes, unescape

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator_lab.tmux import TmuxDriver

TORTURE = (
    "\x1b[1mbold\x1b[0m \x1b[3mitalic\x1b[0m \x1b[4munder\x1b[0m \x1b[7mreverse\x1b[0m \x1b[9mgone\x1b[0m\r\n"
    "\x1b[31mred \x1b[92mbright \x1b[38;5;208m256 \x1b[38;2;1;200;3mtrue \x1b[48;2;80;0;80mback \x1b[0m|\r\n"
    "日本語 한국어 漢字 e\u0301 ｆｕｌｌ\r\n"
    "\x1b(0lqqqk\x1b(B box\r\n"
    "\x1b[44mcarried\r\nover the line\x1b[0m\r\n"
)
SHOWS = {
    "plain": TORTURE,
    "alternate": TORTURE + "\x1b[?1049h\x1b[2J\x1b[5;3H" + TORTURE,
    "modes": TORTURE + "\x1b[?1h\x1b=\x1b[?25l\x1b[3;9r\x1b[?6h\x1b[2;5H\x1b[?1002h\x1b[?1006h\x1b[4h\x1b[?7l",
    "full line": "\x1b[5;1H" + "0123456789" * 8,
    "wide at the edge": "\x1b[4;80H漢\x1b[6;79H漢",
    "half a sequence": TORTURE + "text\x1b[38;5",
    "half a title": TORTURE + "\x1b]0;half a tit",
    "nothing": "",
}


def show(driver: TmuxDriver, folder: Path, data: bytes, end: str = "") -> str:
    """Have a new pane show bytes; return its id once it does."""
    (folder / "show.bin").write_bytes(data + end.encode())
    code = (
        "import sys,tty,time;tty.setraw(0);"
        "sys.stdout.buffer.write(open(sys.argv[1],'rb').read());sys.stdout.flush();open(sys.argv[1]+'.done','w');time.sleep(60)"
    )
    done = folder / "show.bin.done"
    done.unlink(missing_ok=True)
    pane = driver.create_pane(
        "show", [sys.executable, "-c", code, str(folder / "show.bin")], cwd=folder, cols=80, rows=24
    )
    wait_for(done.exists)
    before = None

    def still() -> bool:
        nonlocal before
        now = driver.picture(pane.pane_id).data
        same, before = now == before, now
        return same

    wait_for(still)
    return pane.pane_id


@pytest.mark.parametrize("name", SHOWS)
def test_a_picture_painted_is_the_same_picture(driver: TmuxDriver, folder: Path, name: str) -> None:
    first = show(driver, folder, SHOWS[name].encode())
    picture = driver.picture(first)
    assert (picture.cols, picture.rows) == (80, 24)
    second = show(driver, folder, picture.data)
    assert driver.capture(second, escapes=True, join=False) == driver.capture(first, escapes=True, join=False)
    assert driver.picture(second) == picture
    modes = [driver.run("display-message", "-p", "-t", pane, MODES)[0].split(" ")[1:] for pane in (first, second)]
    assert modes[0] == modes[1]


@pytest.mark.parametrize(("name", "rest"), [("half a sequence", ";208mon"), ("half a title", "le\x07on")])
def test_what_follows_half_a_sequence_completes_it(driver: TmuxDriver, folder: Path, name: str, rest: str) -> None:
    first = show(driver, folder, SHOWS[name].encode())
    second = show(driver, folder, driver.picture(first).data, rest)
    third = show(driver, folder, (SHOWS[name] + rest).encode())
    assert driver.capture(second, escapes=True, join=False) == driver.capture(third, escapes=True, join=False)


def test_no_such_pane(driver: TmuxDriver) -> None:
    for pane in ("%99", "pane"):
        with pytest.raises(TmuxError, match=pane):
            driver.picture(pane)


def test_bracketed_paste_is_said_when_it_is_known() -> None:
    assert b"\x1b[?2004h" in paint(PaneModes(80, 24, 0, 0, 0, 23), [], bracketed_paste=True)
    assert b"\x1b[?2004h" not in paint(PaneModes(80, 24, 0, 0, 0, 23), [])


@given(st.binary(max_size=40))
def test_octal_escapes_are_undone(data: bytes) -> None:
    printed = b"".join(b"\\%03o" % byte if byte < 32 or byte == 92 or byte > 126 else bytes([byte]) for byte in data)
    assert unescape(printed) == data


def test_modes_that_a_version_does_not_know_are_off() -> None:
    pane, modes = parse_modes(b"%3 80 24 1 2 0 23 4294967295 4294967295 0 1 0 0 1 0 0 0 0 0 0")
    assert (pane, modes) == ("%3", PaneModes(80, 24, 1, 2, 0, 23, 4294967295, 4294967295))
