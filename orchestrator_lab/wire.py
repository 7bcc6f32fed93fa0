"""The least of HTTP that a client needs on the supervisor's unix socket: one request, one answer, a kept connection."""

from __future__ import annotations

import http.client
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Wire", "read_head"]

#: Seconds for a connection: the keeper holds the socket even while its supervisor restarts.
_CONNECT_S = 5.0
_CHUNK = 1 << 16
_LONGEST_HEAD = 1 << 16


class Wire:
    """A connection to a supervisor: a tenth of a general library's time for each call.

    Parameters
    ----------
    place : Path
        The socket.
    """

    def __init__(self, place: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(_CONNECT_S)
        try:
            self._socket.connect(str(place))
        except BaseException:
            self._socket.close()
            raise

    def exchange(
        self,
        method: str,
        target: str,
        payload: bytes | None,
        timeout_s: float | None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes, bool]:
        """Make one request.

        Parameters
        ----------
        method, target : str
            As in HTTP's first line.
        payload : bytes or None
            The body, JSON.
        timeout_s : float or None
            How long an answer may take; None is without end.
        headers : mapping of str to str, optional
            More of them; values of plain ASCII on one line.

        Returns
        -------
        tuple of (int, bytes, bool)
            The answer's status and body, and whether the connection may be used again.

        Raises
        ------
        OSError
            When there is no answer, or it breaks off.
        http.client.HTTPException
            When it is none of a supervisor's.
        """
        head = f"{method} {target} HTTP/1.1\r\nHost: supervisor\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        if payload is not None:
            head += f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n"
        self._socket.settimeout(timeout_s)
        self._socket.sendall(head.encode("ascii") + b"\r\n" + (payload or b""))
        got = b""
        while b"\r\n\r\n" not in got:
            if len(got) > _LONGEST_HEAD:
                raise http.client.LineTooLong("the answer's head")
            got += self._more()
        raw, _, body = got.partition(b"\r\n\r\n")
        status, length, stays = read_head(raw)
        parts, have = [body], len(body)
        while length is None or have < length:
            try:
                parts.append(self._more())
            except ConnectionError:
                if length is None:
                    break
                raise
            have += len(parts[-1])
        return status, b"".join(parts), stays and length is not None

    def _more(self) -> bytes:
        piece = self._socket.recv(_CHUNK)
        if not piece:
            raise ConnectionResetError("the supervisor closed the connection")
        return piece

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


def read_head(raw: bytes) -> tuple[int, int | None, bool]:
    r"""Read the head of an answer.

    Parameters
    ----------
    raw : bytes
        Its lines, without the empty one.

    Returns
    -------
    tuple of (int, int or None, bool)
        Status; length of the body, None when it ends with the connection; whether the connection stays.

    Raises
    ------
    http.client.HTTPException
        When it is no head of HTTP.

    Examples
    --------
    >>> read_head(b"HTTP/1.1 200 OK\r\nContent-Length: 5")
    (200, 5, True)
    """
    first, *lines = raw.split(b"\r\n")
    words = first.split(b" ", 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        raise http.client.BadStatusLine(repr(first[:80]))
    length, stays = None, True
    for line in lines:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length" and value.strip().isdigit():
            length = int(value)
        elif name.lower() == b"connection":
            stays = value.strip().lower() != b"close"
    return int(words[1]), length, stays
