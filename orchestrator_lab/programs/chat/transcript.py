"""The program's own record of its conversation: JSON lines, on disk before they are announced."""

from __future__ import annotations

import json
import os
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

__all__ = ["Transcript", "load_messages"]


class Transcript:
    """Append records to a JSONL file that only its owner can read.

    Parameters
    ----------
    path : Path or None
        The file; nothing is kept when None.
    session_id : str
        Written into every record.

    Examples
    --------
    >>> len(Transcript(None, session_id="s").append("user", message={"content": "hi"}))
    36
    """

    def __init__(self, path: Path | None, *, session_id: str) -> None:
        self.path = path
        self._session_id = session_id
        self._cwd = str(Path.cwd())
        self._parent: str | None = None
        self._fd: int | None = None
        if path is not None:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            os.fchmod(self._fd, 0o600)
            size = os.fstat(self._fd).st_size
            # A torn last line (a crash in the middle of a write) must not swallow the next record.
            if size and os.pread(self._fd, 1, size - 1) != b"\n":
                os.write(self._fd, b"\n")

    def append(self, record_type: str, **fields: Any) -> str:  # noqa: ANN401 - JSON values
        """Write one record and wait until it is on the disk.

        Parameters
        ----------
        record_type : str
            ``user``, ``assistant``, ``error`` or ``clear``.
        **fields
            The record's own keys.

        Returns
        -------
        str
            The record's uuid.

        Raises
        ------
        OSError
            When the disk takes no more; half a line is taken back.
        """
        record_id = str(uuid.uuid4())
        if self._fd is None:
            return record_id
        record = {
            "type": record_type,
            "uuid": record_id,
            "parentUuid": self._parent,
            "sessionId": self._session_id,
            "timestamp": datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "cwd": self._cwd,
            **{key: value for key, value in fields.items() if value is not None},
        }
        data = json.dumps(record, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        size = os.fstat(self._fd).st_size
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._fd, view) :]
            os.fsync(self._fd)
        except OSError:
            os.ftruncate(self._fd, size)
            raise
        self._parent = record_id
        return record_id

    def close(self) -> None:
        """Close the file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def load_messages(path: Path) -> list[dict[str, str]]:
    """Return the conversation that a transcript holds, as the model should see it.

    Parameters
    ----------
    path : Path
        A transcript; a missing one is an empty conversation.

    Returns
    -------
    list of dict
        ``{"role", "content"}`` in turns: a prompt that got no answer is left out.

    Examples
    --------
    >>> load_messages(Path("/no/such/transcript.jsonl"))
    []
    """
    messages: list[dict[str, str]] = []
    waiting: str | None = None
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    for line in lines:
        try:
            record = json.loads(line)
            kind, message = record["type"], record.get("message", {})
        except (ValueError, KeyError, TypeError, AttributeError):
            continue  # a torn line
        if kind == "clear":
            messages, waiting = [], None
        elif kind == "user":
            waiting = str(message.get("content", ""))
        elif kind == "assistant" and waiting is not None:
            content = message.get("content", "")
            if isinstance(content, list):
                content = "".join(str(part.get("text", "")) for part in content)
            messages.append({"role": "user", "content": waiting})
            absent = "[interrupted]" if record.get("outcome") == "interrupted" else "[no text]"
            messages.append({"role": "assistant", "content": content or absent})
            waiting = None
    return messages
