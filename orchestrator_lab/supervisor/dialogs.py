"""Questions that a program puts to its user: seen, held open, answered or gone.

One question stands on an agent's screen at a time; further ones that its hooks report wait behind it. A request for
permission may be decided by the agent's policy: at once, in the answer to the hook that reports it where the program
takes one, or on the screen; or when its time is over. Everything else is a person's to answer, and so is what no policy
decides. An option is chosen by its label and verified on the screen before Enter is pressed.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections import deque
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from orchestrator_lab.agents.base import DialogClosed, DialogSeen, ToolEnded, Typed
from orchestrator_lab.agents.claude_screen import plain
from orchestrator_lab.agents.menu import question, read_menu
from orchestrator_lab.agents.reading import option_for
from orchestrator_lab.errors import ConfigError, DialogNotAnswered, OrchestratorLabError
from orchestrator_lab.schema import new_id
from orchestrator_lab.supervisor.policies import decide

if TYPE_CHECKING:
    from orchestrator_lab.journal.event import Event
    from orchestrator_lab.supervisor.agent import AgentRunner
    from orchestrator_lab.supervisor.policies import Verdict

__all__ = ["Dialogs"]

logger = logging.getLogger(__name__)

#: Pause before the screen of a reported dialog is read, in seconds.
_DIALOG_LOOK_S = 0.15
#: A reported dialog that is not on the screen after this long was answered without one, in seconds.
_DIALOG_APPEARS_S = 2.0
#: Longest wait for a reported dialog to show its options, and for an answered one to leave the screen, in seconds.
_OPTIONS_S, _LEAVES_S = 5.0, 5.0
#: Pauses after which a policy tries again to answer a dialog that did not take its answer, in seconds.
_TRIES_S = (1.0, 3.0, 10.0)
#: Letters of a command or a path that tell one question from another.
_COMPARED = 40


@dataclass(frozen=True, slots=True)
class _Answer:
    """An answer that is on its way to the screen."""

    option: str
    decision: str
    by: str
    rule: str | None


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A reported question behind the one on the screen."""

    dialog: DialogSeen
    dialog_id: str
    opened_at: str
    since: float


class Dialogs:
    """The dialogs of one agent.

    Parameters
    ----------
    runner : AgentRunner
        Holds the facts.
    """

    def __init__(self, runner: AgentRunner) -> None:
        self._runner = runner
        self.undecided: tuple[str, str] | None = None
        self.opened_at: str | None = None
        self._dialog_since = 0.0
        self._dialog_shown = False
        self._dialog_look: asyncio.TimerHandle | None = None
        self._timeout: asyncio.TimerHandle | None = None
        self._behind: deque[_Waiting] = deque()
        self._answer: _Answer | None = None
        #: The dialog that a policy is about to answer: nobody need be called for it.
        self.policy_answers: str | None = None
        #: The answer that an earlier supervisor was about to give.
        self._left: _Answer | None = None
        self._reply: dict[str, Any] | None = None
        #: Requests to answer -> the option that was chosen for them.
        self._given: dict[str, str] = {}

    # seen ---------------------------------------------------------------------------------------

    def seen(self, dialog: DialogSeen) -> None:
        """Take in a dialog that the program shows or reports."""
        current = self._runner.dialog
        if current is not None and (current.kind, current.subject) == (dialog.kind, dialog.subject):
            return
        if current is not None and dialog.source == "screen" and current.kind == dialog.kind == "permission":
            return  # the hook has told the same, and better
        verdict = self._verdict(dialog)
        reply = self._reply_of(dialog, verdict)
        if current is not None and current.source == "screen" and current.kind == dialog.kind == "permission":
            self._told_late(dataclasses.replace(dialog, options=current.options), verdict, reply)
            return
        dialog_id = self._runner.supervisor.replaying.dialog_id(self._runner.name) or new_id("dlg_")
        if verdict is not None and reply is not None:
            self._journal_opened(dialog, dialog_id)
            self._answered_in_hook(dialog, dialog_id, verdict)
            self._reply = reply
            return
        if current is not None and current.kind == dialog.kind == "permission" and self._stands():
            event = self._journal_opened(dialog, dialog_id)
            self._behind.append(_Waiting(dialog, dialog_id, event.at, time.monotonic()))
            return
        self.close("human", None, dialog.source)
        event = self._journal_opened(dialog, dialog_id)
        self._open(dialog, dialog_id, event.at, time.monotonic())

    def _told_late(self, dialog: DialogSeen, verdict: Verdict | None, reply: dict[str, Any] | None) -> None:
        """Take in the report of a question that was seen on the screen before."""
        self._runner.dialog = dialog
        if self._runner.dialog_id is not None:
            self._journal_opened(dialog, self._runner.dialog_id)
        if verdict is None or verdict.decision == "ask":
            return
        if reply is not None:
            self._reply, self._answer = reply, _Answer("", verdict.decision, "policy", verdict.rule)
            self.close(None, None, "hook")
        else:
            self._by_policy(verdict.decision, verdict.rule)

    def take_reply(self) -> dict[str, Any] | None:
        """Return what the hook that was just taken in is to be told, once."""
        reply, self._reply = self._reply, None
        return reply

    def restore(self, events: list[Event]) -> DialogSeen | None:
        """Find the dialog that an earlier supervisor left open, and go on with it."""
        name = self._runner.name
        open_: dict[str, Event] = {}
        answering: dict[str, Event] = {}
        for event in events:
            if event.agent != name:
                continue
            identity = str(event.attributes.get("dialog_id"))
            if event.event == "agent.started":
                open_.clear()
            elif event.event == "dialog.opened":
                open_[identity] = event
            elif event.event == "dialog.answering":
                answering[identity] = event
                self._given[str(event.attributes.get("answer_id"))] = str(event.attributes.get("option"))
            elif event.event == "dialog.answered":
                open_.pop(identity, None)
        found = [(self._from_event(event), identity, event.at) for identity, event in open_.items()]
        if not found:
            return None
        now, clock = time.time(), time.monotonic()
        kept = [_Waiting(dialog, one, at, clock - _age(at, now)) for dialog, one, at in found]
        first = kept.pop(0)
        self._behind.extend(kept)
        begun = answering.get(first.dialog_id)
        if begun is not None:
            facts = begun.attributes
            decision, by = str(facts.get("decision")), str(facts.get("answered_by"))
            self._left = _Answer(str(facts.get("option")), decision, by, facts.get("rule"))
        self._runner.dialog_id, self.opened_at, self._dialog_since = first.dialog_id, first.opened_at, first.since
        self._dialog_shown = bool(first.dialog.options)
        if self._left is not None and self._left.by == "policy":
            self._by_policy(self._left.option, self._left.rule)
        else:
            self._arm_timeout(first.dialog, first.dialog_id)
        return first.dialog

    @staticmethod
    def _from_event(event: Event) -> DialogSeen:
        facts = event.attributes
        return DialogSeen(
            event.source or "screen",
            facts["kind"],
            facts.get("subject", ""),
            tuple(facts.get("options", ())),
            tool=facts.get("tool"),
        )

    def _open(self, dialog: DialogSeen, dialog_id: str, opened_at: str, since: float) -> None:
        """Make a journalled dialog the one that stands on the screen."""
        self._runner.dialog, self._runner.dialog_id, self.opened_at = dialog, dialog_id, opened_at
        self._dialog_since, self._dialog_shown = since, False
        if dialog.answer is not None:
            self._by_policy(dialog.answer, "a folder that the lab made")
        verdict = self._verdict(dialog)
        if verdict is not None and verdict.decision != "ask":
            self._by_policy(verdict.decision, verdict.rule)
        else:
            self._arm_timeout(dialog, dialog_id)
        if self._runner.ready is not None and self._runner.adapter.styled:
            self.look_soon()

    def _journal_opened(self, dialog: DialogSeen, dialog_id: str) -> Event:
        return self._runner.supervisor.journal.append(
            "dialog.opened",
            agent=self._runner.name,
            turn_id=self._runner.turn.turn_id if self._runner.turn else None,
            source=dialog.source,
            dialog_id=dialog_id,
            kind=dialog.kind,
            subject=dialog.subject,
            options=list(dialog.options),
            tool=dialog.tool,
            rule=dialog.rule,
        )

    def _stands(self) -> bool:
        """Tell whether the open dialog may still be on the screen."""
        return self._dialog_shown or time.monotonic() - self._dialog_since < _DIALOG_APPEARS_S

    # looking ------------------------------------------------------------------------------------

    def look_soon(self) -> None:
        """Look at an open dialog once its pane has settled."""
        if self._dialog_look is None:
            self._dialog_look = asyncio.get_running_loop().call_later(
                _DIALOG_LOOK_S, lambda: self._runner.spawn(self._look())
            )

    def stop(self) -> None:
        """Look no more, and answer nothing more."""
        for timer in (self._dialog_look, self._timeout):
            if timer is not None:
                timer.cancel()

    async def _look(self) -> None:
        """Read the options of a reported dialog, and see when it has gone: what it let begin may take long."""
        self._dialog_look = None
        dialog, dialog_id = self._runner.dialog, self._runner.dialog_id
        if dialog is None or self._runner.ready is None or not self._runner.running:
            return
        screen = await self._runner.supervisor.screen(self._runner, escapes=True)
        if self._runner.dialog_id != dialog_id or dialog_id is None:
            return
        if self._runner.adapter.composer(screen, Typed("", "")) == "unknown":
            menu = read_menu(plain(screen))
            if not self._dialog_shown and menu is not None:
                if not dialog.options:
                    self.shows(menu.options)
                self._dialog_shown = True
                self._runner.supervisor.ledger.poke()
            elif menu is None:
                self.look_soon()
        elif self._dialog_shown or time.monotonic() - self._dialog_since > _DIALOG_APPEARS_S:
            self.close("human", None, "screen")
            self._runner.publish()
        else:
            self.look_soon()

    def shows(self, options: tuple[str, ...]) -> None:
        """Take in the options of the open dialog, which the screen shows."""
        dialog, dialog_id = self._runner.dialog, self._runner.dialog_id
        if dialog is None or dialog_id is None:
            return
        self._runner.dialog = dataclasses.replace(dialog, options=options)
        self._journal_opened(dataclasses.replace(dialog, options=options, source="screen"), dialog_id)
        self._runner.supervisor.ledger.poke()

    # answered -----------------------------------------------------------------------------------

    def closed(self, closed: DialogClosed) -> None:
        """Take in evidence that a question is gone."""
        if closed.subject is None:
            self.close_all("human", closed.decision, closed.source)
            return
        if self._runner.dialog is not None and closed.subject == self._runner.dialog.subject:
            self.close("human", closed.decision, closed.source)
            return
        behind = next((one for one in self._behind if one.dialog.subject == closed.subject), None)
        if behind is not None:
            self._behind.remove(behind)
            self._journal_answered(behind.dialog_id, "human", closed.decision, closed.source)
        elif closed.decision is not None and self.undecided is not None and self.undecided[1] == closed.subject:
            # The screen showed that it was answered; only now it is known how.
            self._journal_answered(self.undecided[0], "human", closed.decision, closed.source)
            self.undecided = None

    def close(self, by: str | None, decision: str | None, source: str) -> None:
        """Journal who answered the open dialog, if there is one; what waits behind it comes to the front."""
        dialog, dialog_id, answer = self._runner.dialog, self._runner.dialog_id, self._answer or self._left
        if dialog is None or dialog_id is None:
            self._runner.dialog = None
            return
        if self._timeout is not None:
            self._timeout.cancel()
        if answer is not None:
            by, decision = answer.by, answer.decision
        elif dialog.kind == "unknown":
            by = None  # whatever it was, it may have gone by itself
        self._answer = self._left = None
        self._journal_answered(dialog_id, by, decision, source, answer)
        undecided = dialog.kind == "permission" and decision is None
        self.undecided = (dialog_id, dialog.subject) if undecided else None
        if decision == "deny":
            self._end_call(dialog, source, "denied")
        self._runner.dialog, self._runner.dialog_id, self.opened_at = None, None, None
        if self._behind:
            next_ = self._behind.popleft()
            self._open(next_.dialog, next_.dialog_id, next_.opened_at, time.monotonic())

    def close_all(self, by: str | None, decision: str | None, source: str) -> None:
        """Close the open dialog, and what waits behind it."""
        behind, self._behind = list(self._behind), deque()
        self.close(by, decision, source)
        for one in behind:
            self._journal_answered(one.dialog_id, by, decision, source)

    def _journal_answered(
        self, dialog_id: str, by: str | None, decision: str | None, source: str, answer: _Answer | None = None
    ) -> None:
        self._runner.supervisor.journal.append(
            "dialog.answered",
            agent=self._runner.name,
            source=source,
            dialog_id=dialog_id,
            answered_by=by,
            decision=decision,
            option=answer.option if answer else None,
            rule=answer.rule if answer else None,
        )

    def _end_call(self, dialog: DialogSeen, source: str, why: str) -> None:
        """End a tool call that may not run: no hook tells of it."""
        if dialog.tool_call_id is not None:
            self._runner.turns.tool_ended(ToolEnded(source, dialog.tool_call_id, None, "denied", why))

    # policies -----------------------------------------------------------------------------------

    def _verdict(self, dialog: DialogSeen) -> Verdict | None:
        """Return what the policy says of a request for permission, None for any other question."""
        if dialog.kind != "permission":
            return None
        policy = self._runner.supervisor.config.dialogs_of(self._runner.config)
        return decide(policy, dialog.tool, dialog.tool_input, dialog.cwd)

    def _reply_of(self, dialog: DialogSeen, verdict: Verdict | None) -> dict[str, Any] | None:
        if verdict is None or verdict.decision == "ask" or not dialog.by_hook:
            return None
        return self._runner.adapter.permission_reply(verdict.decision, f"denied by the lab's policy ({verdict.rule})")

    def _answered_in_hook(self, dialog: DialogSeen, dialog_id: str, verdict: Verdict) -> None:
        """Journal that a policy decided; the hook is told after that."""
        answer = _Answer("", verdict.decision, "policy", verdict.rule)
        self._runner.supervisor.journal.append(
            "dialog.answered",
            agent=self._runner.name,
            source="hook",
            dialog_id=dialog_id,
            answered_by=answer.by,
            decision=answer.decision,
            rule=answer.rule,
        )
        if verdict.decision == "deny":
            self._end_call(dialog, "hook", f"denied by the policy ({verdict.rule})")

    def _arm_timeout(self, dialog: DialogSeen, dialog_id: str) -> None:
        """See to it that a request for permission is answered when a person's time is over."""
        policy = self._runner.supervisor.config.dialogs_of(self._runner.config)
        if dialog.kind != "permission" or policy.timeout_s is None:
            return
        left = max(0.0, self._dialog_since + policy.timeout_s - time.monotonic())
        rule = f"timeout_s: {policy.timeout_s:g}"

        def over() -> None:
            if self._runner.dialog_id == dialog_id:
                self._by_policy(policy.on_timeout, rule)

        if self._runner.supervisor.replaying.timeout_of(dialog_id, over):
            return
        self._timeout = asyncio.get_running_loop().call_later(left, over)

    def _by_policy(self, option: str, rule: str | None) -> None:
        if self._runner.dialog_id is not None:
            self.policy_answers = self._runner.dialog_id
            self._runner.spawn(self._try(self._runner.dialog_id, option, rule))

    async def _try(self, dialog_id: str, option: str, rule: str | None) -> None:
        """Answer for the policy; what cannot be answered is left to a person, and the journal says so."""
        for pause in (*_TRIES_S, None):
            if self._runner.dialog_id != dialog_id or not self._runner.running:
                return
            try:
                await self.answer(dialog_id, option, by="policy", rule=rule)
            except OrchestratorLabError as error:
                if self._runner.dialog_id != dialog_id:
                    return
                if pause is None:
                    self.policy_answers = None
                    self._runner.supervisor.journal.append(
                        "note",
                        agent=self._runner.name,
                        source="screen",
                        level="warning",
                        text=f"the policy's answer ({option}) was not given: {error.message}",
                    )
                    return
                await asyncio.sleep(pause)
            else:
                return

    # answering on the screen --------------------------------------------------------------------

    async def answer(
        self,
        dialog_id: str,
        option: str | int,
        *,
        by: str = "human",
        rule: str | None = None,
        answer_id: str | None = None,
    ) -> str:
        """Choose an option on the screen; return its label.

        Parameters
        ----------
        dialog_id : str
            The dialog that is meant.
        option : str or int
            A label or its beginning, ``allow``, ``deny``, or its number on the screen, from 1.
        by : {"human", "policy"}
            Who decides.
        rule : str, optional
            By which rule.
        answer_id : str, optional
            Of a request that may come again because its reply was lost.

        Raises
        ------
        ConfigError
            When it has no such option.
        DialogNotAnswered
            When it is gone, is being answered, or did not take the answer.
        """
        runner = self._runner
        if answer_id is not None and runner.dialog_id != dialog_id and answer_id in self._given:
            return self._given[answer_id]
        self._check(dialog_id)
        label = await self._label(dialog_id, option)
        self._check(dialog_id)
        dialog = runner.dialog
        if dialog is None:
            raise self._gone(dialog_id)
        self._left = None
        self._answer = answer = _Answer(label, self._decision(dialog, option, label), by, rule)
        try:
            runner.supervisor.journal.append(
                "dialog.answering",
                agent=runner.name,
                dialog_id=dialog_id,
                option=label,
                decision=answer.decision,
                answered_by=by,
                rule=rule,
                answer_id=answer_id,
            )
            if answer_id is not None:
                self._given[answer_id] = label
            await runner.supervisor.journal.asynced()
            # Where several are asked for at once, another question may stand there by now.
            about = _about(dialog) if self._behind else ""
            if await runner.supervisor.replaying.answer(runner, dialog_id, label):
                return label
            if not await runner.watch.choose(label, about=about):
                if runner.dialog_id != dialog_id:
                    raise self._gone(dialog_id)
                raise DialogNotAnswered(
                    f"dialog {dialog_id} of {runner.name} does not show the option {label!r} in a way that can be "
                    f"chosen; answer it in its pane: orchestrator-lab attach {runner.name}",
                    dialog_id=dialog_id,
                )
            await self._until_gone(dialog_id, dialog)
        finally:
            if self._answer is answer:
                self._answer = None
        return label

    def _check(self, dialog_id: str) -> None:
        if self._runner.dialog is None or self._runner.dialog_id != dialog_id:
            raise self._gone(dialog_id)
        if self._answer is not None:
            raise DialogNotAnswered(
                f"dialog {dialog_id} of {self._runner.name} is being answered already ({self._answer.option})",
                dialog_id=dialog_id,
            )

    def _gone(self, dialog_id: str) -> DialogNotAnswered:
        now = self._runner.dialog_id
        what = f"it asks something else now ({now})" if now is not None else "it asks nothing now"
        return DialogNotAnswered(
            f"dialog {dialog_id} of {self._runner.name} is not open (any more); {what}", dialog_id=dialog_id
        )

    async def _label(self, dialog_id: str, option: str | int) -> str:
        """Return the label that is meant, once the options are known."""
        runner = self._runner
        await runner.supervisor.ledger.until(
            lambda: runner.dialog_id != dialog_id or (runner.dialog is not None and bool(runner.dialog.options)),
            _OPTIONS_S,
        )
        if runner.dialog is None or runner.dialog_id != dialog_id:
            raise self._gone(dialog_id)
        options = runner.dialog.options
        if not options:
            raise DialogNotAnswered(
                f"dialog {dialog_id} of {runner.name} shows no options that could be chosen; answer it in its pane: "
                f"orchestrator-lab attach {runner.name}",
                dialog_id=dialog_id,
            )
        label: str | None = None
        if isinstance(option, int):
            label = options[option - 1] if 1 <= option <= len(options) else None
        else:
            label = option_for(option, options, runner.adapter.screens.answers)
        if label is None:
            offered = "; ".join(f"{number}: {one}" for number, one in enumerate(options, 1))
            raise ConfigError(f"the dialog of {runner.name} has no single option {option!r}; it offers {offered}")
        return label

    def _decision(self, dialog: DialogSeen, option: str | int, label: str) -> str:
        """Return what an option comes to: allow or deny for a permission, its label for anything else."""
        if dialog.kind != "permission":
            return label
        if isinstance(option, str) and option.casefold() in {"allow", "deny"}:
            return option.casefold()
        if self._runner.adapter.screens.answers.deny.search(label):
            return "deny"
        return "allow" if label.casefold().startswith(("yes", "allow", "approve", "accept")) else label

    async def _until_gone(self, dialog_id: str, dialog: DialogSeen) -> None:
        """Wait until an answered dialog has left the screen, or its end is reported."""
        runner = self._runner
        deadline = time.monotonic() + _LEAVES_S
        about = _about(dialog)
        while runner.dialog_id == dialog_id and runner.running:
            seen = runner.activity
            screen = await runner.supervisor.screen(runner)
            menu = read_menu(screen)
            asked = _squeezed(question(screen))
            gone = menu is None or menu.options != dialog.options or (bool(self._behind) and about not in asked)
            if runner.dialog_id == dialog_id and (gone or self._sees_input(screen)):
                self.close(None, None, "screen")
                runner.publish()
                return
            if time.monotonic() > deadline:
                raise DialogNotAnswered(
                    f"dialog {dialog_id} of {runner.name} still stands on its screen {_LEAVES_S:g} s after its answer; "
                    f"look at it: orchestrator-lab attach {runner.name}",
                    dialog_id=dialog_id,
                )
            try:
                await asyncio.wait_for(seen.wait(), 0.1)
            except TimeoutError:
                continue

    def _sees_input(self, screen: str) -> bool:
        runner = self._runner
        return runner.adapter.styled and runner.adapter.composer(screen, Typed("", "")) != "unknown"


def _age(at: str, now: float) -> float:
    return max(0.0, now - datetime.fromisoformat(at).timestamp())


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _about(dialog: DialogSeen) -> str:
    """Return letters that a question's text holds: the end of its command, or the file's name."""
    given = dialog.tool_input if isinstance(dialog.tool_input, dict) else {}
    for name in ("command", "cmd"):
        if isinstance(given.get(name), str):
            return _squeezed(given[name].strip().rsplit("\n", 1)[-1])[:_COMPARED]
    for name in ("file_path", "path", "notebook_path"):
        if isinstance(given.get(name), str):
            return _squeezed(given[name].rstrip("/").rsplit("/", 1)[-1])[:_COMPARED]
    return ""
