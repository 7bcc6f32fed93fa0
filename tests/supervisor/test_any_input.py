"""Anything at all through the API and the hooks of a living cluster: the recipient says what came out."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from care_helpers import until
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lab_helpers import address, bearer

from orchestrator_lab import Cluster
from orchestrator_lab.errors import MessageRefused
from orchestrator_lab.tmux import sanitize

if TYPE_CHECKING:
    from collections.abc import Iterator

FAKE = Path(__file__).resolve().parent.parent / "fake_agent" / "fake_agent.py"

NASTY = st.sampled_from(
    [
        *("\x1b[201~", "\x1b[200~", "\x9b201~", "\x1b]0;t\x07", "\r", "\r\n", "\n", "\t", "\0", "\x03"),
        "\ud800",
        "\udfff",
    ]
)
BODIES = st.lists(NASTY | st.text(max_size=10) | st.text(st.characters(exclude_categories=()), max_size=5), max_size=9)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
HOOKS = [
    *("SessionStart", "UserPromptSubmit", "MessageDisplay", "PreToolUse", "PostToolUse", "Stop", "StopFailure"),
    *("Notification", "SessionEnd", "PermissionRequest", "SubagentStop"),
]
FIELDS = [
    *("session_id", "transcript_path", "model", "prompt_id", "hook_id", "tool_name", "last_assistant_message", "error"),
    *("error_type", "usage", "reason", "notification_type", "kind", "subject", "options", "message", "source"),
]
#: A prompt that is a text begins a turn, as it should: all others must not.
PAYLOADS = st.builds(
    lambda fields, name, prompt: {**fields, **({"prompt": prompt} if prompt is not None else {}), **name},
    st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=6),
    st.fixed_dictionaries({"hook_event_name": st.sampled_from(HOOKS) | JSON}),
    st.none() | st.booleans() | st.integers() | st.lists(st.text(max_size=3), max_size=2),
)


class Lab:
    """A cluster with one agent, and its truth."""

    def __init__(self, cluster: Cluster, log: Path) -> None:
        self.cluster, self._log, self._read = cluster, log, 0

    def truth(self) -> list[dict[str, Any]]:
        """Return what the agent noted since the last call."""
        lines = self._log.read_bytes().split(b"\n")[:-1]
        new, self._read = lines[self._read :], len(lines)
        return [json.loads(line) for line in new]


@pytest.fixture(scope="module")
def lab(module_runtime: Path, script_config: Any) -> Iterator[Lab]:  # noqa: ARG001 - its place
    log = Path(tempfile.mkdtemp(prefix="a")) / "truth.jsonl"
    command = [sys.executable, "-S", "-E", str(FAKE), "--log", str(log)]
    with Cluster.start(script_config(agents={"ada": {"command": command}})) as cluster:
        yield Lab(cluster, log)


def test_any_text_comes_in_whole_and_nothing_else(lab: Lab) -> None:
    number = 0

    @settings(max_examples=40)
    @given(BODIES)
    @example(["\x1b[201~", "\ud800", "\udfff"])
    def each(pieces: list[str]) -> None:
        nonlocal number
        number += 1
        lab.truth()
        text = json.loads(json.dumps("".join(pieces)))  # two halves side by side are one character in JSON
        clean = sanitize(text)[0]
        identity = f"msg_any{number}"
        body = {"to": "ada", "text": text, "message_ids": [identity]}
        if not clean.strip():
            with pytest.raises(MessageRefused):
                lab.cluster.client.post("/messages", body)
            return
        facts = lab.cluster.client.post("/messages", body)["messages"][0]
        assert facts["content"] == clean
        facts = lab.cluster.client.get(f"/messages/{identity}", timeout_s=20, until="final")
        assert facts["status"] == "answered", facts
        noted = lab.truth()
        assert [one["prompt"] for one in noted if one["event"] == "submitted"] == [clean]
        assert [one["text"] for one in noted if one["event"] == "paste"] == [clean]
        keys = b"".join(bytes.fromhex(one["hex"]) for one in noted if one["event"] == "keys")
        assert keys == b"\r"

    each()


def test_any_report_is_borne_and_invents_nothing(lab: Lab) -> None:
    before = len(lab.cluster.run.messages), len(lab.cluster.run.turns)
    url, head = f"{address(lab.cluster)}/hooks", bearer(lab.cluster, "ada")

    with httpx.Client(headers=head, timeout=20) as client:

        @settings(max_examples=150)
        @given(PAYLOADS)
        def each(payload: dict[str, Any]) -> None:
            answer = client.post(url, content=json.dumps(payload))
            assert answer.status_code == 200, (payload, answer.text)

        each()
        for payload in (
            {"hook_event_name": "Notification", "notification_type": "dialog_closed"},
            {"hook_event_name": "SessionStart", "session_id": "s", "transcript_path": "/nonexistent"},
        ):
            client.post(url, json=payload)
    assert (len(lab.cluster.run.messages), len(lab.cluster.run.turns)) == before
    assert lab.cluster["ada"].ask("still there?", timeout=20).reply


def test_a_report_that_outlives_its_program_leaves_no_turn_open(lab: Lab) -> None:
    """Killed between a report and its reader: the report is true, and nothing more will come."""
    ada = lab.cluster["ada"]
    [agent] = lab.cluster.status()["agents"]
    os.kill(agent["pid"], signal.SIGKILL)
    until(lambda: ada.state in {"exited", "failed"})
    late = {"hook_event_name": "UserPromptSubmit", "prompt": "the last words", "prompt_id": "p-late"}
    url, head = f"{address(lab.cluster)}/hooks", bearer(lab.cluster, "ada")
    httpx.post(url, headers=head, json=late, timeout=20)
    turn = lab.cluster.run.turns.iloc[-1]
    assert turn["end_reason"] == "exited"
    ada.restart()
    assert ada.ask("and now?", timeout=20).reply
