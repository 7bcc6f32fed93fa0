"""The command line: ``orchestrator-lab …``.

Nothing but typer is imported before a command is known, so that ``--help`` and completion answer at once.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; never returns."""
    try:
        from orchestrator_lab.cli.app import app

        app()
    except KeyboardInterrupt:  # while modules load: nothing has begun yet
        import signal

        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C has nothing left to interrupt
        sys.exit(130)
