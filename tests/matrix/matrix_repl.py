"""A command of the simplest kind: a prompt, lines from a terminal that edits them itself, and a log of what it read.

``python -S -E matrix_repl.py LOG [START_DELAY_S]``. ``work SECONDS`` keeps it busy, ``ask`` makes it ask back.
"""

from __future__ import annotations

import json
import os
import sys
import termios
import time


def main(log: str, delay: float = 0.0) -> None:
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(event: str, **fields: object) -> None:
        os.write(fd, json.dumps({"at": time.time(), "pid": os.getpid(), "event": event, **fields}).encode() + b"\n")

    note("state", state="starting")
    time.sleep(delay)
    termios.tcflush(0, termios.TCIFLUSH)  # as programs do that set their terminal up
    note("state", state="idle")
    asking = False
    while True:
        sys.stdout.write("Really? [y/N] " if asking else "repl> ")
        sys.stdout.flush()
        line = sys.stdin.buffer.readline()
        if not line:
            return
        text = line.decode("utf-8", "replace").rstrip("\n")
        if asking:
            note("answer" if text in {"y", "n", ""} else "stray", text=text)
            asking = False
        elif text == "ask":
            note("dialog")
            asking = True
        elif text.startswith("work "):
            note("state", state="busy")
            time.sleep(float(text[5:]))
            sys.stdout.write("worked\n")
            note("state", state="idle")
        else:
            note("line", text=text)


if __name__ == "__main__":
    main(sys.argv[1], *map(float, sys.argv[2:3]))
