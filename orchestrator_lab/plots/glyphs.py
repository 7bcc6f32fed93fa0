"""Texts of agents in a picture: on one line, no formulas, and with fonts that have their letters."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from itertools import accumulate
from typing import Any

__all__ = ["FONTS", "families", "fold"]

#: Families with Chinese, Japanese and Korean letters, as systems call them; matplotlib's own has none.
FONTS = (
    "Noto Sans CJK JP",
    "Noto Sans JP",
    "Hiragino Sans",
    "Yu Gothic",
    "Meiryo",
    "IPAexGothic",
    "IPAGothic",
    "TakaoGothic",
    "PingFang SC",
    "Microsoft YaHei",
    "WenQuanYi Zen Hei",
    "Apple SD Gothic Neo",
    "Malgun Gothic",
    "Arial Unicode MS",
)
_UNDRAWN = "□"


@lru_cache(maxsize=1)
def _installed() -> tuple[str, ...]:
    from matplotlib.font_manager import fontManager

    there = {font.name for font in fontManager.ttflist}
    return tuple(name for name in FONTS if name in there)


def families() -> list[str]:
    """Return the font families for a text: the current one, then those of this machine that have more letters."""
    import matplotlib as mpl

    return [*mpl.rcParams["font.family"], *_installed()]


@lru_cache(maxsize=4096)
def _drawn(letter: str, names: tuple[str, ...]) -> bool:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    return any(get_font(findfont(FontProperties(family=[name]))).get_char_index(ord(letter)) for name in names)


def _cut(line: str, width: int) -> str:
    """Return what fits into a width in which Chinese and Japanese letters count twice."""
    wide = [2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in line]
    if sum(wide) <= width:
        return line
    fits = sum(1 for reach in accumulate(wide) if reach < width)
    return line[:fits].rstrip() + "…"


def fold(text: Any, width: int) -> str:  # noqa: ANN401 - a text, or NA
    r"""Return a text on one line, cut at a width; a letter that no font here has becomes an empty square.

    Examples
    --------
    >>> fold("Measure the bow,\nthen write.", 12)
    'Measure the…'
    >>> fold("a" * 9, 8)
    'aaaaaaa…'
    >>> fold("It costs $5.", 20)
    'It costs \\$5.'
    """
    import pandas as pd

    if pd.isna(text):
        return ""
    line = " ".join(str(text)[: 4 * width + 100].split())
    line = _cut(line, width)
    names = tuple(families())
    line = "".join(one if one.isascii() or _drawn(one, names) else _UNDRAWN for one in line)
    # A dollar sign would begin a formula.
    return line.replace("$", r"\$")
