from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from _tmux_helpers import wait_for

from orchestrator_lab.errors import EnvironmentProblem, TmuxError
from orchestrator_lab.tmux import TmuxDriver, attach_argv
from orchestrator_lab.tmux.process import command_line, interrupt_missed, process_started

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from orchestrator_lab.tmux.driver import Layout


def environ_of(pid: int) -> dict[str, str]:
    raw = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return dict(os.fsdecode(entry).split("=", 1) for entry in raw if entry)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_nothing_of_our_environment_leaks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SECRET", "hunter2")
    monkeypatch.setenv("TMUX", "/somewhere,1,0")
    driver = TmuxDriver.start(folder / "tmux.sock", session="lab", env={"API_KEY": "k3y"}, tags={"a": "b"})
    try:
        pane = driver.create_pane("a", ["sleep", "60"], cwd=folder)
        wait_for(lambda: command_line(pane.pid)[:1] == ["sleep"])
        for pid in (driver.pid, pane.pid):
            environ = environ_of(pid)
            assert environ["API_KEY"] == "k3y"
            assert "MY_SECRET" not in environ
            assert not any("k3y" in word for word in command_line(pid))
        assert "/somewhere" not in environ_of(pane.pid).get("TMUX", "")
        assert os.getsid(driver.pid) == driver.pid
        assert stat.S_IMODE((folder / "tmux.sock").stat().st_mode) & 0o077 == 0
        assert driver.tags() == {"a": "b"}
        driver.set_tags(c="d e;", a="z")
        assert driver.tags() == {"a": "z", "c": "d e;"}
    finally:
        driver.kill()


def test_panes(driver: TmuxDriver, folder: Path) -> None:
    assert driver.panes() == []
    tags = {"agent": "boss", "notes": "日本 'quoted'; #{pid} \n"}
    first = driver.create_pane("boss #S", ["cat"], cwd=folder, tags=tags)
    second = driver.create_pane("small", ["cat"], cwd=folder, cols=80, rows=24)
    panes = driver.panes()
    assert [p.pane_id for p in panes] == [first.pane_id, second.pane_id]
    assert (panes[0].cols, panes[0].rows) == (120, 40)
    assert (panes[1].cols, panes[1].rows) == (80, 24)
    assert panes[0].tags == tags
    assert panes[1].tags == {}
    assert panes[0].title == "boss #S"
    assert panes[0].pid == first.pid
    assert Path(panes[0].tty).is_char_device()
    assert not panes[0].dead
    assert driver.run("list-windows", "-F", "#{window_name}") == ["boss #S", "small"]
    driver.tag_pane(second.pane_id, agent="b")
    assert driver.panes()[1].tags == {"agent": "b"}
    driver.resize(second.pane_id, 100, 30)
    assert (driver.panes()[1].cols, driver.panes()[1].rows) == (100, 30)
    driver.paste(first.pane_id, "abc")
    wait_for(lambda: driver.panes()[0].cursor_x == 3)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how a process takes signals")
def test_who_would_have_ended_by_an_interrupt(driver: TmuxDriver, folder: Path) -> None:
    shell = driver.create_pane("shell", ["bash", "--norc"], cwd=folder)
    wait_for(lambda: not driver.terminal_modes(shell.pane_id).canonical)
    assert not interrupt_missed(shell.pid)
    driver.paste(shell.pane_id, "sleep 60")
    driver.enter(shell.pane_id)
    wait_for(lambda: interrupt_missed(shell.pid))
    driver.press(shell.pane_id, "C-c")
    wait_for(lambda: not interrupt_missed(shell.pid))
    driver.paste(shell.pane_id, "trap '' INT; sleep 60")
    driver.enter(shell.pane_id)
    wait_for(lambda: "sleep" in driver.run("display-message", "-p", "-t", shell.pane_id, "#{pane_current_command}")[0])
    assert not interrupt_missed(shell.pid)
    assert not interrupt_missed(2**22 + 1)


def test_windows_are_never_resized_by_a_terminal(driver: TmuxDriver, folder: Path) -> None:
    driver.create_pane("a", ["cat"], cwd=folder)
    assert driver.run("show-options", "-wv", "-t", "lab:a", "window-size") == ["manual"]


def test_program_is_started_without_a_shell(driver: TmuxDriver, folder: Path) -> None:
    out = folder / "out"
    words = ["a b", "$HOME", "';", ";", "\\;", "#{pid}", "日本"]
    script = f"import sys,os; open({str(out)!r}, 'w').write(repr((sys.argv[1:], os.getcwd(), os.getpid())))"
    pane = driver.create_pane("a", [sys.executable, "-c", script, *words], cwd=folder)
    wait_for(lambda: out.exists() and out.stat().st_size)
    assert out.read_text() == repr((words, str(folder), pane.pid))
    single = driver.create_pane("b", ["cat"], cwd=folder)
    wait_for(lambda: command_line(single.pid) == ["cat"])


def test_wrong_folder_and_command(driver: TmuxDriver, folder: Path) -> None:
    with pytest.raises(TmuxError, match="work folder /nowhere does not exist"):
        driver.create_pane("a", ["cat"], cwd="/nowhere")
    with pytest.raises(TmuxError, match="needs a program"):
        driver.create_pane("a", [], cwd=folder)
    assert driver.panes() == []


def test_a_folder_with_every_awkward_character(driver: TmuxDriver, folder: Path) -> None:
    odd = folder / "a b#S'\"$x;%日本"
    odd.mkdir()
    out = odd / "out"
    driver.create_pane("a", ["sh", "-c", "pwd > out; exec cat"], cwd=odd)
    wait_for(lambda: out.exists() and out.stat().st_size)
    assert out.read_text() == f"{odd}\n"


def test_session_survives_its_last_pane(driver: TmuxDriver, folder: Path) -> None:
    for _ in range(3):
        pane = driver.create_pane("a", ["cat"], cwd=folder)
        assert driver.run("list-windows", "-F", "#{window_name}") == ["a"]
        driver.kill_pane(pane.pane_id)
        assert driver.panes() == []
        assert driver.run("list-windows", "-F", "#{window_name}") == ["lobby"]
    driver.server.kill_session("lab")
    wait_for(lambda: not driver._channel.is_open)  # its client ends with it
    driver.create_pane("a", ["cat"], cwd=folder)
    assert len(driver.panes()) == 1


def test_capture(driver: TmuxDriver, folder: Path) -> None:
    script = (
        r"printf '\033[31mred\033[0m 日本\n'; for i in $(seq 1 100); do echo line $i; done; printf '%0130d' 0; exec cat"
    )
    pane = driver.create_pane("a", ["sh", "-c", script], cwd=folder).pane_id
    wait_for(lambda: "0000" in driver.capture(pane))
    assert "0" * 130 in driver.capture(pane)
    assert "0" * 130 not in driver.capture(pane, join=False)
    assert len(driver.capture(pane, join=False).split("\n")) == 40
    assert "red 日本\nline 1\n" in driver.capture(pane, history=200)
    assert "\x1b[31mred" in driver.capture(pane, history=200, escapes=True)
    other = driver.create_pane("b", ["cat"], cwd=folder).pane_id
    screens = driver.captures([pane, "%99", other])
    assert set(screens) == {pane, other}
    assert screens[pane] == driver.capture(pane)


def test_tiled(folder: Path) -> None:
    driver = TmuxDriver.start(folder / "tmux.sock", session="lab", cols=80, rows=24, layout="tiled")
    try:
        ids = [driver.create_pane(f"p{i}", ["cat"], cwd=folder).pane_id for i in range(6)]
        panes = driver.panes()
        assert [p.pane_id for p in panes] == ids
        assert len({p.window_id for p in panes}) == 1
        assert min(p.cols for p in panes) > 20
        assert [p.title for p in panes] == [f"p{i}" for i in range(6)]
        driver.kill_pane(ids[0])
        assert len(driver.panes()) == 5
        driver.respawn(ids[1], ["cat"], cwd=folder)
        again = TmuxDriver.adopt(folder / "tmux.sock")
        again.create_pane("p7", ["cat"], cwd=folder)
        assert len({p.window_id for p in again.panes()}) == 1
        again.resize(ids[1], 20, 8)
        more = ["cat"]
        with pytest.raises(TmuxError, match="no room for another pane"):  # noqa: PT012 - the number is tmux's
            for _ in range(40):
                again.create_pane("more", more, cwd=folder)
        again.close()
    finally:
        driver.kill()


def test_pipe(driver: TmuxDriver, folder: Path) -> None:
    out = folder / "100% out #S;'"
    pane = driver.create_pane("a", ["cat"], cwd=folder).pane_id
    driver.pipe(
        pane,
        [
            sys.executable,
            "-c",
            "import sys,shutil;shutil.copyfileobj(sys.stdin.buffer,open(sys.argv[1],'wb',0))",
            str(out),
        ],
    )
    driver.paste(pane, "hello")
    driver.enter(pane)
    wait_for(lambda: driver.run("display-message", "-p", "-t", pane, "#{pane_pipe}") == ["1"])
    wait_for(out.exists)
    driver.pipe(pane, None)
    wait_for(lambda: b"hello" in out.read_bytes())
    assert driver.run("display-message", "-p", "-t", pane, "#{pane_pipe}") == ["0"]


def test_libtmux_objects(driver: TmuxDriver, folder: Path) -> None:
    pane_id = driver.create_pane("a", ["cat"], cwd=folder).pane_id
    pane = driver.pane(pane_id)
    assert pane.pane_id == pane_id
    pane.send_keys("it's; $x \\;", enter=True, literal=True)
    wait_for(lambda: "it's; $x \\;" in "\n".join(pane.capture_pane()))
    assert driver.server.sessions[0].session_name == "lab"
    assert driver.server.has_session("lab")
    assert not driver.server.has_session("nobody")
    window = driver.server.sessions[0].new_window("extra", attach=False, window_shell="cat")
    assert window.window_name == "extra"
    assert driver.server.cmd("no-such-command").stderr
    assert driver.server.cmd("wait-for", "-S", "x").returncode == 0
    assert driver.server.cmd("display-message", "-p", "a", ";", "display-message", "-p", "b").stdout == ["a", "b"]
    assert driver.run("display-message", "-p", "in step") == ["in step"]


@contextlib.contextmanager
def terminals(folder: Path) -> Iterator[Callable[[list[str]], tuple[TmuxDriver, str]]]:
    """Lend real terminals, of another tmux server."""
    outer = TmuxDriver.start(folder / "outer.sock", session="outer", cols=60, rows=20)
    try:
        yield lambda argv: (outer, outer.create_pane("t", ["env", "-u", "TMUX", *argv], cwd=folder).pane_id)
    finally:
        outer.kill()


def shown(driver: TmuxDriver) -> dict[str, str]:
    """Return the pane that each terminal of a person shows, by its session."""
    lines = driver.run("list-clients", "-F", "#{client_control_mode} #{client_session} #{pane_id}")
    return {session: pane for control, session, pane in map(str.split, lines) if control == "0"}


def test_attach_argv_shows_the_pane_and_never_resizes(driver: TmuxDriver, folder: Path) -> None:
    first = driver.create_pane("a", ["cat"], cwd=folder).pane_id
    second = driver.create_pane("b", ["cat"], cwd=folder).pane_id
    argv = attach_argv(driver.socket, "lab", second, read_only=True)
    with terminals(folder) as terminal:
        outer, at = terminal(argv)
        wait_for(lambda: list(shown(driver).values()) == [second])
        assert driver.run("list-clients", "-F", "#{client_readonly}").count("1") == 1
        assert driver.run("display-message", "-p", "-t", "=lab:", "#{pane_id}") == [first]
        third = driver.create_pane("c", ["cat"], cwd=folder)
        assert {(p.cols, p.rows) for p in driver.panes()} == {(120, 40)}
        assert (third.cols, third.rows) == (120, 40)
        odd = driver.create_pane("d", ["cat"], cwd=folder, cols=77, rows=11)
        assert (odd.cols, odd.rows) == (77, 11)
        assert not any(pane.dead for pane in outer.panes()), outer.capture(at)


@pytest.mark.parametrize("layout", ["windows", "tiled"])
def test_a_terminal_that_opens_moves_no_other(folder: Path, layout: Layout) -> None:
    driver = TmuxDriver.start(folder / "tmux.sock", session="lab", cols=120, rows=40, layout=layout)
    try:
        ada, bob = (driver.create_pane(name, ["cat"], cwd=folder).pane_id for name in ("ada", "bob"))

        def show(*panes: str) -> bool:
            # Which of the tiles in one window is a terminal's own, tmux does not tell.
            there = sorted(shown(driver).values())
            if layout == "tiled":
                return len(there) == len(panes) and set(there) <= {ada, bob}
            return there == sorted(panes)

        with terminals(folder) as terminal:
            outer, at_ada = terminal(attach_argv(driver.socket, "lab", ada))
            wait_for(lambda: show(ada))
            outer.paste(at_ada, "one", submit=True)
            wait_for(lambda: driver.capture(ada).split() == ["one", "one"])
            _, watches = terminal(attach_argv(driver.socket, "lab", bob, read_only=True))
            wait_for(lambda: show(ada, bob))
            outer.paste(at_ada, "two", submit=True)
            outer.paste(watches, "never", submit=True)
            wait_for(lambda: driver.capture(ada).split() == ["one", "one", "two", "two"])
            _, at_bob = terminal(attach_argv(driver.socket, "lab", bob))
            wait_for(lambda: show(ada, bob, bob))
            outer.paste(at_bob, "three", submit=True)
            outer.paste(at_ada, "four", submit=True)
            wait_for(lambda: driver.capture(bob).split() == ["three", "three"])
            wait_for(lambda: driver.capture(ada).split()[-2:] == ["four", "four"])
            assert "never" not in driver.capture(ada) + driver.capture(bob)
            # Their sessions share the windows: no pane is there twice, for us or for whoever adopts the server.
            for one in (driver, TmuxDriver.adopt(driver.socket)):
                assert [pane.pane_id for pane in one.panes()] == [ada, bob]
                assert list(one.pulses()) == [ada, bob]
                assert one.session == "lab"
                if one is not driver:
                    one.close()
            cat = driver.create_pane("cat", ["cat"], cwd=folder).pane_id
            assert show(ada, bob, bob)
            assert [pane.pane_id for pane in driver.panes()] == [ada, bob, cat]
            if layout == "windows":
                assert {(pane.cols, pane.rows) for pane in driver.panes()} == {(120, 40)}
        wait_for(lambda: driver.run("list-sessions", "-F", "#{session_name}") == ["lab"])
        for pane in (ada, bob, cat):
            driver.kill_pane(pane)
        assert driver.panes() == []
        assert driver.run("list-windows", "-F", "#{window_name}") == ["lobby"]
    finally:
        driver.kill()


def test_a_terminal_at_a_pane_that_is_gone_shows_no_other(driver: TmuxDriver, folder: Path) -> None:
    driver.create_pane("a", ["cat"], cwd=folder)
    gone = driver.create_pane("b", ["cat"], cwd=folder).pane_id
    driver.kill_pane(gone)
    with terminals(folder) as terminal:
        outer, _ = terminal(attach_argv(driver.socket, "lab", gone))

        def reaped() -> bool:
            os.kill(outer.pid, signal.SIGCHLD)  # tmux may have lost its own (tmux/exits.py)
            return outer.panes()[0].exit_status is not None

        wait_for(reaped)
        assert outer.panes()[0].exit_status == 1
        assert shown(driver) == {}
        assert driver.run("list-sessions", "-F", "#{session_name}") == ["lab"]


@pytest.mark.parametrize("layout", ["windows", "tiled"])
def test_a_terminal_whose_pane_is_closed_moves_to_no_other(folder: Path, layout: Layout) -> None:
    driver = TmuxDriver.start(folder / "tmux.sock", session="lab", cols=120, rows=40, layout=layout)
    try:
        ada, bob, cat = (driver.create_pane(name, ["cat"], cwd=folder).pane_id for name in ("ada", "bob", "cat"))
        with terminals(folder) as terminal:
            outer, at = terminal(attach_argv(driver.socket, "lab", bob, agent="bob"))
            _, other = terminal(attach_argv(driver.socket, "lab", cat, read_only=True, agent="cat"))
            # At first each shows its notice.
            wait_for(lambda: len(shown(driver)) == 2 and set(shown(driver).values()) <= {ada, bob, cat})
            outer.paste(at, "heard", submit=True)
            wait_for(lambda: "heard" in driver.capture(bob))
            assert [pane.pane_id for pane in driver.panes()] == [ada, bob, cat]
            driver.kill_pane(bob)
            wait_for(lambda: "agent bob is gone" in outer.capture(at).replace("\n", " "))
            outer.paste(at, "never", submit=True)
            wait_for(lambda: "agent cat is gone" not in outer.capture(other))
            for one in (driver, TmuxDriver.adopt(driver.socket)):
                assert [pane.pane_id for pane in one.panes()] == [ada, cat]
                assert "never" not in one.capture(ada) + one.capture(cat)
                if one is not driver:
                    one.close()
            for pane in (ada, cat):
                driver.kill_pane(pane)
            wait_for(lambda: "agent cat is gone" in outer.capture(other).replace("\n", " "))
            again = driver.create_pane("again", ["cat"], cwd=folder)
            assert driver.panes() == [again]
            assert not any(pane.dead for pane in outer.panes())
        wait_for(lambda: driver.run("list-sessions", "-F", "#{session_name}") == ["lab"])
        assert driver.run("list-windows", "-a", "-F", "#{window_name}") == ["agents" if layout == "tiled" else "again"]
    finally:
        driver.kill()


def test_start_twice_and_start_again(driver: TmuxDriver) -> None:
    with pytest.raises(TmuxError, match=r"is running on .* already"):
        TmuxDriver.start(driver.socket, session="other")
    assert driver.run("list-sessions", "-F", "#{session_name}") == ["lab"]
    for _ in range(5):  # at once on the same socket
        driver.kill()
        assert not driver.socket.exists()
        fresh = TmuxDriver.start(driver.socket, session="lab")
        assert fresh.pid != driver.pid
        driver._facts, driver._channel = fresh._facts, fresh._channel
    driver.kill()
    driver.kill()  # a second time is no error


def test_many_start_on_one_socket_and_one_wins(folder: Path) -> None:
    won: list[TmuxDriver] = []
    lost: list[TmuxError] = []
    barrier = threading.Barrier(5)

    def start(i: int) -> None:
        barrier.wait()
        try:
            won.append(TmuxDriver.start(folder / "tmux.sock", session=f"s{i}"))
        except TmuxError as error:
            lost.append(error)

    threads = [threading.Thread(target=start, args=(i,)) for i in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert all("already" in error.message for error in lost), lost
    assert won[0].run("list-sessions", "-F", "#{session_name}") == [won[0].session]
    won[0].kill()


def test_a_stale_socket_is_no_server(folder: Path) -> None:
    path = folder / "tmux.sock"
    driver = TmuxDriver.start(path, session="lab")
    os.kill(driver.pid, 9)
    wait_for(lambda: process_started(driver.pid) is None)
    with pytest.raises(TmuxError, match="there is no tmux server"):
        TmuxDriver.adopt(path)
    driver.close()
    again = TmuxDriver.start(path, session="lab")
    again.kill()
    with pytest.raises(TmuxError, match=r"there is no tmux server on .*: the socket is gone"):
        TmuxDriver.adopt(path)


def test_long_socket_path(folder: Path) -> None:
    with pytest.raises(EnvironmentProblem, match=r"has \d+ bytes, but the system allows"):
        TmuxDriver.start(folder / ("x" * 120), session="lab")


def test_a_foreign_server_is_not_adopted(folder: Path) -> None:
    path = folder / "tmux.sock"
    tmux = shutil.which("tmux")
    assert tmux is not None
    subprocess.run([tmux, "-f", "/dev/null", "-S", path, "new-session", "-d", "cat"], check=True)
    with pytest.raises(TmuxError, match="not started by the lab"):
        TmuxDriver.adopt(path)
    with pytest.raises(TmuxError):
        TmuxDriver.start(path, session="0")
    subprocess.run([tmux, "-S", path, "kill-server"], check=True)


@pytest.mark.parametrize("stubborn", [False, True])
def test_kill_ends_every_program(driver: TmuxDriver, folder: Path, stubborn: bool) -> None:
    trap = "trap '' HUP TERM; " if stubborn else ""
    panes = [driver.create_pane("a", ["sh", "-c", f"{trap}while :; do sleep 1; done"], cwd=folder) for _ in range(3)]
    time.sleep(0.2)
    driver.kill()
    wait_for(lambda: all(process_started(p.pid) is None for p in panes))
    assert not driver.socket.exists()


@pytest.mark.parametrize("layout", ["windows", "tiled"])
def test_a_pipe_gets_the_first_byte_of_a_program_that_writes_at_once(folder: Path, layout: Any) -> None:
    def told(file: Path, want: str, pane: str) -> None:
        wait_for(lambda: file.exists() and file.read_text() == want)
        driver.enter(pane)  # only now may it end: tmux drops what the kernel has not handed on when a program exits
        wait_for(lambda: driver.pulses()[pane].dead)

    with TmuxDriver.start(folder / "tmux.sock", session="lab", cols=200, rows=60, layout=layout) as driver:
        for number, size in enumerate([None, (90, 20), None, None]):
            kept, again, want = folder / f"kept-{number}", folder / f"again-{number}", f"first of {number};"
            argv = ["sh", "-c", f"printf '{want}'; read -r _"]
            cols, rows = size or (None, None)
            cat = ["sh", "-c", f"cat > {kept}"]
            pane = driver.create_pane("quick", argv, cwd=folder, cols=cols, rows=rows, pipe=cat).pane_id
            told(kept, want, pane)
            driver.respawn(pane, argv, cwd=folder, pipe=["sh", "-c", f"cat > {again}"])
            told(again, want, pane)
        with pytest.raises(TmuxError, match="does not exist"):
            driver.create_pane("nowhere", ["true"], cwd=folder / "nowhere", pipe=["cat"])
        driver.kill()
