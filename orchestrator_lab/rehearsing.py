"""A recorded run, replayed by itself: what somebody did from outside is done again, in its order."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable  # noqa: TC003 - a field of a NamedTuple
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from orchestrator_lab.apart import apart
from orchestrator_lab.cluster import Cluster
from orchestrator_lab.config import add_agent
from orchestrator_lab.errors import (
    AgentFailed,
    AgentNotFound,
    ClusterNotFound,
    ClusterStopped,
    GuardNotFound,
    SupervisorLost,
)
from orchestrator_lab.journal.causes import causes
from orchestrator_lab.modes import recorded_run
from orchestrator_lab.run import open_run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Executor, Future
    from pathlib import Path

    from orchestrator_lab.journal.causes import Cause
    from orchestrator_lab.journal.event import Event
    from orchestrator_lab.modes import Recorded
    from orchestrator_lab.run import Run

__all__ = ["TABLES", "Act", "Rehearsal", "acts", "rehearse", "same_table"]

#: Reasons of ends that concern all agents at once, by the event that says so.
_AT_ONCE = {"cluster.stopped": "stop", "cluster.restarted": "restart"}


class Act(NamedTuple):
    """Something that was done from outside.

    Parameters
    ----------
    words : str
        What, for people.
    again : callable
        Does it to a cluster that replays.
    lasts : bool
        Whether it is over only when something else has happened, and others do something meanwhile.
    """

    words: str
    again: Callable[[Cluster], object]
    lasts: bool = False


def acts(source: Recorded, events: list[Event]) -> Iterator[Act]:
    """Yield what somebody did from outside in a recorded run.

    Parameters
    ----------
    source : Recorded
        The run.
    events : list of Event
        All of it.

    Yields
    ------
    Act
        In their order.
    """
    openings = {
        one.attributes.get("conversation_id"): one
        for one in events
        if one.event == "message.queued" and one.attributes.get("step") == 0
    }
    by = causes(events)
    done = _at_once(events, by)
    for place, (event, cause) in enumerate(zip(events, by, strict=True)):
        facts, agent = event.attributes, str(event.agent)
        if place in done:
            yield from done[place]
        elif cause != "user":
            continue
        elif event.event == "message.queued":
            yield Act(f"write to {agent}", _sending(event))
        elif event.event == "conversation.started":
            opening = openings.get(facts.get("conversation_id"))
            if opening is not None:
                yield Act(f"let {' and '.join(facts['agents'])} talk", _conversing(event, opening))
        elif event.event == "dialog.answering":
            yield Act(f"answer {agent}", _answering(agent, str(facts.get("dialog_id")), str(facts.get("option"))), True)
        elif event.event == "note":
            yield Act(f"interrupt {agent}", _calling(agent, "interrupt"), True)
        elif event.event == "agent.added":
            names = _joined(events, place)
            done.update({one: [] for one in names})
            agents = [source.joined(name) for name in names.values()]
            yield Act(f"add {' and '.join(names.values())}", _adding(agents), True)
        elif event.event == "guard.lifted":
            yield Act(f"lift a guard ({facts.get('rule')})", _lifting(event))
        elif event.event == "agent.started":
            yield Act(f"restart {agent}", _calling(agent, "restart"), True)
        elif event.event == "agent.removed":
            yield Act(f"remove {agent}", _calling(agent, "remove"), True)
        elif facts.get("reason") in {"stop", "restart", "remove"}:
            yield Act(f"{facts['reason']} {agent}", _calling(agent, str(facts["reason"])), True)


def _at_once(events: list[Event], by: list[Cause]) -> dict[int, list[Act]]:
    """Return what was done to all agents at once, by the place of its first event; nothing at those of its others."""
    found: dict[int, list[Act]] = {}
    for place, event in enumerate(events):
        reason = _AT_ONCE.get(event.event)
        if reason is None:
            continue
        mine = [place]
        for before in range(place - 1, -1, -1):
            one = events[before]
            if one.event == "agent.stopping" and one.attributes.get("reason") == reason:
                mine.append(before)
            elif by[before] == "user" or (one.event == "agent.exited" and len(mine) > 1):
                break  # all that are ended at once are told of before the first one ends
        found.update({one: [] for one in mine})
        found[min(mine)] = [Act(f"{reason} all agents", _ending_all(reason), True)]
    return found


def _joined(events: list[Event], place: int) -> dict[int, str]:
    """Return the places and names of the agents that joined together: the first one starts when all are named."""
    found: dict[int, str] = {}
    for later in range(place, len(events)):
        if events[later].event == "agent.added":
            found[later] = str(events[later].agent)
        elif events[later].event == "agent.started" and events[later].agent in found.values():
            break
    return found


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
    found = list(acts(source, events))
    with (
        apart(),
        ThreadPoolExecutor(max(1, sum(act.lasts for act in found)), "acts") as beside,
        Cluster.start(mode=mode, run=source.path, level="terminal", speed=speed) as cluster,
    ):
        # It ends where it ended then, and not before all has happened.
        cluster.client.patient = True
        try:
            _play(found, cluster, beside, on_act)
        except BaseException:
            cluster.client.patient = False
            raise
    recorded, again = open_run(source.path), open_run(cluster.run_dir)
    return Rehearsal(
        recorded,
        again,
        {name: same_table(recorded, again, name) for name in TABLES},
        [str(one.attributes.get("message")) for one in again.events() if one.event == "replay.divergence"],
        time.monotonic() - began,
        events[-1].monotonic_s,
    )


def _play(found: list[Act], cluster: Cluster, beside: Executor, on_act: Callable[[str], None] | None) -> None:
    """Do everything again in its order, each when its turn has come, and end the cluster."""
    lasting: list[Future[None]] = []
    for act in found:
        if on_act is not None:
            on_act(act.words)
        if act.lasts:
            lasting.append(beside.submit(_do, act, cluster))
        else:
            _do(act, cluster)
        for one in lasting:
            if one.done():
                one.result()
    cluster.shutdown()
    for one in lasting:
        with contextlib.suppress(ClusterNotFound, SupervisorLost):  # the end came upon it, as it did then
            one.result()


def _do(act: Act, cluster: Cluster) -> None:
    """Do something again; what did not succeed then does not succeed now, and the tables tell of what does not."""
    with contextlib.suppress(AgentFailed, AgentNotFound, ClusterStopped, GuardNotFound):
        act.again(cluster)


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


def _lifting(event: Event) -> Callable[[Cluster], object]:
    facts = {key: event.attributes.get(key) for key in ("by", "limit", "allowance")}
    guard_id = str(event.attributes.get("guard_id"))
    return lambda cluster: cluster.lift(guard_id, **facts)  # type: ignore[arg-type]


def _ending_all(reason: str) -> Callable[[Cluster], object]:
    return lambda cluster: cluster.restart() if reason == "restart" else cluster.stop()


def _adding(agents: list[dict[str, Any]]) -> Callable[[Cluster], object]:
    def add(cluster: Cluster) -> object:
        others = [one for one in cluster.config.agents if one.name not in {agent["name"] for agent in agents}]
        config = cluster.config.model_copy(update={"agents": others})
        for agent in agents:
            config = add_agent(config, agent)
        new = [one.model_dump(mode="json", by_alias=True) for one in config.agents[len(others) :]]
        return cluster.client.post("/agents", {"agents": new})

    return add


def _calling(agent: str, what: str) -> Callable[[Cluster], object]:
    """Return what is done to an agent: it need not be there before its turn."""
    if what == "remove":
        return lambda cluster: cluster.client.delete(f"/agents/{agent}")
    return lambda cluster: cluster.client.post(f"/agents/{agent}/{what}", {}, timeout_s=None)
