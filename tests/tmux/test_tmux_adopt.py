from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from _tmux_helpers import wait_for

from orchestrator_lab.errors import TmuxError
from orchestrator_lab.tmux import PaneExit, TmuxDriver
from orchestrator_lab.tmux import exits as exits_module
from orchestrator_lab.tmux.process import kill_if_same, process_started
from orchestrator_lab.tmux.server import kill_stale_clients

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OWNER = """
import sys, time
from pathlib import Path
from orchestrator_lab.tmux import TmuxDriver
folder = Path(sys.argv[1])
driver = TmuxDriver.start(folder / "tmux.sock", session="lab", tags={"cluster": "duo"})
driver.watch_exits(print)
for name in ("a", "b"):
    driver.create_pane(name, ["sh", "-c", "while :; do echo tick; sleep 0.05; done"], cwd=folder, tags={"agent": name})
flood = driver.create_pane("flood", ["yes"], cwd=folder, tags={"agent": "flood"})
print(driver._channel.client_pid, flush=True)
while True:
    driver.panes()
    driver.captures([pane.pane_id for pane in driver.panes()], history=1000)
"""


def start_owner(folder: Path) -> tuple[subprocess.Popen[str], int]:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(folder)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert owner.stdout is not None
    return owner, int(owner.stdout.readline())


def finish(owner: subprocess.Popen[str]) -> None:
    owner.kill()
    owner.wait()
    assert owner.stdout is not None
    owner.stdout.close()


@pytest.mark.parametrize("attempt", range(5))
def test_after_the_owner_was_killed(folder: Path, attempt: int) -> None:
    owner, client = start_owner(folder)
    time.sleep(0.1 + 0.03 * attempt)
    finish(owner)
    if sys.platform == "linux":
        wait_for(lambda: process_started(client) is None)
    driver = TmuxDriver.adopt(folder / "tmux.sock")
    try:
        assert driver.tags() == {"cluster": "duo"}
        assert [pane.tags["agent"] for pane in driver.panes()] == ["a", "b", "flood"]
        assert not any(pane.dead for pane in driver.panes())
        told: list[PaneExit] = []
        driver.watch_exits(told.append)
        first = driver.panes()[0]
        driver.paste(first.pane_id, "hello")
        wait_for(lambda: "hello" in driver.capture(first.pane_id, history=2000))
        # the programs go on: nothing is frozen
        size = "#{history_size} #{history_bytes} #{cursor_y}"
        before = driver.run("display-message", "-p", "-t", first.pane_id, size)
        wait_for(lambda: driver.run("display-message", "-p", "-t", first.pane_id, size) != before)
        os.kill(first.pid, signal.SIGKILL)
        wait_for(lambda: told)
        assert told[0].pane_id == first.pane_id
    finally:
        driver.kill()


def test_a_stale_client_is_killed_first(folder: Path) -> None:
    # Its owner is stopped, not dead: the client hangs as it does where no parent-death signal exists.
    owner, client = start_owner(folder)
    os.kill(owner.pid, signal.SIGSTOP)
    driver = TmuxDriver.adopt(folder / "tmux.sock")
    try:
        wait_for(lambda: process_started(client) is None)
        assert len(driver.panes()) == 3
        own = [str(driver._channel.client_pid)]
        wait_for(lambda: driver.run("list-clients", "-F", "#{client_pid}") == own)
    finally:
        finish(owner)
        driver.kill()


def test_no_foreign_process_is_killed(folder: Path, spawn: Callable[..., Any]) -> None:
    other = spawn(["/bin/sleep", "60"])
    started = process_started(other.pid)
    assert started is not None
    # the pid was recorded, and even the start time is right, but it is no control client on this socket
    assert kill_stale_clients(folder / "tmux.sock", f"{other.pid}:{started} x:y 1:") == 0
    assert not kill_if_same(other.pid, "another time")
    assert other.poll() is None


def test_adopt_twice_in_a_row(driver: TmuxDriver, folder: Path) -> None:
    driver.create_pane("a", ["cat"], cwd=folder, tags={"agent": "a"})
    for _ in range(3):
        with TmuxDriver.adopt(driver.socket) as again:
            assert again.pid == driver.pid
            assert again.session == "lab"
            assert again.version == driver.version
            assert [p.tags for p in again.panes()] == [{"agent": "a"}]
    assert len(driver.panes()) == 1


def test_an_empty_cluster_is_adopted(driver: TmuxDriver) -> None:
    driver.close()
    with TmuxDriver.adopt(driver.socket) as again:
        assert again.panes() == []
        again.create_pane("a", ["cat"], cwd=driver.socket.parent)
        assert again.run("list-windows", "-F", "#{window_name}") == ["a"]


def test_a_dead_servers_socket_is_taken_over(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform == "linux":  # no sweep finds it: it is told
        monkeypatch.setattr(exits_module._PidfdPoller, "interval", 600.0)
    socket = folder / "tmux.sock"
    first = TmuxDriver.start(socket, session="lab")
    told = threading.Event()
    first.create_pane("one", ["sleep", "60"], cwd=folder)
    ends: list[object] = []
    first.watch_exits(ends.append, told.set)
    os.kill(first.pid, signal.SIGKILL)
    assert told.wait(30)
    # The server's end is told, and not that of each pane.
    assert ends == []
    assert not first.alive
    first.close()
    second = TmuxDriver.take_over(socket, session="lab", tags={"run_id": "r"})
    try:
        assert second.pid != first.pid
        assert second.tags() == {"run_id": "r"}
        # Whoever takes over a second time finds it there.
        third = TmuxDriver.take_over(socket, session="lab", tags={"run_id": "r"})
        assert third.pid == second.pid
        third.close()
    finally:
        second.kill()
    assert not socket.exists()


def test_a_start_that_was_cut_off_is_begun_anew(folder: Path) -> None:
    socket = folder / "tmux.sock"
    tmux = ["tmux", "-f", "/dev/null", "-S", str(socket)]
    # What start_server does first; the facts would follow.
    half = [*tmux, "start-server", ";", "set-option", "-so", "@olab_start", "x", ";", "new-session", "-d", "-s", "lab"]
    subprocess.run(half, check=True)
    driver = TmuxDriver.take_over(socket, session="lab")
    try:
        assert driver.session == "lab"
        assert driver.panes() == []
    finally:
        driver.kill()


def test_a_foreign_server_is_not_taken_over(folder: Path) -> None:
    socket = folder / "tmux.sock"
    tmux = ["tmux", "-f", "/dev/null", "-S", str(socket)]
    subprocess.run([*tmux, "new-session", "-d", "-s", "mine"], check=True)
    try:
        with pytest.raises(TmuxError, match="was not started by the lab"):
            TmuxDriver.take_over(socket, session="lab")
        assert subprocess.run([*tmux, "has-session", "-t", "mine"], check=False).returncode == 0
    finally:
        subprocess.run([*tmux, "kill-server"], check=False)


def test_an_absent_server_takes_no_command(folder: Path) -> None:
    driver = TmuxDriver.absent(folder / "tmux.sock", session="lab", cols=80, rows=24, layout="windows")
    assert not driver.alive
    with pytest.raises(TmuxError):
        driver.panes()
    driver.kill()
