"""What is read off a screen, where a program reports nothing better.

For a ``program`` agent the configuration declares how a turn's end looks: a prompt, a marker or quiet. For all kinds,
a numbered menu may be answered by the label of an option, verified on the screen before Enter is pressed.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from orchestrator_lab.agents.base import Accepted, FirstOutput, TurnEnded, Watch
from orchestrator_lab.agents.menu import read_menu
from orchestrator_lab.agents.program import extract_reply

if TYPE_CHECKING:
    from orchestrator_lab.supervisor.agent import AgentRunner

__all__ = ["ScreenWatch"]

#: A prompt is looked for when nothing was written for this long, in seconds.
_PROMPT_QUIET_S = 0.03
#: Longest wait for a menu to follow a key, in seconds.
_MENU_WAIT_S = 2.0


class ScreenWatch:
    """Reads one agent's screen.

    Parameters
    ----------
    runner : AgentRunner
        Whose pane it is.
    """

    def __init__(self, runner: AgentRunner) -> None:
        self._runner = runner
        self.watch: Watch | None = runner.adapter.watch(runner.config)
        #: Line, counted from the start of the history, on which the last input was typed.
        self._begin: int | None = None
        self._typed = ""

    def quiet_s(self) -> float:
        """Return the quiet after which the screen is worth a look, in seconds."""
        if self.watch is None:
            return 0.25 if self._runner.ready is None else 2.5
        if self.watch.quiet_s is not None:
            return self.watch.quiet_s
        return _PROMPT_QUIET_S

    async def begin(self, typed: str) -> None:
        """Remember where the screen stands before something is typed."""
        if self.watch is None:
            return
        self._begin = await self._line()
        self._typed = typed

    async def resume(self, typed: str) -> None:
        """Go on with a turn that an earlier supervisor began: its input stands somewhere on the screen."""
        if self.watch is not None:
            self._begin, self._typed = 0, typed
            history, _ = await self._numbers()
            text = await self._since()
            last = next((line.strip() for line in reversed(typed.split("\n")) if line.strip()), "")
            lines = text.split("\n")
            found = [index for index, line in enumerate(lines) if last and line.rstrip().endswith(last)]
            self._begin = found[-1] if found else history
            await self.look()

    async def look(self) -> None:
        """Find readiness, or the end of the turn, on the screen."""
        runner, watch = self._runner, self.watch
        if watch is None or runner.pane_id is None:
            return
        if runner.ready is None:
            if watch.ready is None or await self._at_prompt(watch.ready):
                runner.is_ready("screen")
            return
        if runner.turn is None:
            return
        if await self._unread():
            return
        text = await self._since()
        if watch.prompt is not None:
            ended, reason = await self._at_prompt(watch.prompt), "prompt"
        elif watch.marker is not None:
            ended, reason = text.count(watch.marker) > self._typed.count(watch.marker), "marker"
        else:
            ended = time.monotonic() - runner.last_activity >= (watch.quiet_s or 0.0) - 0.01
            reason = "quiet"
        if ended and runner.turn is not None:
            reply = extract_reply(text, self._typed, watch)
            runner.apply([FirstOutput("screen"), TurnEnded("screen", reply, reason)])

    async def echoed(self, typed: str) -> bool:
        """Tell whether the screen shows the last line of what was typed, or the program has read it all."""
        last = next((line.strip() for line in reversed(typed.split("\n")) if line.strip()), "")
        text = await self._since()
        squeezed = "".join(text.split())
        return "".join(last.split())[-60:] in squeezed

    def accept(self, prompt: str, source: str) -> None:
        """Take the input for accepted on the evidence of its echo, or of its having been read."""
        self._runner.apply([Accepted(source, prompt)])

    async def choose(self, label: str) -> bool:
        """Choose a menu's option by its label; Enter is pressed only on the option that carries it."""
        runner = self._runner
        if runner.pane_id is None:
            return False
        driver, thread = runner.supervisor.driver, runner.supervisor.tmux
        deadline = time.monotonic() + _MENU_WAIT_S
        while time.monotonic() < deadline:
            menu = read_menu(await runner.supervisor.screen(runner))
            wanted = menu.find(label) if menu is not None else None
            if menu is None or wanted is None or menu.selected is None:
                return False
            if menu.selected == wanted:
                await thread.run(driver.enter, runner.pane_id)
                return True
            seen = runner.activity
            await thread.run(driver.press, runner.pane_id, "Down" if wanted > menu.selected else "Up")
            try:
                await asyncio.wait_for(seen.wait(), 0.5)
            except TimeoutError:
                continue
        return False

    async def _line(self) -> int:
        history, cursor = await self._numbers()
        return history + cursor

    async def _numbers(self) -> tuple[int, int]:
        supervisor = self._runner.supervisor
        lines = await supervisor.tmux.run(
            supervisor.driver.run,
            "display-message",
            "-p",
            "-t",
            str(self._runner.pane_id),
            "#{history_size} #{cursor_y}",
        )
        history, cursor = (int(word) for word in lines[0].split())
        return history, cursor

    async def _since(self) -> str:
        """Return the screen from the line on which the last input was typed, wrapped lines joined."""
        history, _ = await self._numbers()
        start = (self._begin or 0) - history
        supervisor = self._runner.supervisor
        lines = await supervisor.tmux.run(
            supervisor.driver.run, "capture-pane", "-p", "-J", "-t", str(self._runner.pane_id), "-S", str(start)
        )
        return "\n".join(lines)

    async def _at_prompt(self, pattern: object) -> bool:
        """Tell whether the line of the cursor, up to the cursor, is a prompt."""
        supervisor = self._runner.supervisor
        lines = await supervisor.tmux.run(
            supervisor.driver.run,
            "display-message",
            "-p",
            "-t",
            str(self._runner.pane_id),
            "#{cursor_x} #{cursor_y}",
        )
        column, row = (int(word) for word in lines[0].split())
        shown = await supervisor.tmux.run(
            supervisor.driver.run,
            "capture-pane",
            "-p",
            "-N",
            "-t",
            str(self._runner.pane_id),
            "-S",
            str(row),
            "-E",
            str(row),
        )
        line = (shown[0] if shown else "")[:column]
        search = getattr(pattern, "search", None)
        return bool(search is not None and (search(line) or search(line.rstrip())))

    async def _unread(self) -> bool:
        supervisor = self._runner.supervisor
        return bool(await supervisor.tmux.run(supervisor.driver.unread_input, str(self._runner.pane_id)))
