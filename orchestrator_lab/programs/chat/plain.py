"""The chat without a clever terminal: one line in, one answer out (``TERM=dumb``, pipes)."""

from __future__ import annotations

import queue
import sys
from typing import TYPE_CHECKING

from .session import Session, Turn
from .text import neutralise

if TYPE_CHECKING:
    from .settings import Settings

__all__ = ["run_plain"]


def run_plain(settings: Settings) -> int:
    """Read messages line by line from standard input until it ends.

    Parameters
    ----------
    settings : Settings
        What to talk to.

    Returns
    -------
    int
        Exit status: 1 when an answer failed, else 0.
    """
    ended: queue.Queue[Turn] = queue.Queue()

    def write(text: str) -> None:
        sys.stdout.write(neutralise(text))
        sys.stdout.flush()

    session = Session(
        settings,
        on_text=lambda _turn, text: write(text),
        on_note=lambda note: print(f"· {note}", file=sys.stderr, flush=True),
        on_done=ended.put,
    )
    interactive = sys.stdin.isatty()
    sys.stdin.reconfigure(errors="replace", newline="\n")  # type: ignore[union-attr]
    if interactive:
        print(f"{settings.name} · {session.model}", flush=True)
    status = 0
    opened = False
    while True:
        if interactive:
            write("› ")
        if not opened:
            session.opened()
            opened = True
        try:
            line = sys.stdin.readline()
        except KeyboardInterrupt:
            write("\n")
            continue
        if not line:
            break
        prompt = line.removesuffix("\n")
        if not prompt.strip():
            continue
        turn = session.start(prompt)
        while True:
            try:
                ended.get()
                break
            except KeyboardInterrupt:
                session.interrupt(turn)
        write("\n")
        if turn.outcome != "completed":
            status = 1
            print(f"✗ {turn.error or 'interrupted'}", file=sys.stderr, flush=True)
        session.report(turn)
    session.close("prompt_input_exit", wait_s=30)
    return status
