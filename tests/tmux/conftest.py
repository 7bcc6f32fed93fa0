from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from _tmux_helpers import Receiver

from orchestrator_lab.errors import TmuxError
from orchestrator_lab.tmux import TmuxDriver
from orchestrator_lab.tmux.process import process_started

if TYPE_CHECKING:
    from collections.abc import Iterator


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
    made = TmuxDriver.start(folder / "tmux.sock", session="lab", cols=120, rows=40, timeout=20)
    yield made
    with contextlib.suppress(ProcessLookupError):
        os.kill(made.pid, signal.SIGCONT)
    made.kill()
    assert process_started(made.pid) is None


@pytest.fixture
def receiver(driver: TmuxDriver, folder: Path) -> Receiver:
    return Receiver(driver, folder)
