"""What the rules of alerts need to know of an agent, and what they say: a fold over its events, and pure decisions.

Instants are seconds on the run's clock, which goes on through a change of supervisors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator_lab.config import AlertsConfig, Thresholds
    from orchestrator_lab.journal.event import Event

__all__ = ["AGENT_RULES", "Finding", "Health", "judge_agent", "judge_stopped"]

#: The rules of this module about one agent; each says every time whether it holds.
AGENT_RULES = ("idle", "restarts", "response_timeout", "waiting", "agent_failed")
_LEVELS = ("warning", "error", "critical")
#: Events of an agent that are the lab's own doings, no activity of it.
_NO_ACTIVITY = frozenset({"process.sample", "recording.gap", "recording.started"})

#: Questions whose options the lab knows, then or soon.
_CHOICES = frozenset({"permission", "trust", "choice"})


@dataclass(frozen=True, slots=True)
class Question:
    """What an agent asks, and whether one of its options can be chosen from outside its pane."""

    text: str
    choice: bool


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a rule finds wrong.

    Parameters
    ----------
    level : str
        How serious it is.
    message : str
        One sentence, the same as long as the same is wrong.
    facts : dict
        What the rule knew.
    """

    level: str
    message: str
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Health:
    """What is known of one agent.

    Parameters
    ----------
    name : str
        Its name.
    state, state_since : str or None, float
        The last state published, and when.
    active_at : float
        When something of it was journalled last.
    turns : int
        Turns that ended.
    restarts : int
        Starts after an end that nobody had asked for, since it last went the whole window without one.
    """

    name: str
    state: str | None = None
    state_since: float = 0.0
    active_at: float = 0.0
    turn_id: str | None = None
    turn_since: float | None = None
    turns: int = 0
    restarts: int = 0
    restarted_at: float | None = None
    #: It is to end, because somebody wants it.
    asked: bool = False
    #: It ended and nobody had asked for it.
    fell: bool = False
    #: It will be started again by itself.
    pending: bool = False
    failed: str | None = None
    #: What it asks, by dialog; the first stands on its screen.
    questions: dict[str, Question] = field(default_factory=dict)

    def take(self, event: Event) -> None:
        """Take in an event of the agent.

        Parameters
        ----------
        event : Event
            The next one that bears its name.
        """
        if event.event not in _NO_ACTIVITY and not event.event.startswith("alert."):
            self.active_at = event.monotonic_s
        facts = event.attributes
        match event.event:
            case "agent.state":
                if facts.get("state") != self.state:
                    self.state, self.state_since = facts.get("state"), event.monotonic_s
            case "agent.started":
                if self.fell and facts.get("restart"):
                    self.restarts, self.restarted_at = self.restarts + 1, event.monotonic_s
                self.asked = self.fell = self.pending = False
                self.failed = self.turn_id = self.turn_since = None
                self.questions.clear()
            case "agent.stopping":
                self.asked = facts.get("reason") != "hung"
                if self.asked:
                    self.fell = self.pending = False
            case "agent.restarting":
                self.pending = True
            case "agent.exited":
                # What ended with its tmux server, or with the machine, is no end of its own.
                self.fell = not self.asked and not self.pending and facts.get("reason") != "tmux"
                self.turn_id = self.turn_since = None
            case "agent.failed":
                self.pending = False
                # Who gave it up has said so by an alert of its own.
                if facts.get("error_type") not in {"restarts_exhausted", "tmux_lost"}:
                    self.failed = str(facts.get("error_message") or "it failed")
            case "turn.started":
                self.turn_id, self.turn_since = event.turn_id, event.monotonic_s
            case "turn.ended":
                self.turns += 1
                self.turn_id = self.turn_since = None
            case "dialog.opened":
                subject = " ".join(str(facts.get("subject") or "").split())
                question = f"{facts.get('kind')}: {subject}" if subject else str(facts.get("kind"))
                # Claude Code's options are read from its screen, a moment after its hook has told of the question.
                choice = bool(facts.get("options")) or facts.get("kind") in _CHOICES
                self.questions[str(facts.get("dialog_id"))] = Question(question, choice)
            case "dialog.answered":
                self.questions.pop(str(facts.get("dialog_id")), None)

    def lost(self) -> None:
        """Take note that the tmux server ended with it; it will be started again."""
        self.fell, self.pending = False, True


def judge_agent(
    health: Health, config: AlertsConfig, now: float, *, asks: bool, calm_s: float, cluster: str = ""
) -> tuple[dict[str, Finding | None], float | None]:
    """Decide what is wrong with an agent.

    Parameters
    ----------
    health : Health
        What is known of it.
    config : AlertsConfig
        The thresholds.
    now : float
        The present instant.
    asks : bool
        Whether a question stands on its screen that only a person may answer.
    calm_s : float
        Seconds without a restart after which earlier ones no longer count.
    cluster : str
        Name of the cluster, for the sentences.

    Returns
    -------
    tuple
        For each of :data:`AGENT_RULES` what it finds, None when nothing is wrong; and the next instant at which that
        may change by itself.

    Examples
    --------
    >>> from orchestrator_lab.config import AlertsConfig
    >>> ada = Health("ada", state="idle", state_since=100.0)
    >>> found, due = judge_agent(ada, AlertsConfig(), 450.0, asks=False, calm_s=600.0)
    >>> found["idle"].level, due
    ('warning', 700.0)
    """
    found: dict[str, Finding | None] = dict.fromkeys(AGENT_RULES)
    dues: list[float] = []
    name = health.name
    if health.state == "idle" and config.idle_s is not None:
        since = health.state_since
        level, figure = _passed(config.idle_s, now - since)
        if level is not None and figure is not None:
            found["idle"] = Finding(
                level,
                f"{name} has been idle for more than {figure:g} s; give it something to do, or stop it",
                {"idle_s": figure},
            )
        dues += [since + one for one in _figures(config.idle_s) if since + one > now]
    if health.restarted_at is not None and health.restarts and config.restarts is not None:
        calm_at = health.restarted_at + calm_s
        level, _ = _passed(config.restarts, health.restarts)
        if calm_at <= now:
            health.restarts, health.restarted_at = 0, None
        elif level is not None:
            times = "once" if health.restarts == 1 else f"{health.restarts} times"
            found["restarts"] = Finding(
                level,
                f"{name} ended by itself and was restarted {times}; see why in: orchestrator-lab logs --agent {name}",
                {"restarts": health.restarts},
            )
        dues += [calm_at] if calm_at > now else []
    if health.turn_since is not None and config.response_timeout_s is not None:
        due = health.turn_since + config.response_timeout_s
        if due <= now:
            found["response_timeout"] = Finding(
                "warning",
                f"{name} has worked on one turn for more than {config.response_timeout_s:g} s; look at its pane: "
                f"orchestrator-lab attach {name}{_of(cluster)}",
                {"turn_id": health.turn_id, "timeout_s": config.response_timeout_s},
            )
        else:
            dues.append(due)
    if asks and health.questions:
        dialog_id, question = next(iter(health.questions.items()))
        pane = f"in its pane: orchestrator-lab attach {name}{_of(cluster)}"
        choose = f"choose an answer where it is shown, with 'orchestrator-lab answer {name} OPTION{_of(cluster)}', or"
        found["waiting"] = Finding(
            "warning",
            f"{name} asks a person ({_short(question.text)}); {choose if question.choice else 'answer it'} {pane}",
            {"dialog_id": dialog_id},
        )
    if health.failed is not None:
        found["agent_failed"] = Finding("error", f"{name} failed: {_short(health.failed)}")
    return found, min(dues, default=None)


def judge_stopped(agents: Iterable[Health], limits: Thresholds | None, cluster: str) -> Finding | None:
    """Decide whether too many agents ended that nobody had asked to.

    Parameters
    ----------
    agents : iterable of Health
        All of the cluster.
    limits : Thresholds or None
        How many are a warning, an error, critical.
    cluster : str
        Name of the cluster.

    Returns
    -------
    Finding or None
        None when nothing is wrong.
    """
    fallen = sorted(one.name for one in agents if one.fell and not one.pending)
    level, _ = _passed(limits, len(fallen)) if limits is not None and fallen else (None, None)
    if level is None:
        return None
    count = "1 agent" if len(fallen) == 1 else f"{len(fallen)} agents"
    return Finding(
        level,
        f"{count} ended and nobody had asked for it: {', '.join(fallen)}; start again with: "
        f"orchestrator-lab restart {cluster}{''.join(f' --agent {one}' for one in fallen)}",
        {"agents": fallen},
    )


def _figures(limits: Thresholds) -> list[float]:
    return [figure for figure in (limits.warning, limits.error, limits.critical) if figure is not None]


def _passed(limits: Thresholds, value: float) -> tuple[str | None, float | None]:
    """Return the gravest level whose figure a value has reached, and that figure."""
    reached: tuple[str | None, float | None] = (None, None)
    for level in _LEVELS:
        figure = getattr(limits, level)
        if figure is not None and value >= figure:
            reached = level, figure
    return reached


def _of(cluster: str) -> str:
    return f" --cluster {cluster}" if cluster else ""


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 200 else f"{line[:199]}…"
