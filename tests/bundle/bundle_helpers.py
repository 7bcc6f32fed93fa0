"""A run with every part that a bundle may have, and bundles that nobody honest makes."""

from __future__ import annotations

import json
import stat
import zipfile
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from orchestrator_lab.beginning import create_run
from orchestrator_lab.journal import JournalWriter
from orchestrator_lab.journal.recording import CastWriter

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

PARTS = {
    "instructions/boss.md": b"You are the boss.\n",
    "transcripts/boss.jsonl": b'{"type":"user","cwd":"/home/planted/lab"}\n',
    "cassettes/boss.jsonl": b'{"request":{},"response":{}}\n',
    "changes/boss/trn_1.patch": b"--- a/x\n+++ b/x\n",
    "sessions/boss.json": b'{"session_id": "s"}\n',
    "initial/src/main.py": b"print('hello')\n",
    "initial/logo.bin": bytes(range(256)),
    "config.yaml": b"cluster: {name: duo}\nagents: [{name: boss, kind: chat}]\n",
    "annotations.jsonl": b'{"message_id":"msg_1","label":"plan","by":"ada","at":"2026-01-01T00:00:00Z"}\n',
    "logs/supervisor.log": b"private noise\n",
    "journal.clock": b"{}",
}


def tell(
    folder: Path,
    *,
    said: str = "Plan the parser.",
    shown: Iterable[bytes] = (b"boss is ready\r\n",),
    config: Mapping[str, Any] | None = None,
    parts: Mapping[str, bytes] = PARTS,
) -> Path:
    """Write a finished run of two agents; ``shown`` are the writes of the first one's program, a piece each."""
    path = create_run(folder, config=config or {}, name="duo", experiment="e", params={"n": 1}, seed=3)
    for name, content in parts.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    (path / "panes").mkdir(exist_ok=True)
    with JournalWriter(path / "journal.jsonl", run_id=path.name) as writer:
        writer.append("run.started", name="duo", mode="live")
        for number, name in enumerate(("boss", "worker")):
            writer.append(
                "agent.added", agent=name, agent_id=f"agt_{number}", name=name, kind="chat", cols=60, rows=10,
                program="chat", program_version="1.0",
            )  # fmt: skip
        with CastWriter(path / "panes" / "boss.cast.zst", cols=60, rows=10) as cast:
            begun = datetime.fromtimestamp(cast.started_at, UTC).isoformat(timespec="microseconds")
            writer.append("recording.started", agent="boss", path="panes/boss.cast.zst", started_at=begun)
            for data in shown:
                cast.write(data)
                cast.flush()
        about = {"agent": "boss", "message_id": "msg_1"}
        writer.append("message.queued", **about, source="human", sender="user", recipient="boss", content=said,
                      conversation_id="cnv_1", kind="direct", hop=0)  # fmt: skip
        for rung in ("claimed", "written"):
            writer.append(f"message.{rung}", **about)
        writer.append("message.accepted", **about, source="hook", turn_id="trn_1")
        writer.append("turn.started", agent="boss", turn_id="trn_1", message_ids=["msg_1"])
        writer.append("message.started", **about, turn_id="trn_1")
        writer.append("tool.started", agent="boss", turn_id="trn_1", tool_call_id="c1", name="Bash", input={"c": said})
        writer.append("tool.ended", agent="boss", turn_id="trn_1", tool_call_id="c1", output=said, status="ok")
        writer.append("turn.ended", agent="boss", turn_id="trn_1", source="hook", reply=said, end_reason="completed")
        writer.append("message.answered", **about, turn_id="trn_1")
        writer.append("run.ended", status="completed")
    return path


def members(bundle: Path) -> dict[str, bytes]:
    """Return all files of a bundle."""
    with zipfile.ZipFile(bundle) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def repacked(target: Path, files: Mapping[str, bytes], *, links: Mapping[str, str] | None = None) -> Path:
    """Write a zip file with any names and contents, as another program would; checksums are made anew."""
    import hashlib

    listed = {name: content for name, content in files.items() if name != "checksums.sha256"}
    sums = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(listed.items()))
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in listed.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
        for name, aim in (links or {}).items():
            info = zipfile.ZipInfo(name)
            info.create_system = 3
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, aim)
        archive.writestr("checksums.sha256", sums)
    return target


def events(bundle: Mapping[str, bytes]) -> list[dict[str, Any]]:
    """Return the journal of a bundle's files."""
    return [json.loads(line) for line in bundle["journal.jsonl"].splitlines()]
