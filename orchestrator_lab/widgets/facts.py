"""What the controls show of a cluster, as values: made from its status, compared before anything is drawn again."""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from typing import Any

__all__ = ["AgentFact", "AlertFact", "DialogFact", "Facts", "GuardFact", "coloured", "counted", "shortened"]

#: Legible on light and on dark pages. The word beside it says the same.
_COLOURS = {
    "idle": "#2e9e5b",
    "busy": "#c27c0e",
    "starting": "#2b8ab8",
    "waiting": "#b0479e",
    "limited": "#b0479e",
    "failed": "#d64545",
    "exited": "#888888",
    "unknown": "#888888",
    "critical": "#d64545",
    "error": "#d64545",
    "warning": "#c27c0e",
    "info": "#2b8ab8",
    "running": "#2e9e5b",
}


@dataclass(frozen=True, slots=True)
class AgentFact:
    """One agent: its name and published state."""

    name: str
    state: str

    @property
    def working(self) -> bool:
        """Whether there is a turn to interrupt."""
        return self.state in {"busy", "waiting"}


@dataclass(frozen=True, slots=True)
class DialogFact:
    """A question that an agent's program asks its user."""

    dialog_id: str
    agent: str
    kind: str
    subject: str
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AlertFact:
    """An open alert."""

    alert_id: str
    level: str
    message: str
    acknowledged: bool


@dataclass(frozen=True, slots=True)
class GuardFact:
    """A guard that holds delivery; `until` is the instant at which it ends by itself."""

    guard_id: str
    message: str
    until: str | None


@dataclass(frozen=True, slots=True)
class Facts:
    """All that the controls show of a cluster at one moment; `events` tells an older one from a newer one."""

    status: str
    agents: tuple[AgentFact, ...] = ()
    dialogs: tuple[DialogFact, ...] = ()
    alerts: tuple[AlertFact, ...] = ()
    guards: tuple[GuardFact, ...] = ()
    events: int = field(default=0, compare=False)

    @classmethod
    def of(cls, status: dict[str, Any]) -> Facts:
        """Return the facts in a supervisor's status.

        Examples
        --------
        >>> Facts.of({"status": "running", "agents": [{"name": "ada", "state": "idle", "dialog": None}]}).names
        ('ada',)
        """
        agents = status.get("agents", [])
        return cls(
            str(status.get("status", "unknown")),
            tuple(AgentFact(str(one["name"]), str(one["state"])) for one in agents),
            tuple(
                DialogFact(
                    str(asked["dialog_id"]),
                    str(one["name"]),
                    str(asked["kind"]),
                    str(asked["subject"] or ""),
                    tuple(map(str, asked["options"])),
                )
                for one in agents
                if (asked := one.get("dialog")) is not None
            ),
            tuple(
                AlertFact(str(one["alert_id"]), str(one["level"]), str(one["message"]), bool(one["acknowledged_at"]))
                for one in status.get("alerts", [])
            ),
            tuple(
                GuardFact(str(one["guard_id"]), str(one["message"]), one.get("until"))
                for one in status.get("guards", [])
            ),
            int(status.get("events", 0)),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the agents, in the order of the configuration."""
        return tuple(one.name for one in self.agents)


def coloured(word: str, text: str | None = None) -> str:
    """Return a state or a level as HTML: a coloured dot, and the word, which says the same.

    Examples
    --------
    >>> coloured("idle")
    '<span style="white-space:nowrap"><span aria-hidden="true" style="color:#2e9e5b">●</span> idle</span>'
    """
    said = html.escape(word if text is None else text)
    colour = _COLOURS.get(word, "#888888")
    return f'<span style="white-space:nowrap"><span aria-hidden="true" style="color:{colour}">●</span> {said}</span>'


def counted(facts: Facts) -> str:
    """Return how many agents are in which state, as a sentence's part.

    Examples
    --------
    >>> counted(Facts("running", (AgentFact("a", "idle"), AgentFact("b", "busy"), AgentFact("c", "idle"))))
    '2 idle, 1 busy'
    """
    states: dict[str, int] = {}
    for one in facts.agents:
        states[one.state] = states.get(one.state, 0) + 1
    return ", ".join(f"{count} {state}" for state, count in states.items()) or "no agents"


def shortened(text: str, length: int) -> str:
    r"""Return a text on one line, cut with an ellipsis.

    Examples
    --------
    >>> shortened("two\nlines of text", 12)
    'two lines o…'
    """
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 1]}…"
