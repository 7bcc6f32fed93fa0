"""Reports to the lab: one at a time, each answered before the next thing happens."""

from __future__ import annotations

import http.client
import json
import os
from typing import Any
from urllib.parse import urlsplit

__all__ = ["Lab", "LabGoneError"]


class LabGoneError(Exception):
    """Nobody hears what is reported: the cluster has ended."""


class Lab:
    """Whom a replayed agent reports to.

    Parameters
    ----------
    url : str
        Base of the loopback application.
    token : str
        The agent's secret.
    """

    def __init__(self, url: str, token: str) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port)
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    @classmethod
    def from_environment(cls) -> Lab | None:
        """Return the lab that has started this program, None when nobody has."""
        url, token = (os.environ.get(f"ORCHESTRATOR_LAB_AGENT_{name}") for name in ("URL", "TOKEN"))
        return cls(url, token) if url and token else None

    def report(self, step: dict[str, Any]) -> dict[str, Any]:
        """Report a step; return what the lab answers, once it is the step's turn.

        Raises
        ------
        LabGoneError
            When there is no answer.
        """
        body = json.dumps({"hook_event_name": "Recorded", **step}).encode()
        try:
            self._connection.request("POST", "/hooks", body, self._headers)
            response = self._connection.getresponse()
            answer = response.read()
            # A player may rest for minutes, and a connection that nobody uses is closed under it.
            self._connection.close()
        except (OSError, http.client.HTTPException) as error:
            raise LabGoneError(str(error)) from error
        if response.status != 200:
            raise LabGoneError(f"HTTP {response.status}")
        found = json.loads(answer or b"{}")
        return found if isinstance(found, dict) else {}
