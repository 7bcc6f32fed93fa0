"""Agents that are busy and make no progress: seen by what their processes do, told, interrupted, started again.

Progress is anything of these: a report of the program (a hook), its own record growing, processor time of its process
tree, a process that comes or goes, and output. A spinner is output and costs processor time, and goes on turning for
as long as an answer does not come: of programs that animate (:attr:`Adapter.animates`), output counts only when it
changes the words on the screen, and processor time only above what the animation takes (:attr:`Adapter.idle_cpu`).

Each busy agent is looked at once a check; when none is busy nothing is looked at.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from orchestrator_lab.errors import OrchestratorLabError

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from orchestrator_lab.config import HangPolicy
    from orchestrator_lab.supervisor.agent import AgentRunner
    from orchestrator_lab.supervisor.core import Supervisor
    from orchestrator_lab.supervisor.turns import Turn

__all__ = ["HangWatch", "Sample", "Step", "due_step", "progress", "still_words"]

logger = logging.getLogger(__name__)

Step = Literal["alert", "interrupt", "restart"]

#: An agent is looked at this often before its first step is due.
_LOOKS = 5
#: Shortest pause between two looks, in seconds.
_SHORTEST_S = 0.1
#: What an interrupt makes the program draw is no progress: it is not looked at for so long, in seconds.
_OWN_DOING_S = 2.0

_DURATION = re.compile(r"\b(?:\d+ ?h ?)?(?:\d+ ?m ?)?\d+(?:\.\d+)? ?s\b")
#: Programs show hints while one waits, and change them.
_TIP = re.compile(r"^\W*tip\b.*$", re.IGNORECASE | re.MULTILINE)
_WORDS = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Sample:
    """What one look at a busy agent saw.

    Parameters
    ----------
    at : float
        When, on the monotonic clock.
    cpu_s : float
        Processor time of its process tree so far.
    processes : frozenset of int
        The processes of the tree.
    output : float or int
        Changes with each output that counts.
    record : tuple of int or None
        Size and change of the program's own record; None when there is none.
    reported : float
        When the program last reported anything.
    """

    at: float
    cpu_s: float = 0.0
    processes: frozenset[int] = frozenset()
    output: float = 0.0
    record: tuple[int, int] | None = None
    reported: float = 0.0


def progress(before: Sample, now: Sample, *, idle_cpu: float) -> str | None:
    """Return what shows progress between two looks.

    Parameters
    ----------
    before, now : Sample
        The looks.
    idle_cpu : float
        Share of a core up to which processor time says nothing.

    Returns
    -------
    str or None
        ``report``, ``record``, ``processes``, ``cpu`` or ``output``; None when there was no progress.

    Examples
    --------
    >>> quiet = Sample(0.0, cpu_s=1.0)
    >>> progress(quiet, Sample(5.0, cpu_s=1.02), idle_cpu=0.01) is None
    True
    >>> progress(quiet, Sample(5.0, cpu_s=3.0), idle_cpu=0.01)
    'cpu'
    """
    if now.reported != before.reported:
        return "report"
    if now.record != before.record:
        return "record"
    if now.processes != before.processes:
        return "processes"
    if now.cpu_s - before.cpu_s > idle_cpu * (now.at - before.at):
        return "cpu"
    return "output" if now.output != before.output else None


def due_step(policy: HangPolicy, quiet_s: float, done: Collection[str]) -> Step | None:
    """Return the next step that is due.

    Parameters
    ----------
    policy : HangPolicy
        The agent's.
    quiet_s : float
        Seconds without progress.
    done : collection of str
        Steps that were taken since the last progress.

    Returns
    -------
    str or None
        ``alert``, ``interrupt`` or ``restart``; one at a time, in this order.

    Examples
    --------
    >>> from orchestrator_lab.config import HangPolicy
    >>> policy = HangPolicy(alert_s=10, restart_s=30)
    >>> due_step(policy, 12.0, ()), due_step(policy, 12.0, {"alert"}), due_step(policy, 40.0, {"alert"})
    ('alert', None, 'restart')
    """
    steps: tuple[tuple[Step, float | None], ...] = (
        ("alert", policy.alert_s),
        ("interrupt", policy.interrupt_s),
        ("restart", policy.restart_s),
    )
    return next((step for step, at in steps if at is not None and quiet_s >= at and step not in done), None)


def still_words(screen: str) -> str:
    """Return what is left of a screen without that which moves while nothing happens.

    Parameters
    ----------
    screen : str
        Its text.

    Returns
    -------
    str
        Words and figures, without durations, tips and signs.

    Examples
    --------
    >>> still_words("✻ Thinking… (12s · ↓ 80 tokens)") == still_words("✶ Thinking… (1m 3s · ↓ 80 tokens)")
    True
    >>> still_words("✻ Thinking… (↓ 80 tokens)") == still_words("✻ Thinking… (↓ 90 tokens)")
    False
    """
    return " ".join(_WORDS.findall(_DURATION.sub(" ", _TIP.sub("", screen))))


@dataclass(frozen=True, slots=True)
class _Tree:
    """The processes of one agent at one moment, and the processor time that they and their reaped children took."""

    at: float
    cpu_s: float
    processes: frozenset[int]


@dataclass(slots=True)
class _Watched:
    """One busy agent: its turn, the last look, when it last made progress, and what was done about it."""

    turn: Turn
    last: Sample
    since: float
    done: set[str] = field(default_factory=set)
    #: Until then what it draws may be our own doing.
    blind_until: float = 0.0
    #: The pane's last output that was looked at, and a count of those that counted.
    drawn: float = 0.0
    words: str = ""
    outputs: int = 0


class HangWatch:
    """Looks after the busy agents of a cluster.

    Parameters
    ----------
    supervisor : Supervisor
        The cluster.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self._cluster = supervisor
        self._watched: dict[str, _Watched] = {}
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begin to look."""
        self._task = asyncio.create_task(self._run(), name="hangs")

    def close(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        while True:
            # A turn may be over before this runs again: what was watched is forgotten then, busy or not.
            await self._cluster.ledger.until(lambda: bool(self._busy() or self._left()), None)
            self._forget_left()
            await asyncio.sleep(min((self._every_s(one) for one in self._busy()), default=0.0))
            self._forget_left()
            try:
                busy = self._busy()
                trees = await asyncio.to_thread(_trees, [one.pid for one in busy])
                for runner, tree in zip(busy, trees, strict=True):
                    await self._look(runner, tree)
            except OrchestratorLabError as error:
                logger.warning("busy agents were not looked at: %s", error)
            except Exception:
                logger.exception("busy agents were not looked at")

    def _busy(self) -> list[AgentRunner]:
        """Return the agents that work, and should show it."""
        return [
            one
            for one in self._cluster.runners.values()
            if one.turn is not None
            and one.running
            and not one.stopping
            and one.dialog is None
            and self._first_s(one) is not None
        ]

    def _left(self) -> list[str]:
        """Return the names of those that were watched and are busy no more."""
        busy = {one.name for one in self._busy()}
        return [name for name in self._watched if name not in busy]

    def _forget_left(self) -> None:
        for name in self._left():
            self._over(name)

    def _first_s(self, runner: AgentRunner) -> float | None:
        policy = self._cluster.config.hang_of(runner.config)
        given = [one for one in (policy.alert_s, policy.interrupt_s, policy.restart_s) if one is not None]
        return min(given, default=None)

    def _every_s(self, runner: AgentRunner) -> float:
        first_s = self._first_s(runner)
        check_s = self._cluster.config.alerts.check_s
        return check_s if first_s is None else max(_SHORTEST_S, min(check_s, first_s / _LOOKS))

    async def _look(self, runner: AgentRunner, tree: _Tree) -> None:
        turn = runner.turn
        known = self._watched.get(runner.name)
        if turn is None:
            return
        if known is None or known.turn is not turn:
            self._over(runner.name)
            now = time.monotonic()
            known = self._watched[runner.name] = _Watched(turn, Sample(now), now)
            known.last = await self._sample(runner, known, tree)
            return
        if time.monotonic() < known.blind_until:
            return
        sample = await self._sample(runner, known, tree)
        if runner.turn is not turn or runner.dialog is not None:
            return
        before, known.last = known.last, sample
        if known.blind_until:
            known.blind_until = 0.0
        elif (what := progress(before, sample, idle_cpu=runner.adapter.idle_cpu)) is not None:
            logger.debug("%s: progress by %s", runner.name, what)
            known.since = sample.at
            known.done.clear()
            self._cluster.alerts.resolve("hung", agent=runner.name)
            return
        quiet_s = sample.at - known.since
        step = due_step(self._cluster.config.hang_of(runner.config), quiet_s, known.done)
        if step is not None:
            known.done.add(step)
            self._take(runner, known, step, quiet_s)

    def _take(self, runner: AgentRunner, known: _Watched, step: Step, quiet_s: float) -> None:
        """Journal a step, and take it."""
        cluster = self._cluster
        cluster.journal.append(
            "agent.hung",
            agent=runner.name,
            turn_id=known.turn.turn_id,
            level="warning",
            source="process",
            quiet_s=round(quiet_s, 3),
            step=step,
        )
        if step == "alert":
            cluster.alerts.open(
                "hung",
                f"agent {runner.name!r} is busy and has made no progress for {quiet_s:.0f} s: no processor time, no "
                "output, no new record",
                level="warning",
                agent=runner.name,
                quiet_s=round(quiet_s, 3),
                turn_id=known.turn.turn_id,
            )
        elif step == "interrupt":
            known.blind_until = time.monotonic() + _OWN_DOING_S
            cluster.background(cluster.lifecycle.interrupt(runner.name, source="policy"))
        else:
            cluster.background(cluster.lifecycle.end_hung(runner))

    def _over(self, name: str) -> None:
        """Forget an agent whose turn has ended, or that waits for a person."""
        if self._watched.pop(name, None) is not None:
            self._cluster.alerts.resolve("hung", agent=name)

    async def _sample(self, runner: AgentRunner, known: _Watched, tree: _Tree) -> Sample:
        drawn = runner.last_activity
        if drawn != known.drawn:
            known.drawn = drawn
            if runner.adapter.animates:
                words = still_words(await self._cluster.screen(runner))
                known.outputs += words != known.words
                known.words = words
            else:
                known.outputs += 1
        record = _size(runner.transcript)
        return Sample(tree.at, tree.cpu_s, tree.processes, known.outputs, record, runner.last_report)


def _trees(roots: list[int | None]) -> list[_Tree]:
    """Look at all processes once; return the tree below each of some."""
    import psutil

    at = time.monotonic()
    children: dict[int, list[int]] = {}
    spent: dict[int, float] = {}
    for process in psutil.process_iter(["ppid", "cpu_times"]):
        facts = process.info
        if facts["ppid"] is not None and facts["cpu_times"] is not None:
            children.setdefault(facts["ppid"], []).append(process.pid)
            spent[process.pid] = sum(facts["cpu_times"][:4])
    found = []
    for root in roots:
        below = [] if root is None else [root]
        for pid in below:
            below += children.get(pid, ())
        found.append(_Tree(at, sum(spent.get(pid, 0.0) for pid in below), frozenset(below)))
    return found


def _size(path: Path | None) -> tuple[int, int] | None:
    if path is None:
        return None
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_size, facts.st_mtime_ns
