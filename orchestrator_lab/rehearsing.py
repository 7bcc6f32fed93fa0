"""A recorded run, replayed by itself: what somebody did from outside is done again, in its order."""

from __future__ import annotations

import logging
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from orchestrator_lab.apart import apart
from orchestrator_lab.cluster import Cluster
from orchestrator_lab.config import ClusterConfig, add_agent
from orchestrator_lab.errors import OrchestratorLabError, ReplayDiverged
from orchestrator_lab.journal.causes import causes
from orchestrator_lab.modes import recorded_run
from orchestrator_lab.run import open_run
from orchestrator_lab.schema import new_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Executor, Future
    from pathlib import Path

    from orchestrator_lab.client import Client
    from orchestrator_lab.journal.event import Event
    from orchestrator_lab.modes import Recorded
    from orchestrator_lab.run import Run

__all__ = ["TABLES", "Act", "Rehearsal", "acts", "rehearse", "same_table"]

logger = logging.getLogger(__name__)

#: Reasons of ends that concern all agents at once, by the event that says so.
_AT_ONCE = {"cluster.stopped": "stop", "cluster.restarted": "restart"}


#: What is under way at once at most: each holds a thread here and a connection there.
_AT_A_TIME = 32


class Act(NamedTuple):
    """Something that was done from outside.

    Parameters
    ----------
    words : str
        What, for people.
    method, path : str
        What a cluster's supervisor is asked for.
    body : dict
        With what.
    seq : int
        Number of the recorded event that it is.
    lasts : bool
        Whether it is over only when something else has happened, and others do something meanwhile.
    """

    words: str
    method: str
    path: str
    body: dict[str, Any]
    seq: int
    lasts: bool = True

    def again(self, client: Client) -> None:
        """Do it, when its turn has come in the replay."""
        if self.method == "DELETE":
            client.delete(self.path, again=self.seq)
        else:
            client.post(self.path, self.body, timeout_s=None, again=self.seq)


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
        one.attributes.get("conversation_id"): one.attributes["content"]
        for one in events
        if one.event == "message.queued" and one.attributes.get("step") == 0
    }
    by = causes(events)
    done = _at_once(events)
    for place, (event, cause) in enumerate(zip(events, by, strict=True)):
        facts, agent = event.attributes, str(event.agent)
        if place in done:
            yield from done[place]
        elif cause != "user":
            continue
        elif event.event == "message.queued":
            yield Act(f"write to {agent}", "POST", "/messages", _message(event), event.seq, lasts=False)
        elif event.event == "conversation.started":
            # Of one that could not begin nothing tells how it would have.
            opening = openings.get(facts.get("conversation_id"), "(not recorded)")
            talk = {"agents": facts["agents"], "opening": opening, "rounds": facts["rounds"]}
            words = f"let {' and '.join(facts['agents'])} talk"
            body = {**talk, "conversation_id": new_id("cnv_")}
            yield Act(words, "POST", "/conversations", body, event.seq, lasts=False)
        elif event.event == "dialog.answering":
            answer = {key: str(facts.get(key)) for key in ("dialog_id", "option")}
            yield Act(f"answer {agent}", "POST", f"/agents/{agent}/dialog", answer, event.seq)
        elif event.event == "note":
            yield Act(f"interrupt {agent}", "POST", f"/agents/{agent}/interrupt", {}, event.seq)
        elif event.event == "agent.added":
            names = _joined(events, place)
            done.update({one: [] for one in names})
            agents = _settled([source.joined(events[one]) for one in names])
            words = f"add {' and '.join(str(one['name']) for one in agents)}"
            yield Act(words, "POST", "/agents", {"agents": agents}, event.seq)
        elif event.event == "guard.lifted":
            lifted = {key: facts.get(key) for key in ("guard_id", "by", "limit", "allowance")}
            yield Act(f"lift a guard ({facts.get('rule')})", "POST", "/guards/lift", lifted, event.seq, lasts=False)
        elif event.event == "agent.removed" or facts.get("reason") == "remove":
            yield Act(f"remove {agent}", "DELETE", f"/agents/{agent}", {}, event.seq)
        elif event.event == "agent.started" or facts.get("reason") in {"stop", "restart"}:
            what = str(facts["reason"]) if event.event == "agent.stopping" else "restart"
            yield Act(f"{what} {agent}", "POST", f"/agents/{agent}/{what}", {}, event.seq)


def _message(event: Event) -> dict[str, Any]:
    facts = event.attributes
    return {
        "to": [str(event.agent)],
        "text": str(facts.get("content")),
        "message_ids": [new_id("msg_")],
        "when": str(facts.get("when") or "idle"),
        "in_reply_to": facts.get("in_reply_to"),
        "expires_s": facts.get("expires_s"),
        "source": "human" if event.source == "human" else "program",
        "broadcast": facts.get("kind") == "broadcast",
    }


def _at_once(events: list[Event]) -> dict[int, list[Act]]:
    """Return what was done to all agents at once, by the place of its first event; nothing at those of its others.

    Each agent that runs is told to end before the first one does.
    """
    found: dict[int, list[Act]] = {}
    running: set[str] = set()
    block: dict[str, int] = {}
    why = running_then = None
    for place, event in enumerate(events):
        agent, reason = str(event.agent), event.attributes.get("reason")
        if event.event == "agent.stopping":
            if reason != why or not running_then or not running_then <= running or agent in block:
                block, why, running_then = {}, reason, frozenset(running)
            block[agent] = place
        elif event.event == "agent.started":
            running.add(agent)
            running_then = None
        elif event.event == "agent.exited":
            running.discard(agent)
        elif (what := _AT_ONCE.get(event.event)) is not None:
            mine = [place]
            if what == why and running_then and running_then <= block.keys():
                mine += block.values()
            found.update({one: [] for one in mine})
            first = min(mine)
            found[first] = [Act(f"{what} all agents", "POST", f"/{what}", {}, events[first].seq)]
            running_then = None
    return found


def _joined(events: list[Event], place: int) -> list[int]:
    """Return the places of the agents that joined together: the first one starts when all are named."""
    found: dict[str, int] = {}
    for later in range(place, len(events)):
        agent = str(events[later].agent)
        if events[later].event == "agent.added":
            found[agent] = later
        elif events[later].event == "agent.started" and agent in found:
            break
    return list(found.values())


def _settled(agents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return agents as they are started, checked like a file."""
    config = ClusterConfig.model_construct(name="", agents=[], notes=[])
    for agent in agents:
        config = add_agent(config, agent)
    return [one.model_dump(mode="json", by_alias=True) for one in config.agents]


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
        ThreadPoolExecutor(_AT_A_TIME, "acts") as beside,
        Cluster.start(mode=mode, run=source.path, level="terminal", speed=speed) as cluster,
    ):
        _play(found, cluster, beside, on_act)
        # It ends where it ended then, and not before all has happened.
        cluster.client.post("/shutdown", {"status": "completed"}, timeout_s=None, again=_end_of(events))
    recorded, again = open_run(source.path), open_run(cluster.run_dir)
    ended = again.runs.iloc[0]
    if mode == "replay_strict" and str(ended.error_type) == ReplayDiverged.__name__:
        raise ReplayDiverged(str(ended.error_message))
    return Rehearsal(
        recorded,
        again,
        {name: same_table(recorded, again, name) for name in TABLES},
        [str(one.attributes.get("message")) for one in again.events() if one.event == "replay.divergence"],
        time.monotonic() - began,
        events[-1].monotonic_s,
    )


def _play(found: list[Act], cluster: Cluster, beside: Executor, on_act: Callable[[str], None] | None) -> None:
    """Do everything again in its order, each when its turn has come."""
    lasting: set[Future[None]] = set()
    for act in found:
        if on_act is not None:
            on_act(act.words)
        if act.lasts:
            lasting.add(beside.submit(_do, act, cluster.client))
        else:
            _do(act, cluster.client)
        over, lasting = wait(lasting, timeout=None if len(lasting) >= _AT_A_TIME else 0, return_when=FIRST_COMPLETED)
        for one in over:
            one.result()


def _do(act: Act, client: Client) -> None:
    """Do something again; what did not succeed then does not succeed now, and the tables tell of what does not."""
    try:
        act.again(client)
    except ReplayDiverged:
        raise
    except OrchestratorLabError as error:
        logger.info("%s: %s", act.words, error.message)


def _end_of(events: list[Event]) -> int:
    """Return the number of the event with which somebody ended the run."""
    for one in events:
        if one.event == "run.ended" or (one.event == "agent.stopping" and one.attributes.get("reason") == "shutdown"):
            return one.seq
    return events[-1].seq


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
