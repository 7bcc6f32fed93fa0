"""Work folders before any agent starts: kept in a run that is recorded, made as they were in one that is replayed.

They are read while the rest of the cluster starts, in a thread of its own, and no agent starts before that is done;
they are written once the agents are ready, so that nothing waits for the disk. A supervisor that is killed on the way
leaves nothing. Its successor begins again, unless agents may have changed them already.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from orchestrator_lab.errors import OrchestratorLabError
from orchestrator_lab.initial.keeping import broken_off, gather, limits_of
from orchestrator_lab.initial.restoring import fill, is_blank
from orchestrator_lab.initial.state import INITIAL, read_state
from orchestrator_lab.runtime import write_private

if TYPE_CHECKING:
    from orchestrator_lab.initial.keeping import Gathered
    from orchestrator_lab.initial.state import InitialFolder, InitialState
    from orchestrator_lab.supervisor.core import Supervisor

__all__ = ["InitialFolders"]

logger = logging.getLogger(__name__)

#: Which folders are being made as they were; gone once there are agents.
_BEGUN = "restoring.json"


class InitialFolders:
    """The work folders of one cluster's start.

    Parameters
    ----------
    supervisor : Supervisor
        The cluster.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self._cluster = supervisor
        self._reading: asyncio.Future[Gathered] | None = None
        self._gathered: Gathered | None = None
        self._waited_s = 0.0
        self._writing: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Begin to read them, where the run is recorded, beside everything else."""
        cluster = self._cluster
        wanted = cluster.replaying.mode == "record" and cluster.config.initial_state.record
        if self._reading is None and wanted and (folders := self._cluster.config.seen_folders()):
            self._reading = asyncio.get_running_loop().run_in_executor(None, self._read, folders)

    async def settle(self) -> None:
        """Wait until they are read, or made as they were; nothing may change them before."""
        if self._cluster.replaying.replays:
            await self._restore()
            return
        self.begin()
        if self._reading is None:
            return
        begun = time.monotonic()
        self._gathered = await self._reading
        self._waited_s = time.monotonic() - begun
        if not self._gathered.read:
            await self._write(self._gathered)

    def ready(self) -> None:
        """Write what was read, beside everything else."""
        if self._gathered is not None and self._gathered.read:
            self._writing = asyncio.create_task(self._write(self._gathered))
            self._gathered = None

    async def close(self) -> None:
        """Wait until all is written."""
        if self._writing is not None:
            await asyncio.wait([self._writing])

    def resume(self) -> None:
        """Clear away what a predecessor did not bring to its end: by now the agents have changed the folders."""
        cluster = self._cluster
        began = cluster.replaying.mode == "record" and cluster.config.initial_state.record and bool(cluster.unfinished)
        if broken_off(cluster.run_dir) or (
            began and self._cluster.config.seen_folders() and not (cluster.run_dir / INITIAL).exists()
        ):
            self._note("the work folders as they were at the beginning are not kept: the supervisor was killed")

    # keeping -------------------------------------------------------------------------------------

    def _read(self, folders: dict[str, Path]) -> Gathered:
        cluster = self._cluster
        secrets = [secret.encode() for secret in cluster.mask.secrets]

        def mask(data: bytes) -> bytes:
            return cluster.mask_bytes(data) if any(secret in data for secret in secrets) else data

        own = (cluster.run_dir.resolve().parent, cluster.folder.resolve())
        return gather(folders, limits_of(cluster.config.initial_state), mask=mask, without=own)

    async def _write(self, gathered: Gathered) -> None:
        run_dir = self._cluster.run_dir
        try:
            if not (run_dir / INITIAL).exists():  # by a supervisor that was killed right after
                await asyncio.to_thread(gathered.write, run_dir)
            self._tell_kept()
        except OrchestratorLabError as error:
            self._note(error.message, level="warning")

    def _tell_kept(self) -> None:
        state = read_state(self._cluster.run_dir)
        for one in state.folders if state is not None else ():
            if one.why is not None:
                self._note(f"the work folder {one.path} is not kept as it was at the beginning: {one.why}")
                continue
            self._cluster.journal.append(
                "initial.recorded",
                folder=one.path,
                agents=list(one.agents),
                files=len(one.files),
                bytes=one.size,
                skipped=len(one.skipped) + one.more_skipped,
                commit=one.commit,
                waited_s=round(self._waited_s, 6),
            )

    # restoring -----------------------------------------------------------------------------------

    async def _restore(self) -> None:
        cluster = self._cluster
        state = read_state(cluster.run_dir)
        if state is None:
            return
        marker = cluster.run_dir / _BEGUN
        begun: set[str] = set(json.loads(marker.read_text(encoding="utf-8"))) if marker.exists() else set()
        wanted: list[tuple[Path, InitialFolder, str]] = []
        for folder, found in sorted(self._kept_by_folder(state).items(), key=lambda one: len(one[0].parts)):
            if len(found) > 1:
                self._note(f"the work folder {folder} is used as it is: it stands for several of the recording")
                continue
            number, inside = next(iter(found))
            kept = next(one for one in state.folders if one.number == number)
            if any(same is kept and folder == above / _way(where, inside) for above, same, where in wanted):
                continue  # it is within one that is made as a whole
            if str(folder) not in begun and not await asyncio.to_thread(is_blank, folder):
                self._note(f"the work folder {folder} is used as it is: it holds something already")
                continue
            wanted.append((folder, kept, inside))
        # On the disk before anything is done, so that a successor knows that what is in there is no user's.
        write_private(marker, json.dumps([str(folder) for folder, _, _ in wanted]))
        for folder, kept, inside in wanted:
            files = await asyncio.to_thread(fill, folder, kept, inside)
            agents = [name for name, at in self._cluster.config.seen_folders().items() if at.is_relative_to(folder)]
            cluster.journal.append("initial.restored", folder=str(folder), agents=agents, files=files)

    def over(self) -> None:
        """Take note that the agents are there: from now on the folders are theirs."""
        (self._cluster.run_dir / _BEGUN).unlink(missing_ok=True)

    def _kept_by_folder(self, state: InitialState) -> dict[Path, set[tuple[int, str]]]:
        """Return what was kept for each of this cluster's folders: the recorded folder, and the place in it."""
        found: dict[Path, set[tuple[int, str]]] = {}
        for name, folder in self._cluster.config.seen_folders().items():
            kept = state.of(name)
            if kept is not None:
                found.setdefault(folder, set()).add((kept.number, kept.agents[name]))
        return found

    def _note(self, text: str, *, level: str = "info") -> None:
        self._cluster.journal.append("note", level=level, text=text)
        logger.info("%s", text)


def _way(above: str, inside: str) -> PurePosixPath:
    """Return the way from one folder in a kept one to another, or a way that is none."""
    place, other = PurePosixPath(inside), PurePosixPath(above)
    return place.relative_to(other) if place.is_relative_to(other) else PurePosixPath("..")
