"""What a check finds, and what of it can be taken away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding", "Leftover", "Level"]

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something that a dead cluster left behind and that :func:`repair` can take away.

    Parameters
    ----------
    kind : {"folder", "process", "agents"}
        What it is; ``agents`` are the processes of a dead cluster's agents, all of them.
    path : str
        The runtime folder that it is, or belongs to.
    pid : int or None
        The process.
    started : float or None
        Its :func:`~orchestrator_lab.runtime.process_start_time`: a pid alone may be someone else's by then.
    """

    kind: Literal["folder", "process", "agents"]
    path: str
    pid: int | None = None
    started: float | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found.

    Parameters
    ----------
    check : str
        What was looked at.
    level : {"ok", "warn", "fail"}
        ``fail``: clusters cannot run; ``warn``: something is missing or left behind.
    found : str
        What is there.
    advice : str
        What to do about it; empty when nothing is to be done.
    leftover : Leftover or None
        What :func:`repair` may take away.
    """

    check: str
    level: Level
    found: str
    advice: str = ""
    leftover: Leftover | None = None
