"""What is seen of what a program writes to its terminal, and where in it each character stood."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass

__all__ = ["SPACE", "Projection", "joined", "project", "visible"]

#: Escape sequences, also one that is not yet whole: CSI, strings (OSC, DCS, APC, PM, SOS), charsets, others.
_ESCAPE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*(?:[@-~]|\Z)|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\|\x1b?\Z|(?=\x1b))"
    r"|[ -/]+(?:[0-~]|\Z)|[0-~]|\Z)"
)
#: A whole one.
_WHOLE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\|(?=\x1b(?!\\|\Z)))|[ -/]+[0-~]|[0-OQ-WYZ\\`-~])"
)
#: Those that only change how text looks: what stands on both sides of one belongs together.
_LOOKS = re.compile(r"\x1b\[[0-9;:]*m|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[()*+][0-~]")
#: White space and control characters, but for ESC.
SPACE = re.compile(r"[\x00-\x1a\x1c-\x20\x7f]+")
_BLANK = bytes([*range(33), 127])
_UNSEEN = re.compile(rf"{_ESCAPE.pattern}|{SPACE.pattern}")


@dataclass(frozen=True, slots=True)
class Projection:
    """A text without its escape sequences, and where each of its characters stood.

    Parameters
    ----------
    text : str
        What is left; a NUL stands for a sequence that moves the cursor, where those count.
    starts, origins : list of int
        Where pieces begin, in what is left and in the text it is of.
    """

    text: str
    starts: list[int]
    origins: list[int]

    def origin(self, place: int) -> int:
        """Return where a character of what is left stood."""
        piece = bisect_right(self.starts, place) - 1
        return self.origins[piece] + place - self.starts[piece]


def project(text: str, *, loose: bool = False) -> Projection:
    r"""Return a text without its escape sequences.

    Parameters
    ----------
    text : str
        As a program wrote it.
    loose : bool
        Without white space and movements too: what stands in two lines, or is drawn in pieces, is joined.

    Returns
    -------
    Projection
        Of it.

    Examples
    --------
    >>> project("a\x1b[1mb\x1b[5Gc").text, project("a\x1b[1mb\x1b[5G c", loose=True).text
    ('ab\x00c', 'abc')
    """
    kept: list[str] = []
    starts, origins, length, last = [0], [0], 0, 0
    for found in (_UNSEEN if loose else _ESCAPE).finditer(text):
        start, end = found.span()
        if start > last:
            kept.append(text[last:start])
            starts.append(length)
            origins.append(last)
            length += start - last
        last = end
        # One that is not whole yet moves nothing: what comes will tell.
        if not loose and _LOOKS.fullmatch(text, start, end) is None and _WHOLE.match(text, start):
            kept.append("\0")
            starts.append(length)
            origins.append(start)
            length += 1
    if last < len(text):
        kept.append(text[last:])
        starts.append(length)
        origins.append(last)
    return Projection("".join(kept), starts, origins)


def visible(text: str) -> str:
    r"""Return a text without its escape sequences: that of :func:`project`, many times faster.

    Parameters
    ----------
    text : str
        As a program wrote it.

    Returns
    -------
    str
        Of sequences within sequences, which no program writes, more may be left.

    Examples
    --------
    >>> visible("a\x1b[1mb\x1b[5Gc")
    'ab\x00c'
    """
    if "\x1b" not in text:
        return text
    for start in (text.rfind("\x1b", 0, max(0, text.rfind("\x1b"))), text.rfind("\x1b")):
        found = _ESCAPE.match(text, start) if start >= 0 else None
        if found is not None and found.end() == len(text) and _WHOLE.match(text, start) is None:
            text = text[:start]
            break
    return _ESCAPE.sub("\0", _LOOKS.sub("", text))


def joined(text: str) -> bytes:
    r"""Return what :func:`visible` left, without white space and movements, as UTF-8.

    Examples
    --------
    >>> joined("ab\x00 c")
    b'abc'
    """
    return text.encode("utf-8", "surrogatepass").translate(None, _BLANK)
