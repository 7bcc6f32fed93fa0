"""Where texts match: plain text here, regular expressions in a process of their own.

Python's regular expressions may need longer than the universe on a short text, and nothing in the same process can stop
them for certain. So they run in a child that is ended when its time is over.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

from orchestrator_lab.errors import ConfigError, EnvironmentProblem

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Hit", "compiled", "find"]

#: Reads the pattern and the texts, one JSON value a line; writes the first span and the number of matches of each hit.
_CHILD = """
import json, re, sys
source = sys.stdin.buffer
pattern = re.compile(*json.loads(source.readline()))
for number, line in enumerate(source):
    text = json.loads(line)
    first = pattern.search(text)
    if first is not None:
        print(json.dumps([number, *first.span(), sum(1 for _ in pattern.finditer(text))]))
"""


class Hit(NamedTuple):
    """Where a text matches.

    Parameters
    ----------
    number : int
        Which text.
    start, end : int
        The first match.
    matches : int
        How many there are, from left to right, without overlaps.
    """

    number: int
    start: int
    end: int
    matches: int


def compiled(what: str | re.Pattern[str], *, regex: bool, case: bool) -> re.Pattern[str]:
    """Return what is looked for as a pattern.

    Parameters
    ----------
    what : str or re.Pattern
        Text, an expression when ``regex``, or an expression that is compiled already and keeps its flags.
    regex : bool
        Whether a text is an expression.
    case : bool
        Whether upper and lower case of a text are told apart.

    Returns
    -------
    re.Pattern
        Of texts.

    Raises
    ------
    ConfigError
        When it is empty, no text, or no expression.
    """
    if isinstance(what, re.Pattern) and isinstance(what.pattern, str):
        return what
    if isinstance(what, re.Pattern) or not isinstance(what, str) or not what:  # type: ignore[redundant-expr] # whoever calls
        raise ConfigError(f"search({what!r}): expected some text, or a compiled re.Pattern of text")
    try:
        return re.compile(what if regex else re.escape(what), 0 if case else re.IGNORECASE)
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigError(
            f"search({what!r}): this is no regular expression ({error}); without regex=True it is plain text"
        ) from error


def find(pattern: re.Pattern[str], texts: Sequence[str], *, timeout_s: float | None) -> list[Hit]:
    """Return which texts match and where.

    Parameters
    ----------
    pattern : re.Pattern
        What to look for.
    texts : sequence of str
        Where.
    timeout_s : float or None
        Seconds for all texts together, in a process of its own; None for a pattern that is plain text, which always
        ends.

    Returns
    -------
    list of Hit
        In the order of the texts.

    Raises
    ------
    ConfigError
        When the time is over.
    EnvironmentProblem
        When the process cannot be started.
    """
    if timeout_s is None:
        hits = []
        for number, text in enumerate(texts):
            first = pattern.search(text)
            if first is not None:
                hits.append(Hit(number, first.start(), first.end(), sum(1 for _ in pattern.finditer(text))))
        return hits
    lines = [json.dumps([pattern.pattern, pattern.flags & ~re.DEBUG]), *map(json.dumps, texts), ""]
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _CHILD],
            input="\n".join(lines).encode(),
            capture_output=True,
            timeout=timeout_s,
            check=True,
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(
            f"search({pattern.pattern!r}): not done after {timeout_s:g} s, so it was ended: nested repeats such as "
            "(a+)+ take for ever; make it simpler, name agents or kinds, or give more timeout_s"
        ) from None
    except (OSError, subprocess.CalledProcessError) as error:
        told = (getattr(error, "stderr", None) or b"").decode(errors="replace").strip().rpartition("\n")[2]
        raise EnvironmentProblem(
            f"search({pattern.pattern!r}): the process that matches it failed ({told or error})"
        ) from error
    return [Hit(*json.loads(line)) for line in done.stdout.splitlines()]
