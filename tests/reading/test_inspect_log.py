"""The Inspect AI log, read by Inspect AI; without it, a sentence."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator_lab.run import Run, create_run

if TYPE_CHECKING:
    from pathlib import Path

needs_inspect = pytest.mark.skipif(
    importlib.util.find_spec("inspect_ai") is None, reason="pip install 'orchestrator-lab[inspect]'"
)
#: Inspect opens its own files in a process of its own here: what it warns of is its affair, and not ours.
_READ = """
import json, sys
from inspect_ai.analysis import messages_df, samples_df
from inspect_ai.log import read_eval_log
log = read_eval_log(sys.argv[1])
samples, messages = samples_df(sys.argv[1], quiet=True), messages_df(sys.argv[1], quiet=True)
print(json.dumps({
    "status": log.status, "task": log.eval.task, "task_args": log.eval.task_args, "tags": log.eval.tags,
    "usage": {name: usage.model_dump() for name, usage in log.stats.model_usage.items()},
    "samples": samples[["id", "total_tokens"]].astype(str).values.tolist() if len(samples) else [],
    "messages": messages[["message_id", "role", "content"]].astype(str).values.tolist() if len(messages) else [],
    "tools": messages["tool_call_function"].dropna().tolist() if len(messages) else [],
    "metadata": [one.metadata for one in log.samples or []],
    "calls": [call.arguments for one in log.samples or [] for message in one.messages
              for call in getattr(message, "tool_calls", None) or []],
}))
"""


def read(path: Path) -> dict[str, Any]:
    import json

    done = subprocess.run(
        [sys.executable, "-c", _READ, str(path)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def write(run: Path, file: Path, **options: Any) -> None:
    code = (
        "import sys\nfrom orchestrator_lab.run import Run\n"
        f"Run(sys.argv[1]).export_as('inspect', sys.argv[2], **{options!r})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(run), str(file)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr


@needs_inspect
def test_inspect_reads_what_was_said(told: Run, tmp_path: Path) -> None:
    file = tmp_path / "duo.eval"
    write(told.path, file)
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    log = read(file)
    assert (log["status"], log["task"], log["task_args"], log["tags"]) == ("success", "e", {"n": 1}, ["t"])
    usage = log["usage"]["claude-x"]
    assert (usage["input_tokens"], usage["input_tokens_cache_read"]) == (120, 180)
    assert (usage["output_tokens"], usage["total_tokens"]) == (21, 321)
    assert log["samples"] == [["boss", "214"], ["worker", "107"]]
    by_id = {identity: (role, content) for identity, role, content in log["messages"]}
    assert by_id["msg_1"][0] == "user"
    assert by_id["msg_1"][1] == told.messages["content"][0]
    assert by_id["trn_1"] == ("assistant", told.turns["reply"][0])
    assert by_id["msg_2"] == ("user", "What is seven times six?")
    assert by_id["trn_2"] == ("assistant", "42")
    assert log["tools"] == ["Bash"]
    assert log["calls"] == [{"command": "ls <b>"}]
    (boss, worker) = log["metadata"]
    assert boss["kind"] == "claude"
    assert [one["message_id"] for one in worker["unanswered"]] == ["msg_4"]


@needs_inspect
def test_one_agent_and_an_empty_run(told: Run, tmp_path: Path) -> None:
    write(told.path, tmp_path / "one.eval", agent="worker")
    assert [row[0] for row in read(tmp_path / "one.eval")["samples"]] == ["worker"]
    empty = create_run(tmp_path / "runs", config={}, name="duo")
    write(empty, tmp_path / "empty.eval")
    log = read(tmp_path / "empty.eval")
    assert (log["status"], log["samples"]) == ("started", [])


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
