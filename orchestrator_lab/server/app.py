"""The Jupyter Server extension: the one door for browsers, under Jupyter's own login, XSRF, TLS and origin checks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jupyter_server.extension.application import ExtensionApp
from traitlets import Int

from orchestrator_lab.server.clusters import Clusters
from orchestrator_lab.server.handlers import NothingHandler, api_handlers
from orchestrator_lab.server.page import FileHandler, PageHandler
from orchestrator_lab.server.routes import API
from orchestrator_lab.server.scrape import ScrapeHandler
from orchestrator_lab.server.socket import Socket
from orchestrator_lab.server.watching import ClusterWatch

__all__ = ["OrchestratorLab"]


class OrchestratorLab(ExtensionApp):
    """Clusters of command-line agents, in the browser."""

    name = "orchestrator_lab"
    extension_url = "/orchestrator-lab/"
    default_url = "/orchestrator-lab/"
    #: Started by itself it serves this page, and no notebooks.
    load_other_extensions = False

    max_body_bytes = Int(
        10 * 1024 * 1024, min=1024, help="The longest body of a request to the API, in bytes; longer ones get 413."
    ).tag(config=True)

    def initialize_settings(self) -> None:
        """Make what the handlers share."""
        assert self.serverapp is not None  # noqa: S101 - Jupyter's own order
        clusters = Clusters()
        self.settings.update(
            orchestrator_lab_clusters=clusters,
            orchestrator_lab_watch=ClusterWatch(clusters),
            orchestrator_lab_root=Path(self.serverapp.root_dir),
        )

    def initialize_handlers(self) -> None:
        """Add the routes; the last one answers for all that is not there."""
        handlers: list[tuple[Any, ...]] = [
            *api_handlers(),
            (f"{API}ws", Socket, {}),
            ("/orchestrator-lab/metrics", ScrapeHandler, {}),
            ("/orchestrator-lab/?", PageHandler, {}),
            ("/orchestrator-lab/static/(.*)", FileHandler, {}),
            (f"{API}.*", NothingHandler, {}),
        ]
        self.handlers.extend(handlers)

    async def stop_extension(self) -> None:
        """Close the terminals at panes and start no more calls; clusters go on."""
        self.settings["orchestrator_lab_watch"].close()
        clusters: Clusters = self.settings["orchestrator_lab_clusters"]
        assert self.serverapp is not None  # noqa: S101 - Jupyter's own order
        manager = self.serverapp.web_app.settings.get("terminal_manager")
        if manager is not None:
            await clusters.terminals.close(manager)
        clusters.close()
