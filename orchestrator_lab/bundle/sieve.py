r"""Which parts of a file can be passed over because nothing in them is private: most can.

A sieve knows short texts of which one stands in everything that is private (an ``@``, ``home/``, a user's name), and
looks for all of them at once in files as they are written, without decoding them and without holding up other threads.
What it lets through is looked at by the :class:`~orchestrator_lab.bundle.privacy.Masker`; what it stops is not.

Examples
--------
>>> sieve = Sieve(["@", "home/"])
>>> sieve.lines(b'{"a": 1}\n{"a": "/home/ada"}\n')
[(9, 27)]
>>> Sieve(["home/"]).shown(b'[0.1, "o", "/h\\u001b[1mo"]\n[0.2, "o", "me/"]\n')
True
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Sieve"]

_WHITE = rb"[ \t\r\n]*"
#: From the text of one output to that of the next, events of other kinds passed over.
_BOUND = re.compile(rb'"%s\]%s[,\n]%s(?:\[[^"\n]*"[^o"]"[^\n]*\n%s)*\[[^"\n]*"o"%s,%s"'.replace(b"%s", _WHITE))
#: A title, a link or another string for the terminal begins.
_STRING = re.compile(rb"\\u001b[\]PX^_]")
#: A character within such a string, as JSON writes it: no BEL, no escape.
_INSIDE = r'(?:[^"\\]|\\["\\/bfnrt]|\\u00(?:0[0-689a-f]|1[0-9ac-f])|\\udc[89a-f][0-9a-f])'
#: A backslash, which is kept and begins no escape; what nobody reads: strings for the terminal, other escape sequences,
#: white space, also when they are not yet whole.
_UNSEEN = (
    r"(\\\\)"
    rf"|\\u001b[\]PX^_]{_INSIDE}*(?:\\u0007|\\u001b\\\\)?"
    r'|\\u001b(?:\[[0-?]*(?:[ !#-/]|\\")*(?:[@-\[\]-~]|\\\\)?|(?:[ !#-/]|\\")*(?:[0-\[\]-~]|\\\\)?)'
    r"|[ \x7f]+|\\[bfnrt]|\\u00[01][0-9a-f]"
)
#: Escapes that no recorder writes for letters: what they stand for is seen only when they are decoded.
_ODD = re.compile(rb"\\/|\\u(?:[^0d]|0[^0]|00[^01]|d[^c]|dc[^89a-f]|[0-9a-f]{0,3}[A-F])")


class Sieve:
    """Looks for texts, whatever their case.

    Parameters
    ----------
    texts : iterable of str
        One of these, at least, stands in everything that is looked for.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        wanted = sorted({text for text in texts if text})
        self._lines = "|".join([*map(_either_case, wanted), r"\\u", r"\\/"])
        # Where white space is left out, it is left out of what is looked for.
        self._shown = "|".join(sorted({_either_case("".join(text.split())) for text in wanted}))
        self._inside = "|".join(map(_either_case, wanted))

    def lines(self, data: bytes) -> list[tuple[int, int]]:
        """Return which lines of JSON may hold anything private.

        Parameters
        ----------
        data : bytes
            Lines; the last one may have no newline.

        Returns
        -------
        list of (int, int)
            Where each begins and ends, newline excluded; those with escapes of letters are among them.
        """
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        if not data:
            return []
        ends = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n"))
        bounds = np.concatenate(([0], ends + 1, [] if data.endswith(b"\n") else [len(data)])).astype(np.int64)
        count = len(bounds) - 1
        lines = pa.Array.from_buffers(pa.large_binary(), count, [None, pa.py_buffer(bounds), pa.py_buffer(data)])
        found = np.flatnonzero(pc.match_substring_regex(lines, self._lines).to_numpy(zero_copy_only=False))
        stops = np.append(ends, len(data))
        return list(zip(bounds[found].tolist(), stops[found].tolist(), strict=True))

    def shown(self, data: bytes) -> bool:
        """Tell whether anything in a stretch of a recording may be private, as its program wrote it or as it is seen.

        Parameters
        ----------
        data : bytes
            Lines of an asciicast.

        Returns
        -------
        bool
            A text is found over the bounds of events, escape sequences, movements of the cursor and line ends.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        if _ODD.search(data):
            return True
        text = _BOUND.sub(b"", data)
        if _STRING.search(text) and _finds(self._inside, text):
            return True
        seen = pc.replace_substring_regex(pa.array([text], pa.large_binary()), _UNSEEN, r"\1")
        return bool(pc.match_substring_regex(seen, self._shown)[0].as_py())


def _finds(expression: str, data: bytes) -> bool:
    import pyarrow as pa
    import pyarrow.compute as pc

    return bool(pc.match_substring_regex(pa.array([data], pa.large_binary()), expression)[0].as_py())


def _either_case(text: str) -> str:
    """Return an expression for a text as JSON writes it, in whatever case."""
    return f"(?i:{re.escape(json.dumps(text, ensure_ascii=False)[1:-1])})"
