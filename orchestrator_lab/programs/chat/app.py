"""The chat on a terminal: a line to type in below, the conversation above.

What is sent while an answer comes in is queued: shown above the line, accepted (with its
``UserPromptSubmit``) in order when the turns before it have ended, also after an interrupted or failed one.
A draft that was not sent stays in the line.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from prompt_toolkit.application import Application
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.filters import Condition
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.layout import (
    BufferControl,
    ConditionalContainer,
    FormattedTextControl,
    HSplit,
    Layout,
    Window,
)
from prompt_toolkit.layout.dimension import Dimension
from prompt_toolkit.output import ColorDepth
from prompt_toolkit.styles import Style

from .pastes import DraftProcessor, PasteShelf
from .session import Session, Turn
from .terminal import PasteInput, SteadyOutput
from .text import RowWrapper, clip, fold, neutralise

if TYPE_CHECKING:
    from collections.abc import Callable

    from prompt_toolkit.formatted_text import StyleAndTextTuples

    from .settings import Settings

__all__ = ["ChatApp", "run_app"]

PROMPT: Final = "› "
HINT: Final = "Write a message   Enter sends · Ctrl-J new line · /help"
HELP: Final = """\
Enter            send            Ctrl-J, Alt-Enter   new line
Up, Down         history         Ctrl-C              interrupt the answer, or clear the line
Ctrl-D           leave (on an empty line)
/clear           forget the conversation
/model [NAME]    show or change the model
/exit            leave
A message sent while an answer comes in is queued and sent after it."""
COMMANDS: Final = {"/help", "/clear", "/exit", "/model"}

#: Shortest time between two screen updates of a streaming answer, in seconds.
FRAME_S: Final = 0.05
#: An interrupted answer whose thread does not come back is ended after this time, in seconds.
ABANDON_S: Final = 1.0

_SGR = {
    "dim": "\x1b[2m", "bold": "\x1b[1m", "user": "\x1b[1m", "error": "\x1b[31m",
    "prompt": "\x1b[1;36m", "off": "\x1b[0m",
}  # fmt: skip
_STYLE = Style.from_dict(
    {
        "prompt": "bold ansicyan",
        "hint": "italic ansibrightblack",
        "marker": "ansicyan",
        "status": "ansibrightblack",
        "queued": "ansiyellow",
    }
)


class ChatApp:
    """The interactive program.

    Parameters
    ----------
    settings : Settings
        What to talk to.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.colour = not os.environ.get("NO_COLOR")
        self.output = SteadyOutput.for_terminal(sys.stdout)
        self.shelf = PasteShelf()
        self.session = Session(
            settings,
            on_text=self._text_from_turn,
            on_note=lambda note: self._in_loop(self._note, note),
            on_done=lambda turn: self._in_loop(self._ended, turn),
        )
        self.turn: Turn | None = None
        self.queue: deque[str] = deque()
        self.wrapper = RowWrapper(self.columns - 1)
        self.exit_reason = "other"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._incoming: list[str] = []
        self._incoming_lock = threading.Lock()
        self._last_frame = 0.0
        self._draft_is_typed = True
        self._opened = False
        self._ticker: asyncio.TimerHandle | None = None
        self.buffer = Buffer(multiline=True, history=InMemoryHistory(), on_text_changed=self._draft_changed)
        self.app: Application[None] = Application(
            layout=self._layout(),
            key_bindings=self._keys(),
            style=_STYLE,
            color_depth=None if self.colour else ColorDepth.DEPTH_1_BIT,
            input=PasteInput(sys.stdin),
            output=self.output,
            mouse_support=False,
            enable_page_navigation_bindings=False,
            terminal_size_polling_interval=None,  # an idle pane costs nothing: SIGWINCH tells
            after_render=self._rendered,
            erase_when_done=True,
        )

    @property
    def columns(self) -> int:
        """Width of the terminal in cells."""
        return self.output.get_size().columns

    # -- the screen
    # ---------------------------------------------------------------------------------------------

    def _layout(self) -> Layout:
        def row(text: object, when: object) -> ConditionalContainer:
            window = Window(
                FormattedTextControl(text),  # type: ignore[arg-type]
                dont_extend_height=True,
                wrap_lines=False,
            )
            return ConditionalContainer(window, filter=Condition(when))  # type: ignore[arg-type]

        draft = Window(
            BufferControl(self.buffer, input_processors=[DraftProcessor(self.shelf)], focus_on_click=False),
            height=lambda: Dimension(min=1, max=max(1, self.output.get_size().rows // 2)),
            dont_extend_height=True,
            wrap_lines=True,
            get_line_prefix=self._line_prefix,
        )
        hint = row(
            lambda: [("class:prompt", PROMPT), ("class:hint", clip(HINT, self.columns - 3))],
            lambda: False,
        )
        del hint
        return Layout(
            HSplit(
                [
                    row(lambda: self.wrapper.tail, lambda: bool(self.wrapper.tail)),
                    row(self._status, lambda: self.turn is not None),
                    row(self._queued_rows, lambda: bool(self.queue)),
                    draft,
                    row(
                        lambda: [("class:hint", "  " + clip(HINT, self.columns - 3))],
                        lambda: not self.buffer.text and self.turn is None,
                    ),
                ]
            )
        )

    def _line_prefix(self, line: int, wraps: int) -> StyleAndTextTuples:
        return [("class:prompt", PROMPT if line == wraps == 0 else "  ")]

    def _status(self) -> StyleAndTextTuples:
        turn = self.turn
        if turn is None:
            return []
        seconds = int(time.monotonic() - turn.started)
        if turn.cancel.requested:
            text = "● interrupting …"
        elif turn.characters:
            text = f"● answering · {seconds} s · {turn.characters:,} characters · Ctrl-C interrupts"
        else:
            text = f"● waiting for {neutralise(self.session.model)} · {seconds} s · Ctrl-C interrupts"
        return [("class:status", clip(text, self.columns - 1))]

    def _queued_rows(self) -> StyleAndTextTuples:
        rows: StyleAndTextTuples = []
        for index, text in enumerate(self.queue):
            if index == 3:
                rows.append(("class:status", f"  … and {len(self.queue) - 3} more"))
                break
            first, _, rest = text.partition("\n")
            lines = rest.count("\n") + 1 if rest else 0
            more = f" (+{lines:,} lines)" if lines else ""
            line = clip(neutralise(first[:500]).replace("\t", " "), self.columns - 12 - len(more)) + more
            rows += [("class:queued", "  queued "), ("class:status", line + "\n")]
        if rows and rows[-1][1].endswith("\n"):
            rows[-1] = (rows[-1][0], rows[-1][1][:-1])
        return rows

    def _sgr(self, name: str, text: str) -> str:
        code = _SGR[name]
        if not self.colour:
            code = {"error": "", "prompt": "\x1b[1m"}.get(name, code)
        return f"{code}{text}{_SGR['off']}" if code else text

    def _print(self, rows: list[str], *, marks: str = "") -> None:
        """Write finished rows above the draft, without leaving raw mode for an instant."""
        self.output.group(True)
        try:
            if self.app.is_running:
                self.app.renderer.erase(leave_alternate_screen=False)
            self.output.write_raw("".join(f"{row}\r\n" for row in rows) + marks)
            if self.app.is_running:
                self.app._redraw()  # noqa: SLF001 - invalidate() would redraw too late
        finally:
            self.output.group(False)

    def _mark(self, *marks: str) -> str:
        return "".join(f"\x1b]133;{mark}\x07" for mark in marks)

    def _title(self) -> str:
        name = neutralise(self.settings.name).replace("\n", " ")
        return f"\x1b]0;● {name} busy\x07" if self.turn else f"\x1b]0;○ {name} idle\x07"

    def _note(self, note: str) -> None:
        rows = self.wrapper.close() if self.turn is None else []
        self._print([*rows, *self._block("dim", "· ", note)])

    def _block(self, style: str, bullet: str, text: str) -> list[str]:
        rows = fold(text, self.columns - 3, head=20, tail=3)
        return [self._sgr(style, (bullet if index == 0 else "  ") + row) for index, row in enumerate(rows)]

    def _header(self) -> list[str]:
        place = self.settings.base_url.split("://", 1)[-1].split("/", 1)[0].rpartition("@")[2]
        name, about = (
            neutralise(self.settings.name),
            neutralise(f" · {self.session.model} · {place}"),
        )
        rows = [
            self._sgr("bold", clip(name, self.columns - 1))
            + self._sgr("dim", clip(about, self.columns - 2 - len(name)))
        ]
        if self.session.resumed:
            rows.append(self._sgr("dim", f"continued: {self.session.resumed // 2} earlier exchanges"))
            last = self.session.messages[-2:]
            rows += [
                "",
                *self._echo(last[0]["content"]),
                *fold(last[1]["content"], self.columns - 1),
            ]
        return [*rows, ""]

    def _echo(self, text: str) -> list[str]:
        rows = fold(text, self.columns - 3)
        return [
            (self._sgr("prompt", PROMPT) if index == 0 else "  ") + self._sgr("user", row)
            for index, row in enumerate(rows)
        ]

    def _rendered(self, _app: Application[None]) -> None:
        if not self._opened:
            self._opened = True
            # The prompt is drawn, raw mode and bracketed paste are on, the reader is attached.
            asyncio.get_running_loop().call_soon(self._open)

    def _open(self) -> None:
        self.output.write_raw(self._mark("B"))
        self.output.flush()
        self.session.opened()

    # -- keys ------------------------------------------------------------------

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()
        empty = Condition(lambda: not self.buffer.text)

        @keys.add("enter")
        def _(_event: KeyPressEvent) -> None:
            self._submit()

        @keys.add("c-j")
        @keys.add("escape", "enter")
        def _(_event: KeyPressEvent) -> None:
            self.buffer.insert_text("\n")

        @keys.add(Keys.BracketedPaste)
        def _(event: KeyPressEvent) -> None:
            self.buffer.insert_text(self.shelf.put(event.data))
            self._draft_is_typed = False

        @keys.add("tab")
        def _(_event: KeyPressEvent) -> None:
            self.buffer.insert_text("\t")

        @keys.add("c-c")
        @keys.add("<sigint>")
        def _(_event: KeyPressEvent) -> None:
            if self.turn is not None:
                self._interrupt()
            else:
                self.buffer.reset(append_to_history=True)  # Up brings it back

        @keys.add("c-d", filter=empty)
        def _(_event: KeyPressEvent) -> None:
            self._exit("prompt_input_exit")

        return keys

    def _draft_changed(self, buffer: Buffer) -> None:
        if not buffer.text:
            self._draft_is_typed = True

    def _submit(self) -> None:
        line = self.buffer.text
        text = self.shelf.expand(line).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        typed = self._draft_is_typed
        blank = not text.strip()
        self.buffer.reset(append_to_history=not blank)
        self._draft_is_typed = True
        if blank:
            return
        word, _, argument = line.partition(" ")
        if typed and (line in COMMANDS or (word == "/model" and argument and " " not in argument)):
            self._command(word, argument)
        elif self.turn is not None:
            self.queue.append(text)
            self.session.queued(text)
        else:
            self._accept(text)

    def _command(self, word: str, argument: str) -> None:
        if word == "/exit":
            self._exit("prompt_input_exit")
        elif word == "/help":
            self._print([self._sgr("dim", clip(line, self.columns - 1)) for line in HELP.split("\n")] + [""])
        elif word == "/model":
            if argument:
                self.session.model = argument
            self._note(f"the model is {self.session.model}")
        elif self.turn is not None:
            self._note("/clear waits for nothing: interrupt the answer first (Ctrl-C)")
        else:
            self.session.clear()
            self._note("the conversation is forgotten; the transcript keeps it")

    def _exit(self, reason: str) -> None:
        self.exit_reason = reason
        if self.turn is not None:
            self.session.interrupt(self.turn)
        if not self.app.is_done:
            self.app.exit()

    # -- turns -----------------------------------------------------------------

    def _in_loop(self, function: object, *arguments: object) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the program is leaving
                self._loop.call_soon_threadsafe(function, *arguments)  # type: ignore[arg-type]

    def _accept(self, text: str) -> None:
        self.turn = self.session.start(text)
        self.wrapper.cells = max(2, self.columns - 1)
        self._print([*self._echo(text), ""], marks=self._mark("C") + self._title())
        self._tick()

    def _tick(self) -> None:
        """Keep the seconds of the status row going while an answer is awaited."""
        if self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None
        if self.turn is not None and self._loop is not None:
            self.app.invalidate()
            self._ticker = self._loop.call_later(1.0, self._tick)

    def _text_from_turn(self, turn: Turn, text: str) -> None:
        del turn
        with self._incoming_lock:
            self._incoming.append(text)
            if len(self._incoming) > 1:
                return
        self._in_loop(self._frame)

    def _frame(self) -> None:
        late = time.monotonic() - self._last_frame
        if late < FRAME_S and self._loop is not None:
            self._loop.call_later(FRAME_S - late, self._show_incoming)
        else:
            self._show_incoming()

    def _show_incoming(self) -> None:
        with self._incoming_lock:
            text = "".join(self._incoming)
            self._incoming.clear()
        if not text:
            return
        self._last_frame = time.monotonic()
        self.wrapper.cells = max(2, self.columns - 1)
        rows = self.wrapper.feed(text)
        if rows:
            self._print(rows)
        else:
            self.app.invalidate()

    def _interrupt(self) -> None:
        turn = self.turn
        if turn is None or turn.cancel.requested:
            return
        self.session.interrupt(turn)
        self.app.invalidate()
        if self._loop is not None:
            self._loop.call_later(ABANDON_S, self.session.abandon, turn)

    def _ended(self, turn: Turn) -> None:
        if turn is not self.turn:
            return
        self._show_incoming()
        self.turn = None
        rows = self.wrapper.close()
        if turn.outcome == "interrupted":
            rows += self._block("dim", "· ", "interrupted")
        elif turn.outcome == "error":
            rows += self._block("error", "✗ ", turn.error or "failed")
        elif turn.answer.stop_reason in {"max_tokens", "length"}:
            rows += self._block("dim", "· ", f"cut off at max_tokens ({self.settings.max_tokens:,})")
        elif turn.answer.stop_reason in {"tool_use", "tool_calls"}:
            rows += self._block("dim", "· ", "the model asked for a tool; this program has none")
        status = {"completed": 0, "interrupted": 130}.get(turn.outcome, 1)
        self._print([*rows, ""], marks=self._mark(f"D;{status}", "A") + self._title())
        self.output.write_raw(self._mark("B"))
        self.output.flush()
        self.session.report(turn)
        if self.queue and not self.app.is_done:
            self._accept(self.queue.popleft())

    # -- life ------------------------------------------------------------------

    def _terminated(self) -> None:
        self._exit("terminated")

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGHUP):
            self._loop.add_signal_handler(name, self._terminated)
        self.output.write_raw("".join(f"{row}\r\n" for row in self._header()) + self._mark("A") + self._title())
        try:
            await self.app.run_async(set_exception_handler=False)
        except EOFError:
            self.exit_reason = "terminated"
        finally:
            self._loop = None
            if self._ticker is not None:
                self._ticker.cancel()

    def run(self, restore: Callable[[], None]) -> int:
        """Run until the user, or a signal, ends it.

        Parameters
        ----------
        restore : callable
            Gives the terminal its former modes back.

        Returns
        -------
        int
            Exit status.
        """
        with contextlib.suppress(OSError):  # the terminal is gone
            try:
                asyncio.run(self._main())
            finally:
                self.output.leave()
        turn = self.turn
        if turn is not None:
            self.session.abandon(turn)
            turn.recorded.wait(2.0)  # its own thread may be writing the record at this moment
            self.session.report(turn)
        restore()  # Ctrl-C must be able to end the wait for the lab
        asked = self.exit_reason == "prompt_input_exit"
        try:
            if asked and not self.session.hooks.drain(1.0):
                print("waiting for the lab to take the last events; Ctrl-C leaves at once", flush=True)
            self.session.close(self.exit_reason, wait_s=30.0 if asked else 2.0)
        except KeyboardInterrupt:
            return 130
        return 0 if asked else 143


def run_app(settings: Settings, restore: Callable[[], None]) -> int:
    """Run the chat on the terminal of the process.

    Parameters
    ----------
    settings : Settings
        What to talk to.
    restore : callable
        Gives the terminal its former modes back; called before the last events are waited for.

    Returns
    -------
    int
        Exit status.
    """
    return ChatApp(settings).run(restore)
