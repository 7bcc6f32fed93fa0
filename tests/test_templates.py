from __future__ import annotations

import re
from typing import TYPE_CHECKING

import jsonschema
import pytest
import yaml

from orchestrator_lab.config import (
    instructions_text,
    json_schema,
    load_config,
    template_files,
    template_names,
    template_text,
)
from orchestrator_lab.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ["boss-manager-specialists", "demo", "duo", "round-table"]


def test_the_templates_that_ship() -> None:
    assert template_names() == NAMES


@pytest.mark.parametrize("kind", [None, "claude", "codex", "chat"])
@pytest.mark.parametrize("name", NAMES)
def test_what_init_writes_is_a_valid_configuration(
    name: str, kind: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = template_files(name, kind)
    assert next(iter(files)) == "cluster.yaml"
    for path, text in files.items():
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    config = load_config()
    assert config.source == tmp_path / "cluster.yaml"
    assert config.notes == []
    if kind is not None:
        assert {agent.kind for agent in config.agents} == {kind}
    jsonschema.validate(yaml.safe_load(files["cluster.yaml"]), json_schema())
    used = {path for path in files if path != "cluster.yaml"}
    assert used == {
        agent.instructions_file.relative_to(tmp_path).as_posix()
        for agent in config.agents
        if agent.instructions_file is not None
    }
    chats = [agent for agent in config.agents if agent.kind == "chat"]
    for agent in chats:
        assert config.gateway_of(agent).mode == "local"
    for a in config.names:
        for b in config.names:
            if a != b and config.topology.allows(a, b):
                assert config.topology.replies(a, b) == ("forward" if chats else "tool")


@pytest.mark.parametrize("name", NAMES)
def test_each_agent_has_a_personality_of_its_own(name: str, tmp_path: Path) -> None:
    config = load_config(f"template:{name}", base_dir=tmp_path)
    assert config.work_dir == tmp_path
    texts = [instructions_text(agent, config) or "" for agent in config.agents]
    # A very small model does best with one plain sentence.
    assert all(len(text) > (30 if name == "demo" else 60) for text in texts)
    assert len(set(texts)) == len(texts)
    assert all(agent.role for agent in config.agents)
    if name == "demo":
        return
    for agent, text in zip(config.agents, texts, strict=True):
        assert f'"{agent.name}"' in text
        assert "send_message" in text or "broadcast" in text
        assert re.search(r"[Ee]nd\s+your\s+turn", text)
        # nobody is told to write to somebody whom the topology forbids
        for other in re.findall(r'to[:=] ?"(\w+)"', text):
            assert config.topology.allows(agent.name, other)


def test_the_company_is_wired_as_its_drawing() -> None:
    config = load_config("template:boss-manager-specialists")
    assert config.names == ["boss", "manager", "coder", "researcher", "tester"]
    allowed = {(a, b) for a in config.names for b in config.names if config.topology.allows(a, b)}
    down = {("boss", "manager")} | {("manager", x) for x in ("coder", "researcher", "tester")}
    assert allowed == down | {(b, a) for a, b in down}


def test_the_commented_lines_are_there_for_newcomers() -> None:
    for name in ("duo", "round-table", "boss-manager-specialists"):
        text = template_text(name)
        assert "# gateway: {mode: local}" in text
        assert "`kind: chat`" in text
        assert "orchestrator-lab start" in text


def test_unknown_templates_and_kinds() -> None:
    with pytest.raises(ConfigError, match="unknown template 'du'; did you mean 'duo'"):
        template_text("du")
    with pytest.raises(ConfigError, match=r"unknown template '\.\./x'; templates: boss-manager"):
        load_config("template:../x")
    with pytest.raises(ConfigError, match="cannot be written for kind 'program'"):
        template_text("duo", "program")


def test_another_kind_changes_edges_and_leaves_what_explains_them() -> None:
    text = template_text("duo", "chat")
    assert "both: true, replies: forward}" in text
    assert "# replies: tool        the recipient answers by writing back" in text
