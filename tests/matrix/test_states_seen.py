"""States that a screen tells where nothing reports: out of sight, unheard questions, unknown starts. On the fake."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from matrix_rigs import FAKE, PYTHON, Log, folder, until

from orchestrator_lab import Cluster
from orchestrator_lab.frames import dialogs_df, states_df

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: What is known of the fake's screen.
RULES = """
kind = "chat"
measured = "1"

[[rule]]
name = "permission"
region = "question"
pattern = '^May I run'
menu = true
dialog = "permission"

[[rule]]
name = "trust"
region = "question"
pattern = 'Do you trust this folder'
menu = true
at_start = true
dialog = "trust"
own_folder = "Yes, I trust this folder"

[[rule]]
name = "update"
region = "question"
pattern = 'new version'
menu = true
dialog = "update"

[[rule]]
name = "offers to interrupt"
region = "whole"
pattern = 'esc to interrupt'
state = "busy"
"""


class Lab:
    """A cluster of fakes whose dialogs only the screen tells."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.rules = place / "screens.toml"
        self.rules.write_text(RULES)
        self.logs: dict[str, Log] = {}
        facts = {
            "name": "seen",
            "work_dir": str(place / "work"),
            "create_work_dir": True,
            "runs_dir": str(place / "runs"),
            "lifetime": "owner",
            "start_timeout_s": 30,
        }
        self.cluster = Cluster.start({"cluster": facts, "agents": [self.agent("ada", turn_ms=300)]})

    def agent(self, name: str, *, on_start: list[dict[str, Any]] | None = None, **script: Any) -> dict[str, Any]:
        self.logs[name] = Log(self.place / f"{name}.jsonl")
        path = self.place / f"{name}.json"
        path.write_text(json.dumps({"dialog_hooks": False, "on_start": on_start or [], **script}))
        command = [*PYTHON, str(FAKE), "--log", str(self.logs[name].path), "--script", str(path)]
        return {"name": name, "kind": "chat", "command": command, "screens": str(self.rules)}

    def control(self, name: str, **action: Any) -> None:
        count = len(self.happened(name, "control"))
        with (self.place / f"{name}.jsonl.ctl").open("w") as pipe:
            pipe.write(json.dumps(action) + "\n")
        until(lambda: len(self.happened(name, "control")) > count, 30, "control")

    def happened(self, name: str, *events: str) -> list[dict[str, Any]]:
        return [one for one in self.logs[name].read() if one["event"] in events]


@pytest.fixture(scope="module")
def lab(module_runtime: Path) -> Iterator[Lab]:  # noqa: ARG001 - where the cluster lives
    made = Lab(folder())
    yield made
    made.cluster.shutdown()


def test_an_input_line_out_of_sight_is_unknown_and_holds_messages(lab: Lab) -> None:
    ada = lab.cluster["ada"]
    lab.control("ada", do="blank")
    assert ada.state == "idle"  # nobody has looked
    held = ada.send("behind it")
    until(lambda: ada.state == "unknown", 30, "the unknown state")
    assert held.status == "queued"
    explained = ada.explain()
    assert (explained["state"], explained["source"], explained["decision"]) == ("unknown", "screen", "hidden")
    votes = {vote["fact"]: vote for vote in explained["votes"]}
    assert votes["ready"]["says"] == "idle"
    assert votes["hidden"]["age_s"] < votes["ready"]["age_s"]
    assert explained["screen"]["input_line"] == "unknown"
    lab.control("ada", do="clear")
    assert held.result(60).startswith("took")
    until(lambda: ada.state == "idle", 30, "rest")
    (event,) = [
        one for one in lab.cluster.events() if one.event == "agent.state" and one.attributes["state"] == "unknown"
    ]
    assert event.attributes["decision"] == "hidden"
    assert {vote["fact"] for vote in event.attributes["votes"]} >= {"running", "ready", "hidden", "terminal"}
    assert all(vote["age_s"] >= 0 for vote in event.attributes["votes"])


def test_looking_at_it_is_enough(lab: Lab) -> None:
    eve = lab.cluster.add(lab.agent("eve"))
    lab.control("eve", do="blank")
    eve.screen()
    until(lambda: eve.state == "unknown", 30, "the unknown state")
    lab.control("eve", do="clear")
    until(lambda: eve.state == "idle", 30, "rest")
    lab.cluster.remove("eve")


def test_a_question_that_nobody_reports_is_found(lab: Lab) -> None:
    """While it works, and while it rests and somebody looks."""
    ada = lab.cluster["ada"]
    lab.control("ada", set={"turn_ms": 600_000})
    exchange = ada.send("long work").accepted(60)
    lab.control("ada", do="dialog", kind="permission")
    dialog = until(lambda: ada.dialog, 30, "the question")
    assert (dialog.kind, dialog.subject) == ("permission", "May I run `rm -r build`?")
    assert dialog.options[0] == "Yes"
    assert dialog.answer("deny").startswith("No")
    until(lambda: ada.state == "busy", 30, "work")
    ada.interrupt()
    until(lambda: exchange.done, 30, "its end")
    lab.control("ada", set={"turn_ms": 0})
    lab.control("ada", do="dialog", kind="update")
    until(lambda: ada.explain() and ada.dialog, 30, "the question")
    assert ada.state == "waiting"
    assert ada.dialog.answer(2) == "Skip this version"
    assert ada.ask("go on", timeout=60).status == "answered"
    rows = dialogs_df(lab.cluster.run, agents="ada").to_dict("records")
    assert [(row["kind"], row["answered_by"]) for row in rows] == [("permission", "human"), ("update", "human")]


def test_work_that_nobody_reports_is_seen(lab: Lab) -> None:
    ada = lab.cluster["ada"]
    until(lambda: ada.explain()["votes"][-1]["age_s"] > 2.2, 30, "rest")
    lab.control("ada", do="work", ms=600_000)
    until(lambda: ada.explain()["decision"] == "shown", 30, "work on the screen")
    assert ada.state == "busy"
    assert ada.explain()["screen"]["matched"][0] == {
        "rule": "offers to interrupt",
        "region": "whole",
        "means": "busy",
        "line": "✻ Working… (esc to interrupt)",
    }
    lab.control("ada", do="work", ms=0)
    until(lambda: ada.state == "idle", 30, "the end of the work")


@pytest.mark.parametrize(
    ("kind", "named"), [("trust", "trust"), ("update", "update"), ("riddle", "unknown"), ("choice", "unknown")]
)
def test_questions_at_the_start(lab: Lab, kind: str, named: str) -> None:
    """Each preselects the option that refuses; none is confirmed unless a rule says so of a folder of the lab's own."""
    name = f"s-{kind}"
    agent = lab.cluster.add(lab.agent(name, on_start=[{"do": "dialog", "kind": kind}]))
    if kind == "trust":
        until(lambda: agent.state == "idle", 30, "readiness")
        assert lab.happened(name, "dialog_answered")[-1]["choice"] == "Yes, I trust this folder"
        row = dialogs_df(lab.cluster.run, agents=name).iloc[-1]
        assert (row["answered_by"], row["decision"]) == ("policy", "Yes, I trust this folder")
    else:
        assert agent.state == "waiting"
        dialog = agent.dialog
        assert (dialog.kind, len(dialog.options)) == (named, 3 if kind == "choice" else 2)
        if kind == "riddle":
            assert dialog.subject == "Nobody has seen this question before."
        held = agent.send("for later")
        time.sleep(0.5)
        assert not lab.happened(name, "keys", "paste", "dialog_answered")
        assert held.status == "queued"
        assert dialog.answer(1) == dialog.options[0]
        assert held.result(60).startswith("took")
        row = dialogs_df(lab.cluster.run, agents=name).iloc[-1]
        assert (row["kind"], row["answered_by"], row["decision"]) == (named, "human", dialog.options[0])
    states = list(states_df(lab.cluster.run, agents=name)["state"])
    assert states[:2] == ["starting", "waiting"]
    lab.cluster.remove(name)


def test_a_start_that_shows_nothing_known_waits(lab: Lab) -> None:
    agent = lab.cluster.add(lab.agent("odd", on_start=[{"do": "blank"}], start_ms=60_000))
    assert agent.state == "waiting"
    assert (agent.dialog.kind, agent.dialog.options) == ("unknown", ())
    assert "press any key" in agent.dialog.subject
    lab.cluster.remove("odd")
