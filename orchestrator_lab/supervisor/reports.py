"""What players tell that no program's own report does: what only the recording knows of a run that is played."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from orchestrator_lab.agents.base import Accepted, Limited, TurnEnded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from orchestrator_lab.agents.base import Recorded
    from orchestrator_lab.supervisor.agent import AgentRunner
    from orchestrator_lab.supervisor.core import Supervisor

__all__ = ["Reports", "diff_of"]


class Reports:
    """Takes in what players tell.

    Parameters
    ----------
    supervisor : Supervisor
        The cluster that replays.
    differs : callable
        Told of what is another than then: agent, kind, sentence, diff.
    stopped : callable
        Whether the replay has stopped at a difference.
    """

    def __init__(self, supervisor: Supervisor, differs: Callable[..., None], stopped: Callable[[], bool]) -> None:
        self._cluster, self._differs, self._stopped = supervisor, differs, stopped

    def take(self, runner: AgentRunner, told: Recorded) -> None:
        """Take in what only the recording tells."""
        facts = dict(told.facts)
        match told.what:
            case "said":
                self._cluster.routing.send_from_agent(
                    runner,
                    str(facts.get("to")),
                    str(facts.get("text")),
                    in_reply_to=facts.get("in_reply_to"),
                    kind="broadcast" if facts.get("kind") == "broadcast" else "direct",
                    conversation_id=facts.get("conversation_id"),
                )
            case "again":
                self.again(runner.name, told.source, facts)
            case "model":
                runner.saw_model(str(facts.get("model")))
            case "options":
                runner.dialogs.shows(tuple(facts.get("options") or ()))
            case "shown":
                self._shown(runner, str(facts.get("fact")), facts.get("text"))
            case "settled":
                self._settled(told.source, facts)
            case "other_text":
                was, got = str(facts.get("text")), self._cluster.mask(str(facts.get("got")))
                if was != got:
                    sentence = f"what was typed into the pane of {runner.name} is not what is recorded"
                    self._differs(runner.name, "input", sentence, diff_of(was, got), message_id=facts.get("message_id"))
            case "rests":
                self._cluster.ledger.poke()
            case "surplus":
                self._surplus(runner, str(facts.get("got")))

    def again(
        self,
        agent: str | None,
        source: str | None,
        told: Mapping[str, Any],
    ) -> None:
        """Journal what nothing that happens leads to, word by word."""
        self._cluster.journal.append(
            str(told["event"]),
            agent=agent,
            turn_id=told["turn_id"],
            source=source,
            level=str(told["level"]),
            **told["facts"],
        )

    @staticmethod
    def _shown(runner: AgentRunner, fact: str, text: str | None) -> None:
        """Take in a fact that the screen told then."""
        if fact == "limited":
            runner.limited = None if text is None else Limited("hook")
        elif fact in {"shown", "doubt", "hidden"}:
            setattr(runner, fact, text)

    def _settled(self, source: str, facts: Mapping[str, Any]) -> None:
        """Give a message the end that it had where nothing that happens leads to it: time ran out, a pane was gone."""
        message = self._cluster.ledger.find(str(facts.get("message_id")))
        if message is not None:
            self._cluster.ledger.advance(
                message,
                str(facts.get("status")),
                source=source,
                error_type=facts.get("error_type"),
                error_message=facts.get("error_message"),
            )

    def _surplus(self, runner: AgentRunner, text: str) -> None:
        sentence = f"{runner.name} is written to once more than is recorded: nothing answers"
        self._differs(runner.name, "surplus", sentence, diff_of("", text))
        if not self._stopped():
            runner.apply(
                [Accepted("hook", text), TurnEnded("hook", None, "error", error_message="nothing more is recorded")]
            )


def diff_of(was: str, now: str) -> str:
    """Return what is another in a text than in the recorded one, as a unified diff.

    Examples
    --------
    >>> print(diff_of("one", "two"))
    --- recorded
    +++ now
    @@ -1 +1 @@
    -one
    +two
    """
    lines = difflib.unified_diff(was.splitlines(), now.splitlines(), "recorded", "now", lineterm="")
    return "\n".join(lines)
