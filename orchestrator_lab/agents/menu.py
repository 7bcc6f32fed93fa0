"""Numbered menus on a screen: their options, and which one is preselected."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Menu", "read_menu"]

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
    menus: list[tuple[list[str], int | None]] = []
    for line in screen.splitlines():
        row = _ROW.match(line)
        if row is None:
            continue
        number = int(row["number"])
        if number == 1:
            menus.append(([], None))
        if not menus or number != len(menus[-1][0]) + 1:
            continue
        options, selected = menus[-1]
        if row["mark"]:
            selected = len(options)
        options.append(row["label"])
        menus[-1] = (options, selected)
    if not menus:
        return None
    options, selected = menus[-1]
    return Menu(tuple(options), selected)
