"""A recorded pane that can be played from any instant: pictures to begin with, and what comes after them.

The whole of a long recording is read once, as far as somebody looks; on the way a terminal in memory leaves a picture
behind at each megabyte. From then on any instant costs at most what lies between it and the picture before it.
"""

from __future__ import annotations

import re
import threading
from bisect import bisect_right
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from orchestrator_lab.journal.seeking import CastReader
from orchestrator_lab.reading.screens import ansi_of, feed
from orchestrator_lab.stills import Screen

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from orchestrator_lab.journal.recording import CastEvent

__all__ = ["Picture", "Stretch", "Tape"]

#: Characters of output between two pictures that are kept.
_STEP = 1 << 20
_COLOURS = re.compile(r"\x1b\[[\d;:]*m")
#: Events in one stretch.
_EVENTS = 4_000


class Picture(NamedTuple):
    """What a pane showed at an instant.

    Parameters
    ----------
    cols, rows : int
        Its size in cells.
    data : bytes
        What makes any terminal of this size show it, with cursor and modes.
    """

    cols: int
    rows: int
    data: bytes


class Stretch(NamedTuple):
    """What happened in a pane from an instant on.

    Parameters
    ----------
    events : list of CastEvent
        All of them to ``to_s``, in order.
    to_s : float
        Seconds of the recording.
    next_s : float or None
        When something happens after that; None when nothing does.
    """

    events: list[CastEvent]
    to_s: float
    next_s: float | None


class _Kept(NamedTuple):
    """A picture at the beginning of a piece."""

    piece: int
    cols: int
    rows: int
    dump: str


class Tape:
    """A recorded pane, for one player; its calls come one after the other.

    Parameters
    ----------
    path : pathlib.Path
        Its recording.

    Raises
    ------
    JournalError
        When it is no recording.
    """

    def __init__(self, path: Path) -> None:
        self._reader = CastReader(path)
        self._lock = threading.Lock()
        self._kept: list[_Kept] = []
        #: The terminal that goes through the recording, and the piece that it has come to.
        self._walker: Any = None
        self._walked = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._reader.close()

    @property
    def duration_s(self) -> float:
        """Seconds from the beginning to the last event."""
        return self._reader.duration_s

    def picture(self, at_s: float, *, progress: Callable[[float], None] | None = None) -> Picture:
        """Return what the pane showed.

        Parameters
        ----------
        at_s : float
            Seconds of the recording.
        progress : callable, optional
            Told, now and then, which part from 0 to 1 of the way is done, to an instant that nobody has looked at yet.

        Returns
        -------
        Picture
            What happened at this very instant is in it.
        """
        terminal = self._terminal(at_s, progress)
        cols, rows = terminal.size
        # avt writes colours as 38:2:R:G:B, which other terminals read as 38:2:COLOUR SPACE:R:G.
        dump = _COLOURS.sub(lambda found: found[0].replace(":", ";"), terminal.dump())
        return Picture(cols, rows, b"\x1bc" + dump.encode("utf-8", "replace"))

    def screen(self, at_s: float, agent: str) -> Screen:
        """Return what the pane showed, as a still.

        Parameters
        ----------
        at_s : float
            Seconds of the recording.
        agent : str
            Whose pane it is.

        Returns
        -------
        Screen
            As of :func:`orchestrator_lab.reading.moment.screen_at`.
        """
        return Screen(agent, ansi_of(self._terminal(at_s, None)))

    def stretch(self, after_s: float, *, most: int) -> Stretch:
        """Return what happened after an instant.

        Parameters
        ----------
        after_s : float
            Seconds of the recording; what happened at this very instant is left out.
        most : int
            Characters of output after which it ends; an event is never cut, nor are those of one instant parted.

        Returns
        -------
        Stretch
            To the end of the recording when there is less.
        """
        events: list[CastEvent] = []
        chars = 0
        with self._lock:
            for number in range(self._reader.piece_at(after_s), len(self._reader)):
                for event in self._reader.events(number):
                    if event.time_s <= after_s:
                        continue
                    full = chars >= most or len(events) >= _EVENTS
                    if full and event.time_s > events[-1].time_s:
                        return Stretch(events, events[-1].time_s, event.time_s)
                    events.append(event)
                    chars += len(event.data)
        return Stretch(events, max(after_s, self.duration_s), None)

    def _terminal(self, at_s: float, progress: Callable[[float], None] | None) -> Any:  # noqa: ANN401 - avt has no types
        """Return a terminal that shows an instant."""
        with self._lock:
            piece = self._reader.piece_at(at_s)
            self._walk(piece, progress)
            kept = self._kept[bisect_right(self._kept, piece, key=lambda one: one.piece) - 1]
            terminal = _terminal(kept.cols, kept.rows)
            terminal.feed_str(kept.dump)
            for number in range(kept.piece, min(piece + 1, len(self._reader))):
                feed(terminal, takewhile(lambda event: event.time_s <= at_s, self._reader.events(number)))
            return terminal

    def _walk(self, piece: int, progress: Callable[[float], None] | None) -> None:
        """Keep the pictures on the way to a piece."""
        if self._walker is None:
            self._walker = _terminal(*self._reader.size)
            self._keep()
        chars, begun = 0, self._walked
        while self._walked < piece:
            events = self._reader.events(self._walked)
            feed(self._walker, events)
            chars += sum(len(event.data) for event in events)
            self._walked += 1
            if chars >= _STEP:
                chars = 0
                self._keep()
                if progress is not None:
                    progress((self._walked - begun) / (piece - begun))
        if chars:  # what was walked since the last picture counts no more: the next walk begins here
            self._keep()

    def _keep(self) -> None:
        cols, rows = self._walker.size
        self._kept.append(_Kept(self._walked, cols, rows, self._walker.dump()))


def _terminal(cols: int, rows: int) -> Any:  # noqa: ANN401 - avt has no types
    import avt

    return avt.Vt(cols, rows, 0)  # type: ignore[attr-defined]
