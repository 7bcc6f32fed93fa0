"""Tells channels (mail, chat, webhooks …) of alerts, through apprise, in a process of its own.

A mail server that answers slowly holds up that process and nothing else, and the supervisor never loads what it takes
to speak to a hundred services. An alert is told only once it is on the disk; what may not have been told when a
supervisor died is told by its successor, so that each alert is told at least once, and twice at worst.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from orchestrator_lab.config import address_secrets, notify_addresses, scheme_of
from orchestrator_lab.errors import JournalError
from orchestrator_lab.supervisor.alerts import graver

if TYPE_CHECKING:
    from orchestrator_lab.supervisor.alerts import Alert
    from orchestrator_lab.supervisor.core import Supervisor

__all__ = ["Notifier"]

logger = logging.getLogger(__name__)

#: Pause in which alerts that come together are gathered, in seconds.
_GATHER_S = 0.1
#: Alerts that may wait to be told; of more than these the oldest are given up.
_WAITING = 500
#: Longest life of a process that tells, in seconds; its tries and their pauses take about half of that at worst.
DEADLINE_S = 60.0
#: Longest wait for one that is under way when the cluster ends.
_LAST_S = 3.0


class Notifier:
    """The channels of one cluster.

    Parameters
    ----------
    supervisor : Supervisor
        Its configuration names the channels, its owner's environment holds their secrets, its alerts are told.

    Raises
    ------
    ConfigError
        When a variable that an address names is not set, or an address is not understood.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        config = supervisor.config.alerts
        self._addresses = notify_addresses(config.notify, supervisor.environ) if config.enabled else []
        for address in self._addresses:
            for secret in address_secrets(address):
                supervisor.mask.add(secret)
        #: What waits to be told, by alert: the newest state of each.
        self._waiting: dict[str, Alert] = {}
        self._telling: asyncio.Task[None] | None = None
        self._ended = False
        if self._addresses:
            supervisor.alerts.on_tell = self.tell

    def tell(self, alert: Alert) -> None:
        """Have an alert told to each channel that has not heard of it as it stands.

        Parameters
        ----------
        alert : Alert
            Opened, made graver, repeated, or taken over from an earlier supervisor.
        """
        if graver(self._supervisor.config.alerts.notify_level, alert.level) or not self._silent(alert):
            return
        self._waiting.pop(alert.alert_id, None)
        self._waiting[alert.alert_id] = alert
        if len(self._waiting) > _WAITING:
            oldest = self._waiting.pop(next(iter(self._waiting)))
            self._give_up([oldest], f"more than {_WAITING} alerts wait to be told")
        if self._telling is None and not self._ended:
            self._telling = asyncio.create_task(self._tell_all(), name="notifier")

    async def close(self) -> None:
        """Let what is under way come to its end, for a moment; what is not told then is journalled as such."""
        self._ended = True
        if self._telling is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._telling, _LAST_S)
        self._give_up(list(self._waiting.values()), "the cluster ended")
        self._waiting.clear()

    def _silent(self, alert: Alert) -> list[int]:
        return [number for number in range(1, len(self._addresses) + 1) if number not in alert.notified]

    async def _tell_all(self) -> None:
        try:
            await asyncio.sleep(_GATHER_S)
            while self._waiting:
                batch, self._waiting = list(self._waiting.values()), {}
                try:
                    await self._tell(batch)
                except OSError as error:
                    self._give_up(batch, f"no process could be started for it: {error}")
        finally:
            self._telling = None

    async def _tell(self, batch: list[Alert]) -> None:
        """Tell some alerts, and journal what became of each at each channel."""
        # A disk that is full is told of although that is not on it.
        with contextlib.suppress(JournalError):
            await self._supervisor.journal.asynced()
        pending = {(alert.alert_id, number): alert for alert in batch for number in self._silent(alert)}
        told: dict[tuple[str, int], Alert] = dict(pending)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "orchestrator_lab.supervisor.tell",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            # Ends with its own deadline, not with this supervisor: what is half said is said to the end.
            start_new_session=True,
            cwd="/",
        )
        error = "the process that tells ended before it had told this"
        try:
            async with asyncio.timeout(DEADLINE_S + 5.0):
                await self._converse(process, pending, told)
        except TimeoutError:
            error = f"no end after {DEADLINE_S:g} s"
        except asyncio.CancelledError:
            error = "the cluster ended meanwhile"
            raise
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            for (_, number), alert in told.items():
                self._say(alert, number, error)
            await process.wait()

    async def _converse(
        self,
        process: asyncio.subprocess.Process,
        pending: dict[tuple[str, int], Alert],
        told: dict[tuple[str, int], Alert],
    ) -> None:
        if process.stdin is None or process.stdout is None:
            return
        job = {
            "deadline_s": DEADLINE_S,
            "channels": {
                str(number): address
                for number, address in enumerate(self._addresses, 1)
                if any(number == wanted for _, wanted in pending)
            },
            "notices": [{"number": number, **self._notice(alert)} for (_, number), alert in pending.items()],
        }
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            process.stdin.write(json.dumps(job).encode())
            await process.stdin.drain()
            process.stdin.close()
        async for line in process.stdout:
            try:
                answer = json.loads(line)
                alert = told.pop((str(answer["alert_id"]), int(answer["number"])))
            except (ValueError, KeyError, TypeError):
                logger.warning("the process that tells said what nobody asked for")
                continue
            self._say(alert, int(answer["number"]), answer.get("error"))

    def _notice(self, alert: Alert) -> dict[str, Any]:
        """Return what people read: short enough for a telephone's first line, and what to do."""
        name = self._supervisor.config.name
        about = f" ({alert.agent})" if alert.agent else ""
        body = f"{alert.message}\n\nrun {self._supervisor.record.run_id}, since {alert.opened_at}"
        if not alert.resolved:
            body += f"\nseen: orchestrator-lab alerts ack {alert.alert_id} --cluster {name}"
        return {
            "alert_id": alert.alert_id,
            "level": alert.level,
            "title": f"[{name}] {alert.level}: {alert.rule}{about}",
            "body": self._supervisor.mask(body),
        }

    def _give_up(self, alerts: list[Alert], error: str) -> None:
        for alert in alerts:
            for number in self._silent(alert):
                self._say(alert, number, error)

    def _say(self, alert: Alert, number: int, error: str | None) -> None:
        channel = scheme_of(self._addresses[number - 1])
        if error is not None:
            logger.warning("%s was not told of %s: %s", channel, alert.alert_id, self._supervisor.mask(error))
        self._supervisor.alerts.notified(alert, number, channel, ok=error is None, error=error)
