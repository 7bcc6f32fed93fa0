"""What the real programs ask before they take input: named, waited at, answered by label, never confirmed blindly."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator_lab import Cluster
from orchestrator_lab.frames import dialogs_df

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.claude, pytest.mark.codex, pytest.mark.timeout(240)]

#: The key that the lab gives to agents of a keyless gateway.
KEY = "sk-ant-orchestrator-lab-script-gateway-0000000000"


def until(what: Callable[[], Any], cluster: Cluster, seconds: float = 30.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, f"did not happen; the screens show:\n{cluster.screens()}"
        time.sleep(0.05)
    return found


@pytest.fixture(scope="module")
def cluster(module_runtime: Path, claude_command: str, codex_command: str) -> Iterator[Cluster]:  # noqa: ARG001
    place = Path(tempfile.mkdtemp(prefix="w"))
    for name in ("work", "codex", "home", "key", "bypass"):
        (place / name).mkdir()
    trusted = {str((place / "work").resolve()): {"hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True}}
    user = {"theme": "dark", "hasCompletedOnboarding": True, "projects": trusted}
    approved = {"customApiKeyResponses": {"approved": [KEY[-20:]], "rejected": []}}
    (place / "key" / ".claude.json").write_text(json.dumps(user))
    (place / "bypass" / ".claude.json").write_text(json.dumps({**user, **approved}))

    def claude(name: str, **more: Any) -> dict[str, Any]:
        env = {"CLAUDE_CONFIG_DIR": str(place / name), "IS_SANDBOX": "1"}
        return {"name": name, "kind": "claude", "command": claude_command, "config": "inherit", "env": env, **more}

    codex = {
        "name": "login",
        "kind": "codex",
        "command": codex_command,
        "config": "inherit",
        "gateway": {"mode": "none"},
        "env": {"CODEX_HOME": str(place / "codex"), "HOME": str(place / "home")},
    }
    facts = {
        "name": "begun",
        "lifetime": "owner",
        "work_dir": str(place / "work"),
        "runs_dir": str(place / "runs"),
        "start_timeout_s": 120,
        "gateway": {"mode": "script", "script": [{"reply": "here"}]},
    }
    agents = [claude("key"), claude("bypass", permission_mode="bypassPermissions"), codex]
    with Cluster.start({"cluster": facts, "agents": agents}) as started:
        yield started


@pytest.mark.parametrize(
    ("name", "kind", "subject"),
    [
        ("key", "choice", "API key found in the environment"),
        ("bypass", "choice", "bypass permissions mode"),
        ("login", "login", "login"),
    ],
)
def test_they_are_named(cluster: Cluster, name: str, kind: str, subject: str) -> None:
    agent = cluster[name]
    assert agent.state == "waiting"
    dialog = agent.dialog
    assert dialog is not None
    assert (dialog.kind, dialog.subject) == (kind, subject)
    assert len(dialog.options) >= 2
    explained = agent.explain()
    assert (explained["decision"], explained["source"]) == ("dialog", "screen")
    assert kind in [one["means"] for one in explained["screen"]["matched"]]


@pytest.mark.parametrize(("name", "label"), [("key", "Yes"), ("bypass", "Yes, I accept")])
def test_the_accepting_option_is_found_by_its_label(cluster: Cluster, name: str, label: str) -> None:
    """Claude Code preselects the refusing one; a bare Enter would end the program or lose the key."""
    agent = cluster[name]
    dialog = agent.dialog
    assert dialog is not None
    held = agent.send("are you there?")
    assert dialog.answer(label) == label
    assert held.result(60) == "here"
    row = dialogs_df(cluster.run, agents=name).iloc[0]
    assert (row["kind"], row["answered_by"], row["decision"]) == ("choice", "human", label)
    until(lambda: agent.state == "idle", cluster)
