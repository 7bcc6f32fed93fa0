"""What is read off a screen, where a program reports nothing better.

For a ``program`` agent the configuration declares how a turn's end looks: a prompt, a marker or quiet. For all kinds,
a numbered menu may be answered by the label of an option, verified on the screen before Enter is pressed.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator_lab.agents.base import Accepted, FirstOutput, TurnEnded, Watch
from orchestrator_lab.agents.menu import question, read_menu
from orchestrator_lab.agents.program import extract_reply, prompt_start, strip_echo

if TYPE_CHECKING:
    from orchestrator_lab.agents.base import Composer
    from orchestrator_lab.supervisor.agent import AgentRunner
    from orchestrator_lab.tmux import TmuxDriver

__all__ = ["ScreenWatch"]

#: A prompt is looked for when nothing was written for this long, in seconds.
_PROMPT_QUIET_S = 0.03
#: A marker says by itself that all was written: it is looked for almost at once, in seconds.
_MARKER_QUIET_S = 0.004
#: A prompt behind other text on its line is believed when nothing was written for this long, in seconds.
_LOOSE_QUIET_S = 0.3
#: A program that shows nothing of what is typed may think for so long behind the prompt at which it was typed, in
#: seconds: nothing tells that prompt from the next one, but that something was written in between.
_SAME_PROMPT_S = 3.0
#: Seconds until input that is not read yet is looked at again (reading it may show nothing).
_UNREAD_S = 0.05
#: A turn without a marker that was interrupted is over after this quiet, in seconds.
_INTERRUPTED_QUIET_S = 1.0
#: Longest wait for a program to read one of several lines, and the pause between two looks, in seconds.
_SETTLE_S = 0.5
_SETTLE_LOOK_S = 0.01
#: The same for a prompt of a program that has one, on a busy machine.
_SETTLE_PROMPT_S = 1.0
#: Longest wait for a menu to follow a key, in seconds.
_MENU_WAIT_S = 5.0
#: Quiet after a move in a menu, and how long it is waited for where something else moves as well, in seconds.
_STEADY_S, _STEADY_AT_MOST_S = 0.15, 0.6
#: Options that a single digit can name.
_DIGITS = 9
#: How often a screen that moves while it is read is read again.
_READS = 5


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the cursor stands: lines in the history, its row and column, and the history's limit."""

    history: int
    row: int
    column: int
    limit: int

    @property
    def line(self) -> int:
        """The cursor's line, counted from the start of the history."""
        return self.history + self.row


@dataclass(frozen=True, slots=True)
class _Shown:
    """What a screen shows from the line on which the input was typed.

    ``cursor`` is the cursor's row up to the cursor; ``lost`` tells that the beginning is no longer there, because the
    program cleared its screen, or wrote more than the history holds.
    """

    text: str
    cursor: str
    lost: bool


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
        self._echo = bool(getattr(runner.config, "echo", True))
        #: Where the last input was typed, and what stood before the cursor there.
        self._begin: _Place | None = None
        self._prefix: str | None = None
        self._typed = ""
        self._begun_at = 0.0
        #: Whether the terminal edited lines itself when the program was ready; a program that does its own editing
        #: gives the terminal back while it works, so that a prompt in its output is told from its own.
        self._canonical: bool | None = None
        #: The line of the cursor when the prompt was last seen, digits aside.
        self._prompt_line: str | None = None

    def quiet_s(self) -> float:
        """Return the quiet after which the screen is worth a look, in seconds."""
        watch = self.watch
        if watch is None:
            return 0.25 if self._runner.ready is None else 2.5
        if self._runner.ready is None:
            return watch.ready_quiet_s or _PROMPT_QUIET_S
        if watch.marker is not None:
            return _MARKER_QUIET_S
        return watch.quiet_s if watch.quiet_s is not None else _PROMPT_QUIET_S

    async def begin(self, typed: str) -> None:
        """Remember where the screen stands before something is typed."""
        if self.watch is None:
            return
        supervisor = self._runner.supervisor
        self._begin, self._prefix = await supervisor.tmux.run(_cursor, supervisor.driver, str(self._runner.pane_id))
        self._typed, self._begun_at = typed, time.monotonic()

    async def resume(self, typed: str) -> None:
        """Go on with a turn that an earlier supervisor began: its input stands somewhere on the screen."""
        if self.watch is None:
            return
        supervisor, pane = self._runner.supervisor, str(self._runner.pane_id)
        place, _ = await supervisor.tmux.run(_cursor, supervisor.driver, pane)
        self._typed, self._prefix, self._begun_at = typed, None, time.monotonic()
        lines = await supervisor.tmux.run(
            supervisor.driver.run, "capture-pane", "-p", "-t", pane, "-S", str(-place.history), "-E", str(place.row)
        )
        first = "".join(next((line for line in typed.split("\n") if line.strip()), "").split())
        found = [at for at, line in enumerate(lines) if first and "".join(line.split()).endswith(first[-60:])]
        at = found[-1] if found and self._echo else place.history
        self._begin = _Place(at, 0, 0, place.limit)
        await self.look()

    async def look(self) -> None:
        """Find readiness, or the end of the turn, on the screen."""
        runner, watch = self._runner, self.watch
        if watch is None or runner.pane_id is None:
            return
        if runner.ready is None:
            await self._look_for_readiness(watch)
            return
        turn = runner.turn
        if turn is None:
            return
        if await self._unread():
            self._again(_UNREAD_S)
            return
        shown = await self._since()
        quiet = time.monotonic() - max(runner.last_activity, self._begun_at)
        reason = "prompt" if watch.prompt else "marker" if watch.marker else "quiet"
        if watch.prompt is not None:
            ended = prompt_start(watch.prompt, shown.cursor, anywhere=False) is not None
            if not ended and prompt_start(watch.prompt, shown.cursor) is not None:
                ended = quiet >= _LOOSE_QUIET_S
                if not ended:
                    self._again(_LOOSE_QUIET_S - quiet)
            if ended and not self._echo and runner.last_activity <= self._begun_at and quiet < _SAME_PROMPT_S:
                ended = False
                self._again(_LOOSE_QUIET_S)
            ended = ended and await self._waits_for_input()
        elif watch.marker is not None:
            lines, _ = strip_echo(shown.text.split("\n"), self._typed, watch, prefix=self._prefix, echo=self._echo)
            ended = watch.marker in "\n".join(lines)
            if not ended and turn.interrupted:
                ended = quiet >= _INTERRUPTED_QUIET_S and await self._waits_for_input()
                self._again(_INTERRUPTED_QUIET_S)
        else:
            wanted = watch.quiet_s or 0.0
            ended = quiet >= wanted - 0.01
            if not ended:
                self._again(wanted - quiet)
        if ended and runner.turn is turn:
            self._prompt_line = _without_digits(shown.cursor)
            reply = extract_reply(shown.text, self._typed, watch, prefix=self._prefix, echo=self._echo)
            if shown.lost:
                runner.supervisor.journal.append(
                    "note",
                    agent=runner.name,
                    turn_id=turn.turn_id,
                    level="warning",
                    text="the pane no longer shows the beginning of this answer; its recording does",
                )
            runner.apply([FirstOutput("screen"), TurnEnded("screen", reply, reason)])

    async def _look_for_readiness(self, watch: Watch) -> None:
        runner = self._runner
        supervisor, pane = runner.supervisor, str(runner.pane_id)
        if watch.ready is not None:
            _, line = await supervisor.tmux.run(_cursor, supervisor.driver, pane)
            ready = prompt_start(watch.ready, line, anywhere=False) is not None
        elif watch.ready_marker is not None:
            ready = watch.ready_marker in await supervisor.screen(runner)
        else:
            quiet = time.monotonic() - max(runner.last_activity, runner.started_at)
            ready = quiet >= (watch.ready_quiet_s or 0.0) - 0.01
            if not ready:
                self._again((watch.ready_quiet_s or 0.0) - quiet)
        if ready:
            if watch.ready is not None:
                self._canonical = (await supervisor.tmux.run(supervisor.driver.terminal_modes, pane)).canonical
            if watch.ready is not None:
                self._prompt_line = _without_digits(line)
            runner.is_ready("screen")
        elif watch.ready is not None or watch.ready_marker is not None:
            runner.looks.start_question(await supervisor.screen(runner))

    async def free(self) -> Composer:
        """Say what the input line holds, as far as the prompt before the cursor tells.

        ``unknown``: the cursor does not stand behind the prompt. The program asks something, or works for somebody
        else, or a text stands there.
        """
        watch, supervisor = self.watch, self._runner.supervisor
        if watch is None or watch.prompt is None:
            return "empty"
        _, line = await supervisor.tmux.run(_cursor, supervisor.driver, str(self._runner.pane_id))
        for pattern in (watch.prompt, watch.ready):
            if pattern is None or prompt_start(pattern, line) is None:
                continue
            found = pattern.search(line)
            # A pattern may tell the beginning of the prompt only: then the line must look as it did.
            if found is not None and line[found.end() :].strip() and _without_digits(line) != self._prompt_line:
                return "other"
            return "empty" if await self._waits_for_input() else "unknown"
        return "unknown"

    async def _waits_for_input(self) -> bool:
        """Tell whether the terminal is as it was when the program was ready."""
        if self._canonical is None:
            return True
        supervisor = self._runner.supervisor
        modes = await supervisor.tmux.run(supervisor.driver.terminal_modes, str(self._runner.pane_id))
        if modes.canonical == self._canonical:
            return True
        self._again(_LOOSE_QUIET_S)
        return False

    def _again(self, delay_s: float) -> None:
        """Look again later, though nothing may be written until then."""
        self._runner.looks.look_in(max(0.01, delay_s))

    async def echoed(self, typed: str) -> bool:
        """Tell whether the screen shows that what was typed arrived: its last line, or a screen cleared since."""
        shown = await self._since()
        last = next((line for line in reversed(typed.split("\n")) if line.strip()), "")
        if shown.lost or "".join(last.split())[-60:] in "".join(shown.text.split()):
            return True
        # A program that clears its screen at once leaves nothing but its prompt.
        prompt = self.watch.prompt if self.watch is not None else None
        touched = self._runner.last_activity > self._begun_at
        return bool(prompt and touched and prompt_start(prompt, shown.cursor, anywhere=False) is not None)

    async def settle(self) -> None:
        """Wait, for a moment at most, until a line that was entered is read and what it leads to has been shown."""
        supervisor, pane = self._runner.supervisor, str(self._runner.pane_id)
        # A program with a prompt shows some prompt before it reads on; of another one nothing need be seen.
        patience_s = _SETTLE_S if self.watch is None or self.watch.prompt is None else _SETTLE_PROMPT_S
        give_up = time.monotonic() + patience_s
        before: object = None
        same = 0
        while time.monotonic() < give_up and self._runner.running:
            if not await self._unread():
                now = await supervisor.tmux.run(_cursor, supervisor.driver, pane)
                same = same + 1 if now == before else 0
                # Behind a prompt of whatever kind the cursor stands at once; on an empty line one may still come.
                if same and (now[1].strip() or patience_s == _SETTLE_S):
                    return
                before = now
            await asyncio.sleep(_SETTLE_LOOK_S)

    def accept(self, prompt: str, source: str) -> None:
        """Take the input for accepted on the evidence of its echo, or of its having been read."""
        self._runner.apply([Accepted(source, prompt)])

    async def choose(self, label: str, *, about: str = "") -> bool:
        """Choose a menu's option by its label: with the digit that stands before it, or with Enter upon it.

        One key that means the option is safer than the way to it: Claude Code paints the cursor on an option some
        milliseconds before Enter means that option, and a "No" that comes in between is taken for "Yes".

        Parameters
        ----------
        label : str
            The option's label, or its beginning.
        about : str
            Letters, without blanks, that the question must hold.

        Returns
        -------
        bool
            False when the option is not there, or could not be moved to; nothing was chosen then.
        """
        runner = self._runner
        if runner.pane_id is None:
            return False
        driver, thread = runner.supervisor.driver, runner.supervisor.tmux
        deadline = time.monotonic() + _MENU_WAIT_S
        while time.monotonic() < deadline:
            seen = runner.activity
            step = await thread.run(
                _step, driver, runner.pane_id, label, about, by_number=runner.adapter.screens.answers.by_number
            )
            if step != "moved":
                return step == "chosen"
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(seen.wait(), 0.5)
            await self._steady()
        return False

    async def _steady(self) -> None:
        """Wait until nothing has been written to the pane for a moment: what is painted is then what a key means."""
        give_up = time.monotonic() + _STEADY_AT_MOST_S
        while time.monotonic() < give_up:
            try:
                await asyncio.wait_for(self._runner.activity.wait(), _STEADY_S)
            except TimeoutError:
                return

    async def _since(self) -> _Shown:
        """Return what the screen shows since the last input was typed."""
        supervisor = self._runner.supervisor
        first = "".join(self._typed.split("\n", 1)[0].split())[:40] if self._echo else ""
        return await supervisor.tmux.run(
            _read, supervisor.driver, str(self._runner.pane_id), self._begin, self._prefix, first
        )

    async def _unread(self) -> bool:
        supervisor = self._runner.supervisor
        return bool(await supervisor.tmux.run(supervisor.driver.unread_input, str(self._runner.pane_id)))


def _without_digits(line: str) -> str:
    """Return a prompt without what changes in it from turn to turn (``In [7]:``)."""
    return re.sub(r"\d+", "0", line)


# on the thread of tmux ------------------------------------------------------------------------------


def _step(driver: TmuxDriver, pane: str, label: str, about: str, *, by_number: bool) -> str:
    """Press the key that chooses a menu's option, or that leads to it; nothing lies between the look and the key.

    Returns ``chosen``, ``moved``, or ``lost`` when the option is not there.
    """
    screen = driver.capture(pane)
    menu = read_menu(screen)
    wanted = menu.find(label) if menu is not None else None
    if menu is None or wanted is None or menu.selected is None or about not in "".join(question(screen).split()):
        return "lost"
    if by_number and wanted < _DIGITS:
        driver.press(pane, str(wanted + 1))
        return "chosen"
    if menu.selected == wanted:
        driver.enter(pane)
        return "chosen"
    driver.press(pane, "Down" if wanted > menu.selected else "Up")
    return "moved"


def _place(driver: TmuxDriver, pane: str) -> _Place:
    wanted = "#{history_size} #{cursor_y} #{cursor_x} #{history_limit}"
    history, row, column, limit = (
        int(word) for word in driver.run("display-message", "-p", "-t", pane, wanted)[0].split()
    )
    return _Place(history, row, column, limit)


def _rows(driver: TmuxDriver, pane: str, first: int, last: int, *how: str) -> list[str]:
    return driver.run("capture-pane", "-p", *how, "-t", pane, "-S", str(first), "-E", str(last))


def _cursor(driver: TmuxDriver, pane: str) -> tuple[_Place, str]:
    """Return the cursor's place, and its row up to it."""
    for _ in range(_READS):
        place = _place(driver, pane)
        row = _rows(driver, pane, place.row, place.row, "-N")
        if _place(driver, pane) == place:
            break
    return place, _cells((row or [""])[0], place.column)


def _read(driver: TmuxDriver, pane: str, begin: _Place | None, prefix: str | None, first: str) -> _Shown:
    """Return what a pane shows from where an input was typed; `first` is how the echo begins, without blanks."""
    for _ in range(_READS):
        place = _place(driver, pane)
        start, lost = _start(driver, pane, place, begin, prefix, first)
        lines = _rows(driver, pane, start, place.row, "-J")
        row = _rows(driver, pane, place.row, place.row, "-N")
        if _place(driver, pane) == place:
            break
    return _Shown("\n".join(lines), _cells((row or [""])[0], place.column), lost)


def _start(
    driver: TmuxDriver, pane: str, place: _Place, begin: _Place | None, prefix: str | None, first: str
) -> tuple[int, bool]:
    """Return the row on which an input was typed (negative in the history), and whether it is gone.

    A full history drops a tenth of its lines at once; a program may clear screen and history.
    """
    if begin is None:
        return -place.history, False
    row = begin.line - place.history
    if place.history >= begin.history and place.line >= begin.line and place.history < place.limit - place.limit // 5:
        # Nothing has been dropped, and the cursor has not gone up: it is where it was.
        if begin.history or place.history:
            return row, False
        shown = "".join("".join(_rows(driver, pane, row, place.row, "-J")).split())
        return (row, False) if not first or first in shown else (0, False)
    step = max(1, place.limit // 10)
    while row >= -place.history:
        if row <= place.row:
            shown = "".join(_rows(driver, pane, row, min(row + 2, place.row), "-J"))
            known = shown.startswith((prefix or "").rstrip()) and "".join(shown.split()).find(first) >= 0
            if known and (first or prefix):
                return row, False
        row -= step
    return -place.history, True


def _cells(line: str, columns: int) -> str:
    """Return the part of a line that fills so many cells of the terminal."""
    used = 0
    for index, sign in enumerate(line):
        if used >= columns and not unicodedata.combining(sign):
            return line[:index]
        if not unicodedata.combining(sign) and unicodedata.category(sign) not in {"Cf", "Me", "Mn"}:
            used += 2 if unicodedata.east_asian_width(sign) in "WF" else 1
    return line
