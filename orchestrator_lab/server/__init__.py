"""The Jupyter Server extension: dashboard page, REST, websocket."""

from __future__ import annotations

from typing import Any

__all__: list[str] = []


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    """Tell Jupyter Server what to load."""
    from orchestrator_lab.server.app import OrchestratorLab

    return [{"module": "orchestrator_lab.server", "app": OrchestratorLab}]
