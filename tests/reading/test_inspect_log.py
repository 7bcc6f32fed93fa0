"""The Inspect AI log, read by Inspect AI; without it, a sentence."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from orchestrator_lab.beginning import create_run

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator_lab.run import Run

needs_inspect = pytest.mark.skipif(
    importlib.util.find_spec("inspect_ai") is None, reason="pip install 'orchestrator-lab[inspect]'"
)
#: In a process of its own: what Inspect warns of while it loads is not ours to judge. In one, since that takes time.
_CODE = """
import json, sys
from pathlib import Path
from orchestrator_lab.run import Run
told, empty, folder = sys.argv[1:]
Run(told).export_as("inspect", Path(folder) / "duo.eval")
Run(told).export_as("inspect", Path(folder) / "one.eval", agent="worker")
Run(empty).export_as("inspect", Path(folder) / "empty.eval")

from inspect_ai.analysis import messages_df, samples_df
from inspect_ai.log import read_eval_log

def read(name):
    path = str(Path(folder) / name)
    log = read_eval_log(path)
    samples, messages = samples_df(path, quiet=True), messages_df(path, quiet=True)
    return {
        "status": log.status, "task": log.eval.task, "task_args": log.eval.task_args, "tags": log.eval.tags,
        "usage": {name: usage.model_dump() for name, usage in log.stats.model_usage.items()},
        "samples": samples[["id", "total_tokens"]].astype(str).values.tolist() if len(samples) else [],
        "messages": messages[["message_id", "role", "content"]].astype(str).values.tolist() if len(messages) else [],
        "tools": messages["tool_call_function"].dropna().tolist() if len(messages) else [],
        "metadata": [one.metadata for one in log.samples or []],
        "calls": [call.arguments for one in log.samples or [] for message in one.messages
                  for call in getattr(message, "tool_calls", None) or []],
    }

print(json.dumps([read(name) for name in ("duo.eval", "one.eval", "empty.eval")]))
"""


@needs_inspect
def test_inspect_reads_what_was_said(told: Run, tmp_path: Path) -> None:
    empty = create_run(tmp_path / "runs", config={}, name="duo")
    logs = tmp_path / "logs"
    done = subprocess.run(
        [sys.executable, "-c", _CODE, str(told.path), str(empty), str(logs)],
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    log, one, nothing = json.loads(done.stdout.splitlines()[-1])
    assert sorted(path.name for path in logs.iterdir()) == ["duo.eval", "empty.eval", "one.eval"]
    assert (log["status"], log["task"], log["task_args"], log["tags"]) == ("success", "e", {"n": 1}, ["t"])
    usage = log["usage"]["claude-x"]
    assert (usage["input_tokens"], usage["input_tokens_cache_read"]) == (120, 180)
    assert (usage["output_tokens"], usage["total_tokens"]) == (21, 321)
    assert log["samples"] == [["boss", "214"], ["worker", "107"]]
    by_id = {identity: (role, content) for identity, role, content in log["messages"]}
    assert by_id["msg_1"] == ("user", told.messages["content"][0])
    assert by_id["trn_1"] == ("assistant", told.turns["reply"][0])
    assert by_id["msg_2"] == ("user", "What is seven times six?")
    assert by_id["trn_2"] == ("assistant", "42")
    assert log["tools"] == ["Bash"]
    assert log["calls"] == [{"command": "ls <b>"}]
    (boss, worker) = log["metadata"]
    assert boss["kind"] == "claude"
    assert [message["message_id"] for message in worker["unanswered"]] == ["msg_4"]
    assert [row[0] for row in one["samples"]] == ["worker"]
    assert (nothing["status"], nothing["samples"]) == ("started", [])


def test_without_inspect_a_sentence_says_what_to_install(told: Run, tmp_path: Path) -> None:
    code = (
        "import sys\nsys.modules['inspect_ai'] = None\nfrom orchestrator_lab.errors import EnvironmentProblem\n"
        "from orchestrator_lab.run import Run\n"
        "try:\n    Run(sys.argv[1]).export_as('inspect', sys.argv[2])\n"
        "except EnvironmentProblem as error:\n    print(error.message)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(told.path), str(tmp_path / "a.eval")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "pip install 'orchestrator-lab[inspect]'" in done.stdout
    assert list(tmp_path.iterdir()) == []
