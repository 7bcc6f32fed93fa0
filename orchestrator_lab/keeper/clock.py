r"""The time of a replayed program: it stands between what the program writes.

The program that plays a recorded agent (:mod:`orchestrator_lab.programs.replay`) says before each piece of output when
that was written, in a sequence that terminals pass over. Here it is taken out again, so that the recording of a replay
has the times of what is replayed. Only panes of which the supervisor says so are read like this.
"""

from __future__ import annotations

import re

__all__ = ["Clock"]

_MARK = re.compile(rb"\x1b\]6973;(\d{1,12})\x07")
_BEGUN = re.compile(rb"\x1b(?:\](?:6(?:9(?:7(?:3(?:;\d{0,12})?)?)?)?)?)?\Z")


class Clock:
    r"""Takes the times out of a pane's output.

    Examples
    --------
    >>> clock = Clock()
    >>> clock.feed(b"a\x1b]6973;250\x07b\x1b]69"), clock.feed(b"73;300\x07c")
    ([(None, b'a'), (250, b'b')], [(300, b'c')])
    """

    def __init__(self) -> None:
        self._held = b""

    def rest(self) -> bytes:
        """Return what was held back: nothing came that would have made it a mark."""
        held, self._held = self._held, b""
        return held

    def feed(self, data: bytes) -> list[tuple[int | None, bytes]]:
        """Return what was written, in pieces: the milliseconds told before each, None where none were, and its bytes.

        The beginning of a mark waits for its end.
        """
        data = self._held + data
        begun = _BEGUN.search(data)
        cut = len(data) if begun is None else begun.start()
        data, self._held = data[:cut], data[cut:]
        first, *rest = _MARK.split(data)
        pieces: list[tuple[int | None, bytes]] = [(None, first)] if first else []
        pieces += [(int(at), piece) for at, piece in zip(rest[::2], rest[1::2], strict=True)]
        return pieces
