"""Codex's screen: its composer, and the questions that it asks.

The composer's first line begins with ``›`` in the first column; below it, after an empty line, stands the line that
names the model and the folder. A question stands in the composer's place, so that line is missing. The hint in an
empty composer is dim: it is no text of anybody.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

from orchestrator_lab.agents.claude_screen import plain
from orchestrator_lab.agents.menu import read_menu
from orchestrator_lab.agents.screens import choose

if TYPE_CHECKING:
    from orchestrator_lab.agents.base import Composer
    from orchestrator_lab.agents.screens import ScreenRules

__all__ = ["composer_lines", "has_footer", "is_early", "read_composer"]

_SGR = re.compile(r"\x1b\[([0-9;:]*)m")
#: Letters and digits that are compared: as many as every screen shows.
_COMPARED = 40


def _lit(line: str) -> str:
    """Return what of a line is not dim."""
    kept, dim, at = [], False, 0
    for mark in [*_SGR.finditer(line), None]:
        if not dim:
            kept.append(line[at : mark.start() if mark else len(line)])
        if mark is None:
            break
        at = mark.end()
        codes = mark[1].split(";")
        index = 0
        while index < len(codes):
            if codes[index] in {"38", "48", "58"}:  # a colour has numbers of its own
                index += 5 if codes[index + 1 : index + 2] == ["2"] else 3
                continue
            if codes[index] in {"", "0", "22"}:
                dim = False
            elif codes[index] == "2":
                dim = True
            index += 1
    return plain("".join(kept))


def _layout(rules: ScreenRules | None, name: str) -> re.Pattern[str]:
    return (rules or choose("codex")[0]).layout[name]


def composer_lines(screen: str, rules: ScreenRules | None = None) -> list[str] | None:
    r"""Return the lines that stand in the composer.

    Parameters
    ----------
    screen : str
        A capture, with or without escapes; only with them can the hint be told from a text.
    rules : ScreenRules, optional
        Those of the program's version; the newest when left out.

    Returns
    -------
    list of str or None
        The lines without the prompt sign; None when no composer is in sight (a question, a start, a picker).

    Examples
    --------
    >>> composer_lines("› hello\n  you\n\n  gpt-5 default · /work\n  ? for shortcuts")
    ['hello', 'you']
    """
    styled = screen.splitlines()
    bare = [plain(line) for line in styled]
    start = next((index for index in range(len(bare) - 1, -1, -1) if bare[index].startswith("›")), None)
    if start is None:
        return None
    below = [index for index in range(start + 1, len(bare)) if bare[index].strip()]
    footer = next((index for index in reversed(below[-2:]) if _layout(rules, "footer").match(bare[index])), None)
    if footer is None:
        # With a status line of the user's own, the last lines that stand together are the footer.
        gaps = [
            index for index in range(start + 1, len(bare)) if not bare[index].strip() and below and index < below[-1]
        ]
        footer = gaps[-1] if gaps else None
        asked = read_menu("\n".join(bare[start:])) is not None
        last = [bare[index] for index in below if footer is not None and index > footer]
        if (
            footer is None
            or asked
            or any(_layout(rules, "hint").search(line) or not line.startswith("  ") for line in last)
        ):
            return None
    lines = [_lit(line).rstrip() for line in styled[start:footer]]
    lines[0] = lines[0].lstrip()[1:]
    while len(lines) > 1 and not lines[-1].strip():
        lines.pop()
    return [line.strip() for line in lines]


def is_early(screen: str, rules: ScreenRules | None = None) -> bool:
    r"""Tell whether a composer is one that Codex draws before it is ready, and before it asks for a login.

    Examples
    --------
    >>> is_early("› hello\n\n  ? for shortcuts"), is_early("› hello\n\n  gpt-5 default · /work\n  ? for shortcuts")
    (True, False)
    """
    last = [line for line in plain(screen).splitlines() if line.strip()][-1:]
    return not has_footer(screen, rules) and any(_layout(rules, "early").match(line) for line in last)


def has_footer(screen: str, rules: ScreenRules | None = None) -> bool:
    r"""Tell whether the line that names model and folder stands at the end of a screen, with or without escapes.

    Examples
    --------
    >>> has_footer("› hello\n\n  gpt-5 default · /work\n  ? for shortcuts")
    True
    """
    last = [line for line in plain(screen).splitlines() if line.strip()][-2:]
    return any(_layout(rules, "footer").match(line) for line in last)


def read_composer(screen: str, text: str, rules: ScreenRules | None = None) -> Composer:
    r"""Say what the composer holds.

    Parameters
    ----------
    screen : str
        A capture, with or without escapes.
    text : str
        The text that was typed; empty when nothing was.
    rules : ScreenRules, optional
        Those of the program's version; the newest when left out.

    Returns
    -------
    {"empty", "holds_text", "other", "unknown"}
        ``other``: a text that is not ours. ``unknown``: no composer is in sight.

    Examples
    --------
    >>> screen = "› {}\n\n  gpt-5 default · /work\n"
    >>> [read_composer(screen.format(held), "hello there") for held in ("", "hello there", "a draft")]
    ['empty', 'holds_text', 'other']
    """
    lines = composer_lines(screen, rules)
    if lines is None:
        return "unknown"
    if not any(lines):
        return "empty"
    if not text:
        return "other"
    if _layout(rules, "pasted").search(" ".join(lines)):
        return "holds_text"
    wanted, held = _letters(text), _letters("".join(lines))
    if not wanted:
        return "holds_text" if "".join(lines).split() == text.split() else "other"
    # A long text is scrolled inside the composer: its lines are somewhere in the text.
    if held and (wanted.startswith(held[:_COMPARED]) or held[:_COMPARED] in wanted):
        return "holds_text"
    return "other"


def _letters(text: str) -> str:
    """Return the letters and digits of a text: terminals draw the rest each in its own way."""
    return "".join(char for char in unicodedata.normalize("NFC", text) if char.isalnum())
