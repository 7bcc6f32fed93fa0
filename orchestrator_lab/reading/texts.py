"""Texts that others wrote, made fit to be shown: in a page, in Markdown, on a line."""

from __future__ import annotations

import html
import re
from datetime import UTC, datetime
from typing import Any

__all__ = ["block", "clean", "escaped", "fenced", "instant", "one_line", "seconds_between", "shown_seconds", "worded"]

#: Control characters but tab and newline, as their pictures: an escape sequence is shown, and does nothing.
_PICTURES = {code: 0x2400 + code for code in range(32) if code not in {9, 10}} | {127: 0x2421}
_PICTURES |= dict.fromkeys(range(0x80, 0xA0), 0xFFFD) | dict.fromkeys(range(0xD800, 0xE000), 0xFFFD)
_MARKDOWN = re.compile(r"([\\`*_\[\]<>|~&#])")

#: A text longer than this is folded.
_LONG = 1200
_LINES = 24
_BEGINNING = 240


def clean(text: str) -> str:
    r"""Return a text without characters that do something: controls become their pictures.

    Examples
    --------
    >>> clean("a\x1b[31mred\r\n")
    'a␛[31mred\n'
    """
    return text.replace("\r\n", "\n").translate(_PICTURES)


def escaped(text: object) -> str:
    """Return any text as HTML that shows it, whatever it holds."""
    return html.escape(clean(str(text)), quote=True)


def one_line(text: str, length: int = 160) -> str:
    r"""Return a text on one line, cut with an ellipsis.

    Examples
    --------
    >>> one_line("two\nlines of text", 12)
    'two lines o…'
    """
    line = " ".join(clean(text[: length * 8]).split())
    return line if len(line) <= length and len(text) <= length * 8 else f"{line[: length - 1]}…"


def worded(text: str) -> str:
    """Return a name for a line of Markdown: nothing in it is markup."""
    return _MARKDOWN.sub(r"\\\1", " ".join(clean(text).split()))


def fenced(text: str, language: str = "text") -> str:
    r"""Return a text as a block of Markdown that no text can end.

    Examples
    --------
    >>> print(fenced("```\n<b>"))
    ````text
    ```
    <b>
    ````
    """
    text = clean(text)
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def block(text: str, *, most: int | None = None, mono: bool = False) -> str:
    """Return a text as a block of HTML, folded when it is long.

    Parameters
    ----------
    text : str
        Of whoever; it is escaped.
    most : int, optional
        Characters to show; how many more there are is said.
    mono : bool
        In the type of a terminal.

    Returns
    -------
    str
        Without scripts, links or classes; styles stand in it.
    """
    cut = 0 if most is None else max(0, len(text) - most)
    style = "white-space:pre-wrap;overflow-wrap:anywhere;unicode-bidi:isolate;margin:2px 0"
    style += ";font-family:ui-monospace,Menlo,Consolas,monospace;font-size:.92em" if mono else ""
    more = "" if not cut else f'<div style="opacity:.75"><i>{cut} more characters: the tables have all of it</i></div>'
    whole = f'<div dir="auto" style="{style}">{escaped(text[:most])}</div>{more}'
    if len(text) <= _LONG and text.count("\n") <= _LINES:
        return whole
    return (
        f'<details><summary style="cursor:pointer">{escaped(one_line(text, _BEGINNING))} '
        f'<span style="opacity:.75">({len(text)} characters)</span></summary>{whole}</details>'
    )


def instant(value: object) -> datetime | None:
    """Return an instant of a table, of UTC; None when it is none."""
    if not isinstance(value, datetime):
        try:
            value = datetime.fromisoformat(str(value))
        except ValueError:
            return None
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value


def seconds_between(start: object, end: object) -> float | None:
    """Return the seconds between two instants of a table, None when one is not known."""
    begun, ended = instant(start), instant(end)
    return None if begun is None or ended is None else (ended - begun).total_seconds()


def shown_seconds(value: Any, sign: str = "") -> str:  # noqa: ANN401 - a number or nothing
    """Return seconds for people.

    Examples
    --------
    >>> shown_seconds(0.0123), shown_seconds(75.31), shown_seconds(None)
    ('0.012 s', '75.3 s', '')
    """
    if value is None:
        return ""
    return f"{sign}{value:.3f} s" if abs(value) < 10 else f"{sign}{value:.1f} s"
