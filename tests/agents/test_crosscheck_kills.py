"""Turns over which a supervisor is killed, compared with what the gateway saw before and after."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from orchestrator_lab import Cluster, events_df, turns_df
from orchestrator_lab.runtime import read_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.claude, pytest.mark.codex, pytest.mark.timeout(240)]

WAIT = "while [ ! -e {place}/{agent}.go ]; do sleep 0.1; done; echo went on"


@pytest.fixture
def lab(runtime: Path, tmp_path: Path, claude_command: str, codex_command: str) -> Iterator[Cluster]:
    assert runtime.is_dir()
    for name in ("w", "runs"):
        (tmp_path / name).mkdir()

    def wait(agent: str, tool: str, key: str) -> dict[str, Any]:
        command = WAIT.format(place=tmp_path, agent=agent)
        return {"when": {"agent": agent, "contains": "wait"}, "tool": {"name": tool, "input": {key: command}}}

    script = [
        wait("clara", "Bash", "command"),
        wait("cody", "exec_command", "cmd"),
        {"when": {"tool_result": True}, "reply": "I saw it."},
        {"reply": "{agent}: {text}"},
    ]
    config = {
        "cluster": {
            "name": "killed",
            "lifetime": "owner",
            "work_dir": str(tmp_path / "w"),
            "runs_dir": str(tmp_path / "runs"),
            "gateway": {"mode": "script", "script": script},
            "start_timeout_s": 120,
            "dialogs": "allow",
        },
        "agents": [
            {"name": "clara", "kind": "claude", "command": claude_command},
            {"name": "cody", "kind": "codex", "command": codex_command},
        ],
    }
    with Cluster.start(config) as cluster:
        yield cluster


def until(true: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def replace_supervisor(cluster: Cluster, edit: Callable[[], None]) -> None:
    """Kill the supervisor with -9, and change the journal before the keeper starts the next one."""
    record = read_record(cluster.client.folder)
    assert record is not None
    assert record.keeper_pid is not None
    assert record.supervisor_pid is not None
    old = psutil.Process(record.supervisor_pid)
    os.kill(record.keeper_pid, signal.SIGSTOP)
    try:
        old.kill()
        until(lambda: not old.is_running() or old.status() == psutil.STATUS_ZOMBIE)
        edit()
    finally:
        os.kill(record.keeper_pid, signal.SIGCONT)


def test_turns_that_began_under_a_supervisor_that_was_killed_are_compared(lab: Cluster, tmp_path: Path) -> None:
    journal = lab.run_dir / "journal.jsonl"
    disagreements = {}
    for number, tampered in enumerate((False, True)):
        for name in ("clara", "cody"):
            (tmp_path / f"{name}.go").unlink(missing_ok=True)
        asked = {name: lab[name].send(f"wait {number}") for name in ("clara", "cody")}
        turns = 2 * (number + 1)

        def called(turns: int = turns) -> bool:
            events = events_df(lab.run_dir)
            answers = events[(events["event"] == "gateway.response") & events["agent"].isin(["clara", "cody"])]
            tools = sum("Bash" in one or "exec_command" in one for one in events["attributes"])
            return tools >= turns and len(answers) >= turns

        until(called)

        def edit(*, tampered: bool = tampered) -> None:
            if not tampered:
                return
            # Seven tokens more in the last answer that each got from the supervisor that is dead now.
            lines = journal.read_bytes().splitlines(keepends=True)
            for name in ("clara", "cody"):
                place = max(
                    at
                    for at, line in enumerate(lines)
                    if b'"gateway.response"' in line and json.loads(line).get("agent") == name
                    and json.loads(line)["attributes"].get("output_tokens")
                )  # fmt: skip
                more = json.loads(lines[place])["attributes"]["output_tokens"] + 7
                lines[place] = re.sub(rb'"output_tokens":\d+', b'"output_tokens":%d' % more, lines[place])
            journal.write_bytes(b"".join(lines))

        replace_supervisor(lab, edit)
        for name in ("clara", "cody"):
            (tmp_path / f"{name}.go").touch()
        for exchange in asked.values():
            assert exchange.result(60) == "I saw it."
        lab.wait(timeout=30)
        until(lambda turns=turns: turns_df(lab)["output_tokens"].notna().sum() == turns)  # type: ignore[misc]
        events = events_df(lab)
        told = events[events["event"] == "record.disagrees"]
        disagreements[tampered] = [
            (agent, json.loads(facts)["differences"])
            for agent, facts in zip(told["agent"], told["attributes"], strict=True)
        ]
    assert disagreements[False] == []
    found = dict(disagreements[True])
    assert sorted(found) == ["clara", "cody"]
    for facts in found.values():
        assert list(facts) == ["output_tokens"]
        assert facts["output_tokens"]["gateway"] == facts["output_tokens"]["transcript"] + 7


def test_tokens_of_a_turn_that_ended_just_before_the_kill_are_read_by_the_next_supervisor(lab: Cluster) -> None:
    journal = lab.run_dir / "journal.jsonl"
    asked = [lab[name].send("hello") for name in ("clara", "cody")]
    size = journal.stat().st_size
    deadline = time.monotonic() + 60
    with journal.open("rb") as file:
        file.seek(size)
        told = file.read()
        while b'"event":"turn.ended"' not in told:
            assert time.monotonic() < deadline
            told += file.read()
            time.sleep(0.001)
    replace_supervisor(lab, lambda: None)
    for exchange in asked:
        exchange.result(60)
    until(lambda: turns_df(lab)["output_tokens"].notna().sum() == 2)
    lab.wait(timeout=30)
    turns = turns_df(lab)
    assert turns["reply"].tolist() in (["clara: hello", "cody: hello"], ["cody: hello", "clara: hello"])
    events = events_df(lab)["event"]
    assert (events == "turn.usage").sum() == 2
    assert "record.disagrees" not in events.tolist()
