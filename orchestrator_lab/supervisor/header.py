"""The first line of a message from another agent: who sent it, and under which id it may be answered."""

from __future__ import annotations

import re

__all__ = ["header_line", "split_header"]

_HEADER = re.compile(r"^From (?P<sender>[A-Za-z][A-Za-z0-9_-]{0,31}) \((?P<message_id>msg_[0-9a-z]+)\):\n")


def header_line(sender: str, message_id: str) -> str:
    """Return the line that is typed above a message's content.

    Parameters
    ----------
    sender : str
        Name of the agent, as the supervisor knows it.
    message_id : str
        What the recipient gives as ``in_reply_to``.

    Returns
    -------
    str
        One line without its newline.

    Examples
    --------
    >>> header_line("boss", "msg_01k")
    'From boss (msg_01k):'
    """
    return f"From {sender} ({message_id}):"


def split_header(text: str) -> tuple[dict[str, str], str]:
    r"""Take the header line off a prompt.

    Parameters
    ----------
    text : str
        A prompt as a program took it.

    Returns
    -------
    tuple of (dict, str)
        ``{"sender", "message_id"}`` and the body; an empty dict and the text when there is no header.

    Examples
    --------
    >>> split_header("From boss (msg_01k):\nhello")
    ({'sender': 'boss', 'message_id': 'msg_01k'}, 'hello')
    """
    found = _HEADER.match(text)
    return ({}, text) if found is None else (found.groupdict(), text[found.end() :])
