"""The turns of one agent: which prompt began one, what belongs to it, and what its end settles."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
import time
from typing import TYPE_CHECKING

from orchestrator_lab.agents.base import (
    Accepted,
    DialogClosed,
    Evidence,
    Ready,
    ToolEnded,
    ToolStarted,
    TurnEnded,
    Typed,
    Usage,
)
from orchestrator_lab.costs import cost_of
from orchestrator_lab.schema import new_id
from orchestrator_lab.supervisor.steps import step
from orchestrator_lab.supervisor.turns import Turn

if TYPE_CHECKING:
    from orchestrator_lab.supervisor.messages import Message

if TYPE_CHECKING:
    from orchestrator_lab.supervisor.agent import AgentRunner

__all__ = ["TurnBook"]

logger = logging.getLogger(__name__)

#: Tries to find a turn's tokens in a record that may be written after the turn's end, in seconds from its end.
_USAGE_DELAYS_S = (0.0, 0.05, 0.2, 0.8, 2.0)
#: A turn's prompt is in the record a little before its report is here, in seconds.
_RECORD_SLACK_S = 2.0
#: Longest wait for a turn to be closed whose end was reported, and how often it is looked at, in seconds.
_CLOSE_S = 10.0
_CLOSE_LOOK_S = 0.004
#: Longest wait for an input line to be empty after it was cleared, in seconds.
_CLEAR_S = 2.0


class TurnBook:
    """Keeps the books of one agent's turns.

    Parameters
    ----------
    runner : AgentRunner
        Holds the facts.
    """

    def __init__(self, runner: AgentRunner) -> None:
        self._runner = runner
        #: One look at the record at a time: two that find a prompt given back would clear the line twice, and a second
        #: Ctrl-C in an empty line ends Claude Code.
        self._reconciling = asyncio.Lock()

    def ended_in_turn(self) -> None:
        """End a turn that its program's end has cut off."""
        if self._runner.turn is not None:
            self._runner.apply(
                [TurnEnded("process", None, "exited", None, f"{self._runner.name} ended during the turn")]
            )

    def accepted(self, accepted: Accepted) -> None:
        """Settle which message a prompt proves, and begin or join a turn."""
        if accepted.session_id and accepted.session_id != self._runner.session_id:
            self._runner.session(Ready(accepted.source, accepted.session_id))
        if accepted.joined:
            self._joined(accepted)
            return
        if self._told_again(accepted):
            return
        self._end_overtaken(accepted)
        message = (
            self._runner.delivering if self._runner.delivering is not None and self._runner.delivering.in_pane else None
        )
        if message is None:
            message = self._runner.supervisor.routing.unsettled(self._runner.name, accepted.prompt)
        if message is not None and message.expected is not None and not _same(accepted.prompt, message.expected):
            if message.status in {"claimed", "written"} and message.content.strip() in accepted.prompt:
                self._runner.supervisor.ledger.advance(
                    message,
                    "uncertain",
                    source=accepted.source,
                    error_type="prompt_differs",
                    error_message=f"{self._runner.name} took a prompt that holds more than the message",
                )
            message = self._runner.supervisor.routing.unsettled(self._runner.name, accepted.prompt)
        if message is None:
            message = self._typed_by_a_person(accepted)
        elif message is self._runner.delivering and self._runner.wrote is not None:
            self._runner.wrote()
        message.expected = message.expected or accepted.prompt
        if self._runner.turn is None:
            self._runner.turn = Turn(
                self._runner.supervisor.replaying.turn_id(self._runner.name, message.message_id) or new_id("trn_"),
                accepted.prompt,
                accepted.prompt_id,
                [message.message_id],
                accepted.source,
                hop=message.hop,
                conversation_id=message.conversation_id,
            )
            self._runner.supervisor.ledger.advance(
                message,
                "accepted",
                source=accepted.source,
                turn_id=self._runner.turn.turn_id,
                prompt_id=accepted.prompt_id,
            )
            step("accepted")
            self._runner.supervisor.journal.append(
                "turn.started",
                agent=self._runner.name,
                turn_id=self._runner.turn.turn_id,
                message_id=message.message_id,
                source=accepted.source,
                message_ids=[message.message_id],
                prompt_id=accepted.prompt_id,
            )
            self._runner.supervisor.changes.begin(self._runner, self._runner.turn)
            step("turn_started")
        elif message.message_id not in self._runner.turn.message_ids:
            self._runner.turn.message_ids.append(message.message_id)
            self._runner.turn.prompt_id = accepted.prompt_id or self._runner.turn.prompt_id
            self._runner.supervisor.ledger.advance(
                message,
                "accepted",
                source=accepted.source,
                turn_id=self._runner.turn.turn_id,
                prompt_id=accepted.prompt_id,
            )
        self._runner.doubt = None

    def _end_overtaken(self, accepted: Accepted) -> None:
        """End a turn that nothing ended, since the program began another one."""
        turn = self._runner.turn
        if turn is None or None in {turn.prompt_id, accepted.prompt_id} or turn.prompt_id == accepted.prompt_id:
            return
        record = self._by_record(turn.prompt or "", turn.began_at - _RECORD_SLACK_S)
        ended = [piece for piece in record if isinstance(piece, TurnEnded) and piece.prompt_id == turn.prompt_id]
        if ended and ended[0].reason == "completed" and ended[0].reply is None:
            ended = []
        self.ended(ended[0] if ended else TurnEnded(accepted.source, None, "interrupted", turn.prompt_id))

    def _joined(self, accepted: Accepted) -> None:
        """Take note of a text that went into a turn which was running; no hook tells of it."""
        turns = [one for one in (self._runner.turn, self._runner.last_turn) if one is not None]
        turn = next((one for one in turns if one.prompt_id == accepted.prompt_id), None)
        if turn is None:
            return
        messages = self._runner.supervisor.ledger
        known = [messages[one].expected or "" for one in turn.message_ids]
        message = (
            self._runner.delivering if self._runner.delivering is not None and self._runner.delivering.in_pane else None
        )
        if message is None or message.status != "written" or not _same(accepted.prompt, message.expected or ""):
            message = self._runner.supervisor.routing.unsettled(self._runner.name, accepted.prompt)
        if message is None:
            if any(_same(accepted.prompt, one) for one in known):
                return
            message = self._typed_by_a_person(accepted)
        turn.message_ids.append(message.message_id)
        self._runner.supervisor.ledger.advance(
            message, "accepted", source=accepted.source, turn_id=turn.turn_id, prompt_id=accepted.prompt_id
        )
        if turn.first_output:
            self._runner.supervisor.ledger.advance(message, "started", source=accepted.source, turn_id=turn.turn_id)
        if turn.ended is not None:
            self._settle(message, turn, turn.ended)

    def _by_record(self, prompt: str, since: float) -> list[Evidence]:
        """Read what was added to the program's own record, a few kilobytes, at once."""
        if self._runner.transcript is None or not self._runner.adapter.reports:
            return []
        return self._runner.adapter.transcript(self._runner.transcript, prompt=prompt, since=since)

    def _told_again(self, accepted: Accepted) -> bool:
        """Tell whether a prompt is known already: from the record, or told to a supervisor that died over it."""
        if accepted.prompt_id is None:
            return False
        turn = self._runner.turn
        known = not self._runner.prompts_taken.add(accepted.prompt_id)
        if turn is not None and turn.prompt_id is None and turn.prompt and _same(accepted.prompt, turn.prompt):
            turn.prompt_id = accepted.prompt_id
            return True
        return known

    def _typed_by_a_person(self, accepted: Accepted) -> Message:
        """Make a row for a prompt that nobody sent through the lab."""
        ledger = self._runner.supervisor.ledger
        message = ledger.queue(
            sender="user", recipient=self._runner.name, content=accepted.prompt, kind="direct", source="human"
        )
        message.expected = accepted.prompt
        return message

    def first_output(self, source: str) -> None:
        """Take note of the first sign of an answer."""
        if self._runner.turn is None or self._runner.turn.first_output:
            return
        self._runner.turn.first_output = True
        self._runner.supervisor.journal.append(
            "turn.first_output", agent=self._runner.name, turn_id=self._runner.turn.turn_id, source=source
        )
        step("first_output")
        for message_id in self._runner.turn.message_ids:
            self._runner.supervisor.ledger.advance(
                self._runner.supervisor.ledger[message_id],
                "started",
                source=source,
                turn_id=self._runner.turn.turn_id,
            )

    def tool_started(self, tool: ToolStarted) -> None:
        """Journal the begin of a tool call."""
        if self._runner.turn is not None:
            self._runner.turn.tools.add(tool.tool_call_id)
        self._runner.supervisor.journal.append(
            "tool.started",
            agent=self._runner.name,
            turn_id=self._runner.turn.turn_id if self._runner.turn else None,
            source=tool.source,
            tool_call_id=tool.tool_call_id,
            name=tool.name,
            input=tool.input,
        )

    def tool_ended(self, tool: ToolEnded) -> None:
        """Journal the end of a tool call."""
        self._runner.supervisor.journal.append(
            "tool.ended",
            agent=self._runner.name,
            turn_id=self._runner.turn.turn_id if self._runner.turn else None,
            source=tool.source,
            tool_call_id=tool.tool_call_id,
            output=tool.output,
            status=tool.status,
            error_message=tool.error_message,
        )

    def ended(self, ended: TurnEnded) -> None:
        """End the turn, and settle the messages that it answers."""
        turn = self._runner.turn
        if turn is None:
            return
        if ended.prompt_id and turn.prompt_id and ended.prompt_id != turn.prompt_id:
            return
        if turn.interrupted and not self._runner.adapter.reports:
            ended = dataclasses.replace(ended, reason="interrupted")
        if ended.reason == "interrupted" and self._server_gone():
            # Hung up on with its terminal, it says so itself, maybe sooner than tmux's end is told; nobody has
            # interrupted it.
            why = f"{self._runner.name} ended with the tmux server"
            ended = dataclasses.replace(ended, reason="exited", error_message=why)
        on_its_way = self._runner.delivering
        if on_its_way is not None and on_its_way.status == "written" and on_its_way.message_id not in turn.message_ids:
            # Typed while the turn ran: the turn may have taken it in, which only the record tells.
            for piece in self._by_record(on_its_way.expected or "", on_its_way.claimed_at):
                if isinstance(piece, Accepted) and piece.joined:
                    self._joined(piece)
        if ended.reason == "interrupted" and self._runner.dialogs.undecided is not None:
            self._runner.dialogs.closed(DialogClosed(ended.source, self._runner.dialogs.undecided[1], "deny"))
        if self._runner.dialog is not None and self._runner.ready is not None:
            self._runner.dialogs.close_all("human", "deny" if ended.reason == "interrupted" else None, ended.source)
        if ended.limited is not None:
            # First of all, so that nothing that follows from the end is typed into the limit.
            self._runner.supervisor.guards.breakers.report(self._runner, ended.limited)
        elif ended.reason == "completed":
            self._runner.supervisor.guards.breakers.answered(self._runner)
        self._runner.turn, self._runner.last_turn = None, turn
        if ended.source == "hook" and not self._over(turn):
            self._runner.closing = ended.source
            self._runner.spawn(self._until_over(turn))
        turn.reply, turn.ended = ended.reply, ended
        if ended.usage is not None:
            self._usage(turn, ended.usage)
        turn.place = self._runner.supervisor.journal.size
        self._runner.supervisor.journal.append(
            "turn.ended",
            agent=self._runner.name,
            turn_id=turn.turn_id,
            source=ended.source,
            reply=ended.reply,
            end_reason=ended.reason,
            error_message=ended.error_message,
        )
        self._runner.supervisor.changes.end(turn)
        step("turn_ended")
        for message_id in turn.message_ids:
            self._settle(self._runner.supervisor.ledger[message_id], turn, ended)
        if ended.usage is None and self._runner.transcript is not None and self._runner.adapter.reports:
            self._runner.amending += 1
            self._runner.spawn(self._amend_usage(turn))
        else:
            self._runner.files.follow_transcript()

    def _server_gone(self) -> bool:
        supervisor = self._runner.supervisor
        return supervisor.rebuild.gone or supervisor.tmux_died()

    def _over(self, turn: Turn) -> bool:
        """Tell whether the program has closed a turn, for those that report its end a moment earlier."""
        transcript = self._runner.transcript
        if not self._runner.supervisor.replaying.turn_over(self._runner):
            return False
        return transcript is None or self._runner.adapter.turn_over(transcript, turn.prompt_id)

    async def _until_over(self, turn: Turn) -> None:
        """Hold the next message back until a turn is closed: until then its text would go into that turn."""
        # In a replay it is over when it was then.
        deadline = math.inf if self._runner.supervisor.replaying.terminal else time.monotonic() + _CLOSE_S
        while self._runner.running and not self._over(turn) and time.monotonic() < deadline:  # noqa: ASYNC110 - a file
            await asyncio.sleep(_CLOSE_LOOK_S)
        self._runner.closing = None
        self._runner.publish()

    def _settle(self, message: Message, turn: Turn, ended: TurnEnded) -> None:
        """Give a message the outcome of the turn that took it."""
        ledger = self._runner.supervisor.ledger
        ledger.answer(message, ended.reply, turn.place)
        if ended.reason in {"interrupted", "error", "exited", "limit"}:
            ledger.advance(
                message,
                "failed",
                source=ended.source,
                turn_id=turn.turn_id,
                error_type=f"turn_{ended.reason}",
                error_message=ended.error_message or f"the turn of {self._runner.name} was {ended.reason}",
            )
        else:
            ledger.advance(message, "answered", source=ended.source, turn_id=turn.turn_id)
        step("answered")
        self._runner.supervisor.conversations.turn_over(message, ended)
        step("followed")

    def _usage(self, turn: Turn, usage: Usage) -> None:
        supervisor = self._runner.supervisor
        facts, cost = usage.attributes(), cost_of(usage, supervisor.config.prices)
        if cost is not None:
            facts["cost_usd"] = cost
        supervisor.journal.append(
            "turn.usage", agent=self._runner.name, turn_id=turn.turn_id, source="transcript", **facts
        )
        if usage.model:
            self._runner.saw_model(usage.model)
        if usage.final and turn.ended is not None:
            completed = turn.ended.reason == "completed" and turn.began_at >= supervisor.crosscheck.since
            supervisor.crosscheck.turn_over(self._runner.name, turn.turn_id, usage, completed=completed)

    def account_for(self, turn: Turn) -> None:
        """Read the tokens of a turn whose end an earlier supervisor journalled, and its tokens not.

        Parameters
        ----------
        turn : Turn
            It, with its end.
        """
        if self._runner.transcript is not None and self._runner.adapter.reports and turn.prompt_id is not None:
            self._runner.amending += 1
            self._runner.spawn(self._amend_usage(turn))

    async def _amend_usage(self, turn: Turn) -> None:
        """Read the turn's tokens from the program's record, which may be written after the turn's end."""
        last: Usage | None = None
        try:
            for delay in _USAGE_DELAYS_S:
                # What has ended writes nothing more.
                ended = await self._runner.supervisor.ledger.until(lambda: not self._runner.running, delay)
                if self._runner.transcript is None:
                    return
                usage = await asyncio.to_thread(
                    self._runner.adapter.usage, self._runner.transcript, prompt_id=turn.prompt_id, prompt=turn.prompt
                )
                if usage is not None and usage != last:
                    last = usage
                if ended or (usage is not None and usage.final):
                    break
            # A person may have typed while it ran: the record alone tells of texts that the turn took in.
            for piece in await asyncio.to_thread(self._by_record, turn.prompt or "", turn.began_at - _RECORD_SLACK_S):
                if isinstance(piece, Accepted) and piece.joined:
                    self._joined(piece)
        finally:
            self._runner.amending -= 1
            if last is not None:
                self._usage(turn, last)
            self._runner.files.follow_transcript()
            self._runner.supervisor.ledger.poke()

    async def reconcile(self) -> bool:
        """Settle the current turn from the program's own record; True when that ended it."""
        turn = self._runner.turn
        if turn is None or self._runner.transcript is None or turn.prompt is None:
            return False
        async with self._reconciling:
            return turn is not self._runner.turn or await self._reconcile(turn)

    async def _reconcile(self, turn: Turn) -> bool:
        if self._runner.transcript is None or turn.prompt is None:
            return False
        found = await asyncio.to_thread(
            self._runner.adapter.transcript,
            self._runner.transcript,
            prompt=turn.prompt,
            since=turn.began_at - _RECORD_SLACK_S,
        )
        if turn.prompt_id is not None:
            found = [one for one in found if not isinstance(one, TurnEnded) or one.prompt_id in {None, turn.prompt_id}]
        ended = [piece for piece in found if isinstance(piece, TurnEnded)]
        if ended and self._runner.turn is turn:
            self._runner.apply(list(ended))
            return True
        return await self._given_back(turn)

    async def _given_back(self, turn: Turn) -> bool:
        """End a turn whose prompt stands in the input line again, and clear the line when the text is ours."""
        if self._runner.pane_id is None or self._runner.turn is not turn or self._runner.adapter.clear_key is None:
            return False
        if self._runner.delivering is not None and self._runner.delivering.message_id not in turn.message_ids:
            return False
        screen = await self._runner.supervisor.screen(self._runner, escapes=True)
        if self._runner.turn is not turn or not self._runner.adapter.restored(screen, turn.prompt or ""):
            return False
        messages = self._runner.supervisor.ledger
        if all(messages[one].claimed_at for one in turn.message_ids):  # a person's own text is left to them
            await self._runner.supervisor.tmux.run(
                self._runner.supervisor.driver.press, self._runner.pane_id, self._runner.adapter.clear_key
            )
            deadline = time.monotonic() + _CLEAR_S
            while self._runner.adapter.composer(screen, Typed("", "")) != "empty" and time.monotonic() < deadline:
                await asyncio.sleep(0.02)
                screen = await self._runner.supervisor.screen(self._runner, escapes=True)
        if self._runner.turn is turn:
            self._runner.apply([TurnEnded("screen", None, "interrupted", turn.prompt_id)])
        return True


def _same(prompt: str, expected: str) -> bool:
    return prompt == expected or prompt.rstrip() == expected.rstrip()
