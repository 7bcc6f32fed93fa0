"""What an event of the journal says of a message, for those who show the stream of messages."""

from __future__ import annotations

from typing import Any

__all__ = ["message_news"]

#: Characters of a message that a stream shows; the whole is in ``messages_df``.
SHOWN = 4_000

#: What is a rung, or an end, of a message's way; of a repeated Enter nobody needs to hear.
_RUNGS = frozenset(
    "queued claimed written accepted started answered refused expired failed uncertain".split()  # noqa: SIM905
)


def message_news(event: dict[str, Any]) -> dict[str, Any] | None:
    """Return what is new of a message.

    Parameters
    ----------
    event : dict
        An event of the journal.

    Returns
    -------
    dict or None
        ``message_id``, ``status`` and ``at``; of a new one also ``sender``, ``recipient`` and ``content``; of one that
        failed ``error_message``. None for what is not about a message.

    Examples
    --------
    >>> message_news({"event": "message.accepted", "message_id": "msg_1", "at": "2026-01-01T00:00:00Z"})
    {'message_id': 'msg_1', 'status': 'accepted'}
    """
    name, message_id = str(event.get("event", "")), event.get("message_id")
    rung = name.removeprefix("message.")
    if message_id is None or rung == name or rung not in _RUNGS:
        return None
    facts = event.get("attributes") or {}
    news: dict[str, Any] = {"message_id": message_id, "status": rung}
    if rung == "queued":
        content = str(facts.get("content") or "")
        if len(content) > SHOWN:
            content = f"{content[:SHOWN]}\n[{len(content) - SHOWN} more characters]"
        news |= {key: facts.get(key) for key in ("sender", "recipient")}
        news |= {"content": content, "at": event.get("at")}
    elif facts.get("error_message"):
        news["error_message"] = facts["error_message"]
    return news
