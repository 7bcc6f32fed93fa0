"""A long run as a supervisor writes it: five agents that talk, with everything that a run of chat agents journals."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from orchestrator_lab.beginning import create_run
from orchestrator_lab.journal.writer import JournalWriter
from orchestrator_lab.schema import new_id

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["AGENTS", "extend", "write_long_run"]

AGENTS = ("ada", "ben", "cleo", "dan", "eve")
#: Texts of these lengths, in characters, as often as in recorded runs: short orders and long answers.
_LENGTHS = (60, 120, 200, 320, 320, 480, 900)
_PROSE = (
    "The parser reads a line at a time, so a file of any size fits. I changed the test that failed, ran all of them "
    'again and looked at what they print: "ok" each time.\nNext I would measure where the time goes — the loop over '
    "rows, I think — and write down what I find before I change anything. "
) * 4


def write_long_run(place: Path, messages: int) -> Path:
    """Write a run of answered messages, without flushing each.

    Parameters
    ----------
    place : Path
        A folder.
    messages : int
        How many; each makes 16 events.

    Returns
    -------
    Path
        The run's folder.
    """
    path = create_run(place / f"runs-{messages}", config={}, name="long")
    with JournalWriter(path / "journal.jsonl", run_id=path.name) as writer:
        writer.append("run.started", name="long")
        for agent in AGENTS:
            writer.append("agent.added", agent=agent, kind="chat", agent_id=new_id("agt"), model="smollm2-135m")
            writer.append("agent.started", agent=agent, pid=1, pane_id="%1")
        _converse(writer, messages)
    return path


def extend(path: Path, messages: int) -> None:
    """Append more messages to a run.

    Parameters
    ----------
    path : Path
        The run's folder.
    messages : int
        How many.
    """
    with JournalWriter(path / "journal.jsonl", run_id=path.name) as writer:
        _converse(writer, messages)


def _converse(writer: JournalWriter, messages: int) -> None:
    rng = random.Random(messages)  # noqa: S311 - the same run each time
    digest = f"{rng.getrandbits(256):064x}"
    before, conversation = None, new_id("cnv")
    for number in range(messages):
        sender, recipient = AGENTS[number % 5], AGENTS[(number + 1) % 5]
        message_id, turn_id, request = new_id("msg"), new_id("trn"), new_id("req")
        said, answered = (_PROSE[: rng.choice(_LENGTHS)] for _ in range(2))
        about: dict[str, Any] = {"agent": recipient, "message_id": message_id}
        turn: dict[str, Any] = {"agent": recipient, "turn_id": turn_id}
        if number % 10 == 0:
            before, conversation = None, new_id("cnv")
        writer.append(
            "message.queued", **about, source="agent", conversation_id=conversation, in_reply_to=before,
            hop=number % 10, sender=sender, recipient=recipient, kind="reply", content=said, content_sha256=digest,
            when="idle", header=f"From {sender} ({message_id}):", step=number % 10,
        )  # fmt: skip
        _state(writer, sender, "idle", "busy", "ready")
        writer.append("message.claimed", **about)
        _state(writer, recipient, "busy", "idle", "composing")
        writer.append("message.written", **about, source="terminal", bytes=len(said))
        writer.append("message.submitted", **about, attempt=1)
        writer.append("gateway.request", agent=recipient, request_id=request, path="/v1/messages",
                      model="smollm2-135m", mode="local", purpose="main")  # fmt: skip
        writer.append("message.accepted", **about, source="hook", turn_id=turn_id, prompt_id=request)
        _state(writer, recipient, "busy", "busy", "turn")
        writer.append("turn.started", **turn, source="hook", message_ids=[message_id], prompt_id=request)
        writer.append("turn.first_output", **turn, source="hook")
        writer.append("message.started", **about, source="hook", turn_id=turn_id)
        writer.append("gateway.response", agent=recipient, request_id=request, status=200, duration_s=1.619982,
                      first_byte_s=0.834757, model="smollm2-135m", input_tokens=136, output_tokens=59,
                      cache_read_input_tokens=0, reply_id=request)  # fmt: skip
        writer.append("turn.usage", **turn, source="transcript", input_tokens=136, output_tokens=59,
                      cache_read_input_tokens=0, model="smollm2-135m", final=True)  # fmt: skip
        writer.append("turn.ended", **turn, source="hook", reply=answered, end_reason="completed")
        writer.append("message.answered", **about, source="hook", turn_id=turn_id)
        before = message_id


def _state(writer: JournalWriter, agent: str, state: str, previous: str, decision: str) -> None:
    votes = [
        {"fact": "running", "source": "process", "says": "alive", "age_s": 4.448},
        {"fact": "ready", "source": "hook", "says": "idle", "age_s": 4.007},
        {"fact": decision, "source": "terminal", "says": state, "age_s": 0.0},
    ]
    writer.append(
        "agent.state", agent=agent, source="terminal", state=state, previous=previous, votes=votes, decision=decision
    )
