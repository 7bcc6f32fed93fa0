"""The published state of an agent, decided in one place from what is known."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Facts", "decide"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of an agent at one moment; each fact carries where it comes from.

    Parameters
    ----------
    running : bool
        Its process lives (source: process).
    ready : str or None
        Source that said it takes input; None before.
    dialog : str or None
        Source of an open dialog.
    turn : str or None
        Source of a turn in progress.
    composing : bool
        The lab is writing to it now.
    doubt : str or None
        Why its input line cannot be relied on.
    failed : bool
        It never became ready, or ended by itself.
    limited : str or None
        Source that said that its account's usage limit is reached.
    """

    running: bool
    ready: str | None = None
    dialog: str | None = None
    turn: str | None = None
    composing: bool = False
    doubt: str | None = None
    failed: bool = False
    limited: str | None = None

    def votes(self) -> dict[str, str]:
        """Return what each source says, for the journal."""
        votes = {"process": "alive" if self.running else "gone"}
        if self.ready:
            votes[self.ready] = "ready"
        if self.turn:
            votes[self.turn] = "busy"
        if self.dialog:
            votes[self.dialog] = "waiting"
        if self.limited:
            votes[self.limited] = "limited"
        if self.doubt:
            votes["doubt"] = self.doubt
        return votes


def decide(facts: Facts) -> tuple[str, str]:
    """Return an agent's state and the source that decides it.

    Parameters
    ----------
    facts : Facts
        What is known.

    Returns
    -------
    tuple of str
        One of the states of the schema, and a source. What is not known is ``unknown``, never ``idle``.

    Examples
    --------
    >>> decide(Facts(running=True, ready="hook"))
    ('idle', 'hook')
    >>> decide(Facts(running=True, ready="hook", turn="hook", dialog="screen"))
    ('waiting', 'screen')
    """
    if not facts.running:
        return ("failed" if facts.failed else "exited"), "process"
    if facts.dialog:
        return "waiting", facts.dialog
    if not facts.ready:
        return "starting", "process"
    if facts.turn:
        return "busy", facts.turn
    if facts.composing:
        return "busy", "terminal"
    if facts.limited:
        return "limited", facts.limited
    if facts.doubt:
        return "unknown", "screen"
    return "idle", facts.ready
