from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from orchestrator_lab.errors import TmuxError, TmuxTimeout
from orchestrator_lab.tmux import process
from orchestrator_lab.tmux.process import process_started

if TYPE_CHECKING:
    from orchestrator_lab.tmux import TmuxDriver


def test_a_reply_may_look_like_the_end_of_a_reply(driver: TmuxDriver) -> None:
    text = "%end 1 2 1\n%error 1 2 1\n%begin 1 2 1\n\n%exit"
    driver.run("set-option", "-s", "@probe", text)
    assert driver.run("show-options", "-sv", "@probe") == text.split("\n")


def test_batches_keep_order_and_single_errors(driver: TmuxDriver) -> None:
    commands = [["display-message", "-p", str(i)] if i % 7 else ["kill-pane", "-t", "%999"] for i in range(700)]
    replies = driver.batch(commands)
    for i, reply in enumerate(replies):
        if i % 7:
            assert reply == [str(i)]
        else:
            assert isinstance(reply, TmuxError)
    assert driver.batch([]) == []


def test_threads_get_their_own_replies(driver: TmuxDriver) -> None:
    wrong: list[object] = []

    def ask(who: int) -> None:
        texts = [f"{who}-{i}" for i in range(200)]
        wrong.extend(text for text in texts if driver.run("display-message", "-p", text) != [text])

    driver.run("display-message", "-p", "open")  # by this thread: it outlives the others
    threads = [threading.Thread(target=ask, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_megabyte_in_one_argument(driver: TmuxDriver) -> None:
    text = "エ" * 100_000
    driver.run("set-option", "-s", "@probe", text)
    assert driver.run("show-options", "-sv", "@probe") == [text]


def test_a_lost_client_is_replaced(driver: TmuxDriver) -> None:
    for _ in range(3):
        pid = driver._channel.client_pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # until then tmux may still answer it
        assert driver.run("display-message", "-p", "again") == ["again"]
        assert driver._channel.client_pid != pid
    (recorded,) = driver.run("show-options", "-sv", "@olab_clients")
    assert recorded.split(":")[0] == str(driver._channel.client_pid)


def test_a_stopped_server_is_a_timeout_and_then_works_again(driver: TmuxDriver) -> None:
    os.kill(driver.pid, signal.SIGSTOP)
    started = time.monotonic()
    with pytest.raises(TmuxTimeout, match=r"did not answer 'display-message' within 0.3 s") as caught:
        driver.run("display-message", "-p", "x", timeout=0.3)
    assert caught.value.details["executed"] == "unknown"
    assert time.monotonic() - started < driver._channel.timeout
    # More than the pipe holds: writing has a deadline too.
    driver._channel.timeout = 0.3
    for _ in range(2):
        with pytest.raises(TmuxError):
            driver.run("set-option", "-s", "@probe", "x" * 300_000)
    # To kill a client at the door of a server that sleeps can crash that server when it wakes up.
    assert driver._channel._knocking is not None
    os.kill(driver.pid, signal.SIGCONT)
    driver._channel.timeout = 20
    assert driver.run("display-message", "-p", "x") == ["x"]


def test_the_server_dies(driver: TmuxDriver) -> None:
    os.kill(driver.pid, signal.SIGKILL)
    with pytest.raises(TmuxError):
        driver.panes()
    assert not driver.alive
    with pytest.raises(TmuxError, match="no control client could be opened"):
        driver.panes()


def test_commands_that_wait_or_nest_are_refused(driver: TmuxDriver) -> None:
    for command in ("wait-for", "if-shell", "detach-client", "source-file", "run-shell"):
        with pytest.raises(TmuxError, match="cannot go through the control channel"):
            driver.run(command, "x")


def test_a_closed_driver_says_so(driver: TmuxDriver) -> None:
    pid = driver._channel.client_pid
    driver.close()
    assert pid is None or process_started(pid) is None
    with pytest.raises(TmuxError, match="is closed"):
        driver.panes()


def test_the_client_dies_with_its_thread(driver: TmuxDriver) -> None:
    driver._channel.close()
    driver._channel._closed = False
    thread = threading.Thread(target=driver.panes)
    thread.start()
    thread.join()
    deadline = time.monotonic() + 30
    while driver._channel.is_open and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not driver._channel.is_open
    assert driver.panes() == []


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")
def test_the_client_dies_with_its_owner_also_without_setpriv(
    driver: TmuxDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_setpriv", lambda: None)
    client = driver._channel.client_pid
    assert client is not None
    os.kill(client, signal.SIGKILL)
    os.waitid(os.P_PID, client, os.WEXITED | os.WNOWAIT)  # until then tmux may still answer it
    clients = []

    def open_another() -> None:
        driver.panes()
        clients.append(driver._channel.client_pid)

    thread = threading.Thread(target=open_another)
    thread.start()
    thread.join()
    deadline = time.monotonic() + 30
    while driver._channel.is_open:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert clients != [client]
    assert driver.panes() == []
