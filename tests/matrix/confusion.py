"""How often the published state is right: a matrix over time for each kind, against a truth of its own.

``python tests/matrix/confusion.py [--rounds 3] [--kinds claude,codex,chat,fake] [--out docs/states.md]``

The truth is never what the lab believes. The fake writes its own states. Of the others the model endpoint tells when a
request is open, which is work; a request for permission stands from the answer that asked for the tool until the key
that a person pressed; after the key the tool runs. What lies within the tolerance around a change of the truth may be
either of both.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import itertools
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE))

import matrix_rigs as rigs  # noqa: E402
import pandas as pd  # noqa: E402
from matrix_rigs import until  # noqa: E402

from orchestrator_lab import __version__  # noqa: E402
from orchestrator_lab.frames import states_df  # noqa: E402
from orchestrator_lab.tmux import find_tmux  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Around a change of the truth, both of its states are right, in seconds.
TOLERANCE_S = 0.5
KINDS = ("claude", "codex", "chat", "fake")
STATES = ("idle", "busy", "waiting", "exited")
PUBLISHED = (*STATES, "unknown", "starting", "limited", "failed")
_OF_FAKE = {"idle": "idle", "busy": "busy", "dialog": "waiting", "dead": "exited", "hung": "busy"}


@dataclass(frozen=True)
class Span:
    """A state from one instant to another, in epoch seconds."""

    begin: float
    end: float
    state: str


@dataclass
class Matrix:
    """Seconds by true and published state."""

    seconds: dict[tuple[str, str], float] = field(default_factory=lambda: collections.defaultdict(float))

    def add(self, other: Matrix) -> None:
        for key, value in other.seconds.items():
            self.seconds[key] += value

    @property
    def total(self) -> float:
        return sum(self.seconds.values())

    def share(self, published: str) -> float:
        """The share of the time in which a state was published."""
        return sum(value for (_, state), value in self.seconds.items() if state == published) / max(self.total, 1e-9)

    @property
    def idle_for_work(self) -> float:
        """Seconds in which an agent that worked or asked was said to be idle."""
        return self.seconds.get(("busy", "idle"), 0.0) + self.seconds.get(("waiting", "idle"), 0.0)

    def rows(self) -> list[str]:
        """The table, in Markdown."""
        columns = [state for state in PUBLISHED if any(key[1] == state for key in self.seconds)]
        lines = [f"| truth, s | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
        for truth in STATES:
            if any(key[0] == truth for key in self.seconds):
                cells = [f"{value:.1f}" if (value := self.seconds.get((truth, one), 0.0)) else "" for one in columns]
                lines.append(f"| {truth} | {' | '.join(cells)} |")
        return lines


def confusion(truth: Sequence[Span], published: Sequence[Span], tolerance_s: float = TOLERANCE_S) -> Matrix:
    """Compare two accounts of the same time; what only one of them covers is left out."""
    edges = {at for one in (*truth, *published) for at in (one.begin, one.end)}
    edges |= {one.begin + shift for one in truth for shift in (-tolerance_s, tolerance_s)}
    cuts = sorted(edges)
    found = Matrix()
    for begin, end in itertools.pairwise(cuts):
        middle = (begin + end) / 2
        true = next((one.state for one in truth if one.begin <= middle < one.end), None)
        said = next((one.state for one in published if one.begin <= middle < one.end), None)
        if true is None or said is None:
            continue
        near = {one.state for one in truth if one.begin <= middle + tolerance_s and one.end > middle - tolerance_s}
        found.seconds[true, true if said in near else said] += end - begin
    return found


class Trial:
    """One agent that is put through everything once, and what is known of it from elsewhere."""

    def __init__(self, rig: rigs.Rig) -> None:
        self.rig = rig
        self.changes: list[tuple[float, str]] = []
        self.count = 0

    def change(self, state: str, at: float | None = None) -> None:
        self.changes.append((time.time() if at is None else at, state))

    def requests(self, since: float) -> list[tuple[float, float]]:
        """When requests of this agent's turns to its model began and ended; what it asks on the side is no work."""
        begun: dict[str, float] = {}
        found = []
        for event in self.rig.cluster.events():
            at = datetime.fromisoformat(event.at).timestamp()
            if event.agent != self.rig.name or at < since:
                continue
            if event.event == "gateway.request" and event.attributes["purpose"] in {"main", "subagent"}:
                begun[event.attributes["request_id"]] = at
            elif event.event == "gateway.response" and event.attributes["request_id"] in begun:
                found.append((begun[event.attributes["request_id"]], at))
        return sorted(found)

    def ask(self, what: str) -> float:
        """Ask and wait; the model's own endpoint tells when it worked."""
        self.count += 1
        since = time.time()
        self.rig.agent.ask(f"{what} {self.count}", timeout=60)
        ended = time.time()
        during = [one for one in self.requests(since) if one[0] <= ended]
        self.change("busy", during[0][0])
        self.change("idle", max(end for _, end in during))
        return ended

    def permission(self, key: str) -> None:
        """Ask for what needs a permission; a person presses a key a little later."""
        self.count += 1
        since = time.time()
        exchange = self.rig.agent.send(f"PLEASE ASK {self.count}")
        # What stands on the screen is the truth, as a person sees it.
        until(lambda: "1. Yes" in self.rig.tmux("capture-pane", "-p"), 60, "the question")
        time.sleep(1.2)
        (asked, answered), *_ = self.requests(since)
        self.change("busy", asked)
        self.change("waiting", answered)
        pressed = time.time()  # before it is pressed: what follows may be over when this goes on
        self.rig.press(key)
        if key == "Escape":
            self.change("idle", pressed)
            until(lambda: exchange.done, 30, "the end of the turn")
            return
        self.change("busy", pressed)
        exchange.result(60)
        self.change("idle", max(end for begun, end in self.requests(since) if begun <= time.time()))

    def interrupt(self) -> None:
        self.count += 1
        since = time.time()
        exchange = self.rig.agent.send(f"PLEASE TAKE LONG {self.count}").accepted(30)
        until(lambda: any(one.event == "gateway.request" for one in self.since(since)), 30, "the request")
        time.sleep(1.0)
        begun = next(one for one in self.since(since) if one.event == "gateway.request")
        self.change("busy", datetime.fromisoformat(begun.at).timestamp())
        self.change("idle")
        self.rig.press("Escape" if self.rig.kind != "chat" else "C-c")
        until(lambda: exchange.done, 30, "the end of the turn")

    def since(self, at: float) -> list[Any]:
        events = self.rig.cluster.events()
        return [
            one for one in events if one.agent == self.rig.name and datetime.fromisoformat(one.at).timestamp() >= at
        ]

    def kill(self) -> None:
        pid = int(self.rig.agent.facts["pid"])
        self.change("exited")
        os.kill(pid, signal.SIGKILL)
        time.sleep(1.0)

    def run(self) -> None:
        self.change("idle")
        time.sleep(1.0)
        self.ask("PLEASE WORK")
        self.ask("quick")
        if self.rig.kind in {"claude", "codex"}:
            self.permission("Enter")
            time.sleep(0.5)
            self.permission("Escape")
            time.sleep(0.5)
        self.interrupt()
        self.ask("quick")
        time.sleep(3.0)
        self.ask("PLEASE WORK")
        self.kill()

    def truth(self) -> list[Span]:
        ends = [at for at, _ in self.changes[1:]] + [time.time()]
        return [Span(at, end, state) for (at, state), end in zip(self.changes, ends, strict=True)]

    def published(self) -> list[Span]:
        frame = states_df(self.rig.cluster.run, agents=self.rig.name)
        rows = frame.astype({"state": str}).to_dict("records")
        ends = frame["ended_at"].fillna(pd.Timestamp.now(tz="UTC"))
        return [
            Span(row["started_at"].timestamp(), end.timestamp(), row["state"])
            for row, end in zip(rows, ends, strict=True)
        ]

    def matrix(self) -> Matrix:
        return confusion(self.truth(), self.published())


class FakeTrial(Trial):
    """The fake tells by itself what it does."""

    rig: rigs.FakeRig

    def run(self) -> None:
        rig = self.rig
        self.begun = time.time()
        time.sleep(0.5)
        for turn_ms in (0, 700):
            rig.control(set={"turn_ms": turn_ms})
            rig.agent.ask(f"work {turn_ms}", timeout=30)
        for kind in ("permission", "update"):
            rig.control(do="dialog", kind=kind)
            until(lambda: rig.agent.dialog, 30, "the dialog")
            time.sleep(0.7)
            rig.control(do="close")
            time.sleep(0.7)
        rig.control(set={"turn_ms": 1500})
        exchange = rig.agent.send("work and ask").accepted(30)
        rig.control(do="dialog", kind="permission")
        until(lambda: rig.agent.dialog, 30, "the dialog")
        rig.agent.dialog.answer("allow")
        exchange.result(30)
        time.sleep(1.0)
        rig.control(set={"turn_ms": 600_000})
        exchange = rig.agent.send("never ends").accepted(30)
        time.sleep(0.7)
        rig.agent.interrupt()
        until(lambda: exchange.done, 30, "the end of the turn")
        time.sleep(0.7)
        self.kill()

    def truth(self) -> list[Span]:
        records = self.rig.log.read()
        known, asked = [], 0
        for number, one in enumerate(records):
            if one["event"] == "dialog":
                asked = number
            if one["event"] == "state":
                at = one["at"]
                if one["state"] == "dialog":
                    # Of its question nobody can know before its report has arrived, which its log says.
                    told = [two["at"] for two in records[asked:] if two.get("name") == "Notification"]
                    at = max([at, *told[:1]])
                known.append((at, _OF_FAKE.get(one["state"], one["state"])))
        known += self.changes[-1:]  # a killed one writes nothing more
        ends = [at for at, _ in known[1:]] + [time.time()]
        spans = [Span(at, end, state) for (at, state), end in zip(known, ends, strict=True)]
        return [Span(max(one.begin, self.begun), one.end, one.state) for one in spans if one.end > self.begun]


def _script(tool: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"when": {"contains": "PLEASE ASK"}, "tool": tool, "then": {"reply": "asked", "delay_s": 0.5}},
        {"when": {"contains": "PLEASE WORK"}, "reply": "worked", "delay_s": 1.5},
        {"when": {"contains": "PLEASE TAKE LONG"}, "reply": "a long answer " * 2000, "tokens_per_s": 40},
        {"reply": "ok {n}"},
    ]


class Claude(rigs.ClaudeRig):
    def script(self) -> list[dict[str, Any]]:
        return _script({"name": "Bash", "input": {"command": "sleep 1; touch made", "description": "wait"}})


class Codex(rigs.CodexRig):
    def script(self) -> list[dict[str, Any]]:
        why = {"sandbox_permissions": "require_escalated", "justification": "because"}
        return _script({"name": "exec_command", "input": {"cmd": "sleep 1; touch made", **why}})


class Chat(rigs.ChatRig):
    def script(self) -> list[dict[str, Any]]:
        return _script({"name": "none", "input": {}})


def make(kind: str) -> Trial:
    place = rigs.folder()
    if kind == "claude":
        named = os.environ.get("ORCHESTRATOR_LAB_TEST_CLAUDE")
        path = named or str(HERE.parent / "agents" / "node_modules" / ".bin" / "claude")
        return Trial(Claude(place, command=path))
    if kind == "codex":
        return Trial(Codex(place))
    return Trial(Chat(place)) if kind == "chat" else FakeTrial(rigs.FakeRig(place))


def measure(kind: str, versions: dict[str, str]) -> Matrix:
    """Put one agent of a kind through everything once."""
    trial = make(kind)
    trial.rig.start()
    try:
        with contextlib.suppress(KeyError, IndexError):
            row = trial.rig.cluster.run.agents.to_dict("records")[0]
            if kind in {"claude", "codex"}:
                versions[str(row["program"])] = str(row["program_version"])
        trial.run()
        return trial.matrix()
    finally:
        trial.rig.close()


def measure_all(kinds: Sequence[str], versions: dict[str, str]) -> dict[str, Matrix | BaseException]:
    """All kinds side by side: mostly they wait."""
    found: dict[str, Matrix | BaseException] = {}

    def one(kind: str) -> None:
        try:
            found[kind] = measure(kind, versions)
        except BaseException as error:  # noqa: BLE001 - whoever waits for all of them raises it
            found[kind] = error

    threads = [threading.Thread(target=one, args=(kind,)) for kind in kinds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def page(found: dict[str, Matrix], rounds: int, versions: dict[str, str]) -> str:
    git = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, check=False, capture_output=True, text=True).stdout.strip()
    known = {"Python": platform.python_version(), "tmux": find_tmux().version, **versions}
    made_by = ", ".join(f"{name} {version}" for name, version in known.items())
    head = f"""\
# States, measured

Written by `python tests/matrix/confusion.py --rounds {rounds}`. Each kind is put through rest, work, a request for
permission that a person answers, an interrupt and a kill. Rows are what was true, columns what was published, cells are
seconds.

The truth is never the lab's own belief: a program made for this writes its states (`fake`); of the others the model
endpoint tells when a request was open, the screen when a question stood there, and the test's own clock when a key was
pressed. Within {TOLERANCE_S:g} s of a change of the truth, both of its states count as right.

What is counted as busy in an idle Claude Code is mostly the time after an interrupt, or after a permission that a
person denied: no hook fires then, and its record is read when its pane has been quiet for half a second. The rest is
what lies between the lab's first byte and the model's first request.

orchestrator-lab {__version__} ({commit}), {made_by}; {platform.system()} {platform.machine()}, {os.cpu_count()}
processors; {time.strftime("%Y-%m-%d", time.gmtime())}.
"""
    lines = [
        head,
        "| kind | measured | right | idle while busy or waiting | unknown |",
        "|---|---|---|---|---|",
    ]
    for kind, one in found.items():
        right = sum(value for (true, said), value in one.seconds.items() if true == said) / max(one.total, 1e-9)
        lines.append(
            f"| {kind} | {one.total:.0f} s | {right:.1%} | {one.idle_for_work:.1f} s | {one.share('unknown'):.1%} |"
        )
    for kind, one in found.items():
        lines += ["", f"## {kind}", "", *one.rows()]
    return "\n".join(lines) + "\n"


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--kinds", default=",".join(KINDS))
    options.add_argument("--out", type=Path, default=ROOT / "docs" / "states.md")
    chosen = options.parse_args()
    os.environ["ORCHESTRATOR_RUNTIME_DIR"] = tempfile.mkdtemp(prefix="r")
    versions: dict[str, str] = {}
    kinds = chosen.kinds.split(",")
    found = {kind: Matrix() for kind in kinds}
    lost = 0
    for number in range(chosen.rounds):
        for kind, one in measure_all(kinds, versions).items():
            if isinstance(one, Matrix):
                found[kind].add(one)
                print(f"round {number + 1}, {kind}:", *one.rows(), sep="\n", flush=True)
            else:
                lost += 1
                print(f"LOST round {number + 1}, {kind}: {one!r}", flush=True)
    chosen.out.write_text(page(found, chosen.rounds, dict(sorted(versions.items()))), encoding="utf-8")
    print(f"written: {chosen.out}")
    return int(bool(lost) or any(one.idle_for_work > 0 for one in found.values()))


if __name__ == "__main__":
    sys.exit(main())
