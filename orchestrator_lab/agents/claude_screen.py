"""Claude Code's screen: its input box, read with its styles.

The box stands between the last two horizontal rules, and its first line begins with ``❯``. Text that the program
suggests is dim, its first letter under the cursor inverse: it is no text of anybody and does not count.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

from orchestrator_lab.agents.screens import choose

if TYPE_CHECKING:
    from orchestrator_lab.agents.base import Composer
    from orchestrator_lab.agents.screens import ScreenRules

__all__ = ["box_parts", "gave_back", "input_box", "own_text", "plain", "read_composer"]

_SGR = re.compile(r"\x1b\[([0-9;:]*)m")
_ESCAPE = re.compile(r"\x1b\[[0-9;:?]*[A-Za-z]|\x1b\].*?(?:\x07|\x1b\\)|\x1b[()][A-Z0-9]|\x1b.|\x0e|\x0f")
#: Letters and digits that are compared: as many as every screen shows.
_COMPARED = 40


def plain(screen: str) -> str:
    r"""Return a screen without its escape sequences.

    Parameters
    ----------
    screen : str
        What a capture with escapes gave.

    Returns
    -------
    str
        Its text.

    Examples
    --------
    >>> plain("\x1b[1mbold\x1b[0m")
    'bold'
    """
    return _ESCAPE.sub("", screen)


def own_text(line: str) -> str:
    r"""Return what of a line is neither dim nor the suggestion's first letter under the cursor.

    Parameters
    ----------
    line : str
        One line of a capture with escapes.

    Returns
    -------
    str
        Text that somebody typed.

    Examples
    --------
    >>> own_text("> mine \x1b[2mtry this\x1b[0m")
    '> mine '
    """
    runs: list[tuple[str, bool, bool]] = []
    dim = inverse = False
    at = 0
    for mark in [*_SGR.finditer(line), None]:
        text = _ESCAPE.sub("", line[at : mark.start() if mark else len(line)])
        if text:
            runs.append((text, dim, inverse))
        if mark is None:
            break
        at = mark.end()
        codes = mark[1].split(";")
        index = 0
        while index < len(codes):
            code = codes[index]
            if code in {"38", "48", "58"}:  # a colour has numbers of its own
                index += 5 if codes[index + 1 : index + 2] == ["2"] else 3
                continue
            if code in {"", "0"}:
                dim = inverse = False
            elif code == "2":
                dim = True
            elif code == "22":
                dim = False
            elif code == "7":
                inverse = True
            elif code == "27":
                inverse = False
            index += 1
    kept = []
    for index, (text, is_dim, is_inverse) in enumerate(runs):
        suggested = is_inverse and len(text) == 1 and index + 1 < len(runs) and runs[index + 1][1]
        if not is_dim and not suggested:
            kept.append(text)
    return "".join(kept)


def _layout(rules: ScreenRules | None, name: str) -> re.Pattern[str]:
    return (rules or choose("claude")[0]).layout[name]


def input_box(screen: str, rules: ScreenRules | None = None) -> list[str] | None:
    r"""Return the lines that stand in the input box.

    Parameters
    ----------
    screen : str
        A capture, with or without escapes; only with them can a suggestion be told from a text.
    rules : ScreenRules, optional
        Those of the program's version; the newest when left out.

    Returns
    -------
    list of str or None
        The lines without the prompt sign, nothing but spaces cut; None when no box is seen.

    Examples
    --------
    >>> input_box("─" * 20 + "\n❯\xa0hello \n  you\n" + "─" * 20 + "\n  ? for shortcuts")
    ['hello', 'you']
    """
    lines = screen.splitlines()
    frame = _layout(rules, "frame")
    frames = [index for index, line in enumerate(lines) if frame.match(plain(line))]
    if len(frames) < 2:
        return None
    box = [own_text(line).replace("\xa0", " ").strip() for line in lines[frames[-2] + 1 : frames[-1]]]
    sign = _layout(rules, "sign").match(box[0]) if box else None
    if sign is None:
        return None
    return [box[0][sign.end() :].strip(), *box[1:]]


def box_parts(screen: str, rules: ScreenRules | None = None) -> dict[str, str]:
    r"""Return the text in the input box, and below it.

    Parameters
    ----------
    screen : str
        A capture, with or without escapes.
    rules : ScreenRules, optional
        Those of the program's version; the newest when left out.

    Returns
    -------
    dict
        ``input`` and ``below input``; empty when no box is seen.

    Examples
    --------
    >>> box_parts("─" * 20 + "\n❯\xa0do it\n" + "─" * 20 + "\n  ? for shortcuts")["below input"]
    '  ? for shortcuts'
    """
    box = input_box(screen, rules)
    if box is None:
        return {}
    frame = _layout(rules, "frame")
    below: list[str] = []
    for line in reversed(plain(screen).splitlines()):
        if frame.match(line):
            break
        below.insert(0, line)
    return {"input": "\n".join(box), "below input": "\n".join(below)}


def read_composer(screen: str, text: str, rules: ScreenRules | None = None) -> Composer:
    r"""Say what the input box holds.

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
        ``other``: a text that is not ours. ``unknown``: no box is seen (a dialog, a picker).

    Examples
    --------
    >>> box = "─" * 20 + "\n❯\xa0{}\n" + "─" * 20
    >>> [read_composer(box.format(held), "hello there") for held in ("", "hello there", "a draft")]
    ['empty', 'holds_text', 'other']
    """
    box = input_box(screen, rules)
    if box is None:
        return "unknown"
    if not any(box):
        return "empty"
    if not text:
        return "other"
    if _layout(rules, "pasted").search(" ".join(box)):
        return "holds_text"
    wanted, held = _letters(text[: 50 * _COMPARED]), _letters("".join(box))
    return "holds_text" if held and wanted.startswith(held[:_COMPARED]) else "other"


def gave_back(screen: str, prompt: str, rules: ScreenRules | None = None) -> bool:
    r"""Tell whether nothing runs and the input box holds a prompt, or the part of it that fits.

    Parameters
    ----------
    screen : str
        A capture, with or without escapes.
    prompt : str
        The prompt of a turn that was interrupted.
    rules : ScreenRules, optional
        Those of the program's version; the newest when left out.

    Returns
    -------
    bool
        False while the line below the box offers to interrupt.

    Examples
    --------
    >>> gave_back("─" * 20 + "\n❯\xa0do it\n" + "─" * 20 + "\n  ? for shortcuts", "do it")
    True
    """
    box = input_box(screen, rules)
    if box is None or not any(box):
        return False
    if _layout(rules, "interrupt").search(box_parts(screen, rules)["below input"]):
        return False
    held = "".join(box)
    return _layout(rules, "pasted").search(held) is not None or bool(
        _letters(held) and _letters(held) in _letters(prompt)
    )


def _letters(text: str) -> str:
    """Return the letters and digits of a text: terminals draw the rest each in its own way."""
    return "".join(char for char in unicodedata.normalize("NFC", text) if char.isalnum())
