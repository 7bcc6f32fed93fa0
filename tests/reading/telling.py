"""A run as the real writers make it: two agents, a tool call, a question, a forwarded reply, recordings."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from played_run import set_clock

from orchestrator_lab.beginning import create_run
from orchestrator_lab.journal import JournalWriter
from orchestrator_lab.journal.recording import CastWriter

if TYPE_CHECKING:
    from pathlib import Path

    from played_run import Clock

    from orchestrator_lab.journal import Event

NASTY = '<script>alert(1)</script>\n```\n=HYPERLINK("http://x")\n\x1b]0;title\x07\u202eright to left\u2028'


def deliver(
    writer: JournalWriter, message: str, turn: str, sender: str, recipient: str, text: str, **more: Any
) -> None:
    """Write all rungs of a message to the turn that it starts."""
    facts = {"agent": recipient, "message_id": message}
    source = "agent" if sender != "user" else "human"
    kind = {"kind": "direct", "hop": 0, **more}
    writer.append(
        "message.queued", **facts, source=source, sender=sender, recipient=recipient, content=text,
        conversation_id="cnv_1", **kind,
    )  # fmt: skip
    writer.append("message.claimed", **facts)
    writer.append("message.written", **facts, bytes=len(text.encode("utf-8", "replace")))
    writer.append("message.submitted", **facts, attempt=1)
    writer.append("message.accepted", **facts, source="hook", turn_id=turn)
    writer.append("turn.started", agent=recipient, turn_id=turn, message_ids=[message])
    writer.append("message.started", **facts, turn_id=turn)


def answer(writer: JournalWriter, message: str, turn: str, agent: str, reply: str) -> None:
    """Write the end of a turn and its tokens."""
    writer.append("turn.ended", agent=agent, turn_id=turn, source="hook", reply=reply, end_reason="completed")
    writer.append("message.answered", agent=agent, message_id=message, turn_id=turn)
    writer.append(
        "turn.usage", agent=agent, turn_id=turn, model="claude-x", input_tokens=100, output_tokens=7,
        cache_read_input_tokens=60, final=True,
    )  # fmt: skip


class _Ticking(JournalWriter):
    """A journal whose clock goes on by a millisecond with each event."""

    clock: Clock

    def append(self, *args: Any, **facts: Any) -> Event:
        self.clock.now_s += 0.001
        return super().append(*args, **facts)


def tell(folder: Path) -> Path:
    """Write the run, on a clock that is set: between any two events lies a millisecond, however busy the machine is."""
    path = create_run(folder, config={}, name="duo", experiment="e", params={"n": 1}, tags=["t"], seed=3)
    (path / "panes").mkdir(mode=0o700)
    with set_clock(datetime.now(UTC)) as clock, _Ticking(path / "journal.jsonl", run_id=path.name) as writer:
        writer.clock = clock
        writer.append("run.started", name="duo", mode="live")
        casts = {}
        for number, (name, kind) in enumerate((("boss", "claude"), ("worker", "chat"))):
            writer.append(
                "agent.added", agent=name, agent_id=f"agt_{number}", name=name, kind=kind, cols=60, rows=10,
                model="claude-x", program=kind,
            )  # fmt: skip
            cast = casts[name] = CastWriter(path / "panes" / f"{name}.cast.zst", cols=60, rows=10)
            begun = datetime.fromtimestamp(cast.started_at, UTC).isoformat(timespec="microseconds")
            writer.append("recording.started", agent=name, path=str(cast.path), started_at=begun)
            cast.write(f"{name} is ready\r\n".encode())
        deliver(writer, "msg_1", "trn_1", "user", "boss", f"Ask the worker. {NASTY}")
        clock.now_s += 0.02
        casts["boss"].write("\x1b[31m❯ Ask the worker\x1b[0m\r\n".encode())
        writer.append("agent.state", agent="boss", source="hook", state="busy", previous="idle")
        writer.append(
            "tool.started", agent="boss", turn_id="trn_1", tool_call_id="tcl_1", name="Bash",
            input={"command": "ls <b>"},
        )  # fmt: skip
        writer.append(
            "dialog.opened", agent="boss", turn_id="trn_1", dialog_id="dlg_1", kind="permission",
            subject="Run ls <b>?", options=["yes", "no"],
        )  # fmt: skip
        clock.now_s += 0.02
        casts["boss"].write(b"Run ls?\r\n1. yes\r\n2. no\r\n")
        clock.now_s += 0.02
        writer.append(
            "dialog.answered", agent="boss", turn_id="trn_1", dialog_id="dlg_1", answered_by="human", decision="yes"
        )
        writer.append(
            "tool.ended", agent="boss", turn_id="trn_1", tool_call_id="tcl_1", output="a\nb" * 900, status="ok"
        )
        deliver(writer, "msg_2", "trn_2", "boss", "worker", "What is seven times six?", in_reply_to="msg_1", hop=1)
        casts["worker"].write(b"> What is seven times six?\r\n42\r\n")
        answer(writer, "msg_2", "trn_2", "worker", "42")
        deliver(writer, "msg_3", "trn_3", "worker", "boss", "42", kind="reply", in_reply_to="msg_2", hop=2)
        clock.now_s += 0.02
        casts["boss"].write("\x1b[2J\x1b[Hfinished ✓\r\n".encode())
        answer(writer, "msg_1", "trn_1", "boss", "It is *42*.\n" + NASTY)
        answer(writer, "msg_3", "trn_3", "boss", "noted")
        refused = {"agent": "worker", "message_id": "msg_4"}
        writer.append("message.queued", **refused, source="human", sender="user", recipient="worker", content="no")
        writer.append("message.refused", **refused, error_type="MessageRefused", error_message="user may not write")
        writer.append("run.ended", status="completed")
        for cast in casts.values():
            cast.close()
    return path
