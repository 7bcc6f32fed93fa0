"""A full-screen terminal program that misbehaves as it is told, and keeps the truth of what reached it.

::

    python -S -E fake_agent.py --log TRUTH.jsonl [--script FILE.json] [--settings FILE.json]

With ``--settings`` it speaks the protocol of the lab's chat program (hooks, transcript); without, nothing reports. The
script is a JSON object of :data:`DEFAULTS`; ``on_start`` lists actions. More actions may be written, one JSON object a
line, to the pipe ``TRUTH.jsonl.ctl`` at any time; each is logged as ``control`` when it is done:

``{"set": {...}}`` options · ``{"do": "dialog", "kind": "trust|permission|update|choice|riddle", "command": ...}`` ·
``{"do": "close"}`` · ``{"do": "blank"}`` (nothing on the screen but a line that explains nothing) ·
``{"do": "draft", "text": ...}`` (as a person would type it) · ``{"do": "work", "ms": ...}`` · ``{"do": "finish"}`` (the
turn) · ``{"do": "hang"}`` ·
``{"do": "crash", "signal": 9}`` · ``{"do": "exit", "status": 1}`` · ``{"do": "flood", "bytes": ...}`` ·
``{"do": "garbage"}`` · ``{"do": "limit"}``

The log has one JSON object a line: ``state`` (starting, idle, busy, dialog, limited, hung, dead), ``keys`` (each byte
outside of a paste), ``paste`` (each frame, whole), ``swallowed``, ``queued``, ``submitted`` (exactly the prompt),
``stray`` (what was typed into a dialog), ``dialog``, ``dialog_answered``, ``draft_cleared``, ``hook``, ``control``.
Only the standard library, so that it starts in a few hundredths of a second.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import signal
import sys
import termios
import time
import tty
from collections import deque
from pathlib import Path
from typing import Any

from fake_hooks import Hooks
from fake_keys import Keys
from fake_screen import Screen

DEFAULTS: dict[str, Any] = {
    "layout": "full",  # "full": every cell is drawn by position; "scroll": the conversation scrolls up, as a shell's
    "alternate": False,  # use the alternate screen
    "bracketed": True,  # ask for bracketed paste
    "start_ms": 0,  # time until it takes input
    "start_eats_input": True,  # what comes before is lost, as with programs that flush their terminal
    "on_start": [],
    "prompt": "› ",
    "busy_prompt": None,  # show the input line while it works; by default only when it reports by hooks
    "ghost": "",  # a dim suggestion in the empty input line
    "draft": "",  # what a person left in the input line
    "swallow_enter_ms": 0,  # an Enter within this time after a paste is lost
    "swallow_enters": 0,  # so many Enters are lost, whenever they come
    "newline_enter_ms": 0,  # an Enter within this time after a paste is a newline (a paste burst)
    "collapse_lines": 0,  # a paste of more lines becomes a marker
    "collapse_chars": 0,
    "busy_input": "queue",  # or "ignore": Enter does nothing while it works
    "echo_prompt": False,  # the answer repeats the prompt
    "decoy": "",  # "idle": the answer's text looks like an empty prompt; "spinner": like work after its end
    "turn_ms": 0,
    "reply": "took {size} characters",
    "limit_resets_s": None,  # ... which says that it is over after so many seconds
    "limit": False,  # turns end at a usage limit
    "stale_menu_ms": 0,  # for so long after a move Enter still means the option before it
    "dialog_hooks": True,  # report dialogs (when it reports at all)
    "ignore_sigterm": False,
    "lose": [],  # hook names that are never sent; "transcript": no record is kept
    "double": [],  # hook names that are sent twice
    "hook_delay_ms": 0,
    "crash_at": "",  # start, paste_start, paste, enter, submitted, reported, turn
    "crash_signal": 9,
    "crash_status": None,
    "hang_at": "",  # the same points
    "read_bytes": 65536,
    "read_pause_ms": 0,
}

DIALOGS: dict[str, tuple[str, tuple[str, ...], int]] = {
    "trust": ("Do you trust this folder?", ("Yes, I trust this folder", "No, exit"), 1),
    "permission": ("May I run `rm -r build`?", ("Yes", "Yes, and do not ask again", "No, and say what to do"), 2),
    "update": ("A new version is there.", ("Update now", "Skip this version"), 1),
    "choice": ("Which one?", ("The first", "The second", "Cancel"), 2),
    "riddle": ("Nobody has seen this question before.", ("Erase everything", "Leave"), 1),
}
#: What a permission is asked for unless the script says otherwise.
COMMAND = "rm -r build"


class Fake:
    """The program."""

    def __init__(self, script: dict[str, Any], log: Path, settings: dict[str, Any] | None) -> None:
        unknown = set(script) - set(DEFAULTS)
        if unknown:
            raise SystemExit(f"fake_agent: unknown option {', '.join(sorted(unknown))}")
        self.options = {**DEFAULTS, **script}
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.reports = settings is not None
        self.hooks = Hooks(settings, self.note)
        self.screen = Screen(sys.stdout.fileno())
        self.keys = Keys()
        self.state = ""
        self.draft = str(self.options["draft"])
        self.meant, self.moved_at = 0, 0.0
        self.shelf: list[str] = []
        self.queue: deque[str] = deque()
        self.dialog: str | None = None
        self.command = COMMAND
        self.blank = False
        self.selected = 0
        self.turn_ends: float | None = None
        self.turn_prompt = ""
        self.turn_id = ""
        self.turns = 0
        self.pasted_at = -1e9
        self.ready_at = time.monotonic() + self.options["start_ms"] / 1000
        self.ready = False
        self.dirty = True
        self.leaving: int | None = None
        self.control = Path(f"{log}.ctl")
        with contextlib.suppress(FileExistsError):
            os.mkfifo(self.control, 0o600)
        self._ctl = os.open(self.control, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._ctl_held = b""
        self._apply()

    # the truth ----------------------------------------------------------------------------------

    def note(self, event: str, **fields: Any) -> None:
        line = json.dumps({"at": time.time(), "pid": os.getpid(), "event": event, **fields}, ensure_ascii=True)
        os.write(self._log, line.encode() + b"\n")

    def become(self, state: str) -> None:
        if state != self.state:
            self.state = state
            self.note("state", state=state)
            self.dirty = True

    def _apply(self) -> None:
        self.hooks.lose = set(self.options["lose"])
        self.hooks.double = set(self.options["double"])
        self.hooks.delay_s = self.options["hook_delay_ms"] / 1000
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN if self.options["ignore_sigterm"] else self._terminated)

    def _terminated(self, number: int, _frame: object) -> None:
        self.leaving = 128 + number

    # life ---------------------------------------------------------------------------------------

    def run(self) -> int:
        self.note("started", reports=self.reports, argv=sys.argv[1:])
        self.become("starting")
        self._crash("start")
        stdin = sys.stdin.fileno()
        before = termios.tcgetattr(stdin)
        tty.setraw(stdin, termios.TCSANOW)
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGWINCH, lambda *_: None)
        modes = b"\x1b[?1049h" if self.options["alternate"] else b""
        self.screen.write(modes + b"\x1b[?25h")
        try:
            for action in self.options["on_start"]:
                self._do(action)
            while self.leaving is None:
                self._step(stdin, wake_read)
        finally:
            self.screen.write(b"\x1b[?2004l" + (b"\x1b[?1049l" if self.options["alternate"] else b"") + b"\r\n")
            termios.tcsetattr(stdin, termios.TCSANOW, before)
        self.hooks.send("SessionEnd", reason="other")
        self.hooks.drain(2.0)
        self.note("state", state="dead", status=self.leaving)
        return self.leaving

    def _step(self, stdin: int, wake: int) -> None:
        now = time.monotonic()
        if not self.ready and now >= self.ready_at:
            self._open(stdin)
        if self.turn_ends is not None and now >= self.turn_ends:
            self._end_turn()
        if self.dirty:
            self._draw()
        due = [at for at in (self.turn_ends, None if self.ready else self.ready_at) if at is not None]
        wait = max(0.0, min(due) - time.monotonic()) if due else None
        if self.keys.pending:
            wait = min(0.03, wait or 0.03)
        readable, _, _ = select.select([stdin, wake, self._ctl], [], [], wait)
        if wake in readable:
            with contextlib.suppress(BlockingIOError):
                os.read(wake, 4096)
            self.dirty = True  # the window may have another size
        if self._ctl in readable:
            self._obey()
        if stdin in readable:
            data = os.read(stdin, max(1, int(self.options["read_bytes"])))
            if not data:
                self.leaving = 0
                return
            self._input(data)
            if self.options["read_pause_ms"]:
                time.sleep(self.options["read_pause_ms"] / 1000)
        elif self.keys.pending:
            self._act(self.keys.flush())

    def _open(self, stdin: int) -> None:
        self.ready = True
        if self.options["start_eats_input"]:
            while select.select([stdin], [], [], 0)[0]:
                lost = os.read(stdin, 65536)
                self.note("lost", bytes=len(lost), hex=lost[:200].hex())
        if self.options["bracketed"]:
            self.screen.write(b"\x1b[?2004h")
        self.become("dialog" if self.dialog else "idle" if self.turn_ends is None else "busy")
        if self.dialog is None:
            self._draw()
            self.hooks.send("SessionStart", source="startup", model="fake-1", pid=os.getpid())

    def _crash(self, point: str) -> None:
        if self.options["hang_at"] == point:
            self._do({"do": "hang"})
        if self.options["crash_at"] != point:
            return
        if point == "reported":
            self.hooks.drain(2.0)
        self._die()

    def _die(self) -> None:
        self.note("state", state="dead", crash=self.options["crash_at"] or True)
        if self.options["crash_status"] is not None:
            os._exit(int(self.options["crash_status"]))
        number = int(self.options["crash_signal"])
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    # being told ---------------------------------------------------------------------------------

    def _obey(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._ctl_held += os.read(self._ctl, 65536)
        *lines, self._ctl_held = self._ctl_held.split(b"\n")
        for line in lines:
            if line.strip():
                action = json.loads(line)
                self._do(action)
                self._draw()
                self.note("control", id=action.get("id"), action=action)

    def _do(self, action: dict[str, Any]) -> None:
        if "set" in action:
            self.options.update(action["set"])
            self._apply()
        what = action.get("do")
        if what == "dialog":
            self.command = str(action.get("command", COMMAND))
            self._ask(action["kind"])
        elif what == "close":
            self._answered("closed")
        elif what == "blank":
            self.blank = True
        elif what == "draft":
            self.draft += str(action["text"])
        elif what == "clear":
            self.draft, self.blank = "", False
        elif what == "work":
            self._begin_turn("", float(action["ms"]))
        elif what == "finish":
            if self.turn_ends is not None:
                self._end_turn()
        elif what == "hang":
            self._draw()
            self.become("hung")
            self.note("control", id=action.get("id"), action=action)
            while self.leaving is None:  # nothing but SIGTERM gets through, and not even that when it is ignored
                signal.pause()
        elif what == "crash":
            self.options["crash_signal"] = action.get("signal", 9)
            self._die()
        elif what == "exit":
            self.leaving = int(action.get("status", 0))
        elif what == "flood":
            self._flood(int(action["bytes"]))
        elif what == "garbage":
            from fake_escapes import everything

            self.screen.write(everything() + (b"\x1b[?1049h" if self.options["alternate"] else b""))
            self.screen.forget()
        elif what == "limit":
            self.options["limit"] = bool(action.get("on", True))
        self.dirty = True

    def _flood(self, size: int) -> None:
        line = b"".join(b"%07d the quick brown fox jumps over the lazy dog, again\r\n" % n for n in range(1000))
        sent = 0
        while sent < size:
            sent += self.screen.write(line[: min(len(line), size - sent)])
        self.screen.forget()
        self.note("flooded", bytes=sent)

    # dialogs ------------------------------------------------------------------------------------

    def _ask(self, kind: str) -> None:
        title, options, self.selected = DIALOGS[kind]
        self.meant, self.moved_at = self.selected, 0.0
        title = title.replace(COMMAND, self.command)
        self.dialog = kind
        self.note("dialog", kind=kind, options=list(options))
        if self.options["dialog_hooks"]:
            self.hooks.send(
                "Notification",
                notification_type="dialog_opened",
                kind=kind,
                subject=title,
                options=list(options),
                tool_name="Bash" if kind == "permission" else None,
                tool_input={"command": self.command} if kind == "permission" else None,
            )
        self.become("dialog")

    def _answered(self, choice: str) -> None:
        kind, self.dialog = self.dialog, None
        if kind is None:
            return
        self.note("dialog_answered", kind=kind, choice=choice)
        if self.options["dialog_hooks"]:
            self.hooks.send("Notification", notification_type="dialog_closed", decision=choice)
        if kind == "trust" and choice.startswith("No"):
            self.leaving = 1
            return
        self.become("starting" if not self.ready else "idle" if self.turn_ends is None else "busy")
        if self.ready and not self.turns:
            self.hooks.send("SessionStart", source="startup", model="fake-1", pid=os.getpid())

    def _dialog_key(self, kind: str, value: object) -> None:
        options = DIALOGS[str(self.dialog)][1]
        if kind != "key":
            text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
            if kind == "text" and len(text) == 1 and text.isdigit() and 1 <= int(text) <= len(options):
                self._answered(options[int(text) - 1])
                return
            self.note("stray", kind=kind, text=text[:2000], size=len(text))
        elif value in {"up", "down"}:
            self.meant, self.moved_at = self.selected, time.monotonic()
            self.selected = (self.selected + (1 if value == "down" else -1)) % len(options)
        elif value == "enter":
            stale = time.monotonic() < self.moved_at + self.options["stale_menu_ms"] / 1000
            self._answered(options[self.meant if stale else self.selected])
        elif value == "escape":
            self._answered(options[-1])

    # input --------------------------------------------------------------------------------------

    def _input(self, data: bytes) -> None:
        pasting = self.keys._paste is not None
        outside = b"" if pasting else data.split(b"\x1b[200~", 1)[0]
        if pasting and b"\x1b[201~" in data:
            outside = data.rsplit(b"\x1b[201~", 1)[1]
        elif not pasting and b"\x1b[201~" in data:
            outside += data.rsplit(b"\x1b[201~", 1)[1]
        if outside:
            self.note("keys", hex=outside.hex() if len(outside) <= 4096 else outside[:4096].hex(), size=len(outside))
        found = self.keys.feed(data)
        if b"\x1b[200~" in data or self.keys._paste is not None:
            self._crash("paste_start")
        self._act(found)

    def _act(self, found: list[tuple[str, object]]) -> None:
        for kind, value in found:
            self.dirty = True
            if not self.ready:
                self.note("lost", kind=kind, text=str(value)[:200])
            elif self.dialog is not None:
                if kind == "paste" and isinstance(value, bytes):
                    self._note_paste(value)
                self._dialog_key(kind, value)
            elif kind == "paste" and isinstance(value, bytes):
                self._paste(value)
            elif kind == "text":
                self.draft += str(value)
            elif kind == "key":
                self._key(str(value))

    def _note_paste(self, body: bytes) -> str:
        text = body.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
        self.note(
            "paste", text=text, size=len(body), sha256=hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
        )
        return text

    def _paste(self, body: bytes) -> None:
        text = self._note_paste(body)
        self._crash("paste")
        lines, chars = self.options["collapse_lines"], self.options["collapse_chars"]
        if (lines and text.count("\n") + 1 > lines) or (chars and len(text) > chars):
            self.shelf.append(text)
            self.draft += chr(0x100000 + len(self.shelf) - 1)
        else:
            self.draft += text
        self.pasted_at = time.monotonic()

    def _key(self, name: str) -> None:
        if name == "enter":
            self._enter()
        elif name in {"newline", "tab"}:
            self.draft += "\n" if name == "newline" else "\t"
        elif name == "backspace":
            self.draft = self.draft[:-1]
        elif name == "ctrl-c":
            if self.turn_ends is not None:
                self._end_turn(interrupted=True)
            elif self.draft:
                self.note("draft_cleared", text=self._whole())
                self.draft = ""
        elif name == "ctrl-u":
            self.note("draft_cleared", text=self._whole())
            self.draft = ""
        elif name == "ctrl-d" and not self.draft:
            self.leaving = 0

    def _whole(self) -> str:
        return "".join(
            self.shelf[ord(char) - 0x100000] if 0 <= ord(char) - 0x100000 < len(self.shelf) else char
            for char in self.draft
        )

    def _enter(self) -> None:
        self._crash("enter")
        since = (time.monotonic() - self.pasted_at) * 1000
        if since < self.options["swallow_enter_ms"]:
            self.note("swallowed", since_ms=round(since, 1))
            return
        if self.options["swallow_enters"] > 0:
            self.options["swallow_enters"] -= 1
            self.note("swallowed", left=self.options["swallow_enters"])
            return
        if since < self.options["newline_enter_ms"]:
            self.note("swallowed", newline=True, since_ms=round(since, 1))
            self.draft += "\n"
            return
        text = self._whole()
        if not text.strip():
            return
        if self.turn_ends is not None:
            if self.options["busy_input"] == "ignore":
                self.note("swallowed", busy=True)
                return
            self.note("queued", prompt=text)
            self.queue.append(text)
            self.draft = ""
            return
        self.draft = ""
        self._begin_turn(text, float(self.options["turn_ms"]))

    # turns --------------------------------------------------------------------------------------

    def _begin_turn(self, prompt: str, duration_ms: float) -> None:
        self.turns += 1
        self.turn_prompt, self.turn_id = prompt, f"{os.getpid()}-{self.turns}"
        if prompt:
            self.note("submitted", prompt=prompt, turn=self.turns)
            self._crash("submitted")
            self.hooks.record("user", message={"role": "user", "content": prompt}, uuid=self.turn_id)
            self.hooks.send("UserPromptSubmit", prompt=prompt, prompt_id=self.turn_id)
            self.screen.say(f"{self.options['prompt']}{prompt}")
        self._crash("reported")
        self.become("busy")
        self.turn_ends = time.monotonic() + duration_ms / 1000
        if self.options["decoy"] == "idle":
            self.screen.say(f"the line is empty now:\n{self.options['prompt']}")
        if self.options["echo_prompt"] and prompt:
            self.screen.say(f"you said: {prompt}")
        self._draw()
        self._crash("turn")

    def _end_turn(self, *, interrupted: bool = False) -> None:
        self.turn_ends = None
        prompt, self.turn_prompt = self.turn_prompt, ""
        reply = str(self.options["reply"]).format(size=len(prompt), turn=self.turns)
        if self.options["echo_prompt"]:
            reply = f"you said: {prompt}\n{reply}"
        limited = bool(self.options["limit"])
        if limited:
            reply = "You have reached your usage limit; it resets at 15:00."
        if self.options["decoy"] == "spinner":
            reply += "\n✻ Thinking… (esc to interrupt)"
        self.screen.say("interrupted" if interrupted else reply)
        self.become("limited" if limited else "idle")
        self._draw()
        if prompt:
            message = {"role": "assistant", "model": "fake-1", "content": [{"type": "text", "text": reply}]}
            if interrupted or limited:
                outcome = "interrupted" if interrupted else reply
                self.hooks.record("error", error=outcome, promptId=self.turn_id)
                kind = "usage_limit" if limited and not interrupted else None
                after = self.options["limit_resets_s"]
                resets = time.time() + float(after) if kind and after is not None else None
                self.hooks.send("StopFailure", error=outcome, error_type=kind, resets_at=resets, prompt_id=self.turn_id)
            else:
                self.hooks.send("MessageDisplay", delta=reply, prompt_id=self.turn_id)
                self.hooks.record("assistant", message=message, promptId=self.turn_id)
                self.hooks.send("Stop", last_assistant_message=reply, model="fake-1", prompt_id=self.turn_id)
        if self.queue:
            self._begin_turn(self.queue.popleft(), float(self.options["turn_ms"]))

    def _draw(self) -> None:
        self.dirty = False
        shown = "".join(
            f"[pasted {self.shelf[index].count(chr(10)) + 1} lines #{index + 1}]"
            if 0 <= (index := ord(char) - 0x100000) < len(self.shelf)
            else char
            for char in self.draft[-20_000:]
        )
        dialog = None
        if self.dialog is not None:
            title, options, _ = DIALOGS[self.dialog]
            dialog = (title.replace(COMMAND, self.command), options, self.selected)
        always = self.reports if self.options["busy_prompt"] is None else bool(self.options["busy_prompt"])
        busy = self.turn_ends is not None
        self.screen.draw(
            self.options["layout"],
            prompt=str(self.options["prompt"]) if self.ready and (always or not busy) and not self.blank else None,
            draft=shown,
            ghost=str(self.options["ghost"]),
            status="✻ Working… (esc to interrupt)" if busy else self._notice(),
            queued=len(self.queue),
            dialog=dialog,
        )

    def _notice(self) -> str:
        if self.blank:
            return "press any key"
        return "" if self.ready else "starting …"


def main(argv: list[str]) -> int:
    given = dict(zip(argv[::2], argv[1::2], strict=True))
    script = json.loads(Path(given["--script"]).read_text("utf-8")) if "--script" in given else {}
    settings = json.loads(Path(given["--settings"]).read_text("utf-8")) if "--settings" in given else None
    return Fake(script, Path(given["--log"]), settings).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
