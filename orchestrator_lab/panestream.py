"""The bytes of one pane on their way to whoever watches it, and tmux's picture where bytes alone would not do.

No sockets and no clock: decisions only. The keeper counts the bytes of each pane, so it is known which of them a
picture shows already.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LIMIT", "PaneBytes", "PaneStream"]

#: Bytes of one pane in one tick; of more, only the picture at their end is worth showing.
LIMIT = 1 << 16


@dataclass(frozen=True, slots=True)
class PaneBytes:
    """What one pane wrote since the last tick.

    Parameters
    ----------
    agent : str
        Whose pane.
    data : bytes
        What its program wrote; with `repaint`, bytes that recreate the whole screen and what followed it.
    repaint : bool
        Whether the view takes the size and begins anew.
    cols, rows : int
        Size of the pane in characters.
    """

    agent: str
    data: bytes
    repaint: bool
    cols: int
    rows: int


class PaneStream:
    r"""Where one pane's output has been told up to, and what waits for the next tick.

    Parameters
    ----------
    agent : str
        Whose pane.

    Examples
    --------
    >>> pane = PaneStream("boss")
    >>> pane.paint(b"[screen]", 80, 24, count=10)
    >>> pane.take(13, b"xyabc")
    >>> pane.tick().data
    b'[screen]abc'
    """

    def __init__(self, agent: str) -> None:
        self.agent = agent
        self.cols, self.rows = 80, 24
        #: Whether a picture is wanted; nothing is told before the first one.
        self.unpainted = True
        self.painted = False
        self._picture: bytes | None = None
        #: The keeper's count behind the last byte that was taken in; None when it is not known.
        self._count: int | None = None
        self._chunks: list[tuple[int, bytes]] = []
        self._size = 0
        #: The count behind the last byte that was dropped: only a picture from there on shows all.
        self._dropped: int | None = None

    def take(self, count: int, data: bytes) -> None:
        """Take in output.

        Parameters
        ----------
        count : int
            The keeper's count of this pane's bytes, these included.
        data : bytes
            What the program wrote.
        """
        begin = count - len(data)
        if self._count is not None:
            if count <= self._count:
                return
            if begin < self._count:
                data = data[self._count - begin :]
            elif begin > self._count:
                self.unpainted = True  # some of it never came
        self._count = count
        self._size += len(data)
        if self._size > LIMIT:
            self._clear()
            self.unpainted = True
            self._dropped = count
        elif self._dropped is not None:
            # Without what was dropped it would be drawn in the wrong places.
            self._dropped = count
            self._size = 0
        else:
            self._chunks.append((count, data))

    def paint(self, picture: bytes, cols: int, rows: int, *, count: int | None) -> None:
        """Take in tmux's picture.

        Parameters
        ----------
        picture : bytes
            Recreates the screen.
        cols, rows : int
            Size of the pane.
        count : int or None
            The keeper's count of the bytes that the picture shows; None when that is not known.
        """
        self.unpainted, self.painted = False, True
        self._picture, self.cols, self.rows = picture, cols, rows
        if count is None:
            self._clear()
            self._dropped = None
            return
        if self._dropped is not None and self._dropped > count:
            self.unpainted = True
        else:
            self._dropped = None
        if self._count is None or self._count < count:
            self._count = count
        self._chunks = [
            (end, data if end - len(data) >= count else data[count - end :])
            for end, data in self._chunks
            if end > count
        ]
        self._size = sum(len(data) for _, data in self._chunks)

    def lost(self) -> None:
        """Take note that another keeper counts from here on, and that bytes may be missing."""
        self._count, self._dropped, self.unpainted = None, None, True
        self._clear()

    def tick(self) -> PaneBytes | None:
        """Return what is to be told now; None when there is nothing."""
        if not self.painted or (self._picture is None and not self._chunks):
            return None
        data = b"".join([self._picture or b"", *(chunk for _, chunk in self._chunks)])
        told = PaneBytes(self.agent, data, self._picture is not None, self.cols, self.rows)
        self._picture = None
        self._clear()
        return told

    def _clear(self) -> None:
        self._chunks.clear()
        self._size = 0
