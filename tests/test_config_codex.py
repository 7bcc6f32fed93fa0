from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from orchestrator_lab.config import KINDS, ClusterConfig, CodexAgent, load_config
from orchestrator_lab.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


def load(tmp_path: Path, *, cluster: dict[str, Any] | None = None, **agent: Any) -> ClusterConfig:
    document = {"cluster": {"name": "lab", **(cluster or {})}, "agents": [{"name": "ada", "kind": "codex", **agent}]}
    return load_config(document, base_dir=tmp_path)


def test_codex_is_a_kind_with_defaults(tmp_path: Path) -> None:
    assert "codex" in KINDS
    agent = load(tmp_path).agent("ada")
    assert isinstance(agent, CodexAgent)
    assert (agent.command, agent.args, agent.mcp, agent.config) == (["codex"], [], True, "inherit")
    assert agent.permission_mode is None


def test_whether_config_was_said_survives_a_round_trip(tmp_path: Path) -> None:
    for said in ({}, {"config": "inherit"}, {"config": "isolated"}):
        config = load(tmp_path, **said)
        again = ClusterConfig.from_json(config.to_json())
        assert ("config" in again.agent("ada").model_fields_set) == bool(said)
        assert again.agent("ada") == config.agent("ada")


def test_its_gateway_speaks_openais_api(tmp_path: Path) -> None:
    config = load(tmp_path, cluster={"gateway": {"mode": "upstream"}})
    assert config.gateway.api == "anthropic"
    assert config.gateway_of(config.agent("ada")).api == "openai"


@pytest.mark.parametrize("mode", ["ask", "readOnly", "dontAsk", "bypassPermissions"])
def test_permission_modes(tmp_path: Path, mode: str) -> None:
    config = load(tmp_path, permission_mode=mode)
    assert config.agent("ada").permission_mode == mode


def test_what_only_claude_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="permission_mode"):
        load(tmp_path, permission_mode="plan")
    with pytest.raises(ConfigError, match="allowed_tools"):
        load(tmp_path, allowed_tools=["Bash"])


@pytest.mark.parametrize(
    "said",
    [{"permission_mode": "bypassPermissions"}, {"args": ["--dangerously-bypass-approvals-and-sandbox"]}],
)
def test_acting_without_asking_is_noted(tmp_path: Path, said: dict[str, Any]) -> None:
    place = tmp_path / "cluster.yaml"
    key, value = next(iter(said.items()))
    place.write_text(f"cluster: {{name: lab}}\nagents:\n  - {{name: ada, kind: codex, {key}: {value}}}\n")
    assert any("acts without asking" in note for note in load_config(place).notes)
