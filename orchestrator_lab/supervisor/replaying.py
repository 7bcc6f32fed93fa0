"""How a run's models answer: live, live and recorded, or from a recording; and what is done where a replay differs.

The mode stands in the run's manifest. A replay has the recorded run's cassettes in its own folder, so that it needs
nothing of that run any more.
"""

from __future__ import annotations

import json
import logging
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator_lab.cassette import CASSETTES
from orchestrator_lab.errors import ConfigError, ReplayDiverged
from orchestrator_lab.gateway.gateway import Gateway
from orchestrator_lab.gateway.plain import Places
from orchestrator_lab.gateway.player import Player, stopped
from orchestrator_lab.gateway.recorder import Recorder
from orchestrator_lab.journal.reader import read_events
from orchestrator_lab.runtime import private_dir
from orchestrator_lab.supervisor.header import split_header

if TYPE_CHECKING:
    from orchestrator_lab.supervisor.agent import AgentRunner
    from orchestrator_lab.supervisor.core import Supervisor

__all__ = ["Replaying", "run_mode"]

logger = logging.getLogger(__name__)

_TAKE = re.compile(r"take (\d+)")
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


class Replaying:
    """The mode of one cluster's run.

    Parameters
    ----------
    supervisor : Supervisor
        Its journal is told of divergences.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self._cluster = supervisor
        self.mode = run_mode(supervisor.run_dir)
        #: Why a strict replay has stopped.
        self.stopped: ReplayDiverged | None = None
        #: What was told to differ, by the id of the message that was being answered.
        self.told: dict[str, str] = {}
        self._player: Player | None = None

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
            player = self._player = Player(
                folder, strict=self.mode == "replay_strict", tell=self._tell, mask=cluster.mask
            )
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

    def _tell(self, agent: str, kind: str, sentence: str, *, take: int | None, diff: str, strict: bool) -> None:
        runner = self._cluster.runners.get(agent)
        turn = None if runner is None else runner.turn
        # A program may ask its model before its report of the prompt is here.
        delivering = None if runner is None else runner.delivering
        ids = turn.message_ids if turn is not None else [] if delivering is None else [delivering.message_id]
        for message_id in ids:
            self.told.setdefault(message_id, sentence)
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
