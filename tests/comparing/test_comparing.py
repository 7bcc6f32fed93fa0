"""Two runs: what differs is found, named once, and nothing else."""

from __future__ import annotations

import json
import re
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from any_journal import Step, journals, make_run, write
from html_page import Page
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded_run import write_run

from orchestrator_lab.comparing.difference import TOTALS, RunDiff
from orchestrator_lab.errors import ConfigError, RunNotFound
from orchestrator_lab.run import Run

if TYPE_CHECKING:
    from conftest import Alter

Event = dict[str, Any]
NASTY = "<script>alert(1)</script>\x1b]0;t\x07\u202e & \"'\n```\r\x00"


def of(diff: RunDiff) -> list[tuple[Any, ...]]:
    """Return what differs, without texts that are there only once."""
    frame = diff.frame.astype(object).where(lambda one: one.notna(), None)
    return list(frame[["part", "op", "whose", "name", "a", "b"]].itertuples(index=False, name=None))


def each(name: str, **facts: Any) -> Any:
    """Return what changes the events of a name that have a text in them."""

    def change(events: list[Event]) -> None:
        wanted = facts.pop("where", "")
        found = [one for one in events if one["event"] == name and wanted in json.dumps(one)]
        assert found
        for one in found:
            one["attributes"] = {**one.get("attributes", {}), **facts}

    return change


# the same ---------------------------------------------------------------------------------------


def test_a_run_is_the_same_as_itself(recorded: Run, tmp_path: Path) -> None:
    for run in (recorded, Run(write_run(tmp_path))):
        for exact in (False, True):
            diff = run.diff(Run(run.path), exact=exact)
            assert diff.equal
            assert diff.frame.empty
            assert diff.summary == {}
            assert [len(table.pairs) for table in diff.tables.values()] == [
                len(run.tables.frame(name)) for name in diff.tables
            ]


def test_ids_instants_and_the_work_folder_are_expected_to_differ(recorded: Run, alter: Alter) -> None:
    place = recorded.manifest["work_dir"]

    def later(text: str) -> str:
        text = re.sub(r"_01[0-9a-z]{4}(?=[0-9a-z]{20})", "_01n9n5", text)
        text = re.sub(r"\b20\d\d-\d\d-\d\dT", "2031-01-30T", text).replace('"pid": ', '"pid": 9')
        return text.replace('"pane_id": "%', '"pane_id": "%1').replace(place, "/srv/other/place")

    other = alter(text=later)
    diff = recorded.diff(other)
    # Where a run was made is in its configuration, once.
    assert of(diff) == [("config", "changed", None, "cluster.work_dir", place, "/srv/other/place")]
    exact = recorded.diff(other, exact=True)
    named = set(exact.frame["name"].dropna())
    assert {"run_id", "message_id", "queued_at", "turn_id", "pid", "pane_id", "cwd", "output", "started_at"} <= named
    assert not named & {"content", "reply", "status", "input_tokens"}
    assert all(table.same == 0 for table in exact.tables.values())
    assert exact.messages.pairs == diff.messages.pairs
    json.dumps(exact.to_dict())


def test_a_sealed_run_and_what_open_run_takes(recorded: Run, alter: Alter) -> None:
    copy = alter()
    copy.seal()
    assert recorded.diff(copy.path, exact=True).equal
    assert recorded.diff(str(copy.path / "journal.jsonl")).equal
    bundle = copy.path.with_name("copy.olab.zip")
    copy.export(bundle)
    assert recorded.diff(bundle).equal
    with pytest.raises(RunNotFound):
        recorded.diff(copy.path / "nothing")
    with pytest.raises(ConfigError, match="cannot compare with NoneType; expected a run, or what open_run takes"):
        recorded.diff(None)  # type: ignore[arg-type]


# what differs -----------------------------------------------------------------------------------

TOPOLOGY = "the topology does not let tester write to coder; tester may write to: manager"
EXPIRED = "it was not delivered in time"


def _refuse(events: list[Event]) -> None:
    (one,) = [one for one in events if one["event"] == "message.refused"]
    one["event"], one["attributes"] = "message.expired", {"error_type": "expired", "error_message": EXPIRED}


def _drop(events: list[Event]) -> list[Event]:
    (queued,) = [one for one in events if one["event"] == "message.queued" and DROPPED in one["attributes"]["content"]]
    return [one for one in events if one.get("message_id") != queued["message_id"]]


def _unaccepted(events: list[Event]) -> list[Event]:
    first = next(one["message_id"] for one in events if one["event"] == "message.queued")
    told = [one for one in events if one.get("message_id") == first]
    gone = [one for one in told if one["event"] in {"message.accepted", "message.started", "message.answered"}]
    (gone[0]["event"], gone[0]["attributes"]) = ("message.uncertain", {"error_type": "no_proof"})
    for one in events:
        if one["event"] == "turn.started" and first in one["attributes"].get("message_ids", []):
            one["attributes"]["message_ids"] = []
    return [one for one in events if one not in gone[1:]]


def _deny(events: list[Event]) -> None:
    one = next(one for one in events if one["event"] == "dialog.answered" and one["attributes"]["decision"] == "allow")
    one["attributes"] |= {"decision": "deny", "answered_by": "human"}


DROPPED = "2 faults.\n"
BEFORE = "Repaired: run your tests again."
AFTER = "Repaired; run all of your tests once more, please, and tell me which fail."
CASES: dict[str, tuple[Any, list[tuple[Any, ...]]]] = {
    "text of a message": (
        each("message.queued", where=BEFORE, content=AFTER),
        [("messages", "changed", "manager → tester", "content", BEFORE, AFTER)],
    ),
    "outcome": (
        _refuse,
        [
            ("messages", "changed", "tester → coder", name, a, b)
            for name, a, b in (
                ("status", "refused", "expired"),
                ("error_type", "topology", "expired"),
                ("error_message", TOPOLOGY, EXPIRED),
            )
        ],
    ),
    "rungs": (
        _unaccepted,
        [
            ("messages", "changed", "user → boss", name, a, b)
            for name, a, b in (
                ("status", "answered", "uncertain"),
                ("acceptance_source", "hook", None),
                ("error_type", None, "no_proof"),
                ("rungs", "queued claimed written accepted started answered", "queued claimed written"),
            )
        ]
        + [("turns", "changed", "boss", "answers", "#1", None)],
    ),
    "reply": (
        each("turn.ended", where="Answered, with its source.", reply="Answered."),
        [("turns", "changed", "researcher", "reply", "Answered, with its source.", "Answered.")],
    ),
    "end of a turn": (
        each("turn.ended", where="Answered, with its source.", end_reason="interrupted"),
        [("turns", "changed", "researcher", "end_reason", "completed", "interrupted")],
    ),
    "tokens": (
        each("turn.usage", where='"output_tokens": 133', output_tokens=134),
        [("turns", "changed", "researcher", "output_tokens", "133", "134")],
    ),
    "tool call": (
        each("tool.ended", where="31 notes.txt", status="error"),
        [("tool_calls", "changed", "researcher → Bash", "status", "ok", "error")],
    ),
    "dialog": (
        _deny,
        [
            ("dialogs", "changed", "coder → permission", "answered_by", "policy", "human"),
            ("dialogs", "changed", "coder → permission", "decision", "allow", "deny"),
        ],
    ),
    "agent": (
        each("agent.model", where='"boss"', model="other"),
        [("agents", "changed", "boss", "model", "script", "other")],
    ),
    "end": (each("run.ended", status="failed"), [("run", "changed", None, "status", "completed", "failed")]),
}


@pytest.mark.parametrize("case", CASES)
def test_each_change_is_found_and_nothing_else(recorded: Run, alter: Alter, case: str) -> None:
    change, expected = CASES[case]
    diff = recorded.diff(alter(change))
    assert not diff.equal
    assert of(diff) == expected


def test_what_is_removed_is_added_the_other_way_round(recorded: Run, alter: Alter) -> None:
    other = alter(_drop)
    diff = recorded.diff(other)
    (removed,) = diff.messages.rows
    assert (removed.op, removed.whose, removed.a, removed.b) == ("removed", ("tester", "manager"), 10, None)
    assert removed.text_a is not None
    assert removed.text_a.startswith("2 faults.")
    # Its turn is there: only what it answers is not known any more.
    assert [(row.op, [one.name for one in row.changes]) for row in diff.turns.rows] == [("changed", ["answers"])]
    (added,) = other.diff(recorded).messages.rows
    assert (added.op, added.a, added.b, added.id_b) == ("added", None, 10, removed.id_a)
    assert diff.inverted() == other.diff(recorded)


def test_messages_that_come_in_another_order_have_moved(recorded: Run, alter: Alter) -> None:
    def swap(events: list[Event]) -> list[Event]:
        queued = [place for place, one in enumerate(events) if one["event"] == "message.queued"]
        researcher, tester = queued[3], queued[4]
        events[researcher], events[tester] = events[tester], events[researcher]
        for place in (researcher, tester):
            events[place]["seq"] = place + 1
        return events

    diff = recorded.diff(alter(swap))
    assert [(row.op, row.a, row.b) for row in diff.messages.rows] == [("moved", 3, 4)]
    assert not diff.equal
    assert "⇅ manager → researcher (#4 → #5) moved" in repr(diff)


def test_configuration_by_key_path_and_versions(recorded: Run, alter: Alter) -> None:
    def other(facts: dict[str, Any]) -> None:
        facts["config"]["cluster"]["cols"] = 120
        facts["config"]["cluster"]["dialogs"]["allow"].append("Read")
        facts["config"]["agents"][1]["model"] = None
        facts["config"]["agents"] = [*facts["config"]["agents"][::-1], {"name": "new one", "kind": "chat"}]
        facts["versions"]["python"] = "3.12.1"
        facts["git"]["work_dir"]["dirty"] = True
        facts["params"] = {"task": "line count"}

    diff = recorded.diff(alter(manifest=other))
    assert of(diff) == [
        ("run", "changed", None, "params.task", "word count", "line count"),
        ("versions", "changed", None, "git.work_dir.dirty", "false", "true"),
        ("versions", "changed", None, "python", "3.11.7", "3.12.1"),
        ("config", "removed", None, "agents.manager.model", "claude-sonnet-4-5", None),
        ("config", "added", None, 'agents."new one".kind', None, "chat"),
        ("config", "added", None, 'agents."new one".name', None, "new one"),
        ("config", "changed", None, "cluster.cols", "96", "120"),
        ("config", "added", None, "cluster.dialogs.allow[1]", None, "Read"),
    ]


def test_instructions_are_shown_themselves(recorded: Run, alter: Alter) -> None:
    other = alter(each("agent.added", where='"boss"', instructions_sha256="0" * 64))
    file = other.path / "instructions" / "boss.md"
    before = file.read_text(encoding="utf-8")
    file.write_text(before + "\nBe brief.\n", encoding="utf-8")
    (row,) = recorded.diff(other).agents.rows
    assert [(one.name, one.a, one.b) for one in row.changes] == [("instructions", before, before + "\nBe brief.\n")]
    file.unlink()
    file.symlink_to("/etc/hostname")
    (row,) = recorded.diff(other).agents.rows
    assert [one.name for one in row.changes] == ["instructions_sha256"]


def test_costs_are_added_up_by_agent(recorded: Run, alter: Alter) -> None:
    diff = recorded.diff(alter(each("turn.usage", where='"researcher"', output_tokens=1000, cost_usd=1.0)))
    turns = recorded.turns
    known = {(one.agent, one.name): one for one in diff.costs}
    assert known[None, "input_tokens"].a == turns["input_tokens"].sum()
    assert known["boss", "turns"].b == (turns["agent"] == "boss").sum()
    assert known["researcher", "output_tokens"].difference == 2000 - 148
    frame = diff.to_frames()["costs"].set_index("agent")
    assert frame.loc["researcher", "cost_usd_difference"] == pytest.approx(2.0 - frame.loc["researcher", "cost_usd_a"])
    assert frame["duration_s_a"].iloc[-1] == pytest.approx(turns["duration_s"].sum())
    assert list(frame.columns) == [f"{name}_{kind}" for name in TOTALS for kind in ("a", "b", "difference")]


def test_frames_have_both_sides(recorded: Run, alter: Alter) -> None:
    diff = recorded.diff(alter(_drop, each("message.queued", where=BEFORE, content=AFTER)))
    messages = diff.to_frames()["messages"]
    assert messages["op"].value_counts()[["same", "removed", "changed"]].tolist() == [19, 1, 1]
    assert messages["content_a"].tolist() == recorded.messages["content"].tolist()
    assert messages.loc[messages["op"] == "removed", "content_b"].isna().all()
    assert messages["queued_at_b"].dtype == recorded.messages["queued_at"].dtype
    assert set(diff.to_frames()) == {"run", "versions", "config", *diff.tables, "costs"}
    assert recorded.diff(recorded).to_frames()["config"].dtypes.tolist() == [pd.StringDtype("pyarrow")] * 3


# properties -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder() -> Any:
    with tempfile.TemporaryDirectory() as place:
        yield Path(place)


@st.composite
def two_journals(draw: st.DrawFn) -> tuple[list[Step], list[Step]]:
    """Return two journals that have much in common, or nothing."""
    a = draw(journals(max_size=30))
    if draw(st.booleans()):
        return a, draw(journals(max_size=30))
    kept = draw(st.lists(st.booleans(), min_size=len(a), max_size=len(a)))
    b = [step for step, keep in zip(a, kept, strict=True) if keep] + draw(journals(max_size=5))
    return a, draw(st.permutations(b)) if draw(st.booleans()) else b


@settings(max_examples=25)
@given(two_journals())
def test_both_ways_agree_and_the_alignment_makes_one_run_of_the_other(
    folder: Path, both: tuple[list[Step], list[Step]]
) -> None:
    place = Path(tempfile.mkdtemp(dir=folder))
    runs = []
    for name, todo in zip("ab", both, strict=True):
        path = make_run(place, f"run_{name}")
        list(write(path, todo))
        runs.append(Run(path))
    a, b = runs
    for exact in (False, True):
        diff, back = a.diff(b, exact=exact), b.diff(a, exact=exact)
        assert diff.inverted() == back
        assert back.inverted() == diff
        assert a.diff(Run(a.path), exact=exact).equal
        assert_applies(diff, a, b)
        json.dumps(diff.to_dict())
        assert len(diff.to_frames()["turns"]) == len(diff.turns.pairs)
    assert "\x1b" not in diff.to_text()
    assert Page(diff.to_html()).open == []


def assert_applies(diff: RunDiff, a: Run, b: Run) -> None:
    """Make the second run's messages of the first's and what differs."""
    before, after = a.messages, b.messages
    pairs = diff.messages.pairs
    assert sorted(i for i, _ in pairs if i is not None) == list(range(len(before)))
    assert sorted(j for _, j in pairs if j is not None) == list(range(len(after)))
    told = {(row.a, row.b): row for row in diff.messages.rows}
    fields = ["sender", "recipient", "content", "status"]
    made: dict[int, list[Any]] = {}
    for i, j in pairs:
        if j is None:
            assert told[i, None].op == "removed"
            continue
        if i is None:
            assert told[None, j].op == "added"
            made[j] = values(after, j, fields)
            continue
        row = told.get((i, j))
        changed = {} if row is None else {one.name: one.b for one in row.changes}
        made[j] = [changed.get(name, one) for name, one in zip(fields, values(before, i, fields), strict=True)]
    assert [made[j] for j in range(len(after))] == [values(after, j, fields) for j in range(len(after))]


def values(frame: pd.DataFrame, place: int, names: list[str]) -> list[Any]:
    return [None if pd.isna(one) else one for one in frame.iloc[place][names]]


# shown ------------------------------------------------------------------------------------------


def test_text(recorded: Run, alter: Alter) -> None:
    diff = recorded.diff(alter(_drop, each("message.queued", where=BEFORE, content=AFTER)))
    lines = repr(diff).splitlines()
    assert lines[:3] == [
        "claude-team: two runs, not the same",
        f"- claude-team ({recorded.run_id})",
        f"+ claude-team ({recorded.run_id})",
    ]
    assert "  messages: 1 changed, 1 removed, 19 same" in lines
    assert "- tester → manager (#11)" in lines
    place = lines.index("~ manager → tester (#14 → #13)")
    assert lines[place + 1 : place + 4] == ["    content:", f"      - {BEFORE}", f"      + {AFTER}"]
    turns = recorded.turns.query("agent == 'researcher'")
    tokens = f"{turns['input_tokens'].sum():,}".replace(",", " ")
    spent = rf"^  researcher +2 +{tokens} +148 +{turns['cost_usd'].sum():.4f}"
    assert re.search(spent, repr(diff), re.MULTILINE)
    same = repr(recorded.diff(recorded)).splitlines()
    assert same[0] == "claude-team: two runs, the same"
    assert same[-1] == "5 agents, 21 messages, 20 turns, 25 tool calls, 5 dialogs"
    assert repr(recorded.diff(recorded, exact=True)).startswith("claude-team: two runs, the same to the last value\n")


def test_a_long_difference_is_cut_and_says_so(recorded: Run, alter: Alter) -> None:
    diff = recorded.diff(alter(each("message.queued", content="\n".join(map(str, range(40))))))
    assert "  … 9 more; to_text() has all" in repr(diff).splitlines()
    assert "more lines" in repr(diff)
    assert "more" not in diff.to_text()
    assert diff.to_text().count("      + 39") == 21
    assert "… 9 more" not in diff.to_html()


def test_a_word_in_a_long_line_is_shown_alone() -> None:
    from orchestrator_lab.comparing.aligning import Effort
    from orchestrator_lab.comparing.wording import line_diff

    before = '{"text": "' + "word " * 2000 + 'end"}'
    old, new = line_diff(before, before.replace("end", "END"), Effort())
    assert (old.mark, new.mark) == ("-", "+")
    assert len(old.text) < 200
    assert [text for text, changed in old.parts if changed] == ["end"]
    assert [text for text, changed in new.parts if changed] == ["END"]
    old, new = line_diff("a" * 50_000 + "x" + "b " * 50_000, "a" * 50_000 + "y" + "b " * 50_000, Effort())
    assert len(old.text) < 200


def test_nothing_that_a_run_holds_is_more_than_text(recorded: Run, alter: Alter) -> None:
    def hostile(facts: dict[str, Any]) -> None:
        facts["name"] = facts["run_id"] = facts["params"] = facts["versions"]["python"] = NASTY
        facts["config"] = {NASTY: {NASTY: NASTY}}

    def spoiled(events: list[Event]) -> None:
        for one in events:
            for name in ("content", "reply", "error_message", "model", "subject", "sender", "name", "output", "role"):
                if name in one.get("attributes", {}):
                    one["attributes"][name] = NASTY + str(one["attributes"][name])

    for diff in (recorded.diff(alter(spoiled, manifest=hostile)), alter(spoiled, manifest=hostile).diff(recorded)):
        assert not diff.equal
        for shown in (diff._repr_html_(), diff.to_html()):
            page = Page(shown)
            assert page.open == []
            assert page.links == []
            assert set(page.tags) <= {
                "html", "head", "meta", "title", "style", "body", "div", "span", "b", "i", "bdi", "details", "summary",
                "del", "ins", "table", "thead", "tbody", "tr", "th", "td",
            }  # fmt: skip
            assert page.attributes <= {
                "lang", "charset", "http-equiv", "content", "name", "style", "role", "aria-label", "aria-hidden",
                "aria-level", "title", "dir", "scope",
            }  # fmt: skip
            assert "<script>alert(1)</script>" in page.text
            assert not re.search(r"[\x00\x1b\x07\r]", shown)
        assert "color-scheme:light dark" in diff.to_html()
        for text in (repr(diff), diff.to_text()):
            assert not re.search(r"[\x00\x1b\x07\r]", text)


# fast -------------------------------------------------------------------------------------------


def test_comparing_costs_less_than_reading(tmp_path: Path) -> None:
    path = write_run(tmp_path, rounds=120)
    lines = (path / "journal.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    other = tmp_path / "other"
    other.mkdir()
    (other / "manifest.json").write_bytes((path / "manifest.json").read_bytes())
    changed = [line.replace("Plan the next", "Plan a") if number % 3 else line for number, line in enumerate(lines)]
    (other / "journal.jsonl").write_text("".join(changed), encoding="utf-8")
    reading, comparing = [], []
    for _ in range(3):
        a, b = Run(path), Run(other)
        begin = time.process_time()
        for run in (a, b):
            for table in ("runs", "agents", "messages", "turns", "tool_calls", "dialogs"):
                run.tables.frame(table)
        read = time.process_time()
        diff = a.diff(b)
        reading.append(read - begin)
        comparing.append(time.process_time() - read)
    assert len(diff.messages.pairs) > 1000
    assert not diff.equal
    assert min(comparing) < 2 * min(reading), (comparing, reading)
