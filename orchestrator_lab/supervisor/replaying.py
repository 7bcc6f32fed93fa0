"""How a run's models answer: live, live and recorded, or from a recording; and what is done where a replay differs.

The mode stands in the run's manifest. A replay has the recorded run's cassettes in its own folder, so that it needs
nothing of that run any more.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator_lab.agents import adapter_for
from orchestrator_lab.cassette import CASSETTES
from orchestrator_lab.errors import ConfigError, ReplayDiverged
from orchestrator_lab.gateway.gateway import Gateway
from orchestrator_lab.gateway.plain import Places
from orchestrator_lab.gateway.player import Player, stopped
from orchestrator_lab.gateway.recorder import Recorder
from orchestrator_lab.journal.reader import read_events
from orchestrator_lab.journal.writer import JournalWriter
from orchestrator_lab.runtime import private_dir
from orchestrator_lab.supervisor.header import split_header

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from orchestrator_lab.agents.base import Adapter, Recorded
    from orchestrator_lab.config import AgentConfig
    from orchestrator_lab.supervisor.agent import AgentRunner
    from orchestrator_lab.supervisor.core import Supervisor
    from orchestrator_lab.supervisor.messages import Ledger, Message

__all__ = ["Replaying", "replaying_of", "run_mode"]

logger = logging.getLogger(__name__)

_TAKE = re.compile(r"take (\d+)")
#: Folder of a run with what it replays on its terminals.
REPLAYED = "replayed"
#: Characters of a difference that stand in the journal.
_IN_JOURNAL = 6000


def run_mode(run_dir: Path) -> str:
    """Return a run's mode: ``live``, ``record``, ``replay`` or ``replay_strict``.

    Parameters
    ----------
    run_dir : Path
        The run's folder.

    Returns
    -------
    str
        ``live`` where its manifest says nothing.
    """
    try:
        manifest = json.loads((run_dir / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "live"
    return str(manifest.get("mode") or "live") if isinstance(manifest, dict) else "live"


def replaying_of(supervisor: Supervisor) -> Replaying:
    """Return what a cluster's run does about a recording: nothing, its models' answers, or all that was there."""
    if (supervisor.run_dir / REPLAYED).is_dir():
        from orchestrator_lab.supervisor.terminal import TerminalReplaying

        return TerminalReplaying(supervisor)
    return Replaying(supervisor)


class Replaying:
    """The mode of one cluster's run.

    Parameters
    ----------
    supervisor : Supervisor
        Its journal is told of divergences.
    """

    #: Whether programs are played from their recordings, instead of being run.
    terminal = False

    def __init__(self, supervisor: Supervisor) -> None:
        self._cluster = supervisor
        self.mode = run_mode(supervisor.run_dir)
        #: Why a strict replay has stopped.
        self.stopped: ReplayDiverged | None = None
        #: What was told to differ, by the id of the message that was being answered.
        self.told: dict[str, str] = {}
        self._player: Player | None = None

    @property
    def strict(self) -> bool:
        """Whether a replay stops where something differs."""
        return self.mode == "replay_strict"

    @property
    def replays(self) -> bool:
        """Whether models answer from a recording."""
        return self.mode.startswith("replay")

    def gateway(self) -> Gateway:
        """Return the cluster's gateway."""
        cluster = self._cluster
        folder = cluster.run_dir / CASSETTES
        recorder = player = None
        if self.replays:
            player = self._player = Player(folder, strict=self.strict, tell=self._tell, mask=cluster.mask)
            self._restore(player)
        elif self.mode == "record":
            recorder = Recorder(private_dir(folder), mask=cluster.mask, failed=self._hole)
        return Gateway(
            cluster.record_event,
            split_header=split_header,
            local_log=cluster.folder / "logs" / "local-model.log",
            recorder=recorder,
            player=player,
            diverged=self._stop,
        )

    def places(self, runner: AgentRunner) -> Places:
        """Return where an agent's folders are."""
        cluster = self._cluster
        work = cluster.config.work_dir_of(runner.config)
        named = {
            "work": str(work),
            "agent": str(runner.folder),
            "run": str(cluster.run_dir),
            "cluster": str(cluster.folder),
            "home": cluster.environ.get("HOME", ""),
            "tmp": cluster.environ.get("TMPDIR") or tempfile.gettempdir(),
        }
        # Programs tell of the folder that a link leads to.
        if (real := Path(work).resolve()) != Path(work):
            named["work.real"] = str(real)
        return Places(named)

    def check(self, runner: AgentRunner) -> None:
        """Refuse an agent whose model's answers no gateway could replay."""
        gateway = runner.config.gateway
        if self.replays and runner.config.kind != "program" and (gateway is None or gateway.mode == "none"):
            raise ConfigError(
                f"agent {runner.name!r} talks to its model itself, not through the gateway: its run can be looked at "
                "as data (open_run), and its model cannot be replayed; give it a gateway (upstream, script or local) "
                "and record the run again",
                agent=runner.name,
            )

    def refuse(self) -> None:
        """Raise why nothing more is delivered, when a strict replay has stopped."""
        if self.stopped is not None:
            raise ReplayDiverged(self.stopped.message, **self.stopped.details)

    def finish(self) -> None:
        """Tell of what the recording holds and nobody has asked, at the end of a replay."""
        if self._player is None or self.stopped is not None:
            return
        for agent, numbers in self._player.missing().items():
            sentence = (
                f"agent {agent!r} was not asked all that is recorded: {len(numbers)} of its "
                f"{self._player.takes(agent)} requests are left, the first is request {numbers[0]}"
            )
            self._tell(agent, "missing", sentence, take=numbers[0], diff="", strict=False)

    # what a replay on the terminal does otherwise: see TerminalReplaying ------------------------------

    def journal(self) -> JournalWriter:
        """Return the run's journal."""
        cluster = self._cluster
        return JournalWriter(cluster.run_dir / "journal.jsonl", run_id=cluster.record.run_id, mask=cluster.mask)

    def adapter(self, config: AgentConfig) -> Adapter:
        """Return the adapter of an agent's program."""
        return adapter_for(config.kind)

    def take_over(self, ledger: Ledger) -> None:
        """Have messages get the ids that they had."""

    def session_id(self, _agent: str) -> str | None:
        """Return the session that an agent's program had, None when it is to have one of its own."""
        return None

    def turn_id(self, _agent: str, _message_id: str) -> str | None:
        """Return the id that a turn had, None when it gets one of its own."""
        return None

    def dialog_id(self, _agent: str) -> str | None:
        """Return the id that a dialog had, None when it gets one of its own."""
        return None

    def turn_over(self, _runner: AgentRunner) -> bool:
        """Tell whether a program that has told a turn's end was done with the turn."""
        return True

    def may_claim(self, _message: Message) -> bool:
        """Tell whether it is a message's turn to be written."""
        return True

    def guard_id(self, _agent: str | None, _rule: str) -> str | None:
        """Return the id that a guard had, None when it gets one of its own."""
        return None

    def conversation_id(self, _agents: list[str], conversation_id: str | None) -> str | None:
        """Return the id that a conversation had, or the one that is given."""
        return conversation_id

    def known_as(self, message_id: str) -> str:
        """Return the id under which the run has a message that a client knows by this one."""
        return message_id

    def recording(self, _agent: str) -> dict[str, Any] | None:
        """Return the facts of the recording of an agent's pane, None where it is a new one."""
        return None

    def recorded_at(self, _agent: str) -> float | None:
        """Return when the recording of an agent's pane began, in epoch seconds; None for a new one."""
        return None

    def broken_off(self) -> str | None:
        """Return the status with which a replay ends that cannot go on, None when it can."""
        return None

    def server_lost(self) -> bool:
        """Take note that the tmux server is gone; True when it is not started again."""
        return False

    async def due(self, _runner: AgentRunner, _payload: Mapping[str, Any]) -> bool:
        """Wait for the turn of a report; False when it is not to be taken in any more."""
        return True

    async def at_rest(self, _runner: AgentRunner) -> None:
        """Wait until a pane shows all that it is going to show by itself, where that can be known."""

    def done(self, _payload: Mapping[str, Any]) -> None:
        """Take note that a report was taken in, whatever came of it."""

    async def before(
        self,
        event: str,
        agent: str | None = None,
        *,
        again: int | None = None,
        **facts: Any,  # noqa: ANN401 - any JSON value
    ) -> None:
        """Wait for the turn of what somebody outside does; `again` is the number of that event, where it is known."""

    async def before_start(self, _runner: AgentRunner) -> None:
        """Wait for the turn of a start that nobody asked for."""

    async def at_exit(self, _runner: AgentRunner) -> None:
        """Wait until an agent that is to end has done what it did after somebody had asked it to."""

    async def joined(self, agent: str, *, patient: bool = False) -> None:
        """Wait for an agent that joins in the middle."""

    async def before_message(
        self, recipient: str, text: str, message_id: str | None, *, again: int | None = None
    ) -> None:
        """Wait for the turn of a message from outside."""

    def timeout_of(self, _dialog_id: str, _over: Callable[[], None]) -> bool:
        """Say when a person's time to answer is over; False when a clock says it."""
        return False

    def awaited(self) -> AbstractContextManager[None]:
        """Take note that somebody outside waits for something to happen."""
        return contextlib.nullcontext()

    async def answer(self, _runner: AgentRunner, _dialog_id: str, _label: str) -> bool:
        """Answer a dialog of a played program; False where a real one has its menu."""
        return False

    def told_by(self, _runner: AgentRunner, _told: Recorded) -> None:
        """Take in what only a recording tells."""

    def ends(self) -> None:
        """Take note that the cluster ends."""

    def close(self) -> None:
        """Put away what was only needed to replay."""

    # small helpers ------------------------------------------------------------------------------

    def _restore(self, player: Player) -> None:
        """Go on where an earlier supervisor was."""
        cluster = self._cluster
        if cluster.journal.seq == 0:
            return
        used = []
        for event in read_events(cluster.journal.path)[0]:
            if event.event == "gateway.response":
                found = _TAKE.fullmatch(str(event.attributes.get("rule")))
                used += [int(found[1])] if found else []
            elif event.event == "replay.divergence" and event.level == "error":
                facts = {"agent": event.agent, **event.attributes}
                self.stopped = stopped(facts.pop("message", ""), facts.pop("diff", None) or "", **facts)
        player.restore(used)

    def _tell(
        self,
        agent: str,
        kind: str,
        sentence: str,
        *,
        take: int | None,
        diff: str,
        strict: bool,
        message_id: str | None = None,
    ) -> None:
        runner = self._cluster.runners.get(agent)
        turn = None if runner is None else runner.turn
        # A program may ask its model before its report of the prompt is here.
        delivering = None if runner is None else runner.delivering
        ids = turn.message_ids if turn is not None else [] if delivering is None else [delivering.message_id]
        if message_id is not None:
            ids = [message_id]
        for one in ids:
            self.told.setdefault(one, sentence)
        self._cluster.journal.append(
            "replay.divergence",
            agent=agent,
            turn_id=None if turn is None else turn.turn_id,
            message_id=ids[-1] if ids else None,
            source="gateway",
            level="error" if strict else "warning",
            kind=kind,
            request=take,
            message=sentence,
            diff=diff[:_IN_JOURNAL] or None,
        )
        logger.warning("%s", sentence)

    def _stop(self, error: ReplayDiverged) -> None:
        self.stopped = self.stopped or error
        self._cluster.ledger.wake_all()

    def _hole(self, agent: str, sentence: str) -> None:
        self._cluster.journal.append("note", agent=agent, level="error", text=f"agent {agent!r}: {sentence}")
