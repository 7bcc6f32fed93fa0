"""Long pastes are kept aside: one private character stands for each, one sees a marker."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from prompt_toolkit.layout.processors import Processor, Transformation, TransformationInput

from .text import TAB_WIDTH

if TYPE_CHECKING:
    from prompt_toolkit.formatted_text import StyleAndTextTuples

__all__ = ["DraftProcessor", "PasteShelf"]

# The last private-use plane. Text that itself holds such a character is shelved whole, so a
# stand-in is always ours.
_FIRST, _LAST = 0x100000, 0x10FFFD
_STAND_IN = re.compile(f"[{chr(_FIRST)}-{chr(_LAST)}]")
_INLINE_CHARACTERS = 800
_INLINE_LINES = 5


class PasteShelf:
    """Pasted texts by their stand-in character.

    Examples
    --------
    >>> shelf = PasteShelf()
    >>> line = "see " + shelf.put(("x" + chr(10)) * 1234)
    >>> shelf.marker(line[-1])
    '[pasted 1,235 lines #1]'
    >>> len(shelf.expand(line))
    2472
    """

    def __init__(self) -> None:
        self._texts: list[str] = []

    def put(self, text: str) -> str:
        """Return what to insert for a text: itself when short, else its stand-in.

        Parameters
        ----------
        text : str
            Pasted or typed text.

        Returns
        -------
        str
            Text for the line.
        """
        short = len(text) <= _INLINE_CHARACTERS and text.count("\n") < _INLINE_LINES
        if short and not _STAND_IN.search(text):
            return text
        self._texts.append(text)
        return chr(_FIRST + (len(self._texts) - 1) % (_LAST - _FIRST + 1))

    def marker(self, char: str) -> str:
        """Return what one sees for a stand-in.

        Parameters
        ----------
        char : str
            A stand-in.

        Returns
        -------
        str
            Size and number; the character itself when it stands for nothing.
        """
        index = ord(char) - _FIRST
        if not 0 <= index < len(self._texts):
            return char
        text = self._texts[index]
        lines = text.count("\n") + 1
        size = f"{lines:,} lines" if lines > 1 else f"{len(text):,} characters"
        return f"[pasted {size} #{index + 1}]"

    def expand(self, line: str) -> str:
        """Return a line with every stand-in replaced by its text.

        Parameters
        ----------
        line : str
            The draft.

        Returns
        -------
        str
            The exact text to send.
        """

        def text_of(match: re.Match[str]) -> str:
            index = ord(match[0]) - _FIRST
            return self._texts[index] if index < len(self._texts) else match[0]

        return _STAND_IN.sub(text_of, line)

    def holds(self, line: str) -> bool:
        """Return whether a line has a stand-in."""
        return _STAND_IN.search(line) is not None


class DraftProcessor(Processor):
    """Show stand-ins as markers and tabs as spaces while the draft itself stays exact.

    Parameters
    ----------
    shelf : PasteShelf
        Where the texts are.
    """

    def __init__(self, shelf: PasteShelf) -> None:
        self._shelf = shelf

    def apply_transformation(self, transformation_input: TransformationInput) -> Transformation:
        """Transform one line for the screen."""
        fragments = transformation_input.fragments
        if not any("\t" in part[1] or _STAND_IN.search(part[1]) for part in fragments):
            return Transformation(fragments)
        shown: StyleAndTextTuples = []
        starts: list[int] = []  # of each source character, in what is shown
        at = 0
        for style, text, *_ in fragments:
            for char in text:
                starts.append(at)
                if char == "\t":
                    piece = " " * (TAB_WIDTH - at % TAB_WIDTH)
                    shown.append((style, piece))
                elif _FIRST <= ord(char) <= _LAST:
                    piece = self._shelf.marker(char)
                    shown.append((f"{style} class:marker", piece))
                else:
                    piece = char
                    shown.append((style, piece))
                at += len(piece)
        starts.append(at)

        def to_display(index: int) -> int:
            return starts[index] if index < len(starts) else at + index - len(starts) + 1

        def to_source(index: int) -> int:
            from bisect import bisect_right

            return max(0, bisect_right(starts, index) - 1)

        return Transformation(shown, to_display, to_source)
