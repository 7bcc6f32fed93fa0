from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from orchestrator_lab import frames, runtime
from orchestrator_lab.beginning import create_run
from orchestrator_lab.errors import ConfigError, JournalError, RunNotFound
from orchestrator_lab.folds import fold, fold_messages, fold_turns
from orchestrator_lab.journal import Event, JournalWriter
from orchestrator_lab.run import Run
from orchestrator_lab.schema import TABLES

if TYPE_CHECKING:
    from pathlib import Path

FRAMES = {
    "runs": frames.runs_df,
    "agents": frames.agents_df,
    "messages": frames.messages_df,
    "turns": frames.turns_df,
    "tool_calls": frames.tool_calls_df,
    "dialogs": frames.dialogs_df,
    "states": frames.states_df,
    "alerts": frames.alerts_df,
    "processes": frames.processes_df,
    "events": frames.events_df,
}


class Story:
    """Events at the second that each is said to happen."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, at_s: float, event: str, /, **facts: Any) -> Story:
        envelope = {name: facts.pop(name, None) for name in ("agent", "message_id", "turn_id", "source")}
        minutes, seconds = divmod(at_s, 60)
        at = f"2026-11-23T06:{int(minutes):02d}:{seconds:09.6f}Z"
        self.events.append(Event(len(self.events) + 1, event, at, float(at_s), **envelope, attributes=facts))
        return self


def delivered() -> Story:
    """One message from the user to the boss, answered in a turn with tools."""
    boss = {"agent": "boss"}
    note = {**boss, "message_id": "msg_1"}
    turn = {**boss, "turn_id": "trn_1"}
    return (
        Story()(0, "run.started", name="duo", mode="live", params={"n": 1}, tags=["t"], seed=3)
        (0, "agent.added", **boss, agent_id="agt_1", name="boss", kind="claude", cols=200, rows=50)
        (1, "agent.started", **boss, pid=7, pane_id="%0", session_id="s1")
        (1, "recording.started", **boss, path="p", started_at="2026-11-23T06:00:00.500000+00:00")
        (2, "agent.ready", **boss)
        (2, "agent.state", **boss, source="hook", state="idle", previous="starting")
        (3, "message.queued", **note, source="human", sender="user", recipient="boss",
         kind="direct", hop=0, content="héllo", content_sha256="00", conversation_id="cnv_1")
        (3.5, "message.claimed", **note)
        (3.6, "message.written", **note, bytes=6)
        (3.7, "message.submitted", **note, attempt=1)
        (4, "message.accepted", **note, source="hook", turn_id="trn_1")
        (4, "turn.started", **turn, message_ids=["msg_1"])
        (4, "message.started", **note, turn_id="trn_1")
        (4, "agent.state", **boss, source="hook", state="busy", previous="idle")
        (5, "turn.first_output", **turn)
        (5, "tool.started", **turn, tool_call_id="tcl_1", name="Bash", input={"command": "ls"})
        (5.5, "dialog.opened", **turn, dialog_id="dlg_1", kind="permission", options=["y", "n"])
        (5.5, "agent.state", **boss, source="hook", state="waiting")
        (6.5, "dialog.answered", **turn, dialog_id="dlg_1", answered_by="human", decision="y")
        (6.5, "agent.state", **boss, source="hook", state="busy")
        (7, "tool.ended", **turn, tool_call_id="tcl_1", output="a\nb", status="ok")
        (9, "turn.ended", **turn, reply="done", end_reason="completed")
        (9, "message.answered", **note, turn_id="trn_1")
        (9, "agent.state", **boss, source="hook", state="idle")
        (10, "turn.usage", **turn, model="m", input_tokens=100, output_tokens=5, final=True)
    )  # fmt: skip


def write(folder: Path, events: list[Event], **facts: Any) -> Path:
    path = create_run(folder, config={}, name="duo", **facts)
    lines = "".join(event.to_json() + "\n" for event in events)
    (path / "journal.jsonl").write_text(lines)
    return path


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(write(tmp_path, delivered().events))


@pytest.mark.parametrize("table", FRAMES)
@pytest.mark.parametrize("source", ["no list", "empty folder", "empty run", "run", "two runs"])
def test_columns_and_dtypes_are_the_schemas_from_any_source(table: str, source: str, tmp_path: Path) -> None:
    if source == "empty run":
        write(tmp_path, [])
    elif source != "empty folder":
        write(tmp_path, delivered().events)
        write(tmp_path, delivered().events)
    frame = FRAMES[table]([] if source == "no list" else next(tmp_path.iterdir()) if source == "run" else tmp_path)
    assert frame.columns.tolist() == [column.name for column in TABLES[table]]
    assert [str(dtype) for dtype in frame.dtypes] == [column.dtype for column in TABLES[table]]
    for column in TABLES[table]:
        if column.categories is not None:
            assert tuple(frame[column.name].cat.categories) == column.categories
    assert frame.attrs["schema_version"] == 1
    assert len(frame.attrs["source"]) == {"run": 1, "empty run": 1, "two runs": 2}.get(source, 0)


def test_message_tells_its_whole_delivery(run: Run) -> None:
    (message,) = run.messages.to_dict("records")
    assert message["content"] == "héllo"
    assert (message["sender"], message["recipient"], message["source"]) == ("user", "boss", "human")
    assert (message["status"], message["acceptance_source"]) == ("answered", "hook")
    assert (message["queue_s"], message["delivery_s"], message["response_s"]) == (0.5, 0.5, 5.0)
    assert message["turn_id"] == "trn_1"
    ladder = [f"{rung}_at" for rung in ("queued", "claimed", "written", "accepted", "started")]
    assert run.messages[ladder].notna().all(axis=None)
    assert message["accepted_at"] == pd.Timestamp("2026-11-23T06:00:04Z")


def test_turn_agent_tool_dialog_state(run: Run) -> None:
    (turn,) = run.turns.to_dict("records")
    assert (turn["reply"], turn["end_reason"], turn["duration_s"]) == ("done", "completed", 5.0)
    assert (turn["time_to_first_output_s"], turn["cast_offset_s"]) == (1.0, 3.5)
    assert (turn["input_tokens"], turn["output_tokens"], turn["tool_call_count"]) == (100, 5, 1)
    assert turn["tokens_source"] == "reported"
    assert json.loads(turn["message_ids"]) == ["msg_1"]
    (call,) = run.tool_calls.to_dict("records")
    assert (call["input"], call["output"]) == ('{"command":"ls"}', "a\nb")
    assert (call["status"], call["duration_s"], call["turn_id"]) == ("ok", 2.0, "trn_1")
    (dialog,) = run.dialogs.to_dict("records")
    assert (dialog["wait_s"], dialog["answered_by"], dialog["options"]) == (1.0, "human", '["y","n"]')
    states = run.states
    assert states["state"].tolist() == ["starting", "idle", "busy", "waiting", "busy", "idle"]
    assert states["duration_s"].tolist()[:-1] == [1.0, 2.0, 1.5, 1.0, 2.5]
    assert states["source"][0] == "process"
    assert pd.isna(states["ended_at"].iloc[-1])
    (agent,) = run.agents.to_dict("records")
    assert (agent["state"], agent["busy_s"], agent["restarts"]) == ("idle", 4.0, 0)
    assert (agent["message_count"], agent["input_tokens"], agent["output_tokens"]) == (1, 100, 5)
    assert (agent["pid"], agent["pane_id"], agent["session_id"]) == (7, "%0", "s1")
    assert pd.isna(agent["cost_usd"])


def test_runs_row_joins_manifest_and_journal(tmp_path: Path) -> None:
    story = delivered()(20, "run.ended", status="failed", error_type="AgentFailed")
    write(tmp_path, story.events, experiment="e", params={"a": 1}, tags=["x"], seed=3)
    (row,) = frames.runs_df(tmp_path).to_dict("records")
    assert (row["status"], row["error_type"], row["duration_s"]) == ("failed", "AgentFailed", 20.0)
    assert (row["experiment"], row["seed"], row["mode"]) == ("e", 3, "live")
    assert (row["agent_count"], row["message_count"], row["event_count"]) == (1, 1, 26)
    assert (row["input_tokens"], row["output_tokens"]) == (100, 5)
    assert json.loads(row["params"]) == {"n": 1}
    assert not pd.isna(row["python_version"])


def test_unfinished_run_that_nobody_holds_has_no_status(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_RUNTIME_DIR", str(tmp_path / "r"))
    assert run.runs["status"].isna().all()
    assert run.status is None


def test_run_that_a_cluster_of_this_machine_holds_is_running(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_RUNTIME_DIR", str(tmp_path / "r"))
    folder = runtime.private_dir(runtime.cluster_dir("duo"))
    runtime.write_record(folder, runtime.ClusterRecord("duo", str(run.path), run.run_id))
    assert run.status is None  # a record alone is what a crash leaves
    lock = runtime.acquire_lock(folder)
    assert lock is not None
    assert run.status == "running"
    assert run.runs["status"].tolist() == ["running"]
    os.close(lock)
    assert run.status is None


def test_one_row_by_its_id(run: Run) -> None:
    fold = run.tables.fold("messages")
    assert fold.row("msg_1") == fold.rows()[0]
    assert fold.row("msg_2") is None


def test_columns_agents_and_globs(run: Run, tmp_path: Path) -> None:
    other = Story()(0, "message.queued", message_id="msg_2", agent="b", sender="a", recipient="b")
    write(tmp_path, other.events)
    assert frames.messages_df(tmp_path)["message_id"].tolist() == ["msg_1", "msg_2"]
    assert frames.messages_df(f"{tmp_path}/*", agents="a")["message_id"].tolist() == ["msg_2"]
    assert frames.messages_df([run, run.path], columns="hop").shape == (2, 1)
    picked = frames.messages_df(tmp_path, columns=["content", "seq"], agents=["boss"])
    assert picked.columns.tolist() == ["content", "seq"]
    assert picked.index.tolist() == [0]
    assert picked.attrs["schema_version"] == 1
    assert frames.agents_df(tmp_path, agents="nobody").empty
    assert frames.events_df(run.path / "journal.jsonl", agents="boss")["agent"].eq("boss").all()
    assert frames.runs_df(f"{tmp_path}/nothing*").empty


def test_clusters_and_plain_event_holders_are_sources(run: Run) -> None:
    class Cluster:
        def __init__(self) -> None:
            self.run = run
            self.run_id = run.run_id

        def events(self) -> list[Event]:
            pytest.fail("a cluster's run reads what is new; its whole journal is not read again")

    class Holder:
        run_id = "run_held"

        def events(self) -> list[Event]:
            return delivered().events

    assert frames.turns_df(Cluster())["reply"].tolist() == ["done"]
    assert frames.turns_df(Holder())["run_id"].tolist() == ["run_held"]
    assert len(frames.events_df(Holder())) == 25


def test_wrong_sources_and_columns_are_named(run: Run, tmp_path: Path) -> None:
    with pytest.raises(RunNotFound, match="there is no run at"):
        frames.messages_df(tmp_path / "none")
    with pytest.raises(ConfigError, match="no column 'sendr'; it has: run_id, seq"):
        frames.messages_df(run, columns=["sendr"])
    with pytest.raises(ConfigError, match="cannot read runs from int"):
        frames.messages_df(3)  # type: ignore[arg-type]
    (run.path / "manifest.json").write_text("{")
    with pytest.raises(JournalError, match="manifest cannot be read"):
        frames.messages_df(run.path)
    (run.path / "manifest.json").unlink()
    assert len(frames.messages_df(run.path)) == 1


def test_frames_given_out_are_the_callers_own(run: Run) -> None:
    first = run.messages
    first["content"] = "changed"
    first.attrs["mine"] = 1
    assert run.messages["content"].tolist() == ["héllo"]
    assert "mine" not in run.messages.attrs


def test_live_run_reads_only_what_is_new(tmp_path: Path) -> None:
    path = create_run(tmp_path, config={}, name="duo")
    run = Run(path)
    assert run.messages.empty
    with JournalWriter(path / "journal.jsonl", run_id=path.name) as writer:
        writer.append("message.queued", message_id="msg_1", sender="user", recipient="boss")
        assert run.messages["status"].tolist() == ["queued"]
        assert len(run.events_df) == 1
        writer.append("message.claimed", message_id="msg_1")
        assert run.messages["status"].tolist() == ["claimed"]
        assert run.events_df["event"].tolist() == ["message.queued", "message.claimed"]


@pytest.mark.parametrize(
    ("steps", "status"),
    [
        ("queued", "queued"),
        ("queued claimed written", "written"),
        ("queued claimed written submitted", "written"),
        ("queued claimed accepted written", "accepted"),
        ("queued refused", "refused"),
        ("queued expired", "expired"),
        ("queued claimed written uncertain", "uncertain"),
        ("queued claimed written uncertain accepted", "accepted"),
        ("queued claimed written uncertain written", "uncertain"),
        ("queued claimed written uncertain answered", "answered"),
        ("queued claimed written uncertain failed", "failed"),
        ("queued claimed written accepted uncertain", "accepted"),
        ("queued claimed written accepted failed", "failed"),
        ("queued claimed written accepted answered failed", "answered"),
        ("queued claimed failed uncertain", "failed"),
        ("accepted", "accepted"),
    ],
)
def test_status_is_the_furthest_rung_or_the_outcome(steps: str, status: str) -> None:
    story = Story()
    for second, step in enumerate(steps.split()):
        story(second, f"message.{step}", message_id="msg_1", agent="b", error_type="E")
    (row,) = fold_messages(story.events)
    assert row["status"] == status
    assert (row["error_type"] is not None) == (status in {"refused", "expired", "failed", "uncertain"})


def test_repeated_claims_count_until_acceptance_and_proofs_count_once() -> None:
    story = Story()
    for second, step in enumerate(
        ["queued", "claimed", "claimed", "written", "accepted", "accepted", "claimed", "answered"]
    ):
        story(second, f"message.{step}", message_id="m", source="hook" if second == 4 else "screen")
    (row,) = fold_messages(story.events)
    assert (row["queue_s"], row["delivery_s"], row["response_s"]) == (2.0, 2.0, 3.0)
    assert row["acceptance_source"] == "hook"


def test_late_and_repeated_usage_amends_turn_and_agent() -> None:
    story = delivered()
    turn = {"agent": "boss", "turn_id": "trn_1"}
    story(11, "turn.usage", **turn, input_tokens=1, output_tokens=1, final=False)
    assert fold_turns(story.events)[0]["input_tokens"] == 100  # a final account stands
    story(12, "turn.usage", **turn, input_tokens=300, output_tokens=7, final=True)
    story(13, "turn.usage", agent="boss", turn_id="trn_2", output_tokens=1)
    assert fold_turns(story.events)[0]["input_tokens"] == 300
    (agent,) = fold("agents", story.events).rows()
    assert (agent["input_tokens"], agent["output_tokens"]) == (300, 8)


def test_costs_are_the_sum_of_what_is_known(tmp_path: Path) -> None:
    story = delivered()
    turn = {"agent": "boss", "turn_id": "trn_2", "output_tokens": 1}
    story(11, "turn.usage", **turn, cost_usd=0.5, final=False)
    story(12, "turn.usage", **turn, cost_usd=0.1, final=True)
    story(13, "turn.usage", agent="boss", turn_id="trn_3", output_tokens=1, cost_usd=0.2)
    run = Run(write(tmp_path, story.events))
    assert run.turns["cost_usd"].tolist()[1:] == [0.1, 0.2]
    assert pd.isna(run.turns["cost_usd"][0])  # no price of its model: left out of the sums
    assert run.agents["cost_usd"].tolist() == [0.3]
    assert frames.runs_df(tmp_path)["cost_usd"].tolist() == [0.3]
    for turn_id in ("trn_2", "trn_3"):
        story(14, "turn.usage", agent="boss", turn_id=turn_id, output_tokens=1, final=True)
    later = Run(write(tmp_path, story.events))
    assert later.agents["cost_usd"].isna().all()
    assert frames.runs_df(later.path)["cost_usd"].isna().all()


def test_agent_added_again_is_another_row_and_restarts_are_counted() -> None:
    story = Story()
    boss = {"agent": "boss"}
    story(0, "agent.added", **boss, agent_id="agt_1", name="boss")
    story(1, "agent.started", **boss, pid=1)
    story(2, "agent.state", **boss, state="busy")
    story(4, "agent.exited", **boss, signal=9)
    (row,) = fold("agents", story.events).rows()
    assert (row["state"], row["busy_s"], row["exit_code"]) == ("exited", 2.0, -9)
    story(5, "agent.started", **boss, pid=2)
    story(6, "agent.removed", **boss)
    story(7, "agent.added", **boss, agent_id="agt_2", name="boss")
    first, second = fold("agents", story.events).rows()
    assert (first["restarts"], first["pid"], first["exit_code"]) == (1, 2, None)
    assert (second["agent_id"], second["restarts"]) == ("agt_2", 0)
    states = fold("states", story.events).rows()
    assert [row["state"] for row in states] == ["starting", "busy", "exited", "starting"]
    assert states[-1]["ended_at"] is not None


def test_run_that_goes_on_has_no_end() -> None:
    tables = frames.RunTables.from_events(
        "run_x",
        Story()(0, "run.started")(5, "run.ended", status="completed")(6, "cluster.restarted").events,
    )
    row = tables.frame("runs").iloc[0]
    assert pd.isna(row["ended_at"])
    assert pd.isna(row["status"])


def test_continued_recording_keeps_its_time() -> None:
    story = Story()
    boss = {"agent": "boss", "path": "a.cast"}
    story(1, "recording.started", **boss)
    story(5, "recording.started", **boss)
    story(6, "note", agent="boss")
    story(6, "note", agent="other")
    offsets = fold("events", story.events).columns()["cast_offset_s"]
    assert offsets == [0.0, 4.0, 5.0, None]
