"""Agents of each kind, the states they are put into, and the truth read back."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matrix_cells import BIG, LONG_LINE, SHAPES, STATES, Cell, Truth, body, judge

from orchestrator_lab import Cluster
from orchestrator_lab.agents import adapter_for
from orchestrator_lab.errors import ClusterStopped, MessageRefused, OrchestratorLabError
from orchestrator_lab.tmux import sanitize

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).resolve().parent
FAKE = HERE.parent / "fake_agent" / "fake_agent.py"
REPL = HERE / "matrix_repl.py"
PYTHON = [sys.executable, "-S", "-E"]
#: What a person has begun to write.
DRAFT = "half a thou"
_SETTLE_S = 30.0


def until(condition: Callable[[], Any], timeout_s: float, what: str) -> Any:
    """Wait for a condition of the ground truth (files change without telling)."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.004)
    return found


class Log:
    """JSON lines that another process appends; read from where one was."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self._held = b""
        self.records: list[dict[str, Any]] = []

    def read(self) -> list[dict[str, Any]]:
        with contextlib.suppress(FileNotFoundError), self.path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
            self._offset += len(data)
            *lines, self._held = (self._held + data).split(b"\n")
            for line in lines:
                with contextlib.suppress(ValueError):
                    self.records.append(json.loads(line))
        return self.records


class Rig:
    """One agent that is put into each state, one after the other."""

    kind = ""
    adapter = ""
    states: tuple[str, ...] = STATES
    shapes: tuple[str, ...] = SHAPES
    #: Seconds after which a message is given up in the states that hold it.
    expires_s = 0.6
    #: How its input line begins.
    sign = "›"
    #: Words in a line of long texts.
    line_width = 12

    def __init__(self, folder: Path, **options: Any) -> None:
        self.folder = folder
        self.options = options
        self.name = "ada"
        self.count = 0
        self.mark = 0
        self.others: list[str] = []
        #: A wrong cell may have left anything behind: the next one gets a new process.
        self.spoilt = False

    # the cluster

    def start(self) -> None:
        work = self.folder / "work"
        work.mkdir(exist_ok=True)
        self.cluster = Cluster.start(
            {
                "cluster": {
                    "name": f"m-{self.kind.split()[-1]}-{uuid.uuid4().hex[:6]}",
                    "work_dir": str(work),
                    "runs_dir": str(self.folder / "runs"),
                    "lifetime": "owner",
                    "gateway": {"mode": "script", "script": self.script()},
                },
                "agents": [{"name": self.name, **self.config()}],
            }
        )
        self.agent = self.cluster[self.name]
        self.socket = self.cluster.status()["tmux_socket"]
        self.journal = Log(self.cluster.run_dir / "journal.jsonl")

    def close(self) -> None:
        self.cluster.shutdown()

    def config(self) -> dict[str, Any]:
        raise NotImplementedError

    def script(self) -> list[dict[str, Any]]:
        return [{"when": {"contains": "PLEASE WORK"}, "reply": "worked", "delay_s": 0.6}, {"reply": "ok {n}"}]

    # what a person does at the pane

    def tmux(self, *command: str) -> str:
        return "\n".join(self.agent.pane.cmd(*command).stdout)

    def type(self, text: str) -> None:
        self.agent.pane.cmd("send-keys", "-l", text)

    def press(self, *keys: str) -> None:
        self.agent.pane.cmd("send-keys", *keys)

    # to be said by each kind

    def truth(self) -> Truth:
        raise NotImplementedError

    def begin(self) -> None:
        self.others = []

    def work(self) -> None:
        """Make it busy through the lab, and come back when it is."""
        text = f"PLEASE WORK {self.count}"
        self.others.append(text)
        self.agent.send(text).accepted(30)

    def open_dialog(self) -> None:
        raise NotImplementedError

    def close_dialog(self) -> None:
        raise NotImplementedError

    def draft(self) -> None:
        self.type(DRAFT)
        until(self.draft_stands, 30, "the draft on the screen")

    def draft_stands(self) -> bool:
        """Whether the input line, the lowest one that begins with the prompt, holds it."""
        lines = [line.strip() for line in str(self.agent.screen()).splitlines()]
        return [line.removeprefix(self.sign).strip() for line in lines if line.startswith(self.sign)][-1:] == [DRAFT]

    def clear_draft(self) -> None:
        self.press("C-u")
        until(lambda: not self.draft_stands(), 30, "the cleared draft")

    def expected(self, text: str) -> str:
        return adapter_for(self.adapter).typed(sanitize(text)[0]).expected

    # a cell

    def settle(self) -> None:
        """Come back to an idle agent with an empty line, whatever happened."""
        deadline = time.monotonic() + _SETTLE_S
        if self.spoilt:
            self.spoilt = False
            self.agent.restart()
        while True:
            state = self.agent.state
            if state == "idle":
                return
            if state in {"exited", "failed"} or time.monotonic() > deadline:
                self.agent.restart()
                return
            if state == "unknown":
                time.sleep(0.5)
            time.sleep(0.01)

    def run(self, state: str, shape: str) -> Cell:
        self.settle()
        self.count += 1
        self.begin()
        text = body(shape, f"{self.kind[0]}{self.count}{uuid.uuid4().hex[:6]}", width=self.line_width)
        began = time.monotonic()
        detail = ""
        status, error_type = "not sent", None
        try:
            status, error_type = getattr(self, "_" + state.replace(" ", "_"))(text)
            wrong, verdict = self._judged(text, status, error_type, dying=state == "dying")
            if not wrong and state == "human draft" and not self._draft_is_well:
                wrong, verdict = "wrong", "the person's draft was touched"
        except (AssertionError, OrchestratorLabError) as error:
            wrong, verdict = "wrong", f"{type(error).__name__}: {error}"
        if wrong:
            with contextlib.suppress(OrchestratorLabError):
                detail = str(self.agent.screen()).rstrip()[-1500:]
            self.spoilt = True
        seconds = time.monotonic() - began
        with contextlib.suppress(AssertionError, OrchestratorLabError):
            self.tidy(state)
        return Cell(self.kind, state, shape, f"{status}{f' ({error_type})' if error_type else ''}", verdict,
                    bool(wrong), detail, round(seconds, 2))  # fmt: skip

    def tidy(self, state: str) -> None:
        """Undo what a state needed."""

    def _judged(self, text: str, status: str, error_type: str | None, *, dying: bool) -> tuple[str, str]:
        expected = self.expected(text)
        if status not in {"accepted", "started", "answered"}:
            time.sleep(0.15)  # what comes late is late, but comes
        deadline = time.monotonic() + 20.0
        while True:
            truth = self.truth()
            found = judge(expected, status, error_type, truth, tuple(self.others), dying=dying)
            # Its log may be a moment behind its hook; what comes after this cell would be taken for the next one's.
            behind = not set(self.others) <= set(truth.prompts)
            late = behind or (bool(found[0]) and len(truth.prompts) <= len(self.others))
            if not late or time.monotonic() > deadline:
                return found
            time.sleep(0.05)

    def send(self, text: str, **options: Any) -> Any:
        return self.agent.send(text, **options)

    def finish(self, text: str, timeout: float = 60.0, **options: Any) -> tuple[str, str | None]:
        try:
            exchange = self.send(text, **options)
        except MessageRefused:
            return "refused", "refused"
        except ClusterStopped:
            return "refused", "stopped"
        return self.outcome(exchange, timeout)

    @staticmethod
    def outcome(exchange: Any, timeout: float = 60.0) -> tuple[str, str | None]:
        with contextlib.suppress(OrchestratorLabError):
            exchange.result(timeout)
        status = exchange.status
        return status, exchange._facts.get("error_type")

    def _idle(self, text: str) -> tuple[str, str | None]:
        return self.finish(text)

    def _busy(self, text: str) -> tuple[str, str | None]:
        self.work()
        return self.finish(text)

    def _dialog(self, text: str) -> tuple[str, str | None]:
        self.open_dialog()
        if self.count % 2:
            found = self.finish(text, expires=self.expires_s)
            self.close_dialog()
            return found
        try:
            exchange = self.send(text)
        except MessageRefused:
            self.close_dialog()
            return "refused", "refused"
        time.sleep(0.3)
        strays = self.truth().strays
        assert not strays, f"typed into the dialog: {strays[0][:60]!r}"
        self.close_dialog()
        return self.outcome(exchange)

    def _copy_mode(self, text: str) -> tuple[str, str | None]:
        self.agent.pane.cmd("copy-mode")
        try:
            return self.finish(text)
        finally:
            self.agent.pane.cmd("send-keys", "-X", "cancel")

    _draft_is_well = True

    def _human_draft(self, text: str) -> tuple[str, str | None]:
        self.draft()
        self._draft_is_well = True
        if self.count % 2:
            found = self.finish(text, expires=self.expires_s)
            self._draft_is_well = self.draft_stands()
            self.clear_draft()
            return found
        try:
            exchange = self.send(text)
        except MessageRefused:
            self._draft_is_well = self.draft_stands()
            self.clear_draft()
            return "refused", "refused"
        time.sleep(0.3)
        self._draft_is_well = self.draft_stands()
        self.others.append(DRAFT)
        self.press("Enter")  # the person sends the draft: it comes first, and alone
        found = self.outcome(exchange)
        with contextlib.suppress(AssertionError):
            until(lambda: DRAFT in self.truth().prompts, 20, "the draft in its log")
        self._draft_is_well &= DRAFT in self.truth().prompts
        return found

    def _just_started(self, text: str) -> tuple[str, str | None]:
        seen = len(self.journal.read())
        restarting = threading.Thread(target=self.agent.restart)
        restarting.start()

        def started() -> bool:
            return any(one["event"] == "agent.started" for one in self.journal.read()[seen:])

        until(started, 30, "a started agent")  # that it is starting may be over before it is seen
        found = self.finish(text)
        restarting.join(60)
        return found

    def _dying(self, text: str) -> tuple[str, str | None]:
        pid = int(self.agent.facts["pid"])
        seen = len(self.journal.read())
        # Mostly right after the claim; also later, when the text is there and when Enter was pressed.
        rung = ("message.claimed", "message.claimed", "message.written", "message.submitted")[self.count % 4]
        rungs = {rung, "message.accepted"}
        found: dict[str, bool] = {}

        def kill() -> None:
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline and "stop" not in found:
                for record in self.journal.read()[seen:]:
                    if record["event"] in rungs:
                        os.kill(pid, signal.SIGKILL)
                        return
                time.sleep(0.0005)

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            return self.finish(text)
        finally:
            found["stop"] = True
            killer.join()
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
            until(lambda: self.agent.state in {"exited", "failed"}, 30, "the end of a killed agent")


class FakeRig(Rig):
    """The fake with the chat program's reports."""

    kind, adapter = "fake", "chat"
    shapes = (*SHAPES, BIG)

    def __init__(self, folder: Path, **options: Any) -> None:
        super().__init__(folder, **options)
        self.log = Log(folder / f"{self.kind}.jsonl")

    def command(self) -> list[str]:
        script = self.folder / f"{self.kind}.json"
        script.write_text(json.dumps({"start_ms": 250, "collapse_lines": 20, "collapse_chars": 2000, **self.options}))
        return [*PYTHON, str(FAKE), "--log", str(self.log.path), "--script", str(script)]

    def config(self) -> dict[str, Any]:
        return {"kind": "chat", "command": self.command()}

    def control(self, **action: Any) -> None:
        name = uuid.uuid4().hex
        with Path(f"{self.log.path}.ctl").open("w") as pipe:
            pipe.write(json.dumps({**action, "id": name}) + "\n")
        until(lambda: any(one.get("id") == name for one in self.log.read()), 30, f"the fake's {action}")

    def begin(self) -> None:
        super().begin()
        self.mark = len(self.log.read())

    def truth(self) -> Truth:
        records = self.log.read()[self.mark :]
        strays = [one["text"] for one in records if one["event"] == "stray"]
        strays += [f"answered {one['choice']}" for one in records if one["event"] == "dialog_answered"
                   and one["choice"] != "closed"]  # fmt: skip
        strays += [f"lost {one}" for one in records if one["event"] == "lost"]
        return Truth(tuple(one["prompt"] for one in records if one["event"] == "submitted"), tuple(strays))

    def work(self) -> None:
        self.control(do="work", ms=10)
        self.control(set={"turn_ms": 500})
        super().work()
        self.control(set={"turn_ms": self.options.get("turn_ms", 0)})

    def open_dialog(self) -> None:
        kind = ("permission", "update", "choice")[self.count % 3]
        title = {"permission": "May I run", "update": "A new version", "choice": "Which one"}[kind]
        self.control(do="dialog", kind=kind)
        until(lambda: title in self.tmux("capture-pane", "-p"), 30, "the dialog on the screen")

    def close_dialog(self) -> None:
        self.control(do="close")

    def draft(self) -> None:
        super().draft()
        keys = [bytes.fromhex(one["hex"]).decode() for one in self.log.read()[self.mark :] if one["event"] == "keys"]
        assert "".join(keys).endswith(DRAFT)

    def tidy(self, state: str) -> None:
        if state in {"dialog", "human draft"}:
            self.control(do="close")
            self.control(do="clear")


class SilentFakeRig(FakeRig):
    """The fake without any report: a program like any other, found out by its prompt."""

    kind, adapter = "fake, silent", "program"

    def config(self) -> dict[str, Any]:
        return {"kind": "program", "command": self.command(), "turn_end": {"prompt": "^› $"}}


class ProgramRig(Rig):
    """A read-eval-print loop on a terminal that edits lines itself."""

    kind, adapter = "program", "program"
    shapes = (*SHAPES, LONG_LINE)
    sign = "repl>"
    line_width = 500  # it reads line by line, some fifty a second

    def __init__(self, folder: Path, **options: Any) -> None:
        super().__init__(folder, **options)
        self.log = Log(folder / "program.jsonl")

    def config(self) -> dict[str, Any]:
        command = [*PYTHON, str(REPL), str(self.log.path), "0.25"]
        return {"kind": "program", "command": command, "turn_end": {"prompt": "^repl> $"}}

    def begin(self) -> None:
        super().begin()
        self.mark = len(self.log.read())

    def truth(self) -> Truth:
        records = self.log.read()[self.mark :]
        lines = [one["text"] for one in records if one["event"] == "line"]
        prompts = []
        if DRAFT in self.others and DRAFT in lines:
            lines.remove(DRAFT)
            prompts.append(DRAFT)
        if lines:
            prompts.append("\n".join(lines))
        return Truth(tuple(prompts), tuple(one["text"] for one in records if one["event"] == "stray"))

    def work(self) -> None:
        self.agent.send("work 0.5").accepted(30)
        until(lambda: any(one.get("state") == "busy" for one in self.log.read()[self.mark :]), 30, "a busy program")

    def open_dialog(self) -> None:
        self.type("ask")
        self.press("Enter")
        until(lambda: "Really?" in str(self.agent.screen()).rstrip().splitlines()[-1], 30, "the question")

    def close_dialog(self) -> None:
        self.press("Enter")


class ChatRig(Rig):
    """The lab's own chat program."""

    kind, adapter = "chat", "chat"
    states = tuple(state for state in STATES if state != "dialog")  # it never asks
    shapes = (*SHAPES, BIG)

    def config(self) -> dict[str, Any]:
        return {"kind": "chat"}

    def start(self) -> None:
        super().start()
        self.log = Log(self.cluster.run_dir / "transcripts" / f"{self.name}.jsonl")

    def begin(self) -> None:
        super().begin()
        self.mark = len(self.log.read())

    def truth(self) -> Truth:
        records = self.log.read()[self.mark :]
        return Truth(tuple(one["message"]["content"] for one in records if one["type"] == "user"))

    def clear_draft(self) -> None:
        self.press("C-c")
        until(lambda: not self.draft_stands(), 30, "the cleared draft")


class ClaudeRig(Rig):
    """The real Claude Code."""

    kind, adapter = "claude", "claude"
    sign = "❯"
    expires_s = 1.5

    def __init__(self, folder: Path, *, command: str, **options: Any) -> None:
        super().__init__(folder, **options)
        self.command_path = command

    def config(self) -> dict[str, Any]:
        return {"kind": "claude", "command": self.command_path}

    def script(self) -> list[dict[str, Any]]:
        ask = {"name": "Bash", "input": {"command": "touch made-by-claude", "description": "make a file"}}
        return [
            {"when": {"contains": "PLEASE ASK"}, "tool": ask, "then": {"reply": "asked"}},
            {"when": {"contains": "PLEASE WORK"}, "reply": "worked", "delay_s": 1.0},
            {"reply": "ok {n}"},
        ]

    def start(self) -> None:
        super().start()
        self._logs: dict[Path, Log] = {}

    def _prompts(self) -> list[str]:
        root = Path(os.environ["ORCHESTRATOR_RUNTIME_DIR"]) / self.cluster.name / "agents" / self.name
        found: list[tuple[str, str]] = []
        for path in root.glob("claude/projects/*/*.jsonl"):
            for one in self._logs.setdefault(path, Log(path)).read():
                content = one.get("message", {}).get("content") if one.get("type") == "user" else None
                if isinstance(content, list) and content and all(part.get("type") == "text" for part in content):
                    content = "\n".join(part["text"] for part in content)
                if isinstance(content, str) and not one.get("isMeta") and not content.startswith("[Request interr"):
                    found.append((one.get("timestamp", ""), content))
        return [content for _, content in sorted(found, key=lambda pair: pair[0])]

    def begin(self) -> None:
        super().begin()
        self.mark = len(self._prompts())

    def truth(self) -> Truth:
        return Truth(tuple(self._prompts()[self.mark :]))

    def open_dialog(self) -> None:
        text = f"PLEASE ASK {self.count}"
        self.others.append(text)
        self.agent.send(text).accepted(30)
        until(lambda: self.agent.state == "waiting", 30, "Claude Code's question")

    def close_dialog(self) -> None:
        self.press("Escape")


class CodexRig(Rig):
    """The real Codex; its truth is its rollout."""

    kind, adapter = "codex", "codex"
    expires_s = 1.5

    def __init__(self, folder: Path, **options: Any) -> None:
        super().__init__(folder, **options)
        self._logs: dict[Path, Log] = {}

    def config(self) -> dict[str, Any]:
        command = os.environ.get("ORCHESTRATOR_LAB_TEST_CODEX")
        path = command or str(HERE.parent / "agents" / "node_modules" / ".bin" / "codex")
        return {"kind": "codex", "command": path}

    def script(self) -> list[dict[str, Any]]:
        why = {"sandbox_permissions": "require_escalated", "justification": "because"}
        ask = {"name": "exec_command", "input": {"cmd": "touch made-by-codex", **why}}
        return [
            {"when": {"contains": "PLEASE ASK"}, "tool": ask, "then": {"reply": "asked"}},
            {"when": {"contains": "PLEASE WORK"}, "reply": "worked", "delay_s": 1.0},
            {"reply": "ok {n}"},
        ]

    def _prompts(self) -> list[str]:
        root = Path(os.environ["ORCHESTRATOR_RUNTIME_DIR"]) / self.cluster.name / "agents" / self.name
        found = [
            (str(one.get("timestamp", "")), "".join(part["text"] for part in one["payload"]["item"]["content"]))
            for path in root.rglob("rollout-*.jsonl")
            for one in self._logs.setdefault(path, Log(path)).read()
            if one.get("type") == "event_msg" and one["payload"].get("item", {}).get("type") == "UserMessage"
        ]
        return [text for _, text in sorted(found, key=lambda pair: pair[0])]

    def begin(self) -> None:
        super().begin()
        self.mark = len(self._prompts())

    def truth(self) -> Truth:
        return Truth(tuple(self._prompts()[self.mark :]))

    def open_dialog(self) -> None:
        text = f"PLEASE ASK {self.count}"
        self.others.append(text)
        self.agent.send(text).accepted(30)
        until(lambda: self.agent.state == "waiting", 30, "Codex's question")

    def close_dialog(self) -> None:
        self.press("Escape")


def cells(rig: Rig, wanted: list[tuple[str, str]]) -> list[Cell]:
    """Start a rig, run cells, end it."""
    rig.start()
    try:
        return [rig.run(state, shape) for state, shape in wanted]
    finally:
        rig.close()


def folder() -> Path:
    """Return a new folder with a short path."""
    return Path(tempfile.mkdtemp(prefix="m"))
