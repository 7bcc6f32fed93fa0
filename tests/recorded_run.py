"""Runs as a supervisor would have recorded them, in a blink: the real journal writer on a clock that is set.

``write_run`` invents nothing about the format: every event goes through JournalWriter, and every figure comes from a
seeded generator, so the same call makes the same tables (but for the ids' and the files' own instants).
"""

from __future__ import annotations

import heapq
import random
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from unittest import mock

from orchestrator_lab.beginning import create_run
from orchestrator_lab.journal.writer import JournalWriter

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

BEGIN = datetime(2026, 11, 23, 6, 0, tzinfo=UTC)
#: Five agents, and what each is; the last one's program reports no tokens.
FIVE = (
    ("boss", "claude"),
    ("manager", "claude"),
    ("coder", "codex"),
    ("tester", "claude"),
    ("writer", "chat"),
)
_TOOLS = ("Read", "Bash", "Edit", "Grep", "Write", "WebFetch", "Task", "mcp__lab__send_message")
_WEIGHTS = (9, 7, 5, 4, 2, 1, 1, 3)
_ASKS = (
    "Plan the next step of the parser and tell me who does what.",
    "Write the function that reads a rung of the ladder.\nKeep it pure.",
    "Run the tests of the parser and say which fail.",
    "Is the error's sentence clear? It costs $5 to misread it.",
    "日本語の説明を一段落書いてください。",
    "Look at the diff and name the one risk.",
)
_REPLIES = ("Done: two functions, one test.", "Three tests fail, all in the same place.", "Agreed, I go on.")


class _Clock:
    """The wall clock and the monotonic one, as the journal's writer asks for them."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return 1000.0 + self.now_s

    def now(self, zone: Any = None) -> datetime:
        return (BEGIN + timedelta(seconds=self.now_s)).astimezone(zone)


@contextmanager
def _set_clock() -> Iterator[_Clock]:
    clock = _Clock()
    where = "orchestrator_lab.journal.writer"
    with mock.patch(f"{where}.time", clock), mock.patch(f"{where}.datetime", clock):
        yield clock


class _Story:
    """Events to come, each at its second; written in the order of time."""

    def __init__(self, agents: Sequence[tuple[str, str]], seed: int, pace: float) -> None:
        self.agents, self.pace = agents, pace
        self.random = random.Random(seed)  # noqa: S311 - a story, no secret
        self.heap: list[tuple[float, int, str, dict[str, Any]]] = []
        self.free: dict[str, float] = {}
        self.count = {"msg": 0, "trn": 0, "call": 0}

    def tell(self, at: float, event: str, **facts: Any) -> None:
        heapq.heappush(self.heap, (at, len(self.heap) + self.count["msg"] * 1000, event, facts))

    def id(self, kind: str) -> str:
        self.count[kind] += 1
        return f"{kind}_{self.count[kind]:06d}"

    def state(self, at: float, agent: str, state: str) -> None:
        self.tell(at, "agent.state", agent=agent, state=state, source="hook")

    def start(self) -> float:
        ready = 0.0
        for number, (name, kind) in enumerate(self.agents):
            model = {"claude": "claude-sonnet-4-5", "codex": "gpt-5-codex"}.get(kind, "smollm2")
            at = 0.05 * number
            self.tell(at, "agent.added", agent=name, agent_id=f"agt_{number}", name=name, role=name, kind=kind,
                      program=kind, model=model, cols=100, rows=24)  # fmt: skip
            self.tell(at + 0.01, "agent.started", agent=name, pid=4000 + number, pane_id=f"%{number}")
            self.state(at + 0.01, name, "starting")
            up = at + self.random.uniform(1.2, 2.6)
            self.tell(up, "agent.ready", agent=name, source="hook")
            self.state(up, name, "idle")
            self.free[name] = up
            ready = max(ready, up)
        return ready

    def send(self, at: float, sender: str, recipient: str, text: str, outcome: str = "answered") -> float:
        """Tell the story of one message, and of the turn that answers it; return when that ended."""
        draw, message_id = self.random, self.id("msg")
        about: dict[str, Any] = {"agent": recipient, "message_id": message_id}
        self.tell(at, "message.queued", **about, sender=sender, recipient=recipient, content=text, hop=0,
                  kind="direct", source="human" if sender == "user" else "agent", conversation_id="cnv_1")  # fmt: skip
        if outcome == "refused":
            self.tell(at, "message.refused", **about, error_type="not_allowed", error_message="no edge leads there")
            return at
        claimed = max(at, self.free[recipient]) + draw.uniform(0.001, 0.02)
        written = claimed + draw.uniform(0.004, 0.03)
        entered = written + draw.lognormvariate(-2.6, 0.4)
        accepted = entered + draw.lognormvariate(-3.2, 0.6)
        self.tell(claimed, "message.claimed", **about)
        self.tell(written, "message.written", **about, source="terminal", bytes=len(text))
        self.tell(entered, "message.submitted", **about, attempt=1)
        if outcome == "uncertain":
            self.tell(entered + 5.0, "message.uncertain", **about, error_type="no_proof", error_message="no proof came")
            self.free[recipient] = entered + 5.0
            return entered + 5.0
        turn_id = self.id("trn")
        turn: dict[str, Any] = {"agent": recipient, "turn_id": turn_id, "source": "hook"}
        self.tell(accepted, "message.accepted", **about, source="hook", turn_id=turn_id)
        self.tell(accepted, "turn.started", **turn, message_ids=[message_id])
        started = accepted + draw.uniform(0.001, 0.01)
        self.tell(started, "message.started", **about, source="hook", turn_id=turn_id)
        self.state(accepted, recipient, "busy")
        ended = self._turn(turn, recipient, started)
        self.tell(ended, "message.answered", **about, source="hook", turn_id=turn_id)
        self.state(ended, recipient, "idle")
        self.free[recipient] = ended
        return ended

    def _turn(self, turn: dict[str, Any], agent: str, started: float) -> float:
        draw, kind = self.random, dict(self.agents)[agent]
        at = started + self.pace * draw.lognormvariate(0.0, 0.4)
        self.tell(at, "turn.first_output", **turn)
        for _ in range(0 if kind == "chat" else draw.choice((0, 1, 1, 2, 3, 5))):
            call, tool = self.id("call"), draw.choices(_TOOLS, _WEIGHTS)[0]
            self.tell(at, "tool.started", **turn, tool_call_id=call, name=tool, input={"path": "parser.py"})
            if tool == "Bash" and draw.random() < 0.25:
                self.state(at + 0.05, agent, "waiting")
                at += self.pace * draw.uniform(1.0, 3.0)
                self.state(at, agent, "busy")
            at += self.pace * draw.lognormvariate(-1.5 if tool in {"Read", "Grep"} else -0.3, 0.7)
            status = draw.choices(("ok", "error", "denied"), (20, 3, 1))[0]
            self.tell(at, "tool.ended", **turn, tool_call_id=call, status=status, output="…")
        ended = at + self.pace * draw.lognormvariate(0.5, 0.5)
        if kind != "chat" and not (kind == "codex" and draw.random() < 0.3):
            tokens = draw.randrange(9_000, 16_000), draw.randrange(80, 900)
            price = (3.0, 15.0) if kind == "claude" else (1.25, 10.0)
            cost = (tokens[0] * price[0] + tokens[1] * price[1]) / 1e6
            cached = {} if kind != "claude" else {
                "cache_read_input_tokens": tokens[0] * 3 // 5, "cache_creation_input_tokens": tokens[0] // 10
            }  # fmt: skip
            self.tell(ended - 0.001, "turn.usage", **turn, input_tokens=tokens[0], output_tokens=tokens[1],
                      cost_usd=round(cost, 6), final=True, model="m", **cached)  # fmt: skip
        self.tell(ended, "turn.ended", **turn, reply=draw.choice(_REPLIES), end_reason="completed")
        return ended


def write_run(
    runs: Path,
    *,
    agents: Sequence[tuple[str, str]] = FIVE,
    rounds: int = 3,
    seed: int = 7,
    pace: float = 1.0,
    params: dict[str, Any] | None = None,
) -> Path:
    """Record a run: a user asks the first agent, who asks the second, who has the others work, round by round.

    Parameters
    ----------
    runs : pathlib.Path
        Folder of runs.
    agents : sequence of (name, kind)
        The agents; two or more.
    rounds : int
        How often everyone is asked.
    seed : int
        Of all that varies.
    pace : float
        Seconds that a step of a turn takes, more or less.
    params : dict, optional
        Parameters of the run.

    Returns
    -------
    pathlib.Path
        The run's folder.
    """
    story = _Story(agents, seed, pace)
    now = story.start() + 1.0
    boss, second, *workers = [name for name, _ in agents]
    draw = story.random
    for number in range(rounds):
        heard = story.send(now, "user", boss, _ASKS[number % len(_ASKS)])
        asked = story.send(heard, boss, second, draw.choice(_ASKS))
        ends = [asked]
        for step, worker in enumerate(workers):
            done = story.send(asked + 0.2 * step, second, worker, draw.choice(_ASKS))
            ends.append(story.send(done, worker, second, draw.choice(_REPLIES)))
            if step and draw.random() < 0.4:
                ends.append(story.send(done + 0.1, worker, workers[step - 1], draw.choice(_ASKS)))
        if number == 0:
            story.send(asked + 0.5, workers[0] if workers else second, boss, "May I skip the tests?", "refused")
        if number == rounds - 1 and workers:
            ends.append(story.send(max(ends), boss, workers[-1], "One more line, please.", "uncertain"))
        now = story.send(max(ends) + 0.1, second, boss, "The round is done.") + 1.5
    path = create_run(runs, config={}, name="five", experiment="plots", params=params or {}, seed=seed)
    with _set_clock() as clock, JournalWriter(path / "journal.jsonl", run_id=path.name) as writer:
        writer.append("run.started", name="five", experiment="plots", params=params or {}, seed=seed)
        while story.heap:
            clock.now_s, _, event, facts = heapq.heappop(story.heap)
            writer.append(event, **facts)
        clock.now_s += 1.0
        writer.append("run.ended", status="completed")
    return path
