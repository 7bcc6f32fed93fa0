"""Journals of every kind, for property tests: what a run may hold, written by the lab's own writer.

A journal here is a list of steps. Most are what a supervisor writes (messages on their ladder, turns, tools, dialogs,
starts and ends), out of order and repeated as after crashes; some carry values that no supervisor would write; some are
of a later version; and between two steps the writer may be another one, after a clean end or a torn line.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from orchestrator_lab.journal import Event, JournalWriter
from orchestrator_lab.schema import EVENTS, SCHEMA_VERSION, TABLES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = ["Step", "journals", "make_run", "write"]

AGENTS = ("ada", "bob", "zoë")
MESSAGES, TURNS, CALLS, DIALOGS, ALERTS = (
    tuple(f"{kind}_{number}" for number in range(1, 4)) for kind in ("msg", "trn", "tcl", "dlg", "alr")
)


@dataclass(frozen=True)
class Step:
    """An event to append, or a change of the writer (without a name); ``torn`` is what its crash left behind."""

    event: str | None
    facts: dict[str, Any] = field(default_factory=dict)
    torn: bytes = b""


# values ---------------------------------------------------------------------------------------------

#: Text as programs and people write it: every script, U+2028, NUL, and bytes that were no UTF-8.
texts = st.one_of(
    st.sampled_from(["", "hello", "日本語", "a\u2028b\x85c", "\x00\x1b[0m", "👩\u200d🚀", '{"a":1}', "NaN"]),
    st.sampled_from(["\ud800", "x\udcffy", "\ud83d" + "\ude00"]),
    st.text(st.characters(), max_size=12),
)
numbers = st.one_of(
    st.integers(-5, 500),
    st.sampled_from([2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 2**70, 1.5, -0.0, 1e300, float("inf")]),
    st.floats(),
)
anything = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=2)),
    max_leaves=4,
)
_STATES = next(column.categories for column in TABLES["states"] if column.name == "state") or ()
_LEVELS = next(column.categories for column in TABLES["events"] if column.name == "level") or ()
instants = st.sampled_from(
    ["2026-11-23T06:00:00.500000Z", "2026-11-23T07:00:00+01:00", "2026-11-23T06:00:00", "2026-11-23", "no instant"]
)

#: What a supervisor would write there; where nothing is said, text.
_SENSIBLE: dict[str, st.SearchStrategy[Any]] = {
    "agent_id": st.sampled_from(["agt_1", "agt_2"]),
    "alert_id": st.sampled_from(ALERTS),
    "answered_by": st.sampled_from(["human", "policy"]),
    "cost_usd": st.floats(0, 10),
    "dialog_id": st.sampled_from(DIALOGS),
    "end_reason": st.sampled_from(["completed", "interrupted", "error", "later reason"]),
    "exit_code": st.integers(0, 255),
    "final": st.booleans(),
    "gap_s": st.floats(0, 100),
    "hop": st.integers(0, 3),
    "input": st.one_of(texts, st.dictionaries(texts, texts, max_size=2)),
    "kind": st.sampled_from(["direct", "reply", "broadcast", "permission", "claude", "later kind"]),
    "message_ids": st.lists(st.sampled_from(MESSAGES), max_size=2),
    "mode": st.sampled_from(["live", "replay"]),
    "name": st.sampled_from([*AGENTS, "Bash"]),
    "options": st.lists(texts, max_size=3),
    "output": st.one_of(texts, st.lists(texts, max_size=2)),
    "params": st.dictionaries(texts, numbers, max_size=2),
    "path": st.sampled_from(["panes/a.cast.zst", "panes/b.cast.zst"]),
    "recipient": st.sampled_from(AGENTS),
    "sender": st.sampled_from([*AGENTS, "user"]),
    "shared_with": st.lists(st.sampled_from(AGENTS), max_size=1),
    "signal": st.integers(1, 15),
    "started_at": instants,
    "state": st.sampled_from(_STATES),
    "status": st.sampled_from(["ok", "error", "denied", "completed", "failed"]),
    "tags": st.lists(texts, max_size=2),
    "tool_call_id": st.sampled_from(CALLS),
}
_NUMERIC = ("tokens", "_count", "bytes", "files_", "lines_", "cols", "rows", "pid", "seed", "children", "percent")


def _sensible(attribute: str) -> st.SearchStrategy[Any]:
    if attribute in _SENSIBLE:
        return _SENSIBLE[attribute]
    return st.integers(0, 9000) if any(part in attribute for part in _NUMERIC) else texts


# steps ----------------------------------------------------------------------------------------------


@st.composite
def _events(draw: st.DrawFn, names: tuple[str, ...], *, wild: bool) -> Step:
    """Return one event of these; a wild one has any values, and lacks or has attributes that it should not."""
    name = draw(st.sampled_from(names))
    subject = name.split(".")[0]
    known = EVENTS[name].attributes if name in EVENTS else ("later_key", "seq", "run_id")
    facts: dict[str, Any] = {}
    for attribute in known:
        if draw(st.booleans()):
            facts[attribute] = draw(anything if wild else _sensible(attribute))
    for keys in ("dialog_id", "alert_id", "tool_call_id"):  # what rows are found by
        if keys in known and not wild:
            facts[keys] = draw(_SENSIBLE[keys])
    envelope = {
        "agent": draw(st.sampled_from(AGENTS if not wild else [*AGENTS, None, "", "\ud800"])),
        "message_id": draw(st.sampled_from(MESSAGES)) if subject == "message" or wild else None,
        "turn_id": draw(st.sampled_from([*TURNS, None])) if subject != "turn" or wild else draw(st.sampled_from(TURNS)),
        "source": draw(st.sampled_from([None, "hook", "transcript", "screen", "human", "program", "agent"])),
        "level": draw(st.sampled_from(_LEVELS if not wild else [*_LEVELS, "later level"])),
    }
    return Step(name, {**envelope, **facts})


_LADDER = tuple(name for name in EVENTS if name.startswith("message."))
_WORK = tuple(name for name in EVENTS if name.split(".")[0] in {"turn", "tool", "dialog", "recording"})
_LIFE = (
    *(name for name in EVENTS if name.split(".")[0] in {"agent", "alert", "process", "run"}),
    *("cluster.stopped", "cluster.restarted", "supervisor.started", "supervisor.gap", "journal.repaired"),
)
_LATER = ("later.kind", "message.later_rung", "turn", "", "日本.語")

_TORN = (b"", b"{", b'{"seq":7,"event":"note"', b"\xff\x00", "日".encode()[:2])

steps = st.one_of(
    _events(_LADDER, wild=False),
    _events(_WORK, wild=False),
    _events(_LIFE, wild=False),
    _events(tuple(EVENTS), wild=True),
    _events(_LATER, wild=True),
    st.builds(Step, st.none(), torn=st.sampled_from(_TORN)),
)


@st.composite
def journals(draw: st.DrawFn, *, max_size: int = 60) -> list[Step]:
    """Return the steps of one journal: a message that is claimed twice and answered, among whatever else there is."""
    story = [
        Step("run.started", {"name": "any", "params": {"n": 1}}),
        Step("message.queued", {"agent": "ada", "message_id": "msg_1", "sender": "user", "recipient": "ada"}),
        Step("message.claimed", {"agent": "ada", "message_id": "msg_1"}),
        Step("message.uncertain", {"agent": "ada", "message_id": "msg_1", "error_type": "E"}),
        Step("message.claimed", {"agent": "ada", "message_id": "msg_1"}),
        Step("message.accepted", {"agent": "ada", "message_id": "msg_1", "source": "transcript", "turn_id": "trn_1"}),
        Step("turn.ended", {"agent": "ada", "turn_id": "trn_1", "reply": "done"}),
        Step("turn.usage", {"agent": "ada", "turn_id": "trn_1", "output_tokens": 5, "cost_usd": 0.1, "final": True}),
        Step("message.answered", {"agent": "ada", "message_id": "msg_1", "turn_id": "trn_1"}),
    ]
    rest = draw(st.lists(steps, max_size=max_size))
    for step in story[: draw(st.integers(0, len(story)))]:
        rest.insert(draw(st.integers(0, len(rest))), step)
    return rest


# writing --------------------------------------------------------------------------------------------


def make_run(folder: Path, run_id: str = "run_any") -> Path:
    """Make a run's folder with a manifest, and return it."""
    path = folder / run_id
    path.mkdir(mode=0o700)
    manifest = {"schema_version": SCHEMA_VERSION, "run_id": run_id, "started_at": "2026-11-23T06:00:00.000000Z"}
    (path / "manifest.json").write_text(json.dumps(manifest))
    return path


def write(path: Path, todo: Iterable[Step]) -> Iterator[Event]:
    """Append steps to a run's journal, and yield each event as the writer returned it, once it is in the file."""
    journal = path / "journal.jsonl"
    writer = JournalWriter(journal, run_id=path.name)
    try:
        for step in todo:
            if step.event is None:
                writer.close()
                with journal.open("ab") as file:
                    file.write(step.torn)
                writer = JournalWriter(journal, run_id=path.name)
            else:
                yield writer.append(step.event, **step.facts)
    finally:
        writer.close()
