"""``python -m orchestrator_lab.programs.replay REEL``."""

from __future__ import annotations

import contextlib
import os
import sys
import termios
import tty

from .player import Player, read_reel
from .told import Lab


def main() -> int:
    """Play a reel; return the exit status."""
    if len(sys.argv) != 2:
        print("usage: python -m orchestrator_lab.programs.replay REEL", file=sys.stderr)
        return 2
    if not os.isatty(0):
        print("a recorded agent is played on a terminal: start it in one", file=sys.stderr)
        return 2
    try:
        steps = read_reel(sys.argv[1])
        head = next(steps)
    except (OSError, ValueError, StopIteration) as error:
        print(f"the reel {sys.argv[1]} cannot be read: {error!r}", file=sys.stderr)
        return 2
    before = termios.tcgetattr(0)
    tty.setraw(0, termios.TCSANOW)
    try:
        Player(head, Lab.from_environment()).play(steps)
    finally:
        with contextlib.suppress(termios.error):
            termios.tcsetattr(0, termios.TCSADRAIN, before)
    return 0


if __name__ == "__main__":
    sys.exit(main())
