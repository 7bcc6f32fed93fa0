"""Turns in progress."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator_lab.agents.base import TurnEnded

__all__ = ["Turn"]


@dataclass(slots=True, eq=False)
class Turn:
    """What one agent does between an accepted prompt and its end.

    Parameters
    ----------
    turn_id : str
        Identity.
    prompt : str or None
        The prompt as the program took it.
    prompt_id : str or None
        The program's own id of it, where it has one.
    message_ids : list of str
        Messages that it answers.
    source : str
        What said that it began.
    """

    turn_id: str
    prompt: str | None
    prompt_id: str | None
    message_ids: list[str]
    source: str
    hop: int = 0
    conversation_id: str | None = None
    first_output: bool = False
    tools: set[str] = field(default_factory=set)
    began_at: float = field(default_factory=time.time)
    reply: str | None = None
    #: Where the journal tells of its end.
    place: int = -1
    #: How it ended, for texts that are found to belong to it afterwards.
    ended: TurnEnded | None = None
    interrupted: bool = False
