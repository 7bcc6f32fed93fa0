"""Figures of all clusters for Prometheus, under the server's token."""

from __future__ import annotations

import asyncio
from typing import Any

from jupyter_server.auth.decorator import authorized
from tornado import web

from orchestrator_lab.errors import OrchestratorLabError
from orchestrator_lab.metrics import render
from orchestrator_lab.server.handlers import LabHandler

__all__ = ["ScrapeHandler"]

#: Seconds for the answer of one cluster: a scraper gives up after ten.
_ANSWER_S = 8.0


class ScrapeHandler(LabHandler):
    """Answers a scraper."""

    # A scraper that comes each minute is nobody at work: it must not keep an idle server alive.
    _track_activity = False

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """Return the figures of every cluster that answers."""
        names = [one["name"] for one in await self.clusters.call(None, self.clusters.listed)]
        found = await asyncio.gather(*(self._figures(name) for name in names))
        text = await self.clusters.call(None, lambda: render([one for one in found if one is not None]))
        self.finish(text, set_content_type="text/plain; version=0.0.4; charset=utf-8")

    async def _figures(self, name: str) -> dict[str, Any] | None:
        try:
            return await asyncio.wait_for(
                self.clusters.call(name, lambda: self.clusters.get(name).figures()), timeout=_ANSWER_S
            )
        except (OrchestratorLabError, TimeoutError) as error:
            # What is not known is left out: a scraper alerts on what is absent.
            self.log.warning("cluster %s gave no figures: %s", name, error)
            return None
