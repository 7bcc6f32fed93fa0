"""Clusters of the real Claude Code on the script gateway."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from claude_helpers import Lab

from orchestrator_lab import Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def start_lab(module_runtime: Path, claude_command: str) -> Iterator[Any]:
    """Start clusters of Claude Code agents; all of them are shut down after the module."""
    running: list[Cluster] = []

    def start(*agents: str | dict[str, Any], script: Any, name: str, **cluster: Any) -> Lab:
        folder = Path(tempfile.mkdtemp(prefix="w"))
        for key in ("work", "runs"):
            if f"{key}_dir" not in cluster:
                (folder / key).mkdir()
                cluster[f"{key}_dir"] = str(folder / key)
        listed = [{"name": agent} if isinstance(agent, str) else agent for agent in agents]
        config = {
            "cluster": {
                "name": name,
                "lifetime": "owner",
                "gateway": {"mode": "script", "script": script},
                "start_timeout_s": 120,
                **cluster,
            },
            "agents": [{"kind": "claude", "command": claude_command, **agent} for agent in listed],
        }
        started = Cluster.start(config)
        running.append(started)
        return Lab(started, module_runtime)

    yield start
    for one in running:
        one.shutdown()
