"""Who acts: what the run's audit says of a call that somebody made through another program, such as a web page.

Examples
--------
>>> with acting("alice", origin="192.0.2.7"):
...     audit_headers()
{'X-Lab-By': 'alice', 'X-Lab-From': '192.0.2.7'}
>>> audit_headers()
{}
"""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Actor", "acting", "actor", "audit_headers"]

#: Characters of a name or an address that are kept.
_LONGEST = 200


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks for something, and from where.

    Parameters
    ----------
    by : str
        The user's name.
    origin : str, optional
        The address that the request came from.
    """

    by: str
    origin: str | None = None


_ACTOR: ContextVar[Actor | None] = ContextVar("orchestrator_lab_actor", default=None)


@contextlib.contextmanager
def acting(by: str, *, origin: str | None = None) -> Iterator[Actor]:
    """Name who makes the calls of a block; each is journalled, with who and from where, before it has an effect.

    Parameters
    ----------
    by : str
        The user's name.
    origin : str, optional
        The address that the request came from.

    Yields
    ------
    Actor
        The same, as a value.
    """
    made = Actor(by, origin)
    token = _ACTOR.set(made)
    try:
        yield made
    finally:
        _ACTOR.reset(token)


def actor() -> Actor | None:
    """Return who acts now, None for a program that acts for itself."""
    return _ACTOR.get()


def audit_headers() -> dict[str, str]:
    """Return the headers that tell a supervisor who acts; percent-encoded, so that no text can become a header."""
    made = _ACTOR.get()
    if made is None:
        return {}
    headers = {"X-Lab-By": quote(made.by[:_LONGEST], safe="", errors="replace")}
    if made.origin:
        headers["X-Lab-From"] = quote(made.origin[:_LONGEST], safe=":", errors="replace")
    return headers
