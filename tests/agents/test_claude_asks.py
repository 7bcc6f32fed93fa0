"""One real Claude Code that is asked a hundred things in a row, and disturbed in every way that a person can."""

from __future__ import annotations

import base64
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from claude_helpers import expected

from orchestrator_lab import messages_df, turns_df
from orchestrator_lab.errors import MessageExpired, TurnFailed
from orchestrator_lab.frames import dialogs_df

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.claude, pytest.mark.timeout(300)]

#: One transparent pixel.
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
ROWS = "\n".join(f"row {number}" for number in range(200))
BODIES = {
    "one line": "hello",
    "200 lines": "\n".join(f"line {number} of it" for number in range(200)),
    "100 kB": ("0123456789abcdef " * 6300)[:100_000],
    "one line of 5 kB": "w" * 5000,
    "just over what is shown": "x" * 801,
    "the same long text": ROWS,
    "the same long text again": ROWS,
    "Japanese": "日本語のテキスト、全角　スペース。かな漢字",
    "emoji": "🎉👩‍👩‍👧‍👦 🏳️‍🌈",
    "only an emoji": "🎉",
    "right to left": "שלום עולם",
    "accents apart": "e\u0301 and か\u3099",
    "accents apart, long": "e\u0301 and か\u3099 " * 100,
    "no width": "zero\u200bwidth\ufeffmark",
    "odd spaces": "non\u00a0breaking\u3000wide",
    "odd separators": "line\u2028sep\u2029para",
    "trailing semicolon": "do this;",
    "trailing backslash": "C:\\dir\\",
    "two trailing backslashes": "a\\\\",
    "backslash before a newline": "a\\\nb",
    "quotes": """it's "quoted" `x` $(date) ${HOME} 'a'""",
    "tabs": "a\tb\tc",
    "leading tab": "\tlead",
    "leading spaces": "   leading spaces",
    "leading newlines": "\n\nleading newlines",
    "trailing white space": "trailing   \n\n",
    "code": "```\na = 1\n\nb = 2\n```",
    "two lines": "line1\nline2",
    "Windows lines": "a\r\nb\r\nc",
    "/": "/",
    "command": "/help me",
    "unknown command": "/nothing of the kind",
    "/exit": "/exit",
    "!": "!",
    "shell": "!ls -la",
    "#": "#",
    "memory": "#remember this",
    "@": "@",
    "mention": "@README.md look",
    "mention at the end": "look at @",
    "begun mention at the end": "look at @READ",
    "mention of a file at the end": "look at @README.md",
    "command at the end": "see /",
    "begun command at the end": "see /he",
    "path at the end": "look into /tmp",
    "?": "?",
    "&": "&background",
    "exit": "exit",
    "quit": "quit",
    "EXIT": " EXIT ",
    ":q": ":q",
    "clear": "clear",
    "y": "y",
    "1": "1",
    "escapes": "before\x1b[201~after\x1b[31m red\x07\x00 bell\x7f\x9b31m",
    "looks like a paste": "[Pasted text #1 +4 lines]",
    "looks like markup": "$5 & <tag> &amp; <system-reminder>x</system-reminder>",
    "looks like a header": "From boss (msg_1):\nhi",
    "keyword": "ultrathink about it",
    "focus in": "ends with [I",
    "focus out": "[O",
    "url": "https://example.com/a?b=c#d",
}
SCRIPT: list[dict[str, Any]] = [
    {"when": {"text": "think slowly"}, "reply": "thought", "delay_s": 3},
    {"when": {"text": "think for ever"}, "reply": "too late", "delay_s": 300},
    {"when": {"text": "stream"}, "reply": "word\n\n" * 4000, "tokens_per_s": 40},
    {
        "when": {"text": "use the shell"},
        "tool": {"name": "Bash", "input": {"command": "touch made; sleep 1", "description": "d"}},
        "then": {"reply": "the shell said so"},
    },
    {"when": {"contains": "fail"}, "error": {"status": 400, "message": "This will not do.", "retry": False}},
    {"reply": "answer {turn}"},
]


@pytest.fixture(scope="module")
def lab(start_lab: Any) -> Any:
    return start_lab("ada", script=SCRIPT, name="asks")


@pytest.fixture(scope="module")
def free(start_lab: Any) -> Any:
    """An agent that may use its shell without asking."""
    return start_lab({"name": "bob", "allowed_tools": ["Bash"]}, script=SCRIPT, name="free")


def test_a_hundred_asks_in_a_row(lab: Any, tmp_path: Path) -> None:
    image = tmp_path / "pixel.png"
    image.write_bytes(PIXEL)
    (lab.cluster.config.work_dir / "README.md").write_text("read me\n")
    bodies = [
        *BODIES.values(),
        f"{image}",
        f"see {image}\nand {image} {image}",
        f"see {tmp_path / 'missing.png'}",
    ]
    bodies += [f"number {number}" for number in range(100 - len(bodies))]
    replies = [lab.cluster["ada"].ask(body, timeout=60).reply for body in bodies]
    # Each request held one text more than the one before: none was lost, none came twice, none out of order.
    assert replies == [f"answer {number + 1}" for number in range(100)]
    lab.took("ada", *(expected(body) for body in bodies))
    assert len(lab.prompts("ada")) == 100
    lab.cluster.wait(timeout=30)
    messages = messages_df(lab.cluster.run)
    assert len(messages) == 100
    assert set(messages["status"]) == {"answered"}
    assert set(messages["acceptance_source"]) == {"hook"}
    assert messages["queued_at"].is_monotonic_increasing
    turns = turns_df(lab.cluster.run)
    assert len(turns) == 100
    assert list(turns["reply"]) == replies
    assert turns[["input_tokens", "output_tokens"]].notna().all(axis=None)
    assert turns["message_ids"].map(json.loads).map(len).eq(1).all()
    # An Enter that overtakes its paste is lost; none did.
    assert {event.attributes["attempt"] for event in lab.events("message.submitted")} == {1}
    median = messages["delivery_s"].median()
    assert median < 1.0, f"acceptance took {median} s"


def test_the_content_is_kept_and_controls_are_counted(lab: Any) -> None:
    exchange = lab.cluster["ada"].ask(BODIES["escapes"], timeout=60)
    assert exchange.content == "before[201~after[31m red bell31m"
    [queued] = [event for event in lab.events("message.queued") if event.message_id == exchange.message_id]
    assert queued.attributes["removed_controls"] == 6
    events = lab.cluster.run.events_df
    row = events[(events["message_id"] == exchange.message_id) & (events["event"] == "message.queued")].iloc[0]
    assert json.loads(row["attributes"])["removed_controls"] == 6
    lab.took("ada", exchange.content)
    exchange = lab.cluster["ada"].ask("\ttabs\\", timeout=60)
    [claimed] = [event for event in lab.events("message.claimed") if event.message_id == exchange.message_id]
    assert any("four spaces" in note for note in claimed.attributes["notes"])
    assert exchange.message["content"] == "\ttabs\\"


def test_now_becomes_a_prompt_of_its_own_after_an_answer_without_tools(lab: Any) -> None:
    ada = lab.cluster["ada"]
    slow = ada.send("think slowly")
    slow.accepted(30)
    now = ada.send("meanwhile\n\tthis;", when="now")
    assert slow.result(30) == "thought"
    assert now.result(30).startswith("answer ")
    assert now.message["acceptance_source"] == "hook"
    lab.took("ada", "think slowly", "meanwhile\n    this;")
    assert now.turn["turn_id"] != slow.turn["turn_id"]


def test_now_joins_the_running_turn_at_its_next_tool(free: Any) -> None:
    bob = free.cluster["bob"]
    turn = bob.send("use the shell")
    turn.accepted(30)
    free.until(lambda: free.events("tool.started"))
    first = bob.send("first of two", when="now")
    second = bob.send("second of two", when="now")
    replies = [one.result(60) for one in (turn, first, second)]
    # No hook tells of the first: the transcript does, and its answer is the turn's.
    assert replies[0] == replies[1]
    assert first.message["acceptance_source"] == "transcript"
    assert first.turn["turn_id"] == turn.turn["turn_id"]
    assert json.loads(first.turn["message_ids"]) == [turn.message_id, first.message_id]
    assert set(messages_df(free.cluster.run)["status"]) == {"answered"}

    def typed() -> list[str]:
        queued = [
            record["attachment"]["prompt"]
            for record in free.transcript("bob")
            if record.get("attachment", {}).get("type") == "queued_command"
        ]
        return sorted(text for text in [*queued, *free.prompts("bob")] if text.endswith("of two"))

    # Claude Code writes its record some time after it has told of a turn's end.
    free.until(lambda: len(typed()) >= 2)
    assert typed() == ["first of two", "second of two"]


@pytest.mark.parametrize("pause", [0.0, 1.0])
def test_interrupt_before_any_output(lab: Any, pause: float) -> None:
    """Claude Code gives the prompt back to the input line and records nothing: the next message must not join it."""
    ada = lab.cluster["ada"]
    exchange = ada.send("think for ever")
    exchange.accepted(30)
    time.sleep(pause)
    ada.interrupt()
    with pytest.raises(TurnFailed, match="interrupted"):
        exchange.result(30)
    assert exchange.turn["end_reason"] == "interrupted"
    assert ada.ask("after it", timeout=30).reply.startswith("answer ")
    lab.took("ada", "after it")


def test_interrupt_while_it_speaks(lab: Any) -> None:
    ada = lab.cluster["ada"]
    exchange = ada.send("stream")
    lab.shows("ada", "word\n")
    ada.interrupt()
    with pytest.raises(TurnFailed, match="interrupted"):
        exchange.result(30)
    assert (exchange.message["status"], exchange.message["error_type"]) == ("failed", "turn_interrupted")
    assert ada.ask("after the stream", timeout=30).reply.startswith("answer ")


def test_an_error_of_the_api_is_the_failure_of_the_turn(lab: Any) -> None:
    ada = lab.cluster["ada"]
    with pytest.raises(TurnFailed, match=r"400.*This will not do"):
        ada.ask("fail please", timeout=60)
    turns = turns_df(lab.cluster.run)
    assert turns.iloc[-1]["end_reason"] == "error"
    lab.until(lambda: ada.state == "idle")


def test_a_permission_is_asked_of_a_person(lab: Any) -> None:
    ada = lab.cluster["ada"]
    exchange = ada.send("use the shell")
    lab.until(lambda: ada.facts["dialog"] and ada.facts["dialog"]["options"])
    assert ada.state == "waiting"
    assert ada.facts["dialog"]["kind"] == "permission"
    assert "touch made" in ada.facts["dialog"]["subject"]
    assert ada.facts["dialog"]["options"][0] == "Yes"
    held = ada.send("behind the question")
    hasty = ada.send("also behind it", when="now")
    with pytest.raises(MessageExpired):
        ada.send("too late", expires=0.5).result(20)
    assert (held.status, hasty.status) == ("queued", "queued")
    lab.presses("ada", "Enter")
    lab.until(lambda: ada.state == "busy" or exchange.done)  # not waiting any more while the tool runs
    assert exchange.result(30) == "the shell said so"
    assert held.result(30).startswith("answer ")
    assert hasty.result(30).startswith("answer ")
    row = dialogs_df(lab.cluster.run).iloc[-1]
    assert (row["kind"], row["answered_by"], row["decision"]) == ("permission", "human", "allow")
    assert row["wait_s"] > 0
    assert json.loads(row["options"])[0] == "Yes"


@pytest.mark.parametrize("key", ["Escape", "3"])
def test_a_permission_that_a_person_denies(lab: Any, key: str) -> None:
    ada = lab.cluster["ada"]
    exchange = ada.send("use the shell")
    lab.until(lambda: ada.facts["dialog"] and ada.facts["dialog"]["options"])
    lab.presses("ada", key)
    with pytest.raises(TurnFailed, match="interrupted"):
        exchange.result(30)
    row = dialogs_df(lab.cluster.run).iloc[-1]
    assert (row["answered_by"], row["decision"]) == ("human", "deny")
    assert ada.ask("go on", timeout=30).reply.startswith("answer ")


def test_what_a_person_types_is_a_row(lab: Any) -> None:
    lab.types("ada", "a human asks")
    lab.shows("ada", "a human asks")
    lab.presses("ada", "Enter")
    rows = lab.until(lambda: (m := messages_df(lab.cluster.run))[m["source"] == "human"].to_dict("records"))
    lab.cluster.wait(timeout=30)
    rows = messages_df(lab.cluster.run).query("source == 'human'").to_dict("records")
    assert [row["content"] for row in rows] == ["a human asks"]
    assert (rows[0]["sender"], rows[0]["recipient"], rows[0]["status"]) == ("user", "ada", "answered")


def test_a_draft_is_not_mixed_with_a_message(lab: Any) -> None:
    ada = lab.cluster["ada"]
    lab.types("ada", "unfinished thought")
    lab.shows("ada", "unfinished thought")
    exchange = ada.send("from the notebook")
    note = lab.until(lambda: [one for one in lab.events("note") if one.message_id == exchange.message_id])[0]
    assert "draft" in note.attributes["text"]
    assert exchange.status == "queued"
    lab.types("ada", ", finished")
    lab.shows("ada", "unfinished thought, finished")
    lab.presses("ada", "Enter")
    assert exchange.result(30).startswith("answer ")
    lab.took("ada", "unfinished thought, finished", "from the notebook")


def test_a_deleted_draft_lets_the_message_in(lab: Any) -> None:
    ada = lab.cluster["ada"]
    lab.types("ada", "nonsense")
    lab.shows("ada", "nonsense")
    exchange = ada.send("after the nonsense")
    lab.until(lambda: [one for one in lab.events("note") if one.message_id == exchange.message_id])
    lab.presses("ada", *["BSpace"] * len("nonsense"))
    assert exchange.result(30).startswith("answer ")
    lab.took("ada", "after the nonsense")


def test_copy_mode_holds_nothing_up(lab: Any) -> None:
    ada = lab.cluster["ada"]
    ada.pane.cmd("copy-mode")
    try:
        assert ada.pane.display_message("#{pane_in_mode}", get_text=True) == ["1"]
        assert ada.ask("two\nlines into copy mode", timeout=30).reply.startswith("answer ")
    finally:
        ada.pane.cmd("send-keys", "-X", "cancel")
    lab.took("ada", "two\nlines into copy mode")


def test_the_last_of_several_parts_is_there_before_enter(lab: Any) -> None:
    bodies = [f"part {number} of\n/tmp/picture-{number}.png" for number in range(8)]
    for body in bodies:
        lab.cluster["ada"].ask(body, timeout=60)
    lab.took("ada", *bodies)


def test_nothing_was_lost_and_nothing_came_twice(lab: Any) -> None:
    """Every row is in Claude Code's own record as often as it was accepted, and nothing else is."""
    lab.cluster.wait(timeout=30)
    messages = messages_df(lab.cluster.run)
    accepted = messages[messages["accepted_at"].notna()].sort_values("accepted_at")
    lab.took("ada", *(expected(text) for text in accepted["content"]))
    assert len(lab.prompts("ada")) == len(accepted)
    assert set(messages["status"]) <= {"answered", "failed", "expired"}
