"""A failed request, an interrupt and a compaction, as the pinned Claude Code records them, read as an import."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator_lab import events_df, messages_df, turns_df
from orchestrator_lab.errors import TurnFailed
from orchestrator_lab.frames import runs_df

if TYPE_CHECKING:
    from claude_helpers import Lab

pytestmark = [pytest.mark.claude, pytest.mark.timeout(240)]

SCRIPT = [
    {"when": {"purpose": "compact"}, "reply": "They said hello, and a request failed."},
    {
        "when": {"contains": "fail"},
        "error": {"status": 400, "type": "invalid_request_error", "message": "Not like that.", "retry": False},
    },
    {"when": {"contains": "for ever"}, "reply": "so on\n\n" * 2000, "tokens_per_s": 20},
    {"reply": "{agent}: {text}"},
]
PRICES = {"script": {"input": 1, "output": 10}}


def test_what_goes_wrong_in_a_session_of_the_real_program(start_lab: Any) -> None:
    lab: Lab = start_lab("carl", script=SCRIPT, name="wrong", prices=PRICES)
    carl = lab.cluster["carl"]
    assert carl.ask("hello", timeout=60).reply == "carl: hello"
    with pytest.raises(TurnFailed, match="Not like that"):
        carl.ask("fail", timeout=60)
    endless = carl.send("go on for ever").accepted(60)
    lab.shows("carl", "so on")  # before any output, Claude Code takes a prompt back and records none
    carl.interrupt()
    with pytest.raises(TurnFailed):
        endless.result(60)
    lab.types("carl", "/compact")
    lab.shows("carl", "/compact")
    lab.presses("carl", "Enter")
    transcript = next((lab.cluster.client.folder / "agents" / "carl").glob("claude/projects/*/*.jsonl"))
    lab.until(lambda: b'"compact_boundary"' in transcript.read_bytes())
    assert carl.ask("and again", timeout=60).reply == "carl: and again"
    lab.cluster.wait(timeout=30)
    run_dir = lab.cluster.shutdown()

    place = run_dir / "transcripts" / "carl.jsonl"
    turns = turns_df(place, prices=PRICES)
    assert turns["end_reason"].tolist() == ["completed", "error", "interrupted", "completed"]
    replies = turns["reply"].dropna().tolist()
    assert (replies[0], replies[1][:5], replies[2]) == ("carl: hello", "so on", "carl: and again")
    # By hand: 11 and 15 bytes are 3 and 4 tokens; what failed or was cut off reported none.
    assert turns["output_tokens"].fillna(-1).tolist() == [3, -1, -1, 4]
    events = events_df(run_dir)
    spent = [
        json.loads(facts)
        for event, facts in zip(events["event"], events["attributes"], strict=True)
        if event == "gateway.response"
    ]
    given = [one["input_tokens"] for one in spent if one.get("output_tokens") in {3, 4}]
    known = turns[turns["output_tokens"].notna()]
    assert set(known["input_tokens"]) <= set(given)
    costs = [(one + 10 * two) / 1e6 for one, two in zip(known["input_tokens"], (3, 4), strict=True)]
    assert known["cost_usd"].tolist() == pytest.approx(costs, abs=1e-12)
    assert turns["cost_usd"].isna().tolist() == [False, True, True, False]

    messages = messages_df(place)
    prompts = messages[~messages["content"].str.startswith("<command-")]
    assert prompts["content"].tolist() == ["hello", "fail", "go on for ever", "and again"]
    assert prompts["status"].tolist() == ["answered", "failed", "failed", "answered"]
    assert prompts["error_type"].dropna().tolist() == ["turn_error", "turn_interrupted"]

    told = events_df(place)
    failed = [json.loads(one) for one in told[told["event"] == "agent.api_error"]["attributes"]]
    assert len(failed) == 1
    assert failed[0]["status"] == 400
    assert "Not like that." in failed[0]["error_message"]
    (compacted,) = told[told["event"] == "agent.compacted"]["attributes"].map(json.loads)
    assert compacted["trigger"] == "manual"
    assert compacted["tokens_before"] > 0
    assert told[told["event"] == "import.unknown"]["attributes"].tolist() == []
    run = runs_df(place, prices=PRICES).iloc[0]
    assert run["status"] == "completed"
    assert run["cost_usd"] == pytest.approx(sum(costs), abs=1e-12)
