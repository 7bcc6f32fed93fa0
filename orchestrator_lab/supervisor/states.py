"""The published state of an agent, decided in one place from what is known."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Facts", "decide", "deciding"]


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
    shown : str or None
        The screen rule by which its screen shows work that nothing reports.
    hidden : str or None
        Why an input line that is always in sight is not.
    ages : mapping of str to float
        For how long each fact holds, in seconds, by its name here; ``terminal``: since the pane was last written to.
    """

    running: bool
    ready: str | None = None
    dialog: str | None = None
    turn: str | None = None
    composing: bool = False
    doubt: str | None = None
    failed: bool = False
    limited: str | None = None
    shown: str | None = None
    hidden: str | None = None
    ages: Mapping[str, float] = field(default_factory=dict)

    def votes(self) -> list[dict[str, Any]]:
        """Return what each fact says, with its source and its age, for the journal.

        Examples
        --------
        >>> Facts(running=True, ready="hook", ages={"ready": 2.0}).votes()[1]
        {'fact': 'ready', 'source': 'hook', 'says': 'idle', 'age_s': 2.0}
        """
        said: list[tuple[str, str | None, str]] = [("running", "process", "alive" if self.running else "gone")]
        said.append(("ready", self.ready, "idle"))
        said.append(("dialog", self.dialog, "waiting"))
        said.append(("turn", self.turn, "busy"))
        said.append(("composing", "terminal" if self.composing else None, "busy"))
        said.append(("limited", self.limited, "limited"))
        said.append(("shown", "screen" if self.shown else None, f"busy: {self.shown}"))
        said.append(("doubt", "screen" if self.doubt else None, f"unknown: {self.doubt}"))
        said.append(("hidden", "screen" if self.hidden else None, f"unknown: {self.hidden}"))
        said.append(("terminal", "terminal" if "terminal" in self.ages else None, "written to"))
        found: list[dict[str, Any]] = []
        for fact, source, says in said:
            if source is not None:
                age = self.ages.get(fact)
                vote = {"fact": fact, "source": source, "says": says}
                found.append(vote if age is None else {**vote, "age_s": round(age, 3)})
        return found


def deciding(facts: Facts) -> tuple[str, str, str]:
    """Return an agent's state, the source that decides it, and the fact.

    Parameters
    ----------
    facts : Facts
        What is known.

    Returns
    -------
    tuple of str
        One of the states of the schema, a source, and the name of one of the facts.

    Examples
    --------
    >>> deciding(Facts(running=True, ready="hook", turn="hook"))
    ('busy', 'hook', 'turn')
    """
    if not facts.running:
        return ("failed" if facts.failed else "exited"), "process", "running"
    if facts.dialog:
        return "waiting", facts.dialog, "dialog"
    if not facts.ready:
        return "starting", "process", "running"
    if facts.turn:
        return "busy", facts.turn, "turn"
    if facts.composing:
        return "busy", "terminal", "composing"
    if facts.limited:
        return "limited", facts.limited, "limited"
    if facts.shown:
        return "busy", "screen", "shown"
    if facts.doubt:
        return "unknown", "screen", "doubt"
    if facts.hidden:
        return "unknown", "screen", "hidden"
    return "idle", facts.ready, "ready"


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
    return deciding(facts)[:2]
