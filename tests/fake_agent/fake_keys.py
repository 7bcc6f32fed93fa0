"""What comes out of a terminal, taken apart: keys, pastes, and the bytes they were."""

from __future__ import annotations

import codecs
import re

PASTE_START = b"\x1b[200~"
PASTE_END = b"\x1b[201~"
_SEQUENCE = re.compile(rb"\x1b(?:\[[0-9;?<>=]*[ -/]*[@-~]|O[A-Za-z]|[^\[O\x1b])")
_NAMED = {
    b"\x1b[A": "up", b"\x1bOA": "up", b"\x1b[B": "down", b"\x1bOB": "down", b"\x1b[C": "right", b"\x1b[D": "left",
    b"\x1b[I": "focus", b"\x1b[O": "blur", b"\x1b[3~": "delete",
}  # fmt: skip
_CONTROLS = {0x0D: "enter", 0x0A: "newline", 0x7F: "backspace", 0x08: "backspace", 0x03: "ctrl-c", 0x04: "ctrl-d",
             0x15: "ctrl-u", 0x09: "tab"}  # fmt: skip


class Keys:
    """Turn bytes into ``("key", name)``, ``("text", characters)`` and ``("paste", bytes)``."""

    def __init__(self) -> None:
        self._held = b""
        self._paste: bytearray | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    @property
    def pending(self) -> bool:
        """Whether a lone ESC waits for the rest of its sequence."""
        return bool(self._held) and self._paste is None

    def feed(self, data: bytes) -> list[tuple[str, object]]:
        data, self._held = self._held + data, b""
        found: list[tuple[str, object]] = []
        while data:
            if self._paste is not None:
                self._paste += data
                # The end may straddle two reads: look from a little before the new piece.
                end = self._paste.find(PASTE_END, max(0, len(self._paste) - len(data) - len(PASTE_END)))
                if end < 0:
                    return found
                body, data = bytes(self._paste[:end]), bytes(self._paste[end + len(PASTE_END) :])
                self._paste = None
                found.append(("paste", body))
                continue
            byte = data[0]
            if byte == 0x1B:
                if data.startswith(PASTE_START):
                    self._paste = bytearray()
                    data = data[len(PASTE_START) :]
                    continue
                match = _SEQUENCE.match(data)
                if match is None:
                    if len(data) > 1 and data[1] == 0x1B:
                        found.append(("key", "escape"))
                        data = data[1:]
                        continue
                    self._held = data
                    return found
                found.append(("key", _NAMED.get(match[0], f"sequence {match[0].hex()}")))
                data = data[match.end() :]
            elif byte in _CONTROLS:
                found.append(("key", _CONTROLS[byte]))
                data = data[1:]
            elif byte < 0x20:
                found.append(("key", f"control {byte:02x}"))
                data = data[1:]
            else:
                size = next((i for i, one in enumerate(data) if one < 0x20 or one == 0x7F), len(data))
                text = self._decoder.decode(data[:size])
                if text:
                    found.append(("text", text))
                data = data[size:]
        return found

    def flush(self) -> list[tuple[str, object]]:
        """Take a lone ESC for the Escape key: nothing followed it."""
        held, self._held = self._held, b""
        if not held:
            return []
        return [("key", "escape"), *(self.feed(held[1:]) if len(held) > 1 else [])]
