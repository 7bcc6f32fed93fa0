"""A real run is read while it is recorded, and afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator_lab import Cluster, messages_df, open_run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_a_real_run(runtime: Path, script_config: Callable[..., dict[str, Any]]) -> None:
    assert runtime.is_dir()
    with Cluster.start(script_config("ada", "bob")) as cluster:
        cluster["ada"].ask("the first question", timeout=30)
        run = cluster.run
        assert [entry.kind for entry in run.conversation()] == ["message", "turn"]
        first = run.search("first question", kind="messages")["id"].iloc[0]
        run.annotate(first, label="seen live")
        cluster["bob"].ask("the second question", timeout=30)
        assert len(run.conversation()) == 4  # what is new is read
        assert messages_df(cluster, annotations=True)["label"].fillna("").tolist() == ["seen live", ""]
    again = open_run(run.path)
    story = again.story(first, settle_s=600.0)  # a busy machine paints late, and the run ends soon
    assert "message.accepted" in [step.event.event for step in story.steps]
    assert "answered" in story.screens[-1].what
    assert "ada: the first question" in story.screens[-1].screen.text
    assert [entry.who for entry in again.conversation("bob")] == ["user", "bob"]
    assert again.search("second", agent="ada").empty
