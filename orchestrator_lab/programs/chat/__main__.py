"""``python -m orchestrator_lab.programs.chat``: see ``--help``."""

from __future__ import annotations

import contextlib
import os
import sys

from orchestrator_lab.errors import ConfigError

from .settings import Settings, parse_arguments


def main() -> int:
    """Run the program.

    Returns
    -------
    int
        Exit status.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    try:
        settings = parse_arguments()
    except ConfigError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    clever = (
        sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in {"", "dumb", "unknown"}
    )
    try:
        if not clever:
            from .plain import run_plain

            return run_plain(settings)
        return _run_clever(settings)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"the transcript {settings.transcript_path} cannot be opened: {error}", file=sys.stderr)
        return 2


def _run_clever(settings: Settings) -> int:
    import termios

    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    # Raw from the first instant: an Enter that is typed while the program loads must stay a CR.
    raw = termios.tcgetattr(fd)
    raw[0] &= ~(termios.IXON | termios.IXOFF | termios.ICRNL | termios.INLCR | termios.IGNCR)
    raw[3] &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN | termios.ISIG)
    raw[6][termios.VMIN] = 1
    termios.tcsetattr(fd, termios.TCSANOW, raw)

    def restore() -> None:
        with contextlib.suppress(termios.error):  # the terminal is gone
            termios.tcsetattr(fd, termios.TCSADRAIN, before)

    try:
        from .app import run_app

        return run_app(settings, restore)
    finally:
        restore()


if __name__ == "__main__":
    sys.exit(main())
