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
        ({"privacy": {"patterns": {"ticket": "("}}}, {}, "is no regular expression"),
        ({"privacy": {"word": ["x"]}}, {}, "did you mean 'words'"),
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
            "privacy": {"words": ["Falcon"], "patterns": {"ticket": "A-(?P<hide>[0-9]+)"}, "keep": ["*@example.org"]},
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


PRICES = """cluster:
  name: duo
  prices:
    large-*: {input: 5, output: 25, cache_read: 0.5}
    small.1:
      input: %s
      output: 4
agents:
  - {name: ada, kind: chat}
"""


def test_prices_are_kept_as_they_are_given(folder: Path) -> None:
    (folder / "cluster.yaml").write_text(PRICES % "0")
    found = load_config(folder)
    price = found.prices["large-*"]
    assert (price.input, price.output, price.cache_read, price.cache_creation) == (5, 25, 0.5, None)
    assert ClusterConfig.from_json(found.to_json()) == found
    shown = to_dict(found)
    assert shown["cluster"]["prices"]["large-*"] == {"input": 5.0, "output": 25.0, "cache_read": 0.5}
    assert load_config(shown).prices == found.prices
    jsonschema.validate(shown, json_schema())
    assert "prices" not in to_dict(config())["cluster"]


@pytest.mark.parametrize("wrong", ["-1", ".inf", ".nan", "yes", "'3'", "1.0e+300"])
def test_a_wrong_price_is_named_with_its_line(folder: Path, wrong: str) -> None:
    (folder / "cluster.yaml").write_text(PRICES % wrong)
    with pytest.raises(ConfigError, match=r"cluster.yaml, line 6: cluster\.prices\.small\.1\.input: "):
        load_config(folder)


@pytest.mark.parametrize(
    ("prices", "said"),
    [
        ({"m": {"input": 1}}, "cluster.prices.m: the key 'output' is missing"),
        ({"limits": {"input": 1, "output": 1, "cache_reads": 1}}, "did you mean 'cache_read'?"),
        ({"m": 3}, "cluster.prices.m: a mapping of keys is expected (found 3)"),
        ([3], "cluster.prices: a mapping of keys is expected"),
        ({" m": {"input": 1, "output": 1}}, "cluster.prices: ' m' is no model; write its name or a pattern"),
        ({"": {"input": 1, "output": 1}}, "'' is no model"),
    ],
)
def test_wrong_prices(prices: Any, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config({"prices": prices})
    assert said in str(caught.value)
