"""Faults at each step of a message's life: the supervisor is held there, somebody is killed, and the truth is read.

The steps are those of :mod:`orchestrator_lab.supervisor.steps`. One message goes from an agent to another that answers
it, so that every step is passed: the ladder, the turn, and the forwarded answer.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from soak_truth import FINAL, Record, judge, transcript, typed

from orchestrator_lab import Cluster
from orchestrator_lab.errors import OrchestratorLabError
from orchestrator_lab.runtime import process_alive, read_record
from orchestrator_lab.supervisor.steps import STEPS, VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["VICTIMS", "Case", "ChatRig", "ClaudeRig", "CodexRig", "FakeRig", "Rig"]

HERE = Path(__file__).resolve().parent
FAKE = HERE.parent / "fake_agent" / "fake_agent.py"
VICTIMS = ("supervisor", "agent", "keeper", "client", "tmux")
#: Steps at which a message's end does not hang on its program any more.
_OVER = {"turn_ended", "answered", "followed"}
#: A supervisor or keeper that dies again within this time is started with a pause that doubles, in seconds.
_SETTLED_S = 6.0
#: The same for the tmux server, which is given up when it is lost too often.
_TMUX_S = 120.0
#: How often that is waited for, before a new cluster is quicker.
_AGAIN = 2

#: A client in the least words: it sends, and waits for the end.
CLIENT = """
import http.client, json, socket, sys
line = http.client.HTTPConnection("supervisor")
line.sock = socket.socket(socket.AF_UNIX)
line.sock.connect(sys.argv[1])
body = {"to": sys.argv[2], "text": sys.argv[3], "message_ids": [sys.argv[4]]}
line.request("POST", "/messages", json.dumps(body), {"Content-Type": "application/json"})
line.getresponse().read()
line.request("GET", f"/messages/{sys.argv[4]}?until=final")
line.getresponse().read()
"""


def until(condition: Callable[[], Any], timeout_s: float, what: str) -> Any:
    """Wait for a condition on files and processes (they change without telling)."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.005)
    return found


@dataclass(frozen=True, slots=True)
class Case:
    """One fault and how it ended: ``problem`` is empty, or says what was lost, doubled or unexplained."""

    kind: str
    step: str
    victim: str
    status: str
    taken: int
    problem: str
    seconds: float


class Rig:
    """Two agents, one fault after the other."""

    kind = ""
    #: Seconds by which its record may be behind its reports.
    behind_s = 0.0
    #: Its text goes in as a whole, with its Enter.
    steps: tuple[str, ...] = tuple(one for one in STEPS if one not in {"part_typed", "entering"})

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="f"))
        self.hold = self.folder / "hold"
        self.hold.mkdir()
        self.cluster: Cluster | None = None
        self.killed_at: dict[str, list[float]] = {}

    # to be said by each kind

    def agent(self, name: str) -> dict[str, Any]:
        raise NotImplementedError

    def taken(self, name: str) -> Counter[str]:
        """Return how often an agent took each prompt, as it says itself."""
        return transcript(self.run_dir / "transcripts" / f"{name}.jsonl")[0]

    def body(self, tag: str) -> str:
        return f"{tag} is to be read once"

    def prepare(self) -> None:
        """Put into the work folder what the program needs there."""

    def written_down(self, tag: str) -> None:
        """Wait until a program that has reported a prompt has also written it down where the truth is read."""

    # the cluster

    def start(self) -> None:
        place = self.folder / uuid.uuid4().hex[:6]
        for name in ("work", "runs"):
            (place / name).mkdir(parents=True)
        self.place = place
        self.prepare()
        os.environ[VARIABLE] = str(self.hold)
        try:
            self.cluster = Cluster.start(
                {
                    "cluster": {
                        "name": f"f{uuid.uuid4().hex[:6]}",
                        "work_dir": str(place / "work"),
                        "runs_dir": str(place / "runs"),
                        "gateway": {"mode": "script", "script": [{"reply": "read"}]},
                        "topology": [{"from": "*", "to": "*", "replies": "forward"}],
                    },
                    "agents": [self.agent("ada"), self.agent("bob")],
                }
            )
        finally:
            del os.environ[VARIABLE]
        self.at, self.run_dir = self.cluster.client.folder, self.cluster.run_dir
        self.record = Record(self.cluster.run_dir / "journal.jsonl")

    def close(self) -> None:
        cluster, self.cluster = self.cluster, None
        if cluster is not None:
            with contextlib.suppress(OrchestratorLabError):
                cluster.shutdown()

    def pid(self, who: str) -> int:
        found = read_record(self.at)
        assert found is not None
        return int(getattr(found, f"{who}_pid"))

    # one fault

    def run(self, step: str, victim: str) -> Case:
        began = time.monotonic()
        window_s = _TMUX_S if victim == "tmux" else _SETTLED_S * _AGAIN
        recent = [at for at in self.killed_at.get(victim, ()) if began - at < window_s]
        if len(recent) >= _AGAIN:
            self.close()
        if self.cluster is None:
            self.killed_at.clear()
            recent.clear()
            self.start()
        if victim in {"supervisor", "keeper", "tmux"}:
            self.killed_at[victim] = [*recent, time.monotonic()]
        tag = f"<{uuid.uuid4().hex[:8]}>"
        problem, row, times = "", None, 0
        try:
            self._fault(step, victim, tag)
            row, times, problem = self._verdict(step, victim, tag)
        except (AssertionError, OrchestratorLabError, OSError) as error:
            problem = f"unexplained: {type(error).__name__}: {error}"
            self._let_go()
        if problem or step == "part_typed":
            self.close()  # half a text stands in the input line: a new one for the next fault
        status = "none" if row is None else f"{row['status']}{f' ({why})' if (why := row['error_type']) else ''}"
        return Case(self.kind, step, victim, status, times, problem, round(time.monotonic() - began, 2))

    def _fault(self, step: str, victim: str, tag: str) -> None:
        assert self.cluster is not None
        (self.hold / "armed").write_text(f"{step} 1")
        agent = {one["name"]: one["pid"] for one in self.cluster.status()["agents"]}["ada"]
        text = self.body(tag)
        client = None
        if victim == "client" or step == "acknowledging":
            words = [str(self.at / "api.sock"), "ada", text, f"msg_{uuid.uuid4().hex}"]
            client = subprocess.Popen([sys.executable, "-S", "-E", "-c", CLIENT, *words], stderr=subprocess.DEVNULL)
        else:
            asking = threading.Thread(target=self._ask, args=(text,), daemon=True)
            asking.start()
        try:
            held = int(until(self._reached, 30, f"step {step}"))
            until(lambda: psutil.Process(held).status() == psutil.STATUS_STOPPED, 30, "the stopped supervisor")
            (self.hold / "reached").unlink()
            if step in STEPS[STEPS.index("told") :]:
                self.written_down(tag)
            self._kill(victim, held, agent, client)
            if victim != "supervisor":
                os.kill(held, signal.SIGCONT)
        finally:
            if client is not None and victim in {"client", "supervisor"}:
                client.kill()
                client.wait()
        self._heal(victim, held)
        if client is not None:
            client.kill()
            client.wait()

    def _reached(self) -> str:
        with contextlib.suppress(FileNotFoundError):
            return (self.hold / "reached").read_text()
        return ""

    def _let_go(self) -> None:
        """Leave nobody stopped and nothing armed after a fault that went wrong."""
        for name in ("armed", "reached"):
            (self.hold / name).unlink(missing_ok=True)
        with contextlib.suppress(Exception):
            os.kill(self.pid("supervisor"), signal.SIGCONT)

    def _kill(self, victim: str, held: int, agent: int, client: subprocess.Popen[bytes] | None) -> None:
        if victim == "client":
            assert client is not None
            client.kill()
            client.wait()
            return
        pid = {"supervisor": held, "agent": agent}.get(victim) or self.pid(victim)
        os.kill(pid, signal.SIGKILL)
        until(lambda: not process_alive(pid), 30, f"the end of the {victim}")

    def _heal(self, victim: str, held: int) -> None:
        """Wait until whoever was killed is back."""
        assert self.cluster is not None
        if victim == "supervisor":
            until(lambda: self.pid("supervisor") != held, 60, "a new supervisor")
        elif victim == "keeper":
            until(lambda: process_alive(self.pid("keeper")), 60, "a new keeper")
        elif victim == "agent":
            until(lambda: self.cluster["ada"].state in {"exited", "failed"}, 60, "the end of the agent")
            self.cluster["ada"].restart()
        elif victim == "tmux":
            until(lambda: process_alive(self.pid("tmux")), 60, "a new tmux server")

    def _ask(self, text: str) -> None:
        """Write to ada as bob does."""
        kept = json.loads((self.at / "agents" / "bob" / "agent.json").read_text())
        port = json.loads((self.at / "cluster.json").read_text())["port"]
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        with contextlib.suppress(OSError, http.client.HTTPException, socket.timeout):
            head = {"Authorization": f"Bearer {kept['token']}", "Content-Type": "application/json"}
            line.request("POST", "/agent/messages", json.dumps({"to": "ada", "text": text}), head)
            line.getresponse().read()
        line.close()

    # the truth

    def _idle(self) -> bool:
        assert self.cluster is not None
        return all(one["state"] == "idle" and not one["queued"] for one in self.cluster.status()["agents"])

    def _verdict(self, step: str, victim: str, tag: str) -> tuple[dict[str, Any] | None, int, str]:
        rows = self.record.read().rows

        def mine() -> list[dict[str, Any]]:
            self.record.read()
            asked = [row for row in rows.values() if tag in row["content"] and not row.get("in_reply_to")]
            ids = {row["id"] for row in asked}
            return asked + [row for row in rows.values() if row.get("in_reply_to") in ids]

        def over() -> bool:
            found = mine()
            return bool(found) and all(row["status"] in FINAL for row in found)

        until(over, 40, f"a final rung: {[(one['id'], one['status']) for one in mine()]}")
        until(self._idle, 30, "idle agents")
        until(over, 40, "a final rung of what followed")
        found = mine()
        if not found:
            return None, 0, "lost: the message is not in the journal"
        row = found[0]
        if len([one for one in found if one.get("in_reply_to")]) > 1 or len({one["id"] for one in found}) > 2:
            return row, 0, f"doubled: {len(found)} messages for one"
        problems = []
        with contextlib.suppress(AssertionError):
            taken = row["status"] == "answered" or str(row["error_type"]).startswith("turn_")
            until(lambda: not taken or self.taken("ada")[typed(row)], 60 * self.behind_s, "its own record")
        time.sleep(self.behind_s)
        strange = [one["content"] for one in rows.values() if one["source"] == "human"]
        # Claude Code on a busy machine has kept only the end of what was pasted. That is told, by the very prompt.
        cut = [one for one in strange if row["error_type"] == "prompt_differs" and _end_of(typed(row), one)]
        for one in found:
            if one is row and cut:
                continue
            text = typed(one)
            times = self.taken(one["recipient"])[text]
            kind, why = judge(one, times)
            if kind:
                problems.append(f"{kind}: {why}")
        problems += [f"unexplained: a prompt that nobody sent: {one[-60:]!r}" for one in strange if one not in cut]
        times = self.taken("ada")[typed(row)]
        if victim in {"keeper", "client"} and row["status"] != "answered":
            problems.append(f"unexplained: {row['status']} although neither its sender nor its recipient died")
        if victim == "agent" and step in _OVER and row["status"] != "answered":
            problems.append(f"unexplained: {row['status']} although its answer was there")
        return row, times, "; ".join(problems)


def _end_of(text: str, prompt: str) -> bool:
    """Tell whether a prompt is the end of a text, and not the whole of it."""
    return len(prompt.rstrip()) < len(text.rstrip()) and text.rstrip().endswith(prompt.rstrip())


class ChatRig(Rig):
    """The lab's chat program."""

    kind = "chat"

    def agent(self, name: str) -> dict[str, Any]:
        return {"name": name, "kind": "chat"}


class FakeRig(Rig):
    """The program that keeps the truth."""

    kind = "fake"

    def log(self, name: str) -> Path:
        return self.place / f"{name}.jsonl"

    def agent(self, name: str) -> dict[str, Any]:
        script = self.place / f"{name}.json"
        script.write_text(json.dumps({"turn_ms": 20, "collapse_lines": 20}))
        words = [sys.executable, "-S", "-E", str(FAKE), "--log", str(self.log(name)), "--script", str(script)]
        return {"name": name, "kind": "chat", "command": words}

    def taken(self, name: str) -> Counter[str]:
        found: Counter[str] = Counter()
        for line in self.log(name).read_bytes().split(b"\n")[:-1]:
            note = json.loads(line)
            if note["event"] == "submitted":
                found[str(note["prompt"]).rstrip()] += 1
        return found


class RealRig(Rig):
    """A real program, ada, whose record of a prompt may be behind its report of it; bob is a chat program."""

    behind_s = 0.5

    def __init__(self, command: str) -> None:
        super().__init__()
        self.command = command

    def agent(self, name: str) -> dict[str, Any]:
        if name == "bob":
            return {"name": name, "kind": "chat"}
        return {"name": name, "kind": self.kind, "command": self.command, "mcp": False}

    def written_down(self, tag: str) -> None:
        with contextlib.suppress(AssertionError):
            until(lambda: any(tag in prompt for prompt in self.taken("ada")), 20, "its record")


class ClaudeRig(RealRig):
    """The real Claude Code; its text goes in by parts, and Enter after its echo."""

    kind = "claude"
    steps = STEPS

    def body(self, tag: str) -> str:
        # A path to an image makes it go in by parts.
        return f"{tag} is to be read once, with\n/tmp/picture.png"

    def prepare(self) -> None:
        # Its record is written late, and not at all when it is killed: a hook of the test's own keeps the truth.
        log = self.place / "ada.jsonl"
        log.touch()
        hook = {"type": "command", "command": f"cat >>'{log}'; echo >>'{log}'", "timeout": 10}
        settings = self.place / "work" / ".claude" / "settings.json"
        settings.parent.mkdir()
        settings.write_text(json.dumps({"hooks": {"UserPromptSubmit": [{"hooks": [hook]}]}}))

    def taken(self, name: str) -> Counter[str]:
        if name == "bob":
            return super().taken(name)
        lines = (self.place / "ada.jsonl").read_bytes().split(b"\n")
        return Counter(str(json.loads(line)["prompt"]).rstrip() for line in lines if line)


class CodexRig(RealRig):
    """The real Codex; a hook of its own says what it takes, also when it is killed before its rollout does."""

    kind = "codex"
    #: It reports a turn's end with its whole reply; nothing tells of the reply's beginning.
    steps = tuple(one for one in Rig.steps if one != "first_output")

    def prepare(self) -> None:
        # Codex asks about each hook that it does not know: the lab's own is overheard, where it moves its report.
        for name in ("bin", "told"):
            (self.place / name).mkdir()
        move = self.place / "bin" / "mv"
        told = self.place / "told"
        mv = shutil.which("mv")
        move.write_text(
            f"""#!/bin/sh
to="$(basename "$2")"
cp "$1" '{told}'/".$to" && {mv} '{told}'/".$to" '{told}'/"$to" && exec {mv} "$@"
"""
        )
        move.chmod(0o700)

    def agent(self, name: str) -> dict[str, Any]:
        return {**super().agent(name), "env": {"PATH": f"{self.place / 'bin'}:{os.environ['PATH']}"}}

    def taken(self, name: str) -> Counter[str]:
        if name == "bob":
            return super().taken(name)
        told = [json.loads(report.read_bytes()) for report in (self.place / "told").glob("[!.]*")]
        return Counter(str(one["prompt"]).rstrip() for one in told if one["hook_event_name"] == "UserPromptSubmit")
