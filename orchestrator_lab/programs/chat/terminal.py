"""The terminal's two ends: input that takes a paste in one piece, output that never blinks.

prompt_toolkit does the rest; what is changed here is what the lab depends on: a paste is never
split, the terminal is never for an instant without bracketed-paste mode, and a redraw is one write.
"""

from __future__ import annotations

import os
import re
import select
import termios
import time
from typing import TYPE_CHECKING, TextIO

from prompt_toolkit.input.vt100 import Vt100Input
from prompt_toolkit.input.vt100_parser import Vt100Parser
from prompt_toolkit.key_binding.key_processor import KeyPress
from prompt_toolkit.keys import Keys
from prompt_toolkit.output.vt100 import Vt100_Output

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PASTE_END", "PASTE_START", "PasteInput", "PasteParser", "SteadyOutput"]

PASTE_START = "\x1b[200~"
PASTE_END = "\x1b[201~"
#: Most bytes taken before the screen gets its turn.
_READ_AT_ONCE = 1 << 20
#: An unended paste is given up by Ctrl-C after this silence, in seconds.
_STUCK_PASTE_S = 1.0

_NEWLINES = re.compile("\r\n?")


class PasteParser(Vt100Parser):
    """prompt_toolkit's key parser, with bracketed pastes gathered in linear time.

    Parameters
    ----------
    feed_key_callback : callable
        Called with each key press.

    Examples
    --------
    >>> keys = []
    >>> PasteParser(keys.append).feed(PASTE_START + "body" + PASTE_END + chr(13))
    >>> [key.key.value for key in keys]
    ['<bracketed-paste>', 'c-m']
    """

    def reset(self, request: bool = False) -> None:
        """Forget everything that is half read."""
        super().reset(request)
        self._pieces: list[str] = []
        self._seam = ""  # the last characters of the pieces
        self._last_piece_at = 0.0
        self._held = ""

    def feed(self, data: str) -> None:
        """Take more input.

        Parameters
        ----------
        data : str
            Decoded bytes of the terminal.
        """
        data = self._held + data
        self._held = ""
        while data:
            if self._in_bracketed_paste:
                data = self._feed_paste(data)
                continue
            start = data.find(PASTE_START)
            if start < 0:
                # A paste's beginning that is cut in two at the end of a read waits for its other
                # half, or for flush(), which prompt_toolkit calls when nothing follows an ESC.
                for size in range(len(PASTE_START) - 1, 0, -1):
                    if data.endswith(PASTE_START[:size]):
                        self._held = data[-size:]
                        data = data[:-size]
                        break
                super().feed(data)
                return
            super().feed(data[:start])
            super().flush()
            self._in_bracketed_paste = True
            data = data[start + len(PASTE_START) :]

    def flush(self) -> None:
        """Take what is half read as it stands, but never tear a paste's beginning."""
        if len(self._held) <= 2:  # longer ones are no keys: only a slow terminal sends them in halves
            held, self._held = self._held, ""
            super().feed(held)
        super().flush()

    def _feed_paste(self, data: str) -> str:
        now = time.monotonic()
        if data == "\x03" and now - self._last_piece_at > _STUCK_PASTE_S:
            self._emit("".join(self._pieces))
            return ""
        self._last_piece_at = now
        # The end mark may straddle pieces: look at the seam, then at the new piece only.
        seam = self._seam
        end = (seam + data).find(PASTE_END)
        if end < 0:
            self._pieces.append(data)
            self._seam = (seam + data)[-(len(PASTE_END) - 1) :]
            return ""
        whole = "".join(self._pieces) + data
        end += len(whole) - len(data) - len(seam)
        rest = whole[end + len(PASTE_END) :]
        self._emit(whole[:end])
        return rest

    def _emit(self, text: str) -> None:
        self._in_bracketed_paste = False
        self._pieces = []
        self._seam = ""
        # A terminal sends a pasted newline as CR, as the Enter key would.
        self.feed_key_callback(KeyPress(Keys.BracketedPaste, _NEWLINES.sub("\n", text)))


class PasteInput(Vt100Input):
    """A terminal's input, read in large pieces.

    Parameters
    ----------
    stdin : TextIO
        A terminal.
    """

    def __init__(self, stdin: TextIO) -> None:
        super().__init__(stdin)
        self.vt100_parser = PasteParser(self._take)

    def _take(self, key: KeyPress) -> None:
        self._buffer.append(key)

    def read_keys(self) -> list[KeyPress]:
        """Read everything that is there.

        Returns
        -------
        list of KeyPress
            Keys in order.
        """
        size = 0
        fd = self.fileno()
        while size < _READ_AT_ONCE:
            data = self.stdin_reader.read(65536)
            size += len(data)
            self.vt100_parser.feed(data)
            if not data and not self.stdin_reader.closed:
                # Nothing, or half a character, or a terminal that is gone: reading that fails for ever.
                try:
                    termios.tcgetattr(fd)
                except termios.error:
                    self.stdin_reader.closed = True
                break
            if self.stdin_reader.closed or not select.select([fd], [], [], 0)[0]:
                break
        keys, self._buffer = self._buffer, []
        return keys


class SteadyOutput(Vt100_Output):
    """A terminal's output that keeps its modes through redraws and groups writes.

    Parameters
    ----------
    stdout : TextIO
        A terminal.
    get_size : callable
        Returns the terminal's size.
    term : str, optional
        ``TERM``.
    """

    def __init__(self, stdout: TextIO, get_size: Callable[[], object], term: str | None = None) -> None:
        # No cursor position requests: their answers would come in between a paste and its Enter.
        super().__init__(stdout, get_size, term=term, enable_cpr=False)  # type: ignore[arg-type]
        self._grouped = False
        self._paste_mode = False

    @classmethod
    def for_terminal(cls, stdout: TextIO) -> SteadyOutput:
        """Return the output for a terminal.

        Parameters
        ----------
        stdout : TextIO
            A terminal.

        Returns
        -------
        SteadyOutput
            Ready to use.
        """
        from prompt_toolkit.data_structures import Size

        def size() -> Size:
            try:
                columns, rows = os.get_terminal_size(stdout.fileno())
            except OSError:
                columns, rows = 80, 24
            return Size(rows=rows or 24, columns=columns or 80)

        return cls(stdout, size, term=os.environ.get("TERM"))

    def enable_bracketed_paste(self) -> None:
        """Ask for bracketed paste, once."""
        if not self._paste_mode:
            self._paste_mode = True
            super().enable_bracketed_paste()

    def disable_bracketed_paste(self) -> None:
        """Do nothing: the renderer ends the mode at every redraw; a paste then would come bare."""

    def leave(self) -> None:
        """End bracketed paste for good."""
        super().disable_bracketed_paste()
        self.flush()

    def flush(self) -> None:
        """Write, unless a group is open."""
        if not self._grouped:
            super().flush()

    def group(self, open_: bool) -> None:
        """Open or close a group of writes that reach the terminal as one.

        Parameters
        ----------
        open_ : bool
            True holds writes back, False lets them go.
        """
        self._grouped = open_
        if not open_:
            super().flush()
