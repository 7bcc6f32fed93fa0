r"""Playing a reel.

A reel's first line says how the process ends when it is asked to, and how fast it plays; each further line is a step:

``out``
    ``data`` was written ``at`` this time of the recording, in seconds.
``read``
    ``text`` was typed, with an Enter behind it.
``key``
    This key was pressed.
``say``
    Something that the program reported then; the lab answers when it is its turn.
``exit``
    The program ended by itself.
``rest``
    Somebody ended it: what it wrote after that is written when somebody does so again.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from .told import LabGoneError
from .typed import Typing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import FrameType

    from .told import Lab

__all__ = ["CLOCK", "Player", "read_reel"]

T = TypeVar("T")

#: Tells the lab's recording the time of what follows. Terminals pass over what they do not know.
CLOCK = "\x1b]6973;{}\x07"
_READ = 1 << 16
#: Signals that end a process: others are no end that was recorded.
_ENDING = frozenset({*range(1, 16), signal.SIGXCPU, signal.SIGXFSZ, signal.SIGSYS})


def read_reel(path: str) -> Iterator[dict[str, Any]]:
    """Yield the lines of a reel."""
    with Path(path).open(encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            yield json.loads(line)


class Player:
    """Plays one reel on this terminal.

    Parameters
    ----------
    head : dict
        The reel's first line.
    lab : Lab or None
        Whom to report to; None only plays.
    """

    def __init__(self, head: dict[str, Any], lab: Lab | None) -> None:
        self._speed: float | None = head.get("speed")
        self._ends: dict[str, Any] = head.get("ends") or {}
        self._lab = lab
        self._typing = Typing()
        self._steps: list[dict[str, Any]] = []
        self._next = 0
        #: Where that stands which was written after somebody had asked it to end.
        self._ended: int | None = None
        #: What was typed in place of the text that was expected last.
        self._other: str | None = None
        #: Which instant of the recording was played when, on this machine's clock.
        self._began: tuple[float, float] | None = None
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, self._asked_to_end)

    def play(self, steps: Iterable[dict[str, Any]]) -> None:
        """Play the steps, and then take what comes until somebody ends it."""
        self._steps = list(steps)
        while self._next < len(self._steps):
            step = self._steps[self._next]
            self._next += 1
            getattr(self, f"_{step['do']}")(step)
        self._rest({})

    # steps --------------------------------------------------------------------------------------

    def _out(self, step: dict[str, Any]) -> None:
        self._wait_until(float(step["at"]))
        mark = CLOCK.format(round(float(step["at"]) * 1000)) if step.get("mark") else ""
        self._write((mark + step["data"]).encode("utf-8", "surrogateescape"))

    def _read(self, step: dict[str, Any]) -> None:
        got = self._text(step["text"])
        self._began = None
        if got != step["text"]:
            # Somebody left out what was said before.
            for place in range(self._next, len(self._steps)):
                if self._steps[place]["do"] == "read" and self._steps[place]["text"] == got:
                    self._next = place + 1
                    return
        self._other = None if got == step["text"] else got
        if self._other is not None:
            self._report({**step, "do": "say", "what": "other_text", "got": got})

    def _key(self, step: dict[str, Any]) -> None:
        key = step["key"].encode()
        self._waiting_for(lambda: self._typing.key(key) or None)
        self._began = None

    def _say(self, step: dict[str, Any]) -> None:
        if "at" in step:
            self._wait_until(float(step["at"]))
        before = time.monotonic()
        if step["what"] == "accepted" and self._other is not None:
            step, self._other = {**step, "prompt": self._other}, None
        self._report(step)
        if self._began is not None:
            # Waiting for others is none of this agent's time.
            self._began = (self._began[0], self._began[1] + time.monotonic() - before)

    def _exit(self, step: dict[str, Any]) -> None:
        self._say({**step, "do": "say"})
        self._end(step.get("status"), step.get("signal"))

    def _rest(self, _step: dict[str, Any]) -> None:
        self._ended = self._next
        while True:
            self._surplus(self._text(None))

    def _surplus(self, text: str) -> None:
        self._report({"do": "say", "what": "surplus", "got": text})

    # small helpers ------------------------------------------------------------------------------

    def _report(self, step: dict[str, Any]) -> None:
        if self._lab is None:
            return
        try:
            self._lab.report(step)
        except LabGoneError:
            self._end(self._ends.get("status"), self._ends.get("signal"))

    def _text(self, expected: str | None) -> str:
        return self._waiting_for(lambda: self._typing.text(expected))

    def _waiting_for(self, look: Callable[[], T | None]) -> T:
        """Return what is typed, and say when this waits for it, and when it waits no more."""
        found = look()
        if found is not None:
            return found
        self._report({"do": "say", "what": "rests"})
        while found is None:
            self._more()
            found = look()
        self._report({"do": "say", "what": "reads"})
        return found

    def _more(self) -> None:
        """Wait for what is typed next."""
        select.select([0], [], [])
        try:
            data = os.read(0, _READ)
        except OSError:
            data = b""
        if not data:  # the terminal is gone
            self._end(self._ends.get("status"), self._ends.get("signal"))
        self._typing.feed(data)

    def _wait_until(self, at: float) -> None:
        """Wait as long as it took then, at the speed that was asked for."""
        if self._speed is None:
            return
        now = time.monotonic()
        if self._began is None:
            self._began = (at, now)
        due = self._began[1] + (at - self._began[0]) / self._speed
        if due > now:
            time.sleep(due - now)

    @staticmethod
    def _write(data: bytes) -> None:
        while data:
            data = data[os.write(1, data) :]

    def _asked_to_end(self, _number: int, _frame: FrameType | None) -> None:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        self._speed = None  # whoever ends it does not wait
        last = [one for one in self._steps[self._ended :] if one["do"] == "out"] if self._ended is not None else []
        for step in last:
            self._out(step)
        self._end(self._ends.get("status"), self._ends.get("signal"))

    @staticmethod
    def _end(status: object, number: object) -> NoReturn:
        sys.stdout.flush()
        if isinstance(number, int) and number in _ENDING:
            signal.signal(number, signal.SIG_DFL) if number != signal.SIGKILL else None
            with contextlib.suppress(ProcessLookupError):
                os.kill(os.getpid(), number)
        os._exit(status if isinstance(status, int) else 0)
