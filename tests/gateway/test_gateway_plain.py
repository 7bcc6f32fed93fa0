"""Requests in their plain form: what of them counts, and what does not."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator_lab.gateway.plain import Places, PlainForm, difference
from orchestrator_lab.gateway.spoken import Line
from orchestrator_lab.gateway.translate import translated

HERE = Places({"work": "/home/ada/lab/work", "home": "/home/ada", "tmp": "/tmp"})
THERE = Places({"work": "/srv/x", "home": "/root", "tmp": "/var/tmp"})
IDS = ("msg_01m8m33s40aa9r6p1j99ncsrrs", "msg_01m8m33sc4y92nasbsx13r18qs")


def plain(body: dict[str, Any], path: str = "/v1/messages", places: Places = HERE) -> Any:
    return PlainForm(places).of(path, body, "main")


def told(*texts: str, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text} for text in texts], **more}


def test_what_programs_add_on_their_own_does_not_count() -> None:
    bare = told("hello")
    blocks = [
        {"type": "text", "text": "<system-reminder>\nThe date is 2026-11-29.\n</system-reminder>"},
        {"type": "text", "text": "hello", "cache_control": {"type": "ephemeral"}},
    ]
    dressed = told()
    dressed["messages"] = [{"role": "user", "content": blocks}, {"role": "system", "content": "Skills: …"}]
    dressed["metadata"] = {"user_id": "x"}
    assert plain(bare).key == plain(dressed).key


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("add 2 and 2", "add 2 and 3"),
        ("meet on 2026-12-01", "meet on 2026-12-02"),
        ("wait 2 s", "wait 3 s"),
        ("at 10:00:01", "at 10:00:02"),
        (f"answer {IDS[0]}, not {IDS[1]}", f"answer {IDS[1]}, not {IDS[1]}"),
    ],
)
def test_each_word_that_somebody_said_counts(one: str, other: str) -> None:
    assert plain(told(one)).key != plain(told(other)).key


def test_ids_and_places_are_the_same_by_what_they_stand_for() -> None:
    was = told(f"From bob ({IDS[0]}):\nsee /home/ada/lab/work/a.txt", f"as {IDS[0]} says, {IDS[1]} too")
    now = told(f"From bob ({IDS[1]}):\nsee /srv/x/a.txt", f"as {IDS[1]} says, {IDS[0]} too")
    assert plain(was).key == plain(now, places=THERE).key
    assert plain(was).ids == IDS
    assert plain(was).key != plain(told(f"From bob ({IDS[0]}):\nsee /home/ada/lab/work/a.txt", "no id")).key


def test_moments_count_in_no_result_of_a_tool() -> None:
    def asked(output: str) -> Any:
        call = {"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {"command": "date"}}
        result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": output}
        talk = [{"role": "user", "content": "go"}, {"role": "assistant", "content": [call]}]
        return plain({"messages": [*talk, {"role": "user", "content": [result]}]}).key

    first = asked("Sun Nov 29 16:41:05 UTC 2026 took 0.0137 seconds")
    assert first == asked("Mon Nov 30 09:01:55 UTC 2026 took 1.2 seconds")
    assert first != asked("Mon Nov 30 09:01:55 UTC 2026 took nothing")
    listed = asked("-rw-r--r-- 1 ada ada 17 Nov 29 20:25 note.txt")
    assert listed == asked("-rw-r--r-- 1 ada ada 17 Jan  3  2025 note.txt")
    assert listed == asked("-rw-r--r-- 1 ada ada 17 3 Jan 09:00 note.txt")
    assert listed != asked("-rw-r--r-- 1 ada ada 18 Nov 29 20:25 note.txt")


def started(session: str, task: str, port: str = "4711") -> dict[str, Any]:
    """A talk with commands that go on, of Codex and of Claude Code, whose ids have no form of their own."""
    calls: list[tuple[str, dict[str, Any]]] = [
        ("exec_command", {"cmd": "cat"}),
        ("Bash", {"run_in_background": True}),
        ("write_stdin", {"session_id": int(session)}),
    ]
    results = [
        f"Process running with session ID {session}\nOutput:\n{port}",
        f"Command running in background with ID: {task}. Output is being written to: /tmp/t/{task}.output.",
        "",
    ]
    talk: list[dict[str, Any]] = [{"role": "user", "content": "go"}]
    for number, ((name, value), result) in enumerate(zip(calls, results, strict=True)):
        call = {
            "type": "tool_use",
            "id": f"toolu_{number}",
            "name": name,
            "input": value or {"session_id": int(session)},
        }
        talk.append({"role": "assistant", "content": [call]})
        talk.append(
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call["id"], "content": result}]}
        )
    talk.append({"role": "user", "content": f"<task-notification>{task} is done</task-notification>, port {port}"})
    return {"messages": talk}


def test_ids_without_a_form_are_known_once_a_program_has_told_of_them() -> None:
    was, now = plain(started("98343", "bfa1spbzt")), plain(started("4330", "bmc4kd8kc"))
    assert was.key == now.key
    assert (was.ids, now.ids) == (("98343", "bfa1spbzt"), ("4330", "bmc4kd8kc"))
    # A number that is somewhere else is no id, be it the same one.
    other = plain(started("98343", "bfa1spbzt", port="98343"))
    assert other.key != was.key
    assert other.key == plain(started("4330", "bmc4kd8kc", port="98343")).key


def test_a_recorded_answer_goes_to_the_command_that_goes_on_now() -> None:
    names = {"98343": "4330", "bfa1spbzt": "bmc4kd8kc"}
    whole = '{"session_id":98343,"chars":"98343","file":"/tmp/bfa1spbzt.output"}'
    pieces = [json.dumps({"type": "response.function_call_arguments.delta", "delta": one}) for one in whole]
    stream = [f"data: {one}\n\n" for one in pieces]
    (found,) = translated(stream, names, stream=True)
    said = "".join(json.loads(line[6:])["delta"] for line in found.split("\n\n") if line)
    assert said == '{"session_id":4330,"chars":"98343","file":"/tmp/bmc4kd8kc.output"}'


def test_results_of_tools_that_ran_side_by_side_have_no_order() -> None:
    calls = [{"type": "tool_use", "id": f"toolu_{n}", "name": "Read", "input": {"file": n}} for n in range(3)]
    results = [{"type": "tool_result", "tool_use_id": f"toolu_{n}", "content": f"of {n}"} for n in range(3)]

    def asked(order: list[int]) -> Any:
        talk = [{"role": "user", "content": "go"}, {"role": "assistant", "content": calls}]
        return plain({"messages": [*talk, {"role": "user", "content": [results[n] for n in order]}]}).key

    assert asked([0, 1, 2]) == asked([2, 0, 1])


def test_the_three_apis_say_the_same() -> None:
    anthropic = told("hi", "there")["messages"]
    anthropic.insert(1, {"role": "assistant", "content": [{"type": "text", "text": "Hello."}]})
    responses = [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "You are Codex."}]},
        {"role": "user", "content": [{"type": "input_text", "text": "<environment_context>x</environment_context>"}]},
        {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
        {"type": "reasoning", "summary": [], "encrypted_content": "x"},
        {"role": "assistant", "content": [{"type": "output_text", "text": "Hello."}]},
        {"role": "user", "content": "there"},
    ]
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
    chat += [{"role": "assistant", "content": "Hello."}, {"role": "user", "content": "there"}]
    spoken = [
        plain({"messages": anthropic}).spoken,
        plain({"input": responses}, "/v1/responses").spoken,
        plain({"messages": chat}, "/v1/chat/completions").spoken,
    ]
    assert [(line.who, line.text) for line in spoken[0]] == [
        ("user", "hi"),
        ("assistant", "Hello."),
        ("user", "there"),
    ]
    assert spoken[0] == spoken[1] == spoken[2]


def test_the_setting_is_compared_without_the_machine() -> None:
    system = "You are ada.\n - OS Version: Linux {}\n - Platform: {}\nWorking in {}, on {}\nCurrent branch: {}\n"
    system += " The writable roots are `{}`, `{}`.\n"
    was = told("hi", system=system.format("6.1", "linux", "/home/ada/lab/work", "2026-11-29", "main", "/lab", "/tmp"))
    now = told("hi", system=system.format("24.5", "darwin", "/srv/x", "2027-01-01", "topic", "/private/tmp", "/x"))
    assert plain(was).setting == plain(now, places=THERE).setting
    other = told("hi", system=was["system"] + "Be rude.")
    assert plain(was).setting != plain(other).setting
    assert plain(was).key == plain(other).key


def test_a_repository_around_the_work_folder_is_of_the_machine() -> None:
    memory = "You have a memory at `/home/ada/olab/claude/projects/{}/memory/`.\nBe brief."
    git = "\n\n\ngitStatus: This is the git status at the start.\n\nCurrent branch: main\n\n"
    git += "Git user: Ada\n\nStatus:\n?? x\n\nRecent commits:\n3f5de41 Notes\n97c04e0 More"
    outside = told("hi", system=memory.format("-home-ada-lab-work"))
    inside = told("hi", system=memory.format("-home-ada") + git)
    assert plain(outside).setting == plain(inside).setting
    assert plain(outside).setting != plain(told("hi", system=inside["system"] + "\n\nBe rude.")).setting


@pytest.mark.parametrize(
    "body", [None, "text", [], {"messages": 3}, {"messages": [1]}, {"messages": [{"content": {}}]}]
)
def test_what_is_no_request_is_compared_as_a_whole(body: Any) -> None:
    assert plain(body).key == plain(body).key
    assert plain(body).key != plain({"messages": [{"role": "user", "content": "x"}]}).key


def events(pieces: list[str]) -> list[str]:
    """An answer's event stream with a text in these pieces, and the whole text at its end."""
    rows = [{"type": "x.delta", "item_id": "i", "sequence_number": n, "delta": piece} for n, piece in enumerate(pieces)]
    rows.append({"type": "x.done", "text": "".join(pieces)})
    return [f"event: {row['type']}\ndata: {json.dumps(row)}\n\n" for row in rows]


@given(st.text("a/w-é\n", max_size=12), st.lists(st.integers(0, 40), max_size=6))
def test_a_name_is_replaced_wherever_a_stream_cuts_it(around: str, cuts: list[int]) -> None:
    text = f"{around} {IDS[0]} and /home/ada/lab/work/{around} {IDS[0]}"
    places = sorted({min(cut, len(text)) for cut in [0, *cuts, len(text)]})
    pieces = [text[start:end] for start, end in itertools.pairwise(places)]
    names = {IDS[0]: IDS[1], **HERE.moves(THERE)}
    body = "".join(translated(events(pieces), names, stream=True))
    rows = [json.loads(line[6:]) for line in body.split("\n") if line.startswith("data: ")]
    expected = f"{around} {IDS[1]} and /srv/x/{around} {IDS[1]}"
    assert "".join(row["delta"] for row in rows[:-1]) == expected
    assert rows[-1]["text"] == expected


def test_an_answer_without_such_a_name_stays_as_it_is() -> None:
    body = ['data: {"delta":  {"text": "odd   space"}}\n', "\n", ": a comment\n\n"]
    assert translated(body, {IDS[0]: IDS[1]}, stream=True) is body
    assert translated(["{ broken"], {"broken": "x"}, stream=False) == ["{ broken"]
    assert translated(['{"a": "/x/y"}'], {"/x": "/z"}, stream=False) == ['{"a": "/z/y"}']


def test_a_place_inside_another_path_is_not_replaced_twice() -> None:
    names = Places({"home": "/root"}).moves(Places({"home": "/home/root"}))
    assert translated(['{"a": "/root/x /home/root /rooted"}'], names, stream=False) == [
        '{"a": "/home/root/x /home/root /rooted"}'
    ]


def test_a_difference_shows_the_sentence_in_which_it_is() -> None:
    page = [f"This is sentence {number} of a long page." for number in range(100)]
    other = [*page[:50], "A new one.", *page[50:]]
    text = difference([Line("system", " ".join(page))], [Line("system", " ".join(other))])
    assert [row for row in text.split("\n")[3:] if row[0] in "+-"] == ["+    A new one."]
    assert difference([Line("user", "x" * 10000)], [Line("user", "y")]).endswith(" more characters]")


def test_what_was_read_before_is_the_same_again() -> None:
    form = PlainForm(HERE)
    first = [told(f"see {IDS[0]}"), told(f"see {IDS[0]}", f"and {IDS[1]}"), told(f"and {IDS[1]}", f"see {IDS[0]}")]
    for _ in range(2):
        assert [form.of("/v1/messages", body, "main") for body in first] == [plain(body) for body in first]
