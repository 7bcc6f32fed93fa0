"""The account of a soak: every message of the journal, every request of a client, every prompt of a program.

The truth is what the chat programs wrote into their own transcripts, each record on the disk before it is told.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator_lab.journal.reader import JournalReader

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from orchestrator_lab.journal.event import Event

__all__ = ["Account", "Record", "account", "judge", "transcript", "typed"]

FINAL = {"answered", "refused", "expired", "failed", "uncertain"}
#: Reasons with which a message may end after somebody was killed, by rung.
REASONS = {
    "uncertain": {"no_evidence", "exited", "supervisor_died", "tmux"},
    "failed": {"exited", "turn_exited", "turn_interrupted", "turn_error", "removed"},
    "expired": {"expired"},
    "refused": {"topology"},
}


@dataclass(slots=True)
class Account:
    """What was found.

    ``problems`` holds one sentence for each message that is lost, doubled or unexplained; it must be empty.
    """

    messages: int = 0
    rungs: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """All of them."""
        return [*self.lost, *self.doubled, *self.unexplained]


def account(run_dir: Path, clients: Iterable[Path], names: Iterable[str]) -> Account:
    """Compare the journal with the programs' transcripts and the clients' logs."""
    found = Account()
    record = Record(run_dir / "journal.jsonl").read()
    rows, conversations, replies = record.rows, record.conversations, record.replies
    found.messages = len(rows)
    _programs(found, rows, replies, {name: run_dir / "transcripts" / f"{name}.jsonl" for name in names})
    _clients(found, rows, conversations, clients)
    _follow_ups(found, rows, conversations)
    for row in rows.values():
        found.rungs[row["status"]] += 1
        if row["status"] != "answered":
            found.reasons[f"{row['status']}: {row['error_type']}"] += 1
    return found


class Record:
    """What the journal says of messages and conversations, read again only where it grew."""

    def __init__(self, path: Path) -> None:
        self._reader = JournalReader(path)
        self.rows: dict[str, dict[str, Any]] = {}
        self.conversations: dict[str, str | None] = {}
        self.replies: dict[str, str | None] = {}
        self.counts: Counter[str] = Counter()
        #: Events about agents and processes, whole.
        self.others: list[Event] = []

    def read(self) -> Record:
        for batch in self._reader.batches():
            for event in batch:
                self._take(event)
        return self

    def _take(self, event: Event) -> None:
        facts = event.attributes
        self.counts[event.event] += 1
        if event.event == "message.queued":
            self.rows[str(event.message_id)] = {
                **facts,
                "id": event.message_id,
                "source": event.source,
                "status": "queued",
                "turn_id": None,
                "error_type": None,
            }
        elif event.event.startswith("message.") and event.event != "message.submitted":
            row = self.rows[str(event.message_id)]
            row["status"] = event.event.removeprefix("message.")
            row["error_type"] = facts.get("error_type")
            row["turn_id"] = event.turn_id or row["turn_id"]
        elif event.event == "turn.ended":
            self.replies[str(event.turn_id)] = facts.get("reply")
        elif event.event == "conversation.started":
            self.conversations.setdefault(facts["conversation_id"], None)
        elif event.event == "conversation.ended":
            self.conversations[facts["conversation_id"]] = facts["reason"]
        elif event.event.startswith(("agent.", "supervisor.", "keeper.")):
            self.others.append(event)


def typed(row: dict[str, Any]) -> str:
    """Return what a message's recipient should have taken."""
    header = row.get("header")
    return (f"{header}\n{row['content']}" if header else str(row["content"])).rstrip()


def transcript(path: Path) -> tuple[Counter[str], dict[str, str]]:
    """Return how often a chat program took each prompt, and what it answered."""
    taken: Counter[str] = Counter()
    answers: dict[str, str] = {}
    last = ""
    for line in path.read_bytes().split(b"\n") if path.exists() else ():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if record["type"] == "user":
            last = str(record["message"]["content"]).rstrip()
            taken[last] += 1
        elif record["type"] == "assistant":
            answers[last] = "".join(str(part.get("text", "")) for part in record["message"]["content"])
    return taken, answers


def judge(row: dict[str, Any], times: int) -> tuple[str, str]:
    """Return ("", "") for a message whose end agrees with how often it was taken, else the kind of wrong, and why."""
    status, why = row["status"], str(row["error_type"])
    what = f"{row['id']} to {row['recipient']} is {status} ({why})"
    if times > 1:
        return "doubled", f"{what}, and was taken {times} times"
    if status not in FINAL:
        return "unexplained", f"{what}: it has no end"
    if (status == "answered" or why.startswith("turn_")) and not times:
        return "lost", f"{what}, and was never taken"
    if status != "answered" and why not in REASONS[status]:
        return "unexplained", f"{what}: no reason that is known"
    if (status in {"refused", "expired"} or (status == "failed" and not why.startswith("turn_"))) and times:
        return "unexplained", f"{what}, and yet was taken"
    return "", ""


def _programs(
    found: Account, rows: dict[str, dict[str, Any]], replies: dict[str, str | None], transcripts: dict[str, Path]
) -> None:
    """Judge each message by how often its recipient took it, and each prompt by where it came from."""
    for name, path in transcripts.items():
        taken, answers = transcript(path)
        mine = {typed(row): row for row in rows.values() if row["recipient"] == name}
        for text in taken:
            if text not in mine:
                found.unexplained.append(f"{name} took a prompt that is no message: {text[:60]!r}")
        for text, row in mine.items():
            kind, why = judge(row, taken[text])
            if kind:
                getattr(found, kind).append(why)
            elif row["status"] == "answered" and (replies.get(str(row["turn_id"])) or "") != answers.get(text, ""):
                found.unexplained.append(f"{row['id']} is answered with another text than {name} wrote")


def _clients(
    found: Account, rows: dict[str, dict[str, Any]], conversations: dict[str, str | None], clients: Iterable[Path]
) -> None:
    """Judge each request by what became of it."""
    tags: dict[str, list[str]] = defaultdict(list)
    for row in rows.values():
        if row.get("in_reply_to") is None:
            tags[str(row["content"]).split(" ", 1)[0]].append(row["id"])
    asked: set[str] = set()
    for path in clients:
        intents: dict[str, dict[str, Any]] = {}
        for line in path.read_bytes().split(b"\n"):
            if not line:
                continue
            note = json.loads(line)
            tag = note["tag"]
            if note["what"] == "intent":
                intents[tag] = note
                asked.add(tag)
            elif note["what"] == "ack":
                lost = [one for one in note["ids"] if one not in rows]
                found.lost += [f"{one} was acknowledged to a client, and is not in the journal" for one in lost]
                identity = intents[tag].get("conversation_id")
                if identity is not None and identity not in conversations:
                    found.lost.append(f"conversation {identity} was acknowledged, and is not in the journal")
    for tag, ids in tags.items():
        if tag not in asked:
            found.unexplained.append(f"{ids[0]}: nobody asked for {tag}")
        elif len(ids) > 1 and len({rows[one]["recipient"] for one in ids}) != len(ids):
            found.doubled.append(f"{tag} is in the journal {len(ids)} times: {', '.join(ids)}")


def _follow_ups(found: Account, rows: dict[str, dict[str, Any]], conversations: dict[str, str | None]) -> None:
    """Judge what the supervisor itself queued: answers that are forwarded, steps of conversations."""
    followed: Counter[str] = Counter(str(row["in_reply_to"]) for row in rows.values() if row.get("in_reply_to"))
    for identity, times in followed.items():
        if times > 1:
            found.doubled.append(f"{identity} was followed by {times} messages")
    steps: Counter[str] = Counter()
    for row in rows.values():
        if row.get("step") is not None:
            steps[row["conversation_id"]] += row["status"] == "answered"
    for identity, reason in conversations.items():
        if reason is None:
            found.unexplained.append(f"conversation {identity} has no end ({steps[identity]} steps)")
        elif reason == "completed" and not steps[identity]:
            found.unexplained.append(f"conversation {identity} is completed without a step")
