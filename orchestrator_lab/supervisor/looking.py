"""When an agent's pane is looked at: only where no better evidence comes, and only when it is quiet."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from orchestrator_lab.agents.base import (
    Typed,
)
from orchestrator_lab.agents.claude_screen import plain
from orchestrator_lab.agents.menu import read_menu

if TYPE_CHECKING:
    from collections.abc import Mapping


if TYPE_CHECKING:
    from orchestrator_lab.supervisor.agent import AgentRunner

__all__ = ["Looking"]

logger = logging.getLogger(__name__)

#: The screen of a program whose screen says that it is ready is looked at this often, in seconds (it takes 0.3 ms).
_STARTUP_LOOK_S = 0.05
#: Without any report for this long after the terminal is ready, the screen alone may say so (hooks forbidden).
_SCREEN_READY_S = 6.0
#: A start whose screen stands still this long asks something: with a menu in sight, and without, in seconds.
_MENU_QUIET_S, _ODD_QUIET_S = 1.5, 6.0
#: An input line that is out of sight for less than this is being drawn, in seconds.
_UNSEEN_S = 0.3
#: A screen is believed to show work that nothing reports this long after the last turn, in seconds.
_SHOWN_S = 2.0
#: Nothing was told yet: no interval is negative.
_UNTOLD = -1.0

#: Seconds between two reports of a pane's activity: where the echo of a text is awaited (a few milliseconds, as a rule,
#: for which nothing else is waited for), where a prompt is, and where quiet is.
_ECHO_S, _CLOSELY_S, _LOOSELY_S = 0.001, 0.01, 1.0


class Looking:
    """Decides when to read one agent's screen or record.

    Parameters
    ----------
    runner : AgentRunner
        Holds the facts.
    """

    def __init__(self, runner: AgentRunner) -> None:
        self._runner = runner
        #: How closely the keeper was told to follow the pane.
        self._followed: float | None = _UNTOLD
        self._quiet: asyncio.TimerHandle | None = None
        #: Since when the input line of an agent at rest is not in sight.
        self._unseen: float | None = None

    def follow(self, every_s: float | None) -> None:
        """Have the keeper tell this pane's activity at most so often; None: only when its modes change."""
        if every_s != self._followed:
            self._followed = every_s
            self._runner.supervisor.keeper.tell(op="follow", agent=self._runner.name, every_s=every_s)

    def follow_closely(self) -> None:
        """Have this pane's activity told at once, until the state says otherwise."""
        self.follow(_CLOSELY_S)

    def follow_again(self) -> None:
        """Tell a keeper that may be new how closely this pane is followed."""
        if self._followed != _UNTOLD:
            every_s, self._followed = self._followed, _UNTOLD
            self.follow(every_s)

    def closely(self) -> float | None:
        """Return how often this pane's activity is worth being told."""
        if self._runner.state == "idle":
            return None
        # A program that reports is looked at for its echo and its questions; else quiet is all that counts.
        message, reports = self._runner.delivering, self._runner.adapter.reports
        typed = message is not None and message.status in {"claimed", "written"}
        if typed and reports and self._runner.adapter.echo_timeout_s > 0:
            return _ECHO_S
        looked_at = not reports or self._runner.state != "busy"
        return _CLOSELY_S if looked_at else _LOOSELY_S

    def pane_activity(self, message: Mapping[str, Any]) -> None:
        """Take note of output that the keeper saw."""
        self._runner.last_activity = time.monotonic()
        modes = message.get("modes")
        if isinstance(modes, dict) and "bracketed_paste" in modes:
            self._runner.bracketed_paste = bool(modes["bracketed_paste"])
        self._runner.activity.set()
        self._runner.activity = asyncio.Event()
        if self._runner.dialog is not None and self._runner.ready is not None and self._runner.adapter.styled:
            self._runner.dialogs.look_soon()
        if self._runner.ready is None:
            self._runner.check_ready()
            if self.starts_on_screen and self._looks_within(_STARTUP_LOOK_S):
                return  # an animated start is never quiet: its screen is looked at while it goes on
        self.arm(self._quiet_s())

    @property
    def starts_on_screen(self) -> bool:
        """Whether the program's screen, and nothing else, says that it is ready."""
        return self._runner.adapter.starts_on_screen

    @property
    def _doubt_quiet_s(self) -> float:
        return self._runner.adapter.doubt_quiet_s

    def _looks_within(self, delay_s: float) -> bool:
        now = asyncio.get_running_loop().time()
        return self._quiet is not None and not self._quiet.cancelled() and now < self._quiet.when() <= now + delay_s

    def _quiet_s(self) -> float:
        """Return the quiet after which screen or record are worth a look, in seconds."""
        if self._runner.ready is None and self.starts_on_screen:
            return _STARTUP_LOOK_S
        return (
            min(self._runner.watch.quiet_s(), self._doubt_quiet_s)
            if self._runner.turn is not None
            else self._runner.watch.quiet_s()
        )

    def look_in(self, delay_s: float) -> None:
        """Look at the screen later, also when nothing is written until then."""
        self.arm(delay_s)

    def arm(self, delay_s: float) -> None:
        """Look again after so many seconds of quiet."""
        if self._quiet is not None:
            self._quiet.cancel()
        self._quiet = asyncio.get_running_loop().call_later(delay_s, self._on_quiet)

    def stop(self) -> None:
        """Look no more."""
        if self._quiet is not None:
            self._quiet.cancel()

    def _on_quiet(self) -> None:
        if self._runner.running and self._runner.pane_id is not None:
            self._runner.spawn(self._look())

    async def _look(self) -> None:
        """Read the screen or the record, where no better evidence came while the pane was quiet."""
        if self._runner.watch.watch is not None:
            await self._runner.watch.look()
            if self._looked_at():
                await self.look_at_rest()
        elif self._runner.ready is None:
            await self._look_at_start()
        elif self._runner.turn is not None:
            if time.monotonic() - self._runner.last_activity >= self._doubt_quiet_s - 0.1:
                await self._look_at_work()
        elif self._looked_at():
            await self.look_at_rest()

    async def look_at_rest(self) -> None:
        """Look at an agent that seems to rest: nothing tells of what a person at its pane does."""
        runner = self._runner
        if not self._rests():
            return
        if runner.adapter.styled:
            self.saw(await runner.supervisor.screen(runner, escapes=True))
        elif runner.watch.watch is not None and runner.watch.watch.prompt is not None:
            held = await runner.watch.free()
            if self._rests():
                self.out_of_sight(None if held != "unknown" else await runner.supervisor.screen(runner))

    def _rests(self) -> bool:
        """Tell whether nothing that is known speaks against its being idle."""
        runner = self._runner
        busy = runner.dialog is not None or runner.turn is not None or runner.closing or runner.delivering is not None
        return runner.running and runner.ready is not None and not busy

    async def _look_at_work(self) -> None:
        """See whether a turn is over that nothing reports, or whether its program asks something unheard."""
        runner = self._runner
        if await runner.turns.reconcile() or runner.dialog is not None or not runner.adapter.styled:
            return
        # A question that was just answered, by a policy's report, may still stand there.
        left = runner.adapter.question_quiet_s - (time.monotonic() - runner.last_activity)
        if left > 0.1:
            self.arm(left)
            return
        screen = await runner.supervisor.screen(runner, escapes=True)
        if runner.turn is None or runner.dialog is not None:
            return
        if runner.adapter.composer(screen, Typed("", "")) == "unknown":
            asked = runner.adapter.question(plain(screen))
            if asked is not None:
                runner.apply([asked])

    def _looked_at(self) -> bool:
        """Tell whether an agent at rest is worth a look: something spoke against its being idle."""
        runner = self._runner
        return self._unseen is not None or any((runner.doubt, runner.hidden, runner.shown))

    def saw(self, screen: str) -> None:
        """Take in the screen, with escapes, of an agent whose input line is always in sight when it rests."""
        runner = self._runner
        if not self._rests() or not runner.adapter.styled:
            return
        held = runner.adapter.composer(screen, Typed("", ""))
        if held == "unknown":
            self.out_of_sight(screen)
            return
        before = (runner.doubt, runner.shown)
        if held == "empty":
            runner.doubt = None
        rule = runner.adapter.state_rule(plain(screen)) if self._long_rested() else None
        runner.shown = rule.name if rule is not None and rule.state == "busy" else None
        if runner.shown is not None:
            self.arm(_SHOWN_S)
        if before != (runner.doubt, runner.shown):
            runner.publish()
        self.out_of_sight(None)

    def out_of_sight(self, screen: str | None) -> None:
        """Take note that an input line is not in sight on this screen; None: that it is.

        One that is out of sight for a moment is being drawn. One that stays away says that nobody knows what its
        program does, unless a rule knows the question in its place.
        """
        runner = self._runner
        if screen is None:
            self._unseen = None
            if runner.hidden is not None:
                runner.hidden = None
                runner.publish()
            return
        now = time.monotonic()
        if self._unseen is None:
            self._unseen = now
        if now - self._unseen < _UNSEEN_S:
            self.arm(_UNSEEN_S)
            return
        asked = runner.adapter.question(plain(screen))
        if asked is not None:
            self._unseen = runner.hidden = None
            runner.apply([asked])
        elif runner.hidden is None:
            runner.hidden = "its input line is not in sight"
            runner.publish()

    def _long_rested(self) -> bool:
        """Tell whether its last turn is long over: a screen may show the end of it for a moment."""
        return self._runner.known().ages["turn"] > _SHOWN_S

    async def _look_at_start(self) -> None:
        if self._runner.context is None:
            return
        screen = await self._runner.supervisor.screen(self._runner)
        self.start_question(screen)
        waited = time.monotonic() - self._runner.started_at
        if self._starting():
            blank = self._runner.typed or self._runner.adapter.typed("")
            # Of a quick program nobody may have seen that it turned bracketed paste on.
            reported = self._runner.session_ready is not None and self._runner.session_ready.source == "hook"
            # What an adopted one reported, and the modes that it set, may have been told to the dead.
            due = reported or self._runner.was_adopted or waited > _SCREEN_READY_S
            if due and self._runner.adapter.styled:  # a suggestion in the input line is no draft
                screen = await self._runner.supervisor.screen(self._runner, escapes=True)
            if due and self._starting() and self._runner.adapter.composer(screen, blank) == "empty":
                self._runner.is_ready("screen")
            else:
                self.arm(1.0)
        elif self._runner.dialog is not None:
            self.arm(1.0)

    def start_question(self, screen: str) -> None:
        """Find, or miss, the question of a program that is not ready, on its screen without escapes.

        A screen that stands still, is not empty and shows no input line asks something as well: soon when there is a
        menu on it, after a while when not. It is never answered by the lab.
        """
        runner = self._runner
        if runner.context is None:
            return
        found = runner.adapter.startup(screen, context=runner.context)
        if found:
            runner.apply(found)
            return
        dialog = runner.dialog
        if dialog is not None and dialog.source == "screen":
            same = dialog.kind == "unknown" and runner.adapter.unknown(screen).subject == dialog.subject
            if same:
                self.arm(_LOOSELY_S)
            else:
                runner.dialogs.close("human", None, "screen")
                runner.publish()
            return
        if runner.session_ready is not None or dialog is not None or not screen.strip():
            return
        if runner.adapter.styled and runner.adapter.composer(screen, Typed("", "")) != "unknown":
            return
        patience = _MENU_QUIET_S if read_menu(screen) is not None else _ODD_QUIET_S
        quiet = time.monotonic() - max(runner.last_activity, runner.started_at)
        if quiet >= patience:
            runner.apply([runner.adapter.unknown(screen)])
        else:
            self.arm(max(0.05, min(_LOOSELY_S, patience - quiet)))

    def _starting(self) -> bool:
        """Tell whether the program lives and neither takes input nor asks anything yet."""
        return self._runner.ready is None and self._runner.running and self._runner.dialog is None
