from __future__ import annotations

import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest
from _tmux_helpers import wait_for

from orchestrator_lab.tmux import PaneExit, TmuxDriver
from orchestrator_lab.tmux import exits as exits_module

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def told(driver: TmuxDriver) -> list[PaneExit]:
    told: list[PaneExit] = []
    driver.watch_exits(told.append)
    return told


def test_status_and_signal(driver: TmuxDriver, folder: Path, told: list[PaneExit]) -> None:
    status = driver.create_pane("a", ["sh", "-c", "exit 7"], cwd=folder)
    wait_for(lambda: len(told) == 1)
    assert told == [PaneExit(status.pane_id, status.pid, 7, None)]
    killed = driver.create_pane("b", ["sleep", "60"], cwd=folder)
    os.kill(killed.pid, signal.SIGKILL)
    wait_for(lambda: len(told) == 2)
    if driver.binary.number >= (3, 3, 0):
        assert told[1] == PaneExit(killed.pane_id, killed.pid, None, 9)
    info = {pane.pane_id: pane for pane in driver.panes()}
    assert (info[status.pane_id].dead, info[status.pane_id].exit_status) == (True, 7)
    assert info[killed.pane_id].dead


def test_many_at_once_none_missed(driver: TmuxDriver, folder: Path, told: list[PaneExit]) -> None:
    panes = [driver.create_pane(f"p{i}", ["sleep", "60"], cwd=folder) for i in range(40)]
    for pane in panes[:20]:  # all at once
        os.kill(pane.pid, signal.SIGKILL)
    for pane in panes[20:]:  # one after the other
        os.kill(pane.pid, signal.SIGTERM)
        time.sleep(0.005)
    wait_for(lambda: len(told) == 40)
    assert {(e.pane_id, e.pid) for e in told} == {(p.pane_id, p.pid) for p in panes}
    assert all(pane.dead for pane in driver.panes())
    if driver.binary.number >= (3, 3, 0):
        assert sorted(e.signal or 0 for e in told) == [9] * 20 + [15] * 20


def test_the_deliberate_ends_are_not_told(driver: TmuxDriver, folder: Path, told: list[PaneExit]) -> None:
    first = driver.create_pane("a", ["sleep", "60"], cwd=folder, tags={"agent": "a"})
    second = driver.create_pane("b", ["sleep", "60"], cwd=folder)
    again = driver.respawn(first.pane_id, ["sh", "-c", "sleep 0.2; exit 3"], cwd=folder)
    assert again.pane_id == first.pane_id
    assert again.pid != first.pid
    assert again.tags == {"agent": "a"}
    driver.kill_pane(second.pane_id)
    driver.kill_pane(second.pane_id)
    wait_for(lambda: told)
    time.sleep(0.1)
    assert told == [PaneExit(first.pane_id, again.pid, 3, None)]


def test_ended_before_the_watch(driver: TmuxDriver, folder: Path) -> None:
    pane = driver.create_pane("a", ["sh", "-c", "exit 4"], cwd=folder)
    time.sleep(0.2)
    told: list[PaneExit] = []
    driver.watch_exits(told.append)
    wait_for(lambda: told)
    assert told == [PaneExit(pane.pane_id, pane.pid, 4, None)]


def test_somebody_else_closes_the_window(driver: TmuxDriver, folder: Path, told: list[PaneExit]) -> None:
    pane = driver.create_pane("a", ["sleep", "60"], cwd=folder)
    driver.create_pane("b", ["sleep", "60"], cwd=folder)
    driver.run("kill-window", "-t", pane.window_id)
    wait_for(lambda: told)
    assert told == [PaneExit(pane.pane_id, pane.pid, None, None)]


def test_a_grandchild_that_holds_the_terminal_hides_no_exit(
    driver: TmuxDriver, folder: Path, told: list[PaneExit]
) -> None:
    script = "trap '' HUP; sleep 300 & echo $! > grandchild; exit 5"
    pane = driver.create_pane("a", ["sh", "-c", script], cwd=folder)
    try:
        wait_for(lambda: told)
        assert told == [PaneExit(pane.pane_id, pane.pid, 5, None)]
    finally:
        os.kill(int((folder / "grandchild").read_text()), signal.SIGKILL)


def test_the_server_dies(driver: TmuxDriver, folder: Path, told: list[PaneExit]) -> None:
    panes = [driver.create_pane(f"p{i}", ["cat"], cwd=folder) for i in range(3)]
    os.kill(driver.pid, signal.SIGKILL)
    wait_for(lambda: len(told) == 3)
    assert {e.pane_id for e in told} == {p.pane_id for p in panes}
    assert all(e.status is None and e.signal is None for e in told)


def test_a_lost_control_client_hides_no_exit(driver: TmuxDriver, folder: Path, told: list[PaneExit]) -> None:
    pane = driver.create_pane("a", ["sh", "-c", "sleep 0.2; exit 6"], cwd=folder)
    client = driver._channel.client_pid
    assert client is not None
    os.kill(client, signal.SIGKILL)
    wait_for(lambda: told)
    assert told == [PaneExit(pane.pane_id, pane.pid, 6, None)]


def test_a_failing_callback_does_not_end_the_watch(
    driver: TmuxDriver, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[PaneExit] = []
    threads = set()

    def callback(exit_: PaneExit) -> None:
        told.append(exit_)
        threads.add(threading.current_thread())
        raise ValueError

    driver.watch_exits(callback)
    for _ in range(2):
        driver.create_pane("a", ["true"], cwd=folder)
    wait_for(lambda: len(told) == 2)
    wait_for(lambda: caplog.text.count("the callback for the exit") == 2)
    assert threading.main_thread() not in threads
    assert len(threads) == 1


def test_the_sweep_alone_finds_every_exit(driver: TmuxDriver, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exits_module, "_new_poller", exits_module._Poller)
    told: list[PaneExit] = []
    driver.watch_exits(told.append)
    pane = driver.create_pane("a", ["sh", "-c", "sleep 0.1; exit 8"], cwd=folder)
    wait_for(lambda: told)
    assert told == [PaneExit(pane.pane_id, pane.pid, 8, None)]


def test_a_pane_that_is_added_while_tmux_is_asked_has_not_ended() -> None:
    """tmux's answer is older than the pane: it says nothing about it."""
    told: list[PaneExit] = []
    asked = threading.Event()

    def query(panes: list[str] | None) -> dict[str, exits_module.Pulse]:
        if panes is None and not asked.is_set():
            watcher.add("%1", os.getpid())
            asked.set()
        return {}

    watcher = exits_module.ExitWatcher(query, lambda: True, told.append)
    try:
        watcher.add("%0", os.getppid())  # a sweep is made only where something is watched
        assert asked.wait(30)
        wait_for(lambda: bool(told))
    finally:
        watcher.close()
    assert [one.pane_id for one in told] == ["%0"]
