"""Text on its way into tmux: cleaning what is typed, quoting what is commanded."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["escape_format", "quote", "sanitize", "shell_line"]

# C0 but tab and newline, DEL and C1; and lone surrogates, which would become raw bytes.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_PLAIN = re.compile(r"[A-Za-z0-9_./:@=,+-]+")
_QUOTED = re.compile(r"['\x00-\x1f\x7f]")


def sanitize(text: str) -> tuple[str, int]:
    r"""Remove what a terminal would act upon instead of showing it.

    Up to tmux 3.6 a text that contains ``ESC [ 201 ~`` breaks out of the paste frame, so nothing but tab and
    newline may remain of the control characters.

    Parameters
    ----------
    text : str
        Any text.

    Returns
    -------
    tuple of (str, int)
        The text without control characters (CRLF became LF), and how many characters were removed; the CR of
        a CRLF does not count.

    Examples
    --------
    >>> sanitize("a\x1b[201~b\r\n")
    ('a[201~b\n', 1)
    """
    return _CONTROLS.subn("", text.replace("\r\n", "\n"))


def _piece(match: re.Match[str]) -> str:
    character = match.group()
    if character == "'":
        return "'\\''"
    return f"'\"\\{ord(character):03o}\"'"


def quote(argument: str) -> str:
    r"""Quote one argument for a line of tmux's control mode.

    Parameters
    ----------
    argument : str
        Any text without NUL.

    Returns
    -------
    str
        The argument on one line, with nothing left for tmux's parser to expand.

    Examples
    --------
    >>> print(quote("it's $HOME;"))
    'it'\''s $HOME;'
    """
    if _PLAIN.fullmatch(argument):
        return argument
    return f"'{_QUOTED.sub(_piece, argument)}'"


def escape_format(text: str, *, time: bool = False) -> str:
    """Escape a text for an argument that tmux expands as a format.

    Parameters
    ----------
    text : str
        Literal text.
    time : bool, default False
        The argument also goes through strftime (``pipe-pane``).

    Returns
    -------
    str
        The text with ``#`` (and ``%``) doubled.

    Examples
    --------
    >>> escape_format("issue #7")
    'issue ##7'
    """
    text = text.replace("#", "##")
    return text.replace("%", "%%") if time else text


def shell_line(argv: Sequence[str]) -> str:
    """Return the POSIX shell command that becomes this program.

    Parameters
    ----------
    argv : sequence of str
        Program and arguments.

    Returns
    -------
    str
        ``exec`` and the quoted words.

    Examples
    --------
    >>> shell_line(["echo", "a b"])
    "exec echo 'a b'"
    """
    return f"exec {shlex.join(argv)}"
