from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest

from orchestrator_lab.config import (
    ClusterConfig,
    RestartPolicy,
    Thresholds,
    json_schema,
    load_config,
    to_dict,
    to_yaml,
    tool_rule,
)
from orchestrator_lab.errors import ConfigError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config(cluster: dict[str, Any] | None = None, **agent: Any) -> ClusterConfig:
    return load_config(
        {"cluster": {"name": "duo", **(cluster or {})}, "agents": [{"name": "ada", "kind": "chat", **agent}]}
    )


def test_what_an_agent_declares_replaces_what_the_cluster_does() -> None:
    found = config({"restart": "on-failure", "dialogs": "deny", "hang": {"alert_s": 5}}, restart={"policy": "always"})
    ada = found.agent("ada")
    assert found.restart_of(ada).policy == "always"
    assert found.dialogs_of(ada).default == "deny"
    assert found.hang_of(ada).alert_s == 5


def test_nothing_is_restarted_answered_or_limited_unless_it_is_said() -> None:
    found = config()
    assert found.restart == RestartPolicy(policy="never")
    assert (found.dialogs.default, found.dialogs.timeout_s) == ("ask", None)
    assert not found.limits.model_dump(exclude_none=True)
    assert found.alerts.idle_s == Thresholds(warning=300, error=600, critical=900)


@pytest.mark.parametrize(
    ("cluster", "agent", "said"),
    [
        ({"restart": "sometimes"}, {}, "cluster.restart.policy"),
        ({"restart": {"max_restart": 3}}, {}, "max_restarts"),
        ({"hang": {"alert_s": 10, "restart_s": 5}}, {}, "follow each other"),
        ({"dialogs": {"allow": ["Bash(git"]}}, {}, "is not a rule"),
        ({"dialogs": "maybe"}, {}, "cluster.dialogs.default"),
        ({"limits": {"turns": 0}}, {}, "cluster.limits.turns"),
        ({"alerts": {"idle_s": [1, 2]}}, {}, "three figures"),
        ({"alerts": {"restarts": [3, 2, 1]}}, {}, "at least the one before"),
        ({}, {"limits": {"hops": 3}}, "limit of the whole cluster"),
    ],
)
def test_wrong_policies_are_named(cluster: dict[str, Any], agent: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config(cluster, **agent)


def test_round_trips() -> None:
    found = config(
        {
            "restart": "on-failure",
            "dialogs": {"allow": ["Read"], "timeout_s": 3},
            "limits": {"hops": 4},
            "alerts": {"idle_s": None, "restarts": [1, None, 9]},
        },
        hang={"interrupt_s": 400},
        limits={"turns": 3},
    )
    jsonschema.validate(to_dict(found), json_schema())
    Path("again.yaml").write_text(to_yaml(found), encoding="utf-8")
    again = load_config("again.yaml")
    assert again.model_copy(update={"source": None}) == found
    assert ClusterConfig.from_json(found.to_json()) == found


def test_the_environment_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_CLUSTER__RESTART__POLICY", "always")
    monkeypatch.setenv("ORCHESTRATOR_CLUSTER__LIMITS__MESSAGES", "7")
    found = config()
    assert (found.restart.policy, found.limits.messages) == ("always", 7)


def test_rules() -> None:
    assert tool_rule("mcp__lab__send(to: bob (x))") == ("mcp__lab__send", "to: bob (x)")
    assert tool_rule("*").tool == "*"
