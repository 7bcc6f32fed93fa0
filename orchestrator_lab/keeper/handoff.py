"""Give a pane's output to the keeper: what tmux's ``pipe-pane`` runs for a moment.

``python -I -S handoff.py R/keeper.sock AGENT`` sends its standard input, which is tmux's end of
the pipe, over the keeper's socket and exits; from then on tmux writes to the keeper with no
process in between. It is run as a file and imports only what is built in, because that is all the
time it takes: 13 ms, as much as an empty Python; ``socket`` and ``json`` would cost as much again.
"""

from __future__ import annotations

import sys
import time

try:
    from _socket import AF_UNIX, SCM_RIGHTS, SOCK_STREAM, SOL_SOCKET, socket
except ImportError:  # no CPython
    from socket import (  # type: ignore[assignment]
        AF_UNIX,
        SCM_RIGHTS,
        SOCK_STREAM,
        SOL_SOCKET,
        socket,
    )

#: Seconds to wait for a keeper that is just being restarted.
PATIENCE_S = 10.0


def main(path: str, agent: str) -> int:
    """Send standard input to the keeper that listens on ``path``."""
    # Names of agents are letters, digits, "_" and "-": they need no escapes in JSON.
    header = f'{{"op":"pane","agent":"{agent}"}}\n'.encode()
    stdin = (0).to_bytes(4, sys.byteorder)
    deadline = time.monotonic() + PATIENCE_S
    while True:
        connection = socket(AF_UNIX, SOCK_STREAM)
        try:
            connection.connect(path)
            connection.sendmsg([header], [(SOL_SOCKET, SCM_RIGHTS, stdin)])
            # The keeper answers one byte when it has the pane: only then may our copy be closed.
            if connection.recv(1):
                return 0
        except OSError as error:
            if time.monotonic() > deadline:
                sys.stderr.write(f"handoff: {path}: {error}\n")
                return 1
        finally:
            connection.close()
        if time.monotonic() > deadline:
            return 1
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
