"""Reads token usage out of answers that pass through, without touching them."""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING, Any

from orchestrator_lab.gateway.traffic import Usage

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["UsageReader"]

# A JSON answer, or one line of an event stream, larger than this is passed on but no longer looked into.
_LIMIT = 16 * 1024 * 1024

_ANTHROPIC = (
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
)


class UsageReader:
    """Collects usage and model from an answer, fed in pieces of any size.

    Knows Anthropic's messages, OpenAI's chat completions and responses, each as JSON and as event
    stream. `input_tokens` are those that the provider names so: Anthropic's without the cached
    ones, OpenAI's with them.

    Parameters
    ----------
    content_type : str
        The answer's Content-Type.
    encoding : str
        Its Content-Encoding; what cannot be decompressed is not looked into.

    Examples
    --------
    >>> reader = UsageReader("application/json")
    >>> reader.feed(b'{"type": "message", "model": "m", "usage": {"output_')
    >>> reader.feed(b'tokens": 3}}')
    >>> reader.finish().output_tokens
    3
    """

    def __init__(self, content_type: str, encoding: str = "") -> None:
        self.usage = Usage()
        self._stream = content_type.lower().startswith("text/event-stream")
        self._json = "json" in content_type.lower()
        self._buffer = bytearray()
        self._decompress: Any = None
        self._blind = not (self._stream or self._json)
        name = encoding.strip().lower()
        if name in {"gzip", "x-gzip", "deflate"}:
            self._decompress = zlib.decompressobj(47)
        elif name == "zstd":
            import zstandard

            self._decompress = zstandard.ZstdDecompressor().decompressobj()
        elif name not in {"", "identity"}:
            self._blind = True

    def feed(self, piece: bytes) -> None:
        """Look at the next piece of the answer.

        Parameters
        ----------
        piece : bytes
            As it came over the wire. Nothing in it can make this fail: what is not understood is
            left out.
        """
        if self._blind or not piece:
            return
        if self._decompress is not None:
            try:
                piece = self._decompress.decompress(piece)
            except Exception:  # noqa: BLE001 - any decoder's own error class; the answer itself passes on
                self._blind = True
                return
        self._buffer += piece
        if self._stream:
            *lines, rest = self._buffer.split(b"\n")
            for line in lines:
                self._line(bytes(line))
            self._buffer = bytearray(rest)
        if len(self._buffer) > _LIMIT:
            self._blind = True
            self._buffer.clear()

    def finish(self) -> Usage:
        """Return what was found, after the last piece.

        Returns
        -------
        Usage
            None where the answer said nothing.
        """
        if self._buffer:
            if self._stream:
                self._line(bytes(self._buffer))
            else:
                self._object(bytes(self._buffer))
            self._buffer.clear()
        return self.usage

    def _line(self, line: bytes) -> None:
        # Most lines are text deltas: only those that name usage or the model are worth parsing.
        if line.startswith(b"data:") and (b'"usage"' in line or b'"model"' in line):
            self._object(line[5:])

    def _object(self, raw: bytes) -> None:
        try:
            value = json.loads(raw)
        except ValueError:
            return
        if not isinstance(value, dict):
            return
        for part in (value, value.get("message"), value.get("response")):
            if not isinstance(part, dict):
                continue
            if isinstance(part.get("model"), str):
                self.usage.model = part["model"]
                if isinstance(part.get("id"), str):
                    self.usage.reply_id = part["id"]
            if isinstance(part.get("usage"), dict):
                self._take(part["usage"])

    def _take(self, usage: Mapping[str, Any]) -> None:
        for name in _ANTHROPIC:
            self._set(name, usage.get(name))
        self._set("input_tokens", usage.get("prompt_tokens"))
        self._set("output_tokens", usage.get("completion_tokens"))
        for key in ("prompt_tokens_details", "input_tokens_details"):
            details = usage.get(key)
            if isinstance(details, dict):
                self._set("cache_read_input_tokens", details.get("cached_tokens"))

    def _set(self, name: str, value: object) -> None:
        # Later events of a stream carry the totals so far: the last one counts.
        if isinstance(value, int) and not isinstance(value, bool):
            setattr(self.usage, name, value)
