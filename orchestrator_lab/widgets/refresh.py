"""Does something about panes that change: once in a while at most, and once more behind the last change."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Refresher"]

logger = logging.getLogger(__name__)


class Refresher:
    """Gathers changes and hands them on, on a thread of its own that begins with the first one.

    Parameters
    ----------
    refresh : callable
        Takes the agents whose panes have changed since it was called last.
    period_s : float
        Seconds in which changes are gathered.
    """

    def __init__(self, refresh: Callable[[frozenset[str]], None], *, period_s: float) -> None:
        self._refresh, self._period_s = refresh, period_s
        self._news = threading.Condition()
        self._changed: frozenset[str] = frozenset()
        self._thread: threading.Thread | None = None
        self._closed = False

    def changed(self, agents: frozenset[str]) -> None:
        """Take in whose panes have changed, from any thread."""
        with self._news:
            if self._closed:
                return
            self._changed |= agents
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="orchestrator-lab-still", daemon=True)
                self._thread.start()
            self._news.notify()

    def close(self) -> None:
        """Hand on nothing more."""
        with self._news:
            self._closed = True
            self._news.notify()

    def _run(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._changed or self._closed)
                self._news.wait_for(lambda: self._closed, self._period_s)
                if self._closed:
                    return
                changed, self._changed = self._changed, frozenset()
            try:
                self._refresh(changed)
            except Exception:
                logger.exception("the stills of a view could not be refreshed")
