"""A recorded run, replayed by itself: what somebody did from outside is done again, in its order."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator_lab.apart import apart
from orchestrator_lab.cluster import Cluster
from orchestrator_lab.config import USER
from orchestrator_lab.errors import ConfigError
from orchestrator_lab.modes import recorded_run
from orchestrator_lab.run import open_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from orchestrator_lab.journal.event import Event
    from orchestrator_lab.run import Run

__all__ = ["TABLES", "Act", "Rehearsal", "acts", "rehearse", "same_table"]

#: Something that was done from outside, and what the cluster is asked for to do it again.
Act = tuple[str, "Callable[[Cluster], object]"]


def acts(events: list[Event]) -> Iterator[Act]:
    """Yield what somebody did from outside in a recorded run.

    Parameters
    ----------
    events : list of Event
        All of the run.

    Yields
    ------
    tuple of str and callable
        In words, and what does it again to a cluster that replays.
    """
    claimed = {one.message_id for one in events if one.event == "message.claimed"}
    accepted = {one.message_id for one in events if one.event == "message.accepted"}
    openings = {
        one.attributes.get("conversation_id"): one
        for one in events
        if one.event == "message.queued" and one.attributes.get("step") == 0
    }
    called_for: set[str] = set()
    for event in events:
        facts, agent = event.attributes, str(event.agent)
        if event.event in {"agent.restarting", "agent.stopping", "agent.added"}:
            called_for.add(agent)
        if event.event == "agent.started":
            if agent not in called_for:
                yield f"restart {agent}", _ending(agent, "restart")
            called_for.discard(agent)
        if event.event == "message.queued" and facts.get("sender") == USER and facts.get("step") is None:
            if event.source == "human" and event.message_id in accepted - claimed:
                continue  # typed at the pane: the player does it
            yield f"write to {agent}", _sending(event)
        elif event.event == "conversation.started":
            opening = openings.get(facts.get("conversation_id"))
            if opening is not None:
                yield f"let {' and '.join(facts['agents'])} talk", _conversing(event, opening)
        elif event.event == "dialog.answering" and facts.get("answered_by") == "human":
            yield f"answer {agent}", _answering(agent, str(facts.get("dialog_id")), str(facts.get("option")))
        elif event.event == "note" and facts.get("text") == "interrupted" and event.source == "human":
            yield f"interrupt {agent}", lambda cluster, name=agent: cluster[name].interrupt()  # type: ignore[misc]
        elif event.event == "agent.stopping" and facts.get("reason") in {"stop", "restart", "remove"}:
            yield f"{facts['reason']} {agent}", _ending(agent, str(facts["reason"]))


#: What somebody did from outside and is not done again.
_NOT_DONE = {
    "guard.lifted": "a guard was lifted",
    "cluster.stopped": "all its agents were stopped at once",
    "cluster.restarted": "all its agents were restarted at once",
}
#: Tables that a replay on the terminal derives anew, and which are to be the same.
TABLES = ("messages", "turns", "tool_calls", "dialogs", "states")


@dataclass(frozen=True)
class Rehearsal:
    """What became of a replay from beginning to end.

    Parameters
    ----------
    recorded, run : Run
        The run that was replayed, and the one that replayed it.
    tables : dict
        By name of a table: whether it is the same, but for the run's id.
    divergences : list of str
        What differed, in sentences, in their order.
    took_s, recorded_s : float
        How long it took, start and end included, and how long the recorded run did, in seconds.
    """

    recorded: Run
    run: Run
    tables: dict[str, bool]
    divergences: list[str]
    took_s: float
    recorded_s: float

    @property
    def same(self) -> bool:
        """Whether all came out as it was recorded."""
        return all(self.tables.values()) and not self.divergences


def rehearse(
    run: str | Path | Run,
    *,
    mode: str = "replay",
    speed: float | str | None = None,
    on_act: Callable[[str], None] | None = None,
) -> Rehearsal:
    """Replay a run on its terminals from its beginning to its end, by itself, apart from other clusters.

    Parameters
    ----------
    run : path-like or Run
        A run; its folder, its bundle, its id, or ``last``.
    mode : {"replay", "replay_strict"}
        Whether it goes on where something differs.
    speed : float or ``"max"``, optional
        How many times faster than then.
    on_act : callable, optional
        Told of what is done from outside, before it is done.

    Returns
    -------
    Rehearsal
        The run that replayed it, and whether its tables are those of the recorded one.

    Raises
    ------
    ConfigError, RunNotFound, ReplayDiverged
        When it cannot be replayed, or a strict replay came to a difference.

    Examples
    --------
    >>> rehearse("night.olab.zip").same  # doctest: +SKIP
    True
    """
    began = time.monotonic()
    source = recorded_run(run, "terminal", speed)
    events = source.events()
    beyond = _beyond(events)
    if beyond is not None:
        raise ConfigError(
            f"run {source.run_id} cannot be replayed by itself: {beyond}; start its replay with start --run, and do "
            "what was done from outside"
        )
    with apart(), Cluster.start(mode=mode, run=source.path, level="terminal", speed=speed) as cluster:
        for words, act in acts(events):
            if on_act is not None:
                on_act(words)
            act(cluster)
        # It ends where it ended then, and not before all has happened.
        cluster.client.post("/shutdown", {"status": "completed", "patient": True}, timeout_s=None)
    recorded, again = open_run(source.path), open_run(cluster.run_dir)
    return Rehearsal(
        recorded,
        again,
        {name: same_table(recorded, again, name) for name in TABLES},
        [str(one.attributes.get("message")) for one in again.events() if one.event == "replay.divergence"],
        time.monotonic() - began,
        events[-1].monotonic_s,
    )


def _beyond(events: list[Event]) -> str | None:
    """Return what was done from outside that is not done again by itself."""
    running = False
    for event in events:
        running = running or event.event == "agent.started"
        if event.event == "agent.added" and running:
            return f"agent {event.agent!r} joined in the middle"
        if event.event in _NOT_DONE:
            return _NOT_DONE[event.event]
    return None


def same_table(recorded: Run, again: Run, name: str) -> bool:
    """Tell whether a table of two runs is the same, but for their ids.

    Parameters
    ----------
    recorded, again : Run
        Two runs.
    name : str
        Of the table.
    """
    mine, theirs = (getattr(one, name).drop(columns="run_id") for one in (recorded, again))
    return bool(mine.equals(theirs))


def _sending(event: Event) -> Callable[[Cluster], object]:
    facts = event.attributes

    def send(cluster: Cluster) -> object:
        return cluster.send(
            [str(event.agent)],
            str(facts.get("content")),
            when=str(facts.get("when") or "idle"),
            in_reply_to=facts.get("in_reply_to"),
            expires=facts.get("expires_s"),
            source="human" if event.source == "human" else "program",
            broadcast=facts.get("kind") == "broadcast",
        )

    return send


def _conversing(event: Event, opening: Event) -> Callable[[Cluster], object]:
    facts = event.attributes
    return lambda cluster: cluster.converse(facts["agents"], opening.attributes["content"], rounds=facts["rounds"])


def _answering(agent: str, dialog_id: str, option: str) -> Callable[[Cluster], object]:
    def answer(cluster: Cluster) -> object:
        path = f"/agents/{agent}/dialog"
        return cluster.client.post(path, {"dialog_id": dialog_id, "option": option}, timeout_s=None)

    return answer


def _ending(agent: str, reason: str) -> Callable[[Cluster], object]:
    def end(cluster: Cluster) -> Any:  # noqa: ANN401 - nothing
        if reason == "remove":
            cluster.remove(agent)
        elif reason == "restart":
            cluster[agent].restart()
        else:
            cluster[agent].stop()

    return end
