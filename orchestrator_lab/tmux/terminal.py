"""What the kernel knows of a pane's terminal, without asking tmux."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator_lab.errors import TmuxError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["TerminalModes", "read_modes", "unread_bytes"]


@dataclass(frozen=True, slots=True)
class TerminalModes:
    """How the kernel treats what is typed into a terminal.

    Parameters
    ----------
    canonical : bool
        Lines are edited by the kernel: no program has taken over the terminal, and a line is cut at 4095 bytes.
    echo : bool
        What is typed is shown by the kernel.
    """

    canonical: bool
    echo: bool


@contextmanager
def _opened(tty: str) -> Iterator[int]:
    # Opened for an instant only: whoever holds a pane's terminal open hides its end from tmux.
    try:
        fd = os.open(tty, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError as error:
        raise TmuxError(f"the terminal {tty} is gone: its program has ended", tty=tty) from error
    try:
        yield fd
    finally:
        os.close(fd)


def unread_bytes(tty: str) -> int:
    """Return how many bytes were typed that the program has not read yet.

    Parameters
    ----------
    tty : str
        Path of the terminal.

    Returns
    -------
    int
        Bytes; in canonical mode only complete lines count.
    """
    with _opened(tty) as fd:
        (count,) = struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, b"\0\0\0\0"))
        return int(count)


def read_modes(tty: str) -> TerminalModes:
    """Return the modes of a terminal.

    Parameters
    ----------
    tty : str
        Path of the terminal.

    Returns
    -------
    TerminalModes
        Its modes.
    """
    with _opened(tty) as fd:
        flags = termios.tcgetattr(fd)[3]
        return TerminalModes(bool(flags & termios.ICANON), bool(flags & termios.ECHO))
