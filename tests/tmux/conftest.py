from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchestrator_lab.errors import TmuxError
from orchestrator_lab.tmux import TmuxDriver
from orchestrator_lab.tmux.process import process_started

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def wait_for(condition: Callable[[], object], seconds: float = 10.0) -> object:
    """Return the condition's value as soon as it is true."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


@pytest.fixture
def folder() -> Iterator[Path]:
    # pytest's own folders are too long for a socket
    path = Path(tempfile.mkdtemp(prefix="olab-t-"))
    yield path
    with contextlib.suppress(TmuxError):  # whatever a failed test left
        TmuxDriver.adopt(path / "tmux.sock").kill()
    shutil.rmtree(path)


@pytest.fixture
def driver(folder: Path) -> Iterator[TmuxDriver]:
    made = TmuxDriver.start(folder / "tmux.sock", session="lab", cols=120, rows=40, timeout=5)
    yield made
    with contextlib.suppress(ProcessLookupError):
        os.kill(made.pid, signal.SIGCONT)
    made.kill()
    assert process_started(made.pid) is None


class Receiver:
    """A program in raw mode that keeps every byte it gets."""

    def __init__(self, driver: TmuxDriver, folder: Path, setup: str = "") -> None:
        self.file = folder / f"got-{time.monotonic_ns()}"
        script = f"{setup} stty raw -echo; exec cat > {self.file}"
        self.pane = driver.create_pane("receiver", ["sh", "-c", script], cwd=folder).pane_id
        self.driver = driver
        wait_for(lambda: not driver.terminal_modes(self.pane).canonical and self.file.exists())
        if setup:
            time.sleep(0.1)  # tmux reads the mode that the setup printed

    def got(self, size: int, seconds: float = 20.0) -> bytes:
        wait_for(lambda: self.file.stat().st_size >= size, seconds)
        time.sleep(0.02)
        return self.file.read_bytes()


@pytest.fixture
def receiver(driver: TmuxDriver, folder: Path) -> Receiver:
    return Receiver(driver, folder)
