"""Numbered menus on a screen: their options, and which one is preselected."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Menu", "question", "read_menu"]

#: Lines above a menu that belong to its question, at most.
_ABOVE = 12
#: A line that frames what stands below it.
_FRAME = re.compile(r"^\s*[─━╌═]{10,}")
_ROW = re.compile(r"^[\s│|]*(?P<mark>[❯›>→])?\s*(?P<number>\d{1,2})[.)]\s+(?P<label>\S.*?)[\s│|]*$")


@dataclass(frozen=True, slots=True)
class Menu:
    """A menu as it stands on the screen.

    Parameters
    ----------
    options : tuple of str
        Labels from top to bottom.
    selected : int or None
        Index of the preselected one, None when no row carries the cursor.
    """

    options: tuple[str, ...]
    selected: int | None

    def find(self, label: str) -> int | None:
        """Return the index of the option with this label (case and trailing hints aside).

        Parameters
        ----------
        label : str
            The label, or its beginning.

        Returns
        -------
        int or None
            None when no option, or more than one, matches.

        Examples
        --------
        >>> Menu(("Yes, I trust this folder", "No, exit"), 1).find("yes, i trust")
        0
        """
        wanted = label.casefold().strip()
        exact = [i for i, option in enumerate(self.options) if option.casefold() == wanted]
        begun = [i for i, option in enumerate(self.options) if option.casefold().startswith(wanted)]
        found = exact or begun
        return found[0] if len(found) == 1 else None


def read_menu(screen: str) -> Menu | None:
    r"""Return the lowest numbered menu of a screen.

    Parameters
    ----------
    screen : str
        The screen's text.

    Returns
    -------
    Menu or None
        None when there is no run of rows numbered from 1.

    Examples
    --------
    >>> read_menu(" ❯ 1. Yes, I trust this folder\n   2. No, exit\n Enter to confirm")
    Menu(options=('Yes, I trust this folder', 'No, exit'), selected=0)
    """
    found = _lowest(screen)
    return None if found is None else found[0]


def question(screen: str) -> str:
    r"""Return the question that the lowest menu of a screen answers, its options included.

    Old questions scroll up into the history: only what stands right above the options, below a frame if there is one,
    is the present one.

    Parameters
    ----------
    screen : str
        The screen's text.

    Returns
    -------
    str
        Lines that are not empty; an empty text when there is no menu.

    Examples
    --------
    >>> question("long ago\n──────────────\n Run it?\n ❯ 1. Yes\n   2. No\n\n Esc cancels")
    'Run it?\n❯ 1. Yes\n2. No'
    """
    found = _lowest(screen)
    if found is None:
        return ""
    _, first, last = found
    lines = screen.splitlines()
    frame = next((index for index in range(first - 1, -1, -1) if _FRAME.match(lines[index])), -1)
    above = [line.strip() for line in lines[frame + 1 : first] if line.strip()][-_ABOVE:]
    return "\n".join([*above, *(line.strip() for line in lines[first : last + 1] if line.strip())])


def _lowest(screen: str) -> tuple[Menu, int, int] | None:
    """Return the lowest menu, and the lines of its first and last option."""
    menus: list[tuple[list[str], int | None]] = []
    first = last = 0
    for index, line in enumerate(screen.splitlines()):
        row = _ROW.match(line)
        if row is None:
            continue
        number = int(row["number"])
        if number == 1:
            menus.append(([], None))
            first = index
        if not menus or number != len(menus[-1][0]) + 1:
            continue
        options, selected = menus[-1]
        if row["mark"]:
            selected = len(options)
        options.append(row["label"])
        last = index
        menus[-1] = (options, selected)
    if not menus:
        return None
    options, selected = menus[-1]
    return Menu(tuple(options), selected), first, last
