"""Delivery: one writer per recipient, one message at a time, evidence on every rung.

A message is journalled as *claimed*, and that is on the disk, before its first byte is written to a pane. From then on
nothing is ever typed again on a guess: only a bare Enter may be repeated, and only when the input line is seen to hold
our own text. What no evidence settles is ``uncertain``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from typing import TYPE_CHECKING

from orchestrator_lab.agents.base import Accepted, Queued, TurnEnded, Typed
from orchestrator_lab.errors import JournalError, TmuxError
from orchestrator_lab.supervisor.steps import step

if TYPE_CHECKING:
    from orchestrator_lab.agents.base import Composer, Evidence
    from orchestrator_lab.supervisor.agent import AgentRunner
    from orchestrator_lab.supervisor.messages import Message
    from orchestrator_lab.supervisor.turns import Turn

__all__ = ["Mailbox"]

logger = logging.getLogger(__name__)

#: Enter is pressed at most this often for one message.
_SUBMITS = 3
#: Seconds for acceptance after which a message is uncertain, and one more for each 100 000 characters.
_GIVE_UP_S = 12.0
#: A line this long, in bytes, does not fit a terminal that edits lines itself.
_CANONICAL_LINE = 4095
#: While a pasted text is not on the screen yet, it is looked for this often, in seconds (a look takes 0.3 ms).
_ECHO_LOOK_S = 0.015
#: Longest wait for one of several parts of a text to be seen, in seconds.
_PART_S = 3.0
#: A text on the screen that does not look like what was typed (a terminal draws some characters differently).
_UNLIKE_S = 0.25
#: A text of ours that stands in the input line after its turn for this long was left there, in seconds.
_LEFTOVER_S = 0.5
#: While somebody's draft stands in the input line, it is looked at with each output of the pane, and this often.
_HELD_LOOK_S = 1.0
#: A text in the program's own queue is looked for in its record this often, in seconds.
_QUEUE_LOOK_S = 1.0
#: Seconds within which a program's end is told after its terminal is gone.
_END_TOLD_S = 10.0
#: Seconds within which what ended with the tmux server is settled by the programs' own records.
_SERVER_END_S = 15.0
_NOTHING = Typed("", "")


class Mailbox:
    """Messages that wait for one agent, and the only task that writes to its pane.

    Parameters
    ----------
    runner : AgentRunner
        The recipient.
    """

    def __init__(self, runner: AgentRunner) -> None:
        self._runner = runner
        self._queue: deque[Message] = deque()
        #: Out of the queue, and not delivered yet: what the input line holds may have to be looked at first.
        self._taken: Message | None = None
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._finishing: asyncio.Task[None] | None = None
        self._held: Message | None = None
        #: The last turn whose text was cleared from the input line, and since when such a text is seen there.
        self._cleared: Turn | None = None
        self._leftover: float | None = None
        #: Why delivery stands still (a full disk), None while it goes on.
        self.halted: str | None = None

    @property
    def waiting(self) -> int:
        """Messages that are queued."""
        return len(self._queue) + (self._held is not None)

    @property
    def busy(self) -> bool:
        """Whether a message is on its way into the pane, or waits."""
        return self.waiting > 0 or self.on_its_way

    @property
    def on_its_way(self) -> bool:
        """Whether a message has left the queue."""
        return self._taken is not None or self._runner.delivering is not None

    @property
    def begins(self) -> bool:
        """Whether the next message may be written at once: its claim is about to be brought to the disk."""
        return self._taken is None and self._something_to_do()

    @property
    def delivering(self) -> bool:
        """Whether a message is out of the queue, and its delivery not over."""
        return self._taken is not None or self._runner.delivering is not None

    def start_over(self) -> None:
        """Break off what is being delivered; what was only queued is queued again."""
        taken = self._taken
        self.close()
        if taken is not None and taken.status == "queued" and taken not in self._queue:
            self._queue.appendleft(taken)
        self.open()

    def open(self) -> None:
        """Begin to deliver."""
        self._task = asyncio.create_task(self._run(), name=f"mailbox {self._runner.name}")

    def close(self) -> None:
        """Stop delivering; what is queued stays queued in the journal."""
        for task in (self._task, self._finishing):
            if task is not None:
                task.cancel()

    def put(self, message: Message) -> None:
        """Queue a message that is journalled."""
        self._queue.append(message)
        self._wake.set()
        self._runner.supervisor.ledger.poke()

    def finish(self, message: Message, typed: Typed) -> None:
        """Submit a text that an earlier supervisor left in the input line."""
        runner = self._runner
        runner.delivering, runner.typed = message, typed
        message.status = "written"
        runner.publish()

        async def go_on() -> None:
            try:
                await self._submit(message, typed, str(runner.pane_id))
            finally:
                runner.delivering = None
                runner.publish()

        self._finishing = asyncio.create_task(go_on())

    def expire(self) -> None:
        """Take out what nobody waits for any more; nothing of it was typed."""
        now = time.time()
        for message in [one for one in self._queue if one.final]:
            self._queue.remove(message)
        for message in [one for one in self._queue if one.expires_at is not None and one.expires_at <= now]:
            self._runner.supervisor.ledger.advance(
                message,
                "expired",
                error_type="expired",
                error_message=f"not delivered to {message.recipient} in time; nothing was typed",
            )
            self._queue.remove(message)

    async def _run(self) -> None:
        while True:
            try:
                message = await self._next()
            except JournalError as error:
                await self._halt(error)
                continue
            try:
                await self._deliver(message)
            except JournalError as error:
                # What cannot be journalled must not be typed: the message stays where it was.
                if message.status == "queued":
                    self._queue.appendleft(message)
                await self._halt(error)
            except asyncio.CancelledError:
                raise
            except TmuxError as error:
                await self._ended(message, error)
            except Exception:
                logger.exception("delivery of %s failed", message.message_id)
                self._runner.supervisor.ledger.advance(
                    message,
                    "uncertain" if message.status != "queued" else "failed",
                    error_type="internal",
                    error_message="the supervisor failed while delivering; see its log",
                )
            finally:
                self._taken = None
                if self._runner.delivering is message:
                    self._runner.delivering = None
                self._runner.publish()

    async def _halt(self, error: JournalError) -> None:
        """Stand still for a moment: nothing tells when there is room again."""
        self.halted = error.message
        logger.error("delivery to %s stops: %s", self._runner.name, error)
        await asyncio.sleep(1.0)

    async def _ended(self, message: Message, error: TmuxError, *, nothing: bool = False) -> None:
        """Say what is known of a message whose pane failed: most often its program has just ended."""
        runner, ledger = self._runner, self._runner.supervisor.ledger
        alive = runner.supervisor.driver.alive
        await ledger.until(lambda: not runner.running, _END_TOLD_S if alive else _SERVER_END_S)
        if message.status == "queued" and runner.comes_back:
            self._queue.appendleft(message)
            return
        if runner.running:
            logger.warning("delivery of %s: %s", message.message_id, error)
        nothing = nothing or message.status == "queued"
        ended = f"{runner.name} ended " + (
            "before it was written to; nothing was typed" if nothing else "while the message was delivered"
        )
        ledger.advance(
            message,
            "failed" if nothing else "uncertain",
            source="terminal" if runner.running else "process",
            error_type="tmux" if runner.running else "exited",
            error_message=error.message if runner.running else ended,
        )

    async def _waits_for_restart(self, message: Message) -> bool:
        """Queue a message again of which nothing was typed, because its program ended and is about to come back."""
        runner, supervisor = self._runner, self._runner.supervisor
        alive = supervisor.driver.alive
        await supervisor.ledger.until(lambda: not runner.running, _END_TOLD_S if alive else _SERVER_END_S)
        if not runner.comes_back:
            return False
        supervisor.journal.append(
            "note",
            agent=runner.name,
            message_id=message.message_id,
            source="terminal",
            text=f"{runner.name} ended before anything of this message was typed; it is queued again",
        )
        message.status = "queued"
        self._queue.appendleft(message)
        return True

    async def _next(self) -> Message:
        """Wait for a message that may be written now, in order."""
        ledger = self._runner.supervisor.ledger
        while True:
            self.expire()
            if self._queue and self._may_write(self._queue[0]):
                self._taken = self._queue.popleft()
                return self._taken
            due = self._next_expiry()
            await ledger.until(
                # A message that is put meanwhile may expire before all others.
                lambda due=due: self._something_to_do() or self._next_expiry() != due,  # type: ignore[misc]
                None if due is None else max(0.01, due - time.time()),
            )

    def _next_expiry(self) -> float | None:
        return min((one.expires_at for one in self._queue if one.expires_at is not None), default=None)

    def _something_to_do(self) -> bool:
        return bool(self._queue) and self._may_write(self._queue[0])

    def _may_write(self, message: Message) -> bool:
        runner = self._runner
        if not runner.running or runner.stopping or runner.ready is None or runner.awaits_tools:
            return False
        if runner.supervisor.rebuild.gone:
            return False
        if runner.dialog is not None or runner.delivering is not None:
            return False
        if runner.supervisor.guards.hold_of(runner.name) is not None:
            return False
        if not runner.supervisor.replaying.may_claim(message):
            return False
        if message.when == "now":
            return runner.doubt is None and runner.closing is None
        # An input line that is out of sight is waited for by whoever has something to write into it.
        rests = runner.state == "idle" or (runner.hidden is not None and runner.state == "unknown" and not runner.doubt)
        return rests and runner.turn is None

    async def _deliver(self, message: Message) -> None:
        runner = self._runner
        supervisor = runner.supervisor
        ledger = supervisor.ledger
        typed = runner.adapter.typed(message.text)
        pane = runner.pane_id
        if pane is None:
            self._queue.appendleft(message)
            return
        if why := await self._unfit(typed, pane):
            ledger.advance(message, "failed", error_type="does_not_fit", error_message=why)
            return
        if not await self._line_is_free(message):
            self._queue.appendleft(message)
            return
        step("claiming")
        message.expected = typed.expected
        message.claimed_at = time.time()
        runner.supervisor.changes.before(runner)
        ledger.advance(message, "claimed", notes=list(typed.notes) or None)
        step("claimed")
        runner.delivering, runner.typed = message, typed
        echo = runner.activity
        # A program that reads its input strictly in order gets its Enter in the same breath.
        at_once = runner.adapter.reports and not runner.adapter.echo_timeout_s
        parts = [part for part in typed.parts or (typed.text,) if part]
        typed_parts, lines_entered, entered = 0, False, False

        def written() -> None:
            runner.wrote = None
            ledger.advance(message, "written", source="terminal", bytes=len(typed.text.encode()))
            step("written")

        def type_it() -> None:
            """Type one part, on the thread of tmux: one change of threads instead of three."""
            nonlocal typed_parts, entered
            supervisor.journal.sync()
            number = typed_parts + 1
            step("typing" if number == 1 else "part_typed")
            if not parts:
                return
            supervisor.changes.typing(runner)
            # The mark tells a successor how far this came.
            entered = supervisor.driver.paste(
                pane,
                parts[typed_parts],
                mark=f"{message.message_id}:{number}",
                framed=runner.bracketed_paste,
                submit=at_once and number == len(parts),
            )
            typed_parts = number
            if number == len(parts):
                step("typed")

        try:
            if not runner.adapter.reports:
                runner.publish()
                await runner.watch.begin(typed.text)
            if not runner.adapter.reports and not typed.parts:
                await supervisor.journal.asynced()
                parts = [part for part in (await self._enter_lines(typed.text, pane),) if part]
                lines_entered = parts != [typed.text]
            if at_once:
                runner.wrote = written  # the program may report the text before this thread has gone on
            typing = supervisor.tmux.submit(type_it)
            with contextlib.suppress(JournalError):  # it is being typed: what comes next meets the full disk again
                runner.publish()
            await typing
            line = ""
            while len(parts) > 1:
                line = await self._changed_line(line)
                if typed_parts == len(parts) or not runner.running:
                    break
                await supervisor.tmux.run(type_it)
        except TmuxError as error:
            nothing = typed_parts == 0 and not lines_entered and error.details.get("executed") == "no"
            if not nothing and not supervisor.driver.alive:
                raise  # its record may tell, once the program has ended with the server
            if nothing and await self._waits_for_restart(message):
                return
            await self._ended(message, error, nothing=nothing)
            return
        finally:
            runner.wrote = None
        self.halted = None
        supervisor.journal.tell_synced()
        written()
        if not at_once:
            await self._echoed(typed, echo)
        if not runner.adapter.reports and not lines_entered and "\n" in typed.text:
            await self._read_on(pane)
        await self._submit(message, typed, pane, entered=entered)

    async def _line_is_free(self, message: Message) -> bool:
        """Wait while the input line holds somebody's draft; False when the message may not be written any more."""
        runner = self._runner
        reports = runner.adapter.reports
        if not reports and runner.turn is not None:
            return True  # a program at work shows no input line
        try:
            while True:
                seen = runner.activity
                held = await self._held_now()
                if not self._may_write(message) or message.final:
                    return False
                if held == "empty" or (held == "unknown" and reports and not runner.adapter.styled):
                    return True
                if message.expires_at is not None and message.expires_at <= time.time():
                    return False
                await self._clear_leftover()
                if self._held is None:
                    self._held = message
                    what = "the input line is not in sight" if held == "unknown" else "a draft stands in the input line"
                    runner.supervisor.journal.append(
                        "note",
                        agent=runner.name,
                        message_id=message.message_id,
                        source="screen",
                        text=f"{what}; the message waits",
                    )
                runner.looks.follow_closely()
                left = None if message.expires_at is None else message.expires_at - time.time()
                await self._wait(seen, _HELD_LOOK_S if left is None else max(0.01, min(_HELD_LOOK_S, left)))
        finally:
            self._held = None

    async def _clear_leftover(self) -> None:
        """Clear a text of ours that the program took as a prompt and yet left standing in its input line.

        Claude Code does so, rarely, when Enter meets the very end of a turn. The text is known to be ours by being
        that of the last turn's message, letter for letter, for half a second of idleness.
        """
        runner, supervisor = self._runner, self._runner.supervisor
        turn, key = runner.last_turn, runner.adapter.clear_key
        if runner.turn is not None or turn is None or key is None or turn is self._cleared or runner.pane_id is None:
            return
        screen = await supervisor.screen(runner, escapes=runner.adapter.styled)
        messages = [supervisor.ledger[one] for one in turn.message_ids]
        texts = [one.expected for one in messages if one.claimed_at and one.expected]
        if not any(runner.adapter.restored(screen, text) for text in texts):
            self._leftover = None
            return
        now = time.monotonic()
        if self._leftover is None:
            self._leftover = now
        if now - self._leftover < _LEFTOVER_S:
            return
        self._cleared, self._leftover = turn, None
        supervisor.journal.append(
            "note",
            agent=runner.name,
            message_id=messages[-1].message_id,
            source="screen",
            text="the text of an accepted message still stood in the input line; it was cleared",
        )
        await supervisor.tmux.run(supervisor.driver.press, runner.pane_id, key)

    async def _changed_line(self, before: str) -> str:
        """Wait until the input line is another: a program may lose a paste that meets another one, or an Enter."""
        runner = self._runner
        deadline = time.monotonic() + _PART_S
        while True:
            seen = runner.activity
            screen = await runner.supervisor.screen(runner, escapes=runner.adapter.styled)
            line = runner.adapter.parts(screen).get("input")
            if line is None and runner.adapter.styled:
                # A dialog stands where the input line was.
                deadline = time.monotonic() + _PART_S
            elif line != before or time.monotonic() > deadline:
                return line or ""
            if not runner.running:
                return ""
            await self._wait(seen, _ECHO_LOOK_S)

    async def _echoed(self, typed: Typed, echo: asyncio.Event) -> None:
        """Wait until the input line shows the text: an Enter that overtakes it may be lost.

        Any output will do for programs whose input line is not known, since what shows a text is theirs to say.
        """
        runner = self._runner
        if not runner.adapter.reports:
            await self._wait(echo, runner.adapter.echo_timeout_s)
            return
        began = time.monotonic()
        seen = echo
        while runner.running:
            # Looked at as soon as the pane shows something new; the pause is for a keeper that is away.
            await self._wait(seen, _ECHO_LOOK_S)
            seen = runner.activity
            held = await self._composer(typed)
            if held == "holds_text":
                return
            if held == "unknown" and runner.adapter.styled:
                # A dialog stands where the input line was: an Enter would answer it.
                await self._wait(seen, _HELD_LOOK_S)
                began = time.monotonic()
                continue
            # The line was empty a moment ago: a text that cannot be recognised is ours as well.
            patience = _UNLIKE_S if held == "other" else runner.adapter.echo_timeout_s
            if time.monotonic() - began >= patience:
                return

    async def _read_on(self, pane: str) -> None:
        """Wait until a program has read a paste of several lines, as long as it reads.

        Between two lines it leaves its terminal to the kernel, which shows an Enter that arrives then at once: as an
        empty line, which nobody could tell from an answer's.
        """
        runner, supervisor = self._runner, self._runner.supervisor
        before, since = None, time.monotonic()
        with contextlib.suppress(TmuxError):  # it has ended
            while runner.running:
                seen = runner.activity
                modes = await supervisor.tmux.run(supervisor.driver.terminal_modes, pane)
                # The kernel counts whole lines only while it edits them.
                left = modes.canonical, await supervisor.tmux.run(supervisor.driver.unread_input, pane)
                if left == (False, 0):
                    return
                if left != before:
                    before, since = left, time.monotonic()
                elif time.monotonic() - since >= runner.adapter.echo_timeout_s:
                    return
                await self._wait(seen, _ECHO_LOOK_S)

    async def _held_now(self) -> Composer:
        """Look at the input line before anything is written, and let the state follow what is seen."""
        runner = self._runner
        if not runner.adapter.reports:
            held = await runner.watch.free()
            if held == "unknown" or runner.hidden is not None:
                await runner.looks.look_at_rest()
            return held
        screen = await runner.supervisor.screen(runner, escapes=runner.adapter.styled)
        held = runner.adapter.composer(screen, _NOTHING)
        if held == "unknown" or runner.hidden is not None:
            runner.looks.saw(screen)
        return held

    async def _composer(self, typed: Typed) -> Composer:
        runner = self._runner
        screen = await runner.supervisor.screen(runner, escapes=runner.adapter.styled)
        return runner.adapter.composer(screen, typed)

    async def _enter_lines(self, text: str, pane: str) -> str:
        """Enter all lines but the last one by one where the terminal edits lines itself; return what is left to type.

        Such a terminal shows what is typed at once, wherever the program's output stands: pasted as a whole, the lines
        would be shown all together and before what each of them leads to.
        """
        runner = self._runner
        supervisor = runner.supervisor
        if runner.adapter.reports or "\n" not in text:
            return text
        if not (await supervisor.tmux.run(supervisor.driver.terminal_modes, pane)).canonical:
            return text
        *lines, last = text.split("\n")
        supervisor.changes.typing(runner)
        begun = False
        try:
            for line in lines:
                if line:
                    await supervisor.tmux.run(supervisor.driver.paste, pane, line)
                    begun = True
                await supervisor.tmux.run(supervisor.driver.enter, pane)
                begun = True
                await runner.watch.settle()
        except TmuxError as error:
            if begun:  # of this line nothing was typed, but the lines before it are there
                error.details["executed"] = "in part"
            raise
        return last

    async def _unfit(self, typed: Typed, pane: str) -> str | None:
        """Return why a text cannot be typed whole, None when it can."""
        runner = self._runner
        if runner.adapter.reports or all(len(line.encode()) <= _CANONICAL_LINE for line in typed.text.split("\n")):
            return None
        modes = await runner.supervisor.tmux.run(runner.supervisor.driver.terminal_modes, pane)
        if not modes.canonical:
            return None
        return (
            f"{runner.name} reads its terminal line by line, which cuts a line after {_CANONICAL_LINE} bytes; "
            "send shorter lines"
        )

    async def _submit(self, message: Message, typed: Typed, pane: str, *, entered: bool = False) -> None:
        """Press Enter, and see that the program took the text."""
        runner = self._runner
        supervisor = runner.supervisor
        give_up = time.monotonic() + _GIVE_UP_S + len(typed.text) / 1e5
        for attempt in range(1, _SUBMITS + 1):
            echo = runner.activity
            if attempt > 1 or not entered:
                step("entering")
                await supervisor.tmux.run(supervisor.driver.enter, pane)
            step("entered")
            supervisor.journal.append(
                "message.submitted", agent=runner.name, message_id=message.message_id, attempt=attempt
            )
            step("submitted")
            if not runner.adapter.reports:
                await self._accept_on_screen(message, typed, echo)
                return
            if await self._accepted(message, runner.adapter.accept_timeout_s + len(typed.text) / 1e5):
                return
            if await self._settled_by_record(message, typed) or await self._let_in(message, typed):
                return
            if not runner.running or await self._composer(typed) != "holds_text":
                break
        give_up = max(give_up, time.monotonic() + _HELD_LOOK_S)
        while time.monotonic() < give_up and runner.running:
            if await self._accepted(message, 1.0) or await self._settled_by_record(message, typed):
                return
            if runner.dialog is not None:
                # The text may wait behind the dialog, and nobody is in a hurry while a person is asked.
                await supervisor.ledger.until(
                    lambda: runner.dialog is None or not runner.running or message.status != "written", None
                )
                give_up = time.monotonic() + _GIVE_UP_S
        if message.status != "written":
            return
        held = runner.running and await self._composer(typed) != "empty"
        runner.doubt = "input line may hold a message" if held else None
        supervisor.ledger.advance(
            message,
            "uncertain",
            error_type="no_evidence",
            error_message=f"{runner.name} gave no sign of having taken the text that was typed",
        )

    async def _let_in(self, message: Message, typed: Typed) -> bool:
        """Follow a text that the program keeps in a queue of its own; True when it became a prompt."""
        runner, ledger = self._runner, self._runner.supervisor.ledger
        turn = runner.turn

        def moved() -> bool:
            return message.status != "written" or not runner.running or runner.turn is not turn

        while not moved():
            found = await self._read_record(message, typed)
            if turn is None or not any(isinstance(piece, Queued) for piece in found):
                break
            if await ledger.until(moved, _QUEUE_LOOK_S):
                await self._accepted(message, runner.adapter.accept_timeout_s)
            await self._settled_by_record(message, typed)
            turn = runner.turn
        return message.final or message.status not in {"claimed", "written"}

    async def _accept_on_screen(self, message: Message, typed: Typed, echo: asyncio.Event) -> None:
        """Find acceptance where nothing reports: the echo, or input that was read to the end."""
        runner = self._runner
        deadline = time.monotonic() + runner.adapter.accept_timeout_s + len(typed.text) / 1e5
        await self._wait(echo, 0.2)
        shows = getattr(runner.config, "echo", True)
        while runner.running and message.status == "written":
            try:
                unread = await runner.supervisor.tmux.run(runner.supervisor.driver.unread_input, str(runner.pane_id))
                taken = unread == 0 and (not shows or await runner.watch.echoed(typed.text))
                lives = runner.lives()
            except TmuxError:
                lives = False
            if not lives:
                # What a dead program did not read counts as read; its end is told in a moment.
                await runner.supervisor.ledger.until(lambda: not runner.running, _END_TOLD_S)
                break
            if taken:
                runner.watch.accept(typed.expected, "echo" if shows else "terminal")
                await runner.watch.look()
                return
            if time.monotonic() > deadline:
                break
            await self._wait(runner.activity, 0.1)
        ended = not runner.running and not runner.killed
        if message.status == "written" and ended and await runner.watch.echoed(typed.text):
            # It took the text, and ended on it. (The terminal itself shows what a killed one never read.)
            runner.watch.accept(typed.expected, "echo")
            runner.turns.ended_in_turn()
        if message.status == "written":
            runner.supervisor.ledger.advance(
                message,
                "uncertain",
                error_type="no_evidence",
                error_message=(
                    f"{runner.name} did not show the text that was typed"
                    if runner.running
                    else f"{runner.name} ended before it was seen to take the text"
                ),
            )

    async def _accepted(self, message: Message, timeout_s: float) -> bool:
        ledger = self._runner.supervisor.ledger
        await ledger.until(
            lambda: message.status != "written" or not self._runner.running or self._runner.dialog is not None,
            timeout_s,
        )
        if not self._runner.running and message.status == "written":
            ledger.advance(
                message,
                "uncertain",
                source="process",
                error_type="exited",
                error_message=f"{self._runner.name} ended while the message was delivered",
            )
        return message.status != "written"

    async def _settled_by_record(self, message: Message, typed: Typed) -> bool:
        """Look for the prompt in the program's own record, where its report may have been lost."""
        found = await self._read_record(message, typed)
        if message.status != "written":
            return True
        self._runner.apply([piece for piece in found if isinstance(piece, Accepted | TurnEnded)])
        return message.status != "written"

    async def _read_record(self, message: Message, typed: Typed) -> list[Evidence]:
        runner = self._runner
        if runner.transcript is None:
            return []
        return await asyncio.to_thread(
            runner.adapter.transcript, runner.transcript, prompt=typed.expected, since=message.claimed_at
        )

    @staticmethod
    async def _wait(event: asyncio.Event, timeout_s: float) -> None:
        try:
            await asyncio.wait_for(event.wait(), timeout_s)
        except TimeoutError:
            return
