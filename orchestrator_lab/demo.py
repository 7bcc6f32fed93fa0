"""The demonstration behind ``make demo``: what it starts, and what is said in it.

Three chat agents on a small language model of this machine talk by themselves for a few rounds: no key, no login.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator_lab.errors import EnvironmentProblem, TmuxMissing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator_lab.cluster import Cluster
    from orchestrator_lab.config import ClusterConfig

__all__ = ["OPENING", "Moment", "check_machine", "demo_config", "follow", "needs_model"]

#: What the first agent is told.
OPENING = "Which vegetables grow well in a small garden?"

#: What the agents say where no model is wanted, in turn.
_SCRIPT: dict[str, tuple[str, ...]] = {
    "host": (
        "Tomatoes do. Gardener, when do you set your first ones out?",
        "And what do you do with the last green ones in October?",
    ),
    "gardener": (
        "After the last frost, against the south wall: last year the first fruit was red on the tenth of July.",
        "I pull up the whole plant and hang it upside down in the shed, where they ripen until December.",
    ),
    "cook": (
        "I never put those first ones in the fridge. Salt, oil, a slice of bread, nothing else.",
        "The green ones become chutney here, with ginger and a little brown sugar.",
    ),
}


@dataclass(frozen=True, slots=True)
class Moment:
    """One moment of a conversation.

    Parameters
    ----------
    kind : {"asked", "thinking", "said", "over"}
        A message was queued, an agent began its turn, it ended its turn, the conversation ended.
    agent : str
        Whose moment it is; empty for the end.
    text : str
        What was asked or said, or why it ended.
    monotonic_s : float
        Seconds since the run's start.
    sender : str
        Who asked; empty otherwise.
    """

    kind: str
    agent: str
    text: str
    monotonic_s: float
    sender: str = ""


def needs_model(*, script: bool) -> bool:
    """Tell whether the demonstration's model has to be got first.

    Parameters
    ----------
    script : bool
        Whether it runs without a model.
    """
    if script:
        return False
    from orchestrator_lab.models import DEFAULT_MODEL, installed

    return all(model.name != DEFAULT_MODEL for model in installed())


def check_machine(*, script: bool) -> None:
    """Check what would only fail after a download.

    Parameters
    ----------
    script : bool
        Whether it runs without a model.

    Raises
    ------
    TmuxMissing
        When there is no tmux, or one that is too old.
    EnvironmentProblem
        When the locale is not UTF-8, or the model's runtime is not installed.
    """
    from orchestrator_lab.client import check_locale
    from orchestrator_lab.doctor import check_tmux

    (tmux,) = check_tmux()
    if tmux.level == "fail":
        raise TmuxMissing(f"{tmux.found}; {tmux.advice}")
    check_locale(dict(os.environ))
    if not script and importlib.util.find_spec("xllamacpp") is None:
        raise EnvironmentProblem(
            "the local language model needs xllamacpp: install it with pip install 'orchestrator-lab[local]', or see "
            "the demonstration without a model: orchestrator-lab demo --script"
        )


def demo_config(*, runs_dir: str | Path, script: bool) -> ClusterConfig:
    """Return the cluster of the demonstration.

    Parameters
    ----------
    runs_dir : path-like
        Where its run is recorded.
    script : bool
        Answer by fixed texts instead of a language model.

    Returns
    -------
    ClusterConfig
        The template ``demo`` under a name that no other cluster has.

    Examples
    --------
    >>> demo_config(runs_dir="runs", script=True).names
    ['host', 'gardener', 'cook']
    """
    from orchestrator_lab.config import GatewayConfig, load_config

    config = load_config("template:demo")
    name = f"demo-{os.urandom(3).hex()}"
    changes: dict[str, Any] = {"name": name, "session_name": name, "runs_dir": Path(runs_dir).expanduser().absolute()}
    if script:
        rules = [
            {
                "when": {"agent": agent},
                "sequence": [{"reply": text, "tokens_per_s": 60} for text in texts],
                "after": "cycle",
            }
            for agent, texts in _SCRIPT.items()
        ]
        changes["gateway"] = GatewayConfig(mode="script", script=rules)
    return config.model_copy(update=changes)


def follow(cluster: Cluster, conversation_id: str) -> Iterator[Moment]:
    """Yield the moments of a conversation as they come, until it is over.

    Parameters
    ----------
    cluster : Cluster
        Where it runs.
    conversation_id : str
        Which one.

    Yields
    ------
    Moment
        The last one is of kind ``over``.
    """
    import time

    ours: set[str] = set()
    since = 0
    while True:
        try:
            for event in cluster.client.events(since):
                since = event["seq"]
                moment = _moment(event, conversation_id, ours)
                if moment is not None:
                    yield moment
                    if moment.kind == "over":
                        return
        except ConnectionError:
            time.sleep(0.1)  # the supervisor is being restarted: the stream goes on where it ended


def _moment(event: dict[str, Any], conversation_id: str, ours: set[str]) -> Moment | None:
    """Return what an event says of a conversation; `ours` remembers its messages and turns."""
    facts, name = event.get("attributes") or {}, event["event"]
    at, agent = float(event["monotonic_s"]), str(event.get("agent") or "")
    if name == "message.queued" and facts.get("conversation_id") == conversation_id:
        ours.add(str(event.get("message_id")))
        return Moment("asked", agent, str(facts.get("content", "")), at, str(facts.get("sender", "")))
    if name == "turn.started" and ours & set(facts.get("message_ids") or ()):
        ours.add(str(event.get("turn_id")))
        return Moment("thinking", agent, "", at)
    if name == "turn.ended" and str(event.get("turn_id")) in ours:
        return Moment("said", agent, str(facts.get("reply") or f"({facts.get('end_reason', 'no answer')})"), at)
    if name == "conversation.ended" and facts.get("conversation_id") == conversation_id:
        return Moment("over", "", str(facts.get("reason", "")), at)
    if name == "run.ended":
        return Moment("over", "", str(facts.get("error_message") or "the cluster was shut down"), at)
    return None
