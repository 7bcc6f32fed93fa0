"""``python -m orchestrator_lab.supervisor.tell``: tell channels of alerts, and say which heard.

Reads one JSON object from its standard input, so that no secret is ever in a command line, and answers with one line
for each notice as soon as it is through. Trying again is apprise's own doing (``?retry=`` and ``?wait=`` of an address
say otherwise for one channel).
"""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from orchestrator_lab.config import address_secrets
from orchestrator_lab.journal.writer import SecretMask

__all__ = ["main"]

#: Tries after the first one, and the seconds between two.
_RETRIES, _WAIT_S = 2, 2.0


class _Said(logging.Handler):
    """Keeps what apprise says went wrong, by thread: one thread speaks to one channel."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._by_thread = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        self.taken().append(record.getMessage())

    def taken(self) -> list[str]:
        lines: list[str] = getattr(self._by_thread, "lines", [])
        self._by_thread.lines = lines
        return lines


def main() -> int:
    """Do one job."""
    job = json.load(sys.stdin)
    # Whoever started this may be gone, so it ends by itself.
    signal.alarm(int(job["deadline_s"]))
    said = _Said()
    logger = logging.getLogger("apprise")
    logger.addHandler(said)
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    by_channel: dict[str, list[dict[str, Any]]] = {}
    for notice in job["notices"]:
        by_channel.setdefault(str(notice["number"]), []).append(notice)
    with ThreadPoolExecutor(max_workers=max(1, len(by_channel))) as pool:
        for number, notices in by_channel.items():
            pool.submit(_speak, job["channels"][number], notices, said)
    return 0


def _speak(address: str, notices: list[dict[str, Any]], said: _Said) -> None:
    """Tell one channel all it is to hear, in order."""
    import apprise

    mask = SecretMask(address_secrets(address))
    asset = apprise.AppriseAsset(
        app_id="Orchestrator Lab",
        app_desc="Orchestrator Lab",
        default_service_retry=_RETRIES,
        default_service_wait=_WAIT_S,
    )
    for notice in notices:
        said.taken().clear()
        error: str | None = None
        try:
            channel = apprise.Apprise(address, asset=asset)
            if not channel.notify(body=notice["body"], title=notice["title"], notify_type=_kind(notice["level"])):
                error = "; ".join(dict.fromkeys(said.taken())) or "apprise could not tell it"
        except Exception as problem:  # noqa: BLE001 - whatever a plugin raises, the channel did not hear
            error = f"{type(problem).__name__}: {problem}"
        answer = {
            "alert_id": notice["alert_id"],
            "number": notice["number"],
            "error": None if error is None else mask(error)[:500],
        }
        with _PRINTING:
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()


_PRINTING = threading.Lock()


def _kind(level: str) -> Any:  # noqa: ANN401 - apprise's own enumeration
    import apprise

    kinds = {"debug": apprise.NotifyType.INFO, "info": apprise.NotifyType.INFO, "warning": apprise.NotifyType.WARNING}
    return kinds.get(level, apprise.NotifyType.FAILURE)


if __name__ == "__main__":
    sys.exit(main())
