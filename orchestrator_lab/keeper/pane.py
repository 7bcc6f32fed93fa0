"""The output of one agent's pane: drained, followed, recorded, passed on."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator_lab.keeper.clock import Clock
from orchestrator_lab.keeper.loop import READ
from orchestrator_lab.keeper.mask import Mask
from orchestrator_lab.keeper.modes import ModeTracker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from orchestrator_lab.journal.recording import CastWriter
    from orchestrator_lab.keeper.clients import Hub
    from orchestrator_lab.keeper.loop import Loop

__all__ = ["Pane", "Panes"]

logger = logging.getLogger(__name__)

#: Bytes taken from one pane before the others have their turn.
READ_SIZE = 1 << 16

#: Seconds between two reports of one pane's activity.
ACTIVITY_EVERY_S = 0.01

#: Seconds until a supervisor that does not read is tried again.
IDLE_RETRY_S = 0.5

#: Seconds between two pieces of a recording.
PIECE_EVERY_S = 1.0

#: Seconds that tmux has to pass on what the program wrote before it ended.
END_GRACE_S = 0.25

#: Seconds that a pane which is being handed over has to come, after its program has ended.
HANDOVER_S = 10.0

#: Bytes taken at most when a pane is emptied in one go.
DRAIN_LIMIT = 16 << 20


class Pane:
    """What the keeper knows of one agent."""

    def __init__(self, agent: str) -> None:
        self.agent = agent
        #: tmux's id, for people who read the status.
        self.pane: str | None = None
        #: Descriptor of tmux's pipe, or None while none is handed over.
        self.source: int | None = None
        #: Whether it is on its way here: its recording was asked for, and it has not come yet.
        self.coming = False
        #: Whether its agent was removed: it goes with the end of its recording.
        self.leaving = False
        self.tracker = ModeTracker()
        self.writer: CastWriter | None = None
        #: Secrets that are kept out of the recording, or None.
        self.mask: Mask | None = None
        #: Reads the time that a replayed program tells, or None.
        self.clock: Clock | None = None
        #: Bytes seen by this keeper.
        self.bytes = 0
        #: When the last byte came: seconds since 1970, and monotonic.
        self.at = 0.0
        self.monotonic_s = 0.0
        self.told_at = 0.0
        self.write_error: str | None = None
        #: Seconds between two reports of activity; None while the supervisor waits for nothing from this pane: then
        #: only changes of its modes are told.
        self.every_s: float | None = ACTIVITY_EVERY_S
        #: Ends the recording, while its end was asked for and the last bytes are awaited.
        self.ending: Callable[[], None] | None = None

    def describe(self) -> dict[str, Any]:
        """Return what ``hello`` and ``status`` say of this pane."""
        return {
            "agent": self.agent,
            "pane": self.pane,
            "open": self.source is not None,
            "bytes": self.bytes,
            "at": self.at or None,
            "recording": str(self.writer.path) if self.writer else None,
            "modes": self.tracker.modes,
            "title": self.tracker.title,
            "osc133": self.tracker.osc133,
        }


class Panes:
    """All panes of the cluster.

    Parameters
    ----------
    loop : Loop
        Where their pipes are watched.
    hub : Hub
        The live subscribers.
    tell : callable
        Sends a message to the supervisor.
    may_tell : callable
        Whether the supervisor reads, so that a report of activity would not pile up.
    """

    def __init__(
        self,
        loop: Loop,
        hub: Hub,
        tell: Callable[[dict[str, Any]], bool],
        may_tell: Callable[[], bool],
    ) -> None:
        self._loop = loop
        self._hub = hub
        self._tell = tell
        self._may_tell = may_tell
        self._panes: dict[str, Pane] = {}
        self._untold: set[Pane] = set()

    def __iter__(self) -> Iterator[Pane]:
        return iter(list(self._panes.values()))

    def get(self, agent: str) -> Pane:
        """Return the pane of this agent, made when it is new."""
        pane = self._panes.get(agent)
        if pane is None:
            pane = self._panes[agent] = Pane(agent)
        return pane

    # what the supervisor says -----------------------------------------------------------------

    def record(self, message: dict[str, Any]) -> None:
        """Start a recording, continue one, or say where the running one is."""
        # zstandard is a third of the keeper's start; by now the supervisor is on its way.
        from orchestrator_lab.errors import JournalError
        from orchestrator_lab.journal.recording import CastWriter

        agent = str(message["agent"])
        self._end_now(self.get(agent))
        pane = self.get(agent)  # the one before may have gone with its end
        if pane.pane not in {None, message.get("pane")}:
            pane.tracker.reset()
        pane.pane = message.get("pane", pane.pane)
        pane.coming, pane.leaving = pane.source is None, False
        tracker = pane.tracker
        tracker.seed(message.get("modes") or {})
        tracker.title = message.get("screen_title", tracker.title)
        secrets = message.get("mask")
        replayed_at = message.get("replayed_at")
        if replayed_at is not None and pane.clock is None:
            pane.clock = Clock()
        path = Path(message["path"])
        if pane.writer is None or pane.writer.path != path:
            self._close(pane)
            try:
                pane.writer = CastWriter(
                    path,
                    cols=int(message["cols"]),
                    rows=int(message["rows"]),
                    title=message.get("title"),
                    started_at=replayed_at,
                )
            except JournalError as error:
                logger.warning("%s", error)
                self._tell({"op": "recording_failed", "agent": pane.agent, "error": error.message})
                return
        writer = pane.writer
        if secrets is not None:
            pane.mask = Mask([str(secret) for secret in secrets]) if secrets else None
        self._tell(
            {
                "op": "recording",
                "agent": pane.agent,
                "path": str(path),
                "started_at": writer.started_at,
                "monotonic_s": writer.monotonic_start,
                "offset_s": round(writer.offset_s, 6),
                "gap_s": round(writer.gap_s, 6),
                "open": pane.source is not None,
            }
        )

    def resize(self, agent: str, cols: int, rows: int) -> None:
        """Note a new size in the recording and tell the subscribers."""
        pane = self.get(agent)
        if pane.writer is not None:
            pane.writer.resize(cols, rows)
            self._pending()
        self._hub.offer(agent, {"agent": agent, "resize": [cols, rows]})

    def mark(self, agent: str, label: str) -> None:
        """Put a marker into the recording."""
        pane = self.get(agent)
        if pane.writer is not None:
            pane.writer.mark(label)
            self._pending()

    def follow(self, agent: str, every_s: float | None) -> None:
        """Report this pane's activity at most this often, or not: nobody is woken by what nobody waits for."""
        pane = self.get(agent)
        pane.every_s = every_s
        if every_s is None:
            self._untold.discard(pane)
        elif pane.monotonic_s > pane.told_at:
            self._untold.add(pane)
            self._loop.at("activity", time.monotonic(), self.retell)

    def reset(self, agent: str) -> None:
        """Another program runs in this pane now: forget the modes of the one before."""
        self.get(agent).tracker.reset()

    def end(self, agent: str, status: int | None) -> None:
        """End a recording a moment from now, when what the program wrote last has come."""
        pane = self.get(agent)
        self._end_now(pane)

        def close() -> None:
            pane.ending = None
            self.drain(pane)
            # The program is gone, and its modes with it: the next one in this pane begins anew.
            pane.tracker.reset()
            self._finish(pane)
            if pane.writer is not None:
                self._settle(pane)
                if status is not None:
                    pane.writer.exit(status)
                self._close(pane)
            if pane.leaving:
                self._drop(pane)

        pane.ending = close
        # Of a program that ends at once the first bytes may still be on their way with the pane.
        grace_s = HANDOVER_S if pane.coming else END_GRACE_S
        self._loop.at(f"end {agent}", time.monotonic() + grace_s, close)

    def forget(self, agent: str) -> None:
        """Drop a pane whose agent was removed."""
        pane = self._panes.get(agent)
        if pane is None:
            return
        if pane.coming and pane.ending is not None:
            pane.leaving = True
            return
        self._end_now(pane)
        self._drop(pane)

    def _drop(self, pane: Pane) -> None:
        if self._panes.get(pane.agent) is pane:
            del self._panes[pane.agent]
        self.drain(pane)
        self._detach(pane)
        self._close(pane)
        self._untold.discard(pane)

    # what tmux hands over -----------------------------------------------------------------------

    def attach(self, agent: str, descriptor: int) -> None:
        """Take over tmux's end of a pipe; the one before is emptied first."""
        pane = self.get(agent)
        if pane.source is not None:
            self.drain(pane)
            self._detach(pane)
        os.set_blocking(descriptor, False)
        pane.source, pane.coming = descriptor, False
        if pane.ending is not None:
            self._loop.at(f"end {agent}", time.monotonic() + END_GRACE_S, pane.ending)
        self._loop.watch(descriptor, READ, lambda _: self._ready(pane))
        self._tell({"op": "pane_opened", "agent": agent})
        self._hub.offer(agent, {"agent": agent, "repaint": True})

    def drain(self, pane: Pane, limit: int = DRAIN_LIMIT) -> None:
        """Take what is there now, and no more than ``limit`` bytes."""
        taken = pane.bytes
        while pane.source is not None and pane.bytes - taken < limit:
            if not self._read(pane):
                return

    def close(self) -> None:
        """Take what is left and finish all recordings."""
        for pane in self:
            self._end_now(pane)
            self.drain(pane)
            self._finish(pane)
            self._detach(pane)
            with contextlib.suppress(OSError):
                self._close(pane)

    def retell(self) -> None:
        """Report the activity that a busy supervisor has not been told."""
        now = time.monotonic()
        for pane in list(self._untold):
            if pane.every_s is not None and now - pane.told_at >= pane.every_s:
                self._report(pane, now)
        self._later()

    def _ready(self, pane: Pane) -> None:
        self._read(pane)

    def _read(self, pane: Pane) -> bool:
        """Read once; False when there is nothing more now."""
        if pane.source is None:
            return False
        try:
            data = os.read(pane.source, READ_SIZE)
        except BlockingIOError:
            return False
        except OSError as error:
            logger.warning("pane of %s: %s", pane.agent, error)
            data = b""
        if not data:
            self._detach(pane)
            if pane.writer is not None:
                self._settle(pane)
                pane.writer.flush()
            if pane in self._untold:
                self._report(pane, time.monotonic())
            self._tell({"op": "pane_closed", "agent": pane.agent})
            self._hub.offer(pane.agent, {"agent": pane.agent, "closed": True})
            return False
        pane.at = time.time()
        pane.monotonic_s = now = time.monotonic()
        if pane.clock is None:
            self._record(pane, data)
        else:
            pieces = pane.clock.feed(data)
            for at_ms, piece in pieces:
                if pane.writer is not None and at_ms is not None:
                    self._settle(pane)
                    pane.writer.clock(at_ms)
                self._record(pane, piece)
            data = b"".join(piece for _, piece in pieces)
        pane.bytes += len(data)
        changed = pane.tracker.feed(data)
        self._hub.output(pane.agent, pane.at, pane.bytes, data)
        if changed or (pane.every_s is not None and now - pane.told_at >= pane.every_s):
            self._report(pane, now)
            self._later()
        elif pane.every_s is not None:
            if pane not in self._untold:
                self._untold.add(pane)
                self._loop.cancel("activity")  # it may be due before the others
            self._later()
        return True

    def _record(self, pane: Pane, data: bytes) -> None:
        if pane.writer is not None and data:
            pane.writer.write(data if pane.mask is None else pane.mask.feed(data))
            self._pending()

    def _report(self, pane: Pane, now: float) -> None:
        if not self._may_tell():
            # It will be told the newest state once it reads again.
            self._untold.add(pane)
            pane.told_at = now
            return
        self._untold.discard(pane)
        pane.told_at = now
        tracker = pane.tracker
        message: dict[str, Any] = {
            "op": "activity",
            "agent": pane.agent,
            "at": pane.at,
            "monotonic_s": pane.monotonic_s,
            "bytes": pane.bytes,
            "modes": tracker.modes,
            "title": tracker.title,
        }
        if tracker.marks:
            message["osc133"] = tracker.osc133
            message["marks"] = tracker.take_marks()
        self._tell(message)

    def _later(self) -> None:
        if self._untold and not self._loop.due("activity"):
            first = min(pane.told_at + (pane.every_s or ACTIVITY_EVERY_S) for pane in self._untold)
            # To a supervisor that is away or busy there is no hurry.
            wait = 0.001 if self._may_tell() else IDLE_RETRY_S
            when = max(first, time.monotonic() + wait)
            self._loop.at("activity", when, self.retell)

    def _pending(self) -> None:
        if not self._loop.due("pieces"):
            self._loop.at("pieces", time.monotonic() + PIECE_EVERY_S, self._write_pieces)

    def _write_pieces(self) -> None:
        for pane in self:
            writer = pane.writer
            if writer is None:
                continue
            self._settle(pane)
            if not writer.pending:
                continue
            writer.flush()
            if writer.error != pane.write_error:
                pane.write_error = writer.error
                self._tell(
                    {"op": "recording_failed", "agent": pane.agent, "error": writer.error}
                    if writer.error
                    else {"op": "recording_resumed", "agent": pane.agent}
                )
            if writer.pending:
                self._pending()

    def _detach(self, pane: Pane) -> None:
        if pane.source is not None:
            self._loop.unwatch(pane.source)
            os.close(pane.source)
            pane.source = None

    def _end_now(self, pane: Pane) -> None:
        """Do at once what :meth:`end` has put off."""
        self._loop.cancel(f"end {pane.agent}")
        if pane.ending is not None:
            pane.ending()

    def _finish(self, pane: Pane) -> None:
        """Record what was held back as the possible beginning of a mark of time: nothing more comes."""
        if pane.clock is not None:
            self._record(pane, pane.clock.rest())

    @staticmethod
    def _settle(pane: Pane) -> None:
        """Record what was held back as the possible beginning of a secret."""
        if pane.mask is not None and pane.writer is not None and (rest := pane.mask.rest()):
            pane.writer.write(rest)

    def _close(self, pane: Pane) -> None:
        if pane.writer is not None:
            self._settle(pane)
            pane.writer.close()
            pane.writer = None
