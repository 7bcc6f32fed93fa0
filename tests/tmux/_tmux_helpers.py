from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from orchestrator_lab.tmux import TmuxDriver


def wait_for(condition: Callable[[], object], seconds: float = 30.0) -> object:
    """Return the condition's value as soon as it is true."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


class Receiver:
    """A program in raw mode that keeps every byte it gets."""

    def __init__(self, driver: TmuxDriver, folder: Path, setup: str = "") -> None:
        self.file = folder / f"got-{time.monotonic_ns()}"
        script = f"{setup} printf prepared; stty raw -echo; exec cat > {self.file}"
        self.pane = driver.create_pane("receiver", ["sh", "-c", script], cwd=folder).pane_id
        self.driver = driver
        wait_for(lambda: not driver.terminal_modes(self.pane).canonical and self.file.exists())
        # tmux has read the mode that the setup printed once it shows what came behind it.
        wait_for(lambda: "prepared" in driver.capture(self.pane))

    def got(self, size: int, seconds: float = 30.0, *, settle_s: float = 0.02) -> bytes:
        wait_for(lambda: self.file.stat().st_size >= size, seconds)
        time.sleep(settle_s)
        return self.file.read_bytes()
