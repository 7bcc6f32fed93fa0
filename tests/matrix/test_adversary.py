"""Messages to agents that misbehave: the fake in each of its faults, all in one cluster, judged by its own log."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from matrix_cells import Truth, judge
from matrix_rigs import FAKE, PYTHON, Log, folder, until

from orchestrator_lab import Cluster
from orchestrator_lab.errors import AgentFailed, OrchestratorLabError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEXT = "a first line\nand another; with more\\"
LONG = "\n".join(f"line {number} of a long paste" for number in range(300))

#: What is wrong with each agent that reports like the chat program.
REPORTING: dict[str, dict[str, Any]] = {
    "swallows-time": {"swallow_enter_ms": 400},
    "swallows-one": {"swallow_enters": 1},
    "collapses": {"collapse_lines": 3, "collapse_chars": 100},
    "echoes": {"echo_prompt": True},
    "looks-idle": {"decoy": "idle", "turn_ms": 400},
    "looks-busy": {"decoy": "spinner"},
    "ghost": {"ghost": "› try this suggestion"},
    "alternate": {"alternate": True},
    "scrolls": {"layout": "scroll", "decoy": "idle"},
    "unheard-accept": {"lose": ["UserPromptSubmit"]},
    "unheard-end": {"lose": ["Stop", "MessageDisplay"]},
    "no-record": {"lose": ["transcript"]},
    "stutters": {"double": ["UserPromptSubmit", "Stop", "SessionStart"]},
    "late-reports": {"hook_delay_ms": 700},
    "reads-slowly": {"read_bytes": 64, "read_pause_ms": 2},
    "works-long": {"turn_ms": 1500},
    "ignores-while-busy": {"turn_ms": 300, "busy_input": "ignore"},
    "deaf": {"ignore_sigterm": True},
}
#: What is wrong with each that does not report.
SILENT: dict[str, dict[str, Any]] = {
    "s-collapses": {"collapse_lines": 3, "layout": "scroll"},
    "s-echoes": {"echo_prompt": True},
    "s-scrolls": {"layout": "scroll"},
    "s-alternate": {"alternate": True},
    "s-reads-slowly": {"read_bytes": 256, "read_pause_ms": 2},
    "s-works": {"turn_ms": 700},
}


class Lab:
    """The cluster of misfits."""

    to_the_deaf: Any = None

    def __init__(self, place: Path) -> None:
        (place / "work").mkdir()
        self.logs = {name: Log(place / f"{name}.jsonl") for name in (*REPORTING, *SILENT)}
        agents = [{"name": name, **self._agent(place, name)} for name in self.logs]
        facts = {
            "name": "misfits",
            "lifetime": "owner",
            "work_dir": str(place / "work"),
            "runs_dir": str(place / "runs"),
        }
        self.cluster = Cluster.start({"cluster": facts, "agents": agents})

    def _agent(self, place: Path, name: str) -> dict[str, Any]:
        script = place / f"{name}.json"
        script.write_text(json.dumps(REPORTING.get(name) or SILENT[name]))
        command = [*PYTHON, str(FAKE), "--log", str(self.logs[name].path), "--script", str(script)]
        if name in REPORTING:
            return {"kind": "chat", "command": command}
        return {"kind": "program", "command": command, "turn_end": {"prompt": "^› $"}}

    def control(self, name: str, **action: Any) -> None:
        count = len([one for one in self.logs[name].read() if one["event"] == "control"])
        with (self.logs[name].path.parent / f"{name}.jsonl.ctl").open("w") as pipe:
            pipe.write(json.dumps(action) + "\n")
        until(lambda: len([one for one in self.logs[name].read() if one["event"] == "control"]) > count, 60, "control")

    def truth(self, name: str, since: int = 0) -> Truth:
        records = self.logs[name].read()[since:]
        return Truth(tuple(one["prompt"] for one in records if one["event"] == "submitted"))


@pytest.fixture(scope="module")
def lab(module_runtime: Path) -> Iterator[Lab]:  # noqa: ARG001 - where the cluster lives
    made = Lab(folder())
    # It takes a while until a message to one that hangs is given up: the last test asks for it.
    made.control("deaf", do="hang")
    made.to_the_deaf = made.cluster["deaf"].send("anybody there?")
    yield made
    made.cluster.shutdown()


def _send_all(lab: Lab, text: str) -> dict[str, tuple[str, str]]:
    """Write to all at once; return what is wrong with each."""
    names = [name for name in lab.logs if name != "deaf"]
    marks = {name: len(lab.logs[name].read()) for name in names}
    sent = {name: lab.cluster[name].send(text) for name in names}
    found = {}
    for name, exchange in sent.items():
        try:
            exchange.result(60)
        except OrchestratorLabError as error:
            found[name] = ("raised", str(error))
        status = exchange.status
        wrong = judge(text, status, exchange._facts.get("error_type"), lab.truth(name, marks[name]), ())
        if wrong[0] or "uncertain" in wrong[1]:
            found[name] = wrong
    return found


@pytest.mark.parametrize("text", [TEXT, LONG], ids=["two lines", "300 lines"])
def test_each_gets_its_message_once_and_whole(lab: Lab, text: str) -> None:
    assert _send_all(lab, text) == {}


def test_a_turn_that_hits_a_limit_was_delivered_and_failed(lab: Lab) -> None:
    name = "echoes"
    lab.control(name, do="limit")
    exchange = lab.cluster[name].send("too much")
    with pytest.raises(OrchestratorLabError):
        exchange.result(60)
    assert (exchange.status, exchange._facts["error_type"]) == ("failed", "turn_limit")
    assert lab.truth(name).prompts[-1] == "too much"
    lab.control(name, do="limit", on=False)
    assert lab.cluster[name].state == "limited"
    lab.cluster.lift(by="test")
    assert lab.cluster[name].ask("again", timeout=60).status == "answered"


def test_floods_and_garbage_do_not_shake_delivery(lab: Lab) -> None:
    for name in ("swallows-one", "alternate", "s-scrolls", "s-alternate"):
        mark = len(lab.logs[name].read())
        lab.control(name, do="garbage")
        lab.control(name, do="flood", bytes=2_000_000)
        exchange = lab.cluster[name].ask(TEXT, timeout=60)
        assert exchange.status == "answered", name
        assert lab.truth(name, mark).prompts == (TEXT,)


@pytest.mark.parametrize("point", ["paste_start", "paste", "enter", "submitted", "reported", "turn"])
def test_crashes_at_each_step_are_told(lab: Lab, point: str) -> None:
    name = "collapses"
    mark = len(lab.logs[name].read())
    lab.control(name, set={"crash_at": point, "crash_signal": 11})
    exchange = lab.cluster[name].send(TEXT)
    with pytest.raises(OrchestratorLabError):
        exchange.result(60)
    truth = lab.truth(name, mark)
    verdict = judge(TEXT, exchange.status, exchange._facts.get("error_type"), truth, ())
    assert not verdict[0], verdict
    assert len(truth.prompts) == (point in {"submitted", "reported", "turn"})
    until(lambda: lab.cluster[name].state in {"exited", "failed"}, 30, "the end of a crashed agent")
    lab.cluster[name].restart()
    assert lab.cluster[name].ask("back again", timeout=60).status == "answered"


def test_trust_is_never_given_blindly(lab: Lab) -> None:
    """The preselected option ends the program: an Enter too many would be seen."""
    name = "ghost"
    mark = len(lab.logs[name].read())
    lab.control(name, do="dialog", kind="trust")
    until(lambda: lab.cluster[name].state == "waiting", 30, "the dialog's state")
    exchange = lab.cluster[name].send(TEXT, expires=0.5)
    with pytest.raises(OrchestratorLabError):
        exchange.result(60)
    assert exchange.status == "expired"
    assert not [one for one in lab.logs[name].read()[mark:] if one["event"] in {"keys", "paste", "dialog_answered"}]
    lab.control(name, do="close")
    assert lab.cluster[name].ask(TEXT, timeout=60).status == "answered"


def test_one_that_hangs_gets_nothing_twice(lab: Lab) -> None:
    name, exchange = "deaf", lab.to_the_deaf
    with pytest.raises(OrchestratorLabError):
        exchange.result(60)
    assert exchange.status == "uncertain"
    assert lab.truth(name).prompts == ()
    lab.cluster[name].restart()  # it ignores SIGTERM
    assert lab.cluster[name].ask("and now?", timeout=60).status == "answered"
    assert lab.truth(name).prompts == ("and now?",)
    lab.control(name, set={"ignore_sigterm": False})


def test_one_that_exits_at_once_is_told_with_its_status(lab: Lab, tmp_path: Path) -> None:
    script = tmp_path / "script.json"
    script.write_text(json.dumps({"on_start": [{"do": "exit", "status": 7}]}))
    command = [*PYTHON, str(FAKE), "--log", str(tmp_path / "log.jsonl"), "--script", str(script)]
    for agent in ({"kind": "chat"}, {"kind": "program", "turn_end": {"prompt": "^› $"}}):
        with pytest.raises(AgentFailed, match="exit status 7"):
            lab.cluster.add({"name": "brief", "command": command, **agent})
        assert "brief" not in lab.cluster.names


def test_what_a_quick_program_reports_is_heard(lab: Lab, tmp_path: Path) -> None:
    """It says that it takes input before the lab knows its pane."""
    command = [*PYTHON, str(FAKE), "--log", str(tmp_path / "log.jsonl")]
    agent = lab.cluster.add({"name": "quick", "kind": "chat", "command": command})
    (ready,) = [one for one in lab.cluster.events() if (one.agent, one.event) == ("quick", "agent.ready")]
    assert ready.source == "hook"  # its screen alone would be believed after six seconds
    assert agent.ask("there?", timeout=60).status == "answered"
    lab.cluster.remove("quick")
