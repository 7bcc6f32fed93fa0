"""What lies in an agent's folder: its launch files, its identity, its reports, its transcript."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shlex
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator_lab.agents.base import (
    LaunchContext,
    clean_environment,
)
from orchestrator_lab.config import agent_dict, without_secrets
from orchestrator_lab.errors import EnvironmentProblem
from orchestrator_lab.runtime import CLUSTER_MARK, private_dir, write_private
from orchestrator_lab.supervisor.spool import take_reports

if TYPE_CHECKING:
    from orchestrator_lab.supervisor.agent import AgentRunner

__all__ = ["LaunchFiles"]

logger = logging.getLogger(__name__)


def kept_session(run_dir: Path, name: str) -> dict[str, Any]:
    """Return what a run holds of an agent's session, its transcript's place in this cluster's folders.

    Parameters
    ----------
    run_dir : Path
        The run.
    name : str
        The agent.

    Returns
    -------
    dict
        Empty when it holds nothing.
    """
    try:
        kept = json.loads((run_dir / "sessions" / f"{name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def moved_transcript(kept: dict[str, Any], folder: Path, copy: Path) -> Path | None:
    """Return where a program will look for its record now.

    Parameters
    ----------
    kept : dict
        Of :func:`kept_session`.
    folder : Path
        The agent's folder now.
    copy : Path
        The record in the run.

    Returns
    -------
    Path or None
        In the agent's new folder, where it was in the old one; in the run, for programs that write it there; else
        where it was.

    Examples
    --------
    >>> kept = {"transcript": "/old/a/claude/x.jsonl", "folder": "/old/a"}
    >>> moved_transcript(kept, Path("/new/a"), Path("/run/transcripts/a.jsonl"))
    PosixPath('/new/a/claude/x.jsonl')
    """
    if not kept.get("transcript"):
        return None
    was = Path(kept["transcript"])
    if was.is_relative_to(kept.get("folder") or "/nonexistent"):
        return folder / was.relative_to(kept["folder"])
    return copy if (was.parent.name, was.name) == ("transcripts", copy.name) else was


class LaunchFiles:
    """The files of one agent.

    Parameters
    ----------
    runner : AgentRunner
        Holds the facts.
    """

    def __init__(self, runner: AgentRunner) -> None:
        self._runner = runner
        self._fifo_fd: int | None = None
        #: Which record was copied into the run, and how much of it.
        self._copied: tuple[Path | None, int] = (None, 0)
        self._copying = asyncio.Lock()
        #: What the run holds of this agent's session.
        self._session_saved: str | None = None

    def launch_context(self) -> LaunchContext:
        """Return all that an adapter needs to write its launch files."""
        supervisor = self._runner.supervisor
        work_dir = supervisor.config.work_dir_of(self._runner.config)
        gateway = self._runner.config.gateway is not None and self._runner.config.gateway.mode != "none"
        # What somebody else's configuration sets is for the program that it names, and a player is none of theirs.
        own = {} if supervisor.replaying.terminal else self._runner.config.env
        environ = {**clean_environment(supervisor.environ), **own}
        environ.update(
            ORCHESTRATOR_LAB_AGENT=self._runner.name,
            ORCHESTRATOR_LAB_AGENT_ID=self._runner.agent_id,
            ORCHESTRATOR_LAB_AGENT_TOKEN=self._runner.token,
            ORCHESTRATOR_LAB_AGENT_URL=supervisor.url,
            **{CLUSTER_MARK: str(supervisor.folder)},
            TERM="tmux-256color",
            COLORTERM="truecolor",
        )
        for name in ("NO_PROXY", "no_proxy"):
            # A proxy for the world must not stand between an agent and the lab.
            known = [host for host in environ.get(name, "").split(",") if host]
            environ[name] = ",".join(dict.fromkeys([*known, "127.0.0.1", "localhost"]))
        return LaunchContext(
            cluster=supervisor.config.name,
            folder=self._runner.folder,
            work_dir=work_dir,
            work_dir_is_ours=supervisor.made_by_lab(work_dir),
            transcripts=private_dir(supervisor.run_dir / "transcripts"),
            environ=environ,
            url=supervisor.url,
            token=self._runner.token,
            gateway_url=f"{supervisor.url}/gateway/{self._runner.gateway_secret}" if gateway else None,
            instructions=supervisor.instructions(self._runner.config),
            roster=supervisor.roster(self._runner.name),
            session_id=self._runner.session_id,
            resume=self._can_resume(),
            replayed=supervisor.replaying.replays,
        )

    def _can_resume(self) -> bool:
        """Tell whether there is a session to go on with: one that never took a prompt has no record yet."""
        record = self._runner.transcript
        return self._runner.session_used and record is not None and self._runner.adapter.resumable(record)

    def write(self) -> list[str]:
        """Write the launch files; return the command that a pane runs (it holds no secret)."""
        program = self._runner.program or self._runner.locate()
        record = self._runner.transcript
        if record is not None and record.exists() and not self._can_resume():
            # A record without anything to go on with, from a program that was killed over it: its id is taken.
            self._runner.session_id, self._runner.session_used = str(uuid.uuid4()), False
        self._runner.context = self.launch_context()
        self.open_fifo()
        self._runner.launching = True
        # What an earlier process said of its session says nothing of the next one.
        (self._runner.folder / "session.json").unlink(missing_ok=True)
        self._runner.ready, self._runner.session_ready, self._runner.tools_listed, self._runner.bracketed_paste = (
            None,
            None,
            False,
            False,
        )
        self._runner.launch = self._runner.adapter.prepare(self._runner.config, program, self._runner.context)
        self._runner.transcript = self._runner.launch.transcript
        self._runner.model = self._runner.launch.model or self._runner.model
        lines = ["unset TMUX TMUX_PANE"]
        lines += [
            f"export {key}={shlex.quote(value)}"
            for key, value in self._runner.launch.environ.items()
            if key.isidentifier()
        ]
        lines.append(f"cd {shlex.quote(str(self._runner.context.work_dir))} || exit 97")
        lines.append(f"exec {shlex.join(self._runner.launch.argv)}")
        write_private(self._runner.folder / "launch.sh", "\n".join(lines) + "\n")
        self.save()
        return ["/bin/sh", str(self._runner.folder / "launch.sh")]

    def save(self) -> None:
        """Keep what a new supervisor needs to adopt this agent, and in the run what is needed to resume it."""
        self._save_session()
        write_private(
            self._runner.folder / "agent.json",
            json.dumps(
                {
                    "agent_id": self._runner.agent_id,
                    "token": self._runner.token,
                    "gateway_secret": self._runner.gateway_secret,
                    "session_id": self._runner.session_id,
                    "session_used": self._runner.session_used,
                    "transcript": str(self._runner.transcript) if self._runner.transcript else None,
                    "pid": self._runner.pid,
                    "process_started": self._runner.process_started,
                    "config": json.loads(self._runner.config.model_dump_json(by_alias=True)),
                }
            ),
        )

    def _save_session(self) -> None:
        runner = self._runner
        facts = {
            "agent_id": runner.agent_id,
            "session_id": runner.session_id,
            "session_used": runner.session_used,
            "transcript": str(runner.transcript) if runner.transcript else None,
            "folder": str(runner.folder),
            "restarts": runner.restarts,
            "config": agent_dict(runner.config),
        }
        text = json.dumps(without_secrets(facts, runner.supervisor.mask.secrets), ensure_ascii=False)
        if text == self._session_saved:
            return
        try:
            write_private(private_dir(runner.supervisor.run_dir / "sessions") / f"{runner.name}.json", text)
        except EnvironmentProblem as error:  # a full disk ends no agent; the next change tries again
            logger.warning("%s", error)
        else:
            self._session_saved = text

    async def keep_transcript(self, source: Path | None = None, name: str | None = None) -> None:
        """Keep the program's own record, by default that of its present session, in the run, known secrets masked."""
        source = source or self._runner.transcript
        if source is None:
            return
        target = self._runner.supervisor.run_dir / "transcripts" / f"{name or self._runner.name}.jsonl"
        if source.parent == target.parent:
            if self._runner.running:
                return  # it is being written there, by the program itself
            target = source
        try:
            data = await asyncio.to_thread(source.read_bytes)
        except OSError:
            return
        masked = await asyncio.to_thread(self._runner.supervisor.mask_bytes, data)
        async with self._copying:
            if source != target or masked != data:
                await asyncio.to_thread(write_private, target, masked)
            self._copied = (None, 0)  # what follows begins anew

    def follow_transcript(self) -> None:
        """Have the run's copy of the program's record follow it: of what lies in temporary folders nothing stays."""
        runner = self._runner
        if runner.transcript is not None and runner.transcript.parent != runner.supervisor.run_dir / "transcripts":
            runner.spawn(self._follow(runner.transcript))

    async def _follow(self, source: Path) -> None:
        async with self._copying:
            await asyncio.to_thread(self._append, source)

    def _append(self, source: Path) -> None:
        """Append what is new in the record, known secrets masked; begin anew for another session."""
        runner = self._runner
        target = runner.supervisor.run_dir / "transcripts" / f"{runner.name}.jsonl"
        known, offset = self._copied
        try:
            with source.open("rb") as file:
                if known != source or os.fstat(file.fileno()).st_size < offset or not target.exists():
                    offset = 0
                file.seek(offset)
                new = file.read()
        except OSError:
            return
        new = new[: new.rfind(b"\n") + 1]
        masked = runner.supervisor.mask_bytes(new)
        if not offset:
            write_private(target, masked)
        elif new:
            with target.open("ab") as copy:
                copy.write(masked)
                copy.flush()
                os.fsync(copy.fileno())
        self._copied = (source, offset + len(new))

    def bring_back_transcript(self, kept: dict[str, Any]) -> None:
        """Put the program's record where the program looks for it, from the run, when it is gone from there."""
        runner = self._runner
        copy = runner.supervisor.run_dir / "transcripts" / f"{runner.name}.jsonl"
        place = moved_transcript(kept, runner.folder, copy)
        runner.transcript = place
        if place is None or place.exists() or not copy.is_file():
            return
        try:
            data = copy.read_bytes()
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_private(place, data[: data.rfind(b"\n") + 1])
        except (OSError, EnvironmentProblem) as error:
            runner.supervisor.journal.append(
                "note",
                agent=runner.name,
                level="error",
                text=f"its conversation could not be put back to {place} ({error}): it begins a new one",
            )

    def open_fifo(self) -> None:
        """Listen on the pipe by which command hooks wake the supervisor."""
        path = self._runner.folder / "ready.fifo"
        if self._fifo_fd is not None:
            return
        with contextlib.suppress(FileExistsError):
            os.mkfifo(path, 0o600)
        # Open for both, so that the last writer's close is no end of file.
        self._fifo_fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        asyncio.get_running_loop().add_reader(self._fifo_fd, self._on_fifo)

    def _on_fifo(self) -> None:
        if self._fifo_fd is None:
            return
        with contextlib.suppress(BlockingIOError):
            os.read(self._fifo_fd, 4096)
        self.read_session_file()
        if not self._runner.recovering:
            self.read_reports()

    def read_reports(self) -> None:
        """Take in what command hooks reported, in order."""
        take_reports(self._runner.folder / "hooks", self._runner.hook)

    def catch_up(self) -> None:
        """Take in what was reported while no supervisor lived, once what the last one knew is restored."""
        self._runner.recovering = False
        for message in self._runner.supervisor.ledger.to(self._runner.name):
            if message.expected is None:
                message.expected = self._runner.adapter.typed(message.text).expected
                if (
                    self._runner.turn is not None
                    and self._runner.turn.prompt is None
                    and message.message_id in self._runner.turn.message_ids
                ):
                    self._runner.turn.prompt = message.expected
        self.read_reports()

    def read_session_file(self) -> None:
        """Take in the session file that a command hook wrote."""
        try:
            payload = json.loads((self._runner.folder / "session.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return
        if isinstance(payload, dict):
            self._runner.hook(payload)

    def close(self) -> None:
        """Listen for reports no more."""
        if self._fifo_fd is not None:
            asyncio.get_running_loop().remove_reader(self._fifo_fd)
            os.close(self._fifo_fd)
            self._fifo_fd = None
