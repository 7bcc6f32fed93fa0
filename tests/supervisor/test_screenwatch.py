"""Programs that report nothing: their turns are read off the screen, in real panes."""

from __future__ import annotations

import shutil
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from care_helpers import until

from orchestrator_lab import Cluster, turns_df
from orchestrator_lab.errors import AgentFailed, DeliveryFailed, DeliveryUncertain, TurnFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

BASH = ["/bin/bash", "--norc", "--noprofile"]
#: Reads lines as a password prompt does: nothing of what is typed is shown.
SECRETIVE = """
    import getpass, sys
    while True:
        word = getpass.getpass("secret> ")
        print("no newline before this:", len(word), word[:3])
"""
#: The same, and it thinks before it writes anything at all.
MUTE = """
    import sys, termios, time
    modes = termios.tcgetattr(0)
    modes[3] &= ~termios.ECHO
    termios.tcsetattr(0, termios.TCSANOW, modes)
    while True:
        print("mute> ", end="", flush=True)
        line = sys.stdin.readline().strip()
        time.sleep(0.6)
        print("\\nheard", line, flush=True)
"""
#: Reads lines without a terminal's help, answers in two steps with silence between.
SLOW = """
    import sys, time
    print("warming up", flush=True)
    time.sleep(0.2)
    print("READY TO GO", flush=True)
    for line in sys.stdin:
        print("first", flush=True)
        time.sleep(0.25)
        print("second", line.strip(), "=over=", flush=True)
        print("after the marker", flush=True)
"""
#: Prompts on standard output, in a terminal that edits lines itself.
PLAIN = """
    import sys, time
    while True:
        print("plain> ", end="", flush=True)
        line = sys.stdin.readline()
        if not line:
            break
        if line.startswith("half"):
            print("no end of line", end="", flush=True)
        elif line.startswith("wipe"):
            print("before", flush=True)
            print("\\x1b[H\\x1b[2J\\x1b[3Jafter", flush=True)
        elif line.startswith("die"):
            print("last words", flush=True)
            sys.exit(7)
        elif line.startswith("silent"):
            time.sleep(0.3)
        else:
            print(line.upper(), end="", flush=True)
"""


def write(folder: Path, name: str, source: str) -> list[str]:
    path = folder / name
    path.write_text(textwrap.dedent(source), encoding="utf-8")
    return [sys.executable, "-u", str(path)]


@pytest.fixture(scope="module")
def programs(module_runtime: Path) -> Iterator[Cluster]:  # noqa: ARG001 - the place of its sockets
    folder = Path(tempfile.mkdtemp(prefix="w"))
    (folder / "home").mkdir()
    home = {"HOME": str(folder / "home"), "PYTHON_HISTORY": str(folder / "h"), "HISTFILE": "", "TERM": "xterm"}

    def program(name: str, command: Any, end: dict[str, Any], **more: Any) -> dict[str, Any]:
        env = {**home, **more.pop("env", {})}
        return {"name": name, "kind": "program", "command": command, "turn_end": end, "env": env, **more}

    agents = [
        program("py", [sys.executable, "-q"], {"prompt": r"^>>> $"}),
        # Isolated, it does without readline: the terminal edits its lines.
        program("bare", [sys.executable, "-I", "-q"], {"prompt": r"^>>> $"}),
        program("sh", BASH, {"prompt": r"^sh> $"}, env={"PS1": "sh> "}),
        program("wide", BASH, {"prompt": "^日本 e\u0301> $"}, env={"PS1": "日本 e\u0301> "}, cols=40),
        program("colour", BASH, {"prompt": r"^c\d+>$"}, env={"PS1": r"\[\e[1;35m\]c\#>\[\e[0m\] "}),
        program("marked", BASH, {"marker": "DONE-7"}, env={"PS1": "m$ "}, ready={"prompt": r"m\$ $"}),
        program("cat", "cat", {"quiet_s": 1.0}),
        program("secret", write(folder, "secret.py", SECRETIVE), {"prompt": "^secret> $"}, echo=False),
        program("mute", write(folder, "mute.py", MUTE), {"prompt": "^mute> $"}, echo=False),
        program("slow", write(folder, "slow.py", SLOW), {"marker": "=over="}, ready={"marker": "READY TO GO"}),
        program("plain", write(folder, "plain.py", PLAIN), {"prompt": "^plain> $"}, stop={"text": "die"}),
    ]
    if shutil.which("bc"):
        agents.append(program("bc", "bc -q", {"quiet_s": 1.0}))
    if shutil.which("sqlite3"):
        agents.append(program("sql", "sqlite3 -batch -interactive :memory:", {"prompt": "^sqlite> $"}))
    config = {
        "cluster": {"name": "progs", "work_dir": str(folder), "runs_dir": str(folder / "runs"), "start_timeout_s": 60},
        "agents": agents,
    }
    with Cluster.start(config) as cluster:
        yield cluster


def ask(cluster: Cluster, name: str, text: str) -> str | None:
    return cluster[name].ask(text, timeout=30).reply


def end_reason(cluster: Cluster, name: str) -> str:
    turns = turns_df(cluster.run)
    return str(turns[turns["agent"] == name]["end_reason"].iloc[-1])


@pytest.mark.parametrize("name", ["py", "bare"])
@pytest.mark.parametrize(
    ("typed", "reply"),
    [
        ("1+1", "2"),
        ("x = 1", ""),
        ("print('日本語', '😀', 'é')", "日本語 😀 é"),
        ("for i in range(3): print(i)\n", "0\n1\n2"),
        ("if 1:\n  print('in')\n\nprint('out')", "in\nout"),
        ("print('a')\na = 'a'\nprint('b')\nprint(a)", "a\nb\na"),
        ("print('one\\n\\n')", "one\n\n"),
        ("print('no newline', end='')", "no newline"),
        ("print('>>> ')", ">>>"),
        ("print('y' * 450)", "y" * 450),
        ("'" + "z" * 900 + "'", "'" + "z" * 900 + "'"),
        ("print('\\x1b[31mred\\x1b[0m')", "red"),
    ],
)
def test_python_answers_exactly(programs: Cluster, name: str, typed: str, reply: str) -> None:
    assert ask(programs, name, typed) == reply
    assert end_reason(programs, name) == "prompt"


def test_a_prompt_in_the_output_does_not_end_the_turn(programs: Cluster) -> None:
    """The prompt's very text stands at the cursor for a while, as if the program waited for input."""
    typed = "import sys, time; _ = sys.stdout.write('>>> '); sys.stdout.flush(); time.sleep(0.6); print('real')"
    assert ask(programs, "py", typed) == ">>> real"


def test_forty_lines_of_input(programs: Cluster) -> None:
    typed = "\n".join(f"a{number} = {number}" for number in range(40)) + "\nprint(a39)"
    assert ask(programs, "py", typed) == "39"
    assert ask(programs, "bare", typed) == "39"


def test_shell_answers_exactly(programs: Cluster) -> None:
    assert ask(programs, "sh", "echo hello; echo 'a;'") == "hello\na;"
    assert ask(programs, "sh", "echo one\necho two") == "one\ntwo"
    assert ask(programs, "sh", "seq 1 300") == "\n".join(map(str, range(1, 301)))
    assert ask(programs, "sh", "sleep 0.2; printf 'no newline'") == "no newline"
    assert ask(programs, "sh", "cat <<X\nsh> \nX") == "sh>"


def test_output_longer_than_the_history(programs: Cluster) -> None:
    """A full history drops its oldest lines: what is there is the answer, and the run says that more was written."""
    assert ask(programs, "sh", "seq 1 4500") == "\n".join(map(str, range(1, 4501)))
    # The history is nearly full now: it loses lines while this is written, but none of these.
    assert ask(programs, "sh", "seq 1 2000") == "\n".join(map(str, range(1, 2001)))
    reply = ask(programs, "sh", "seq 1 20000")
    assert reply is not None
    lines = reply.split("\n")
    assert lines[-1] == "20000"
    assert len(lines) > 4000
    assert [int(line) for line in lines] == list(range(20001 - len(lines), 20001))
    notes = [event for event in programs.events() if event.event == "note" and event.agent == "sh"]
    assert "no longer shows the beginning" in notes[-1].attributes["text"]
    assert ask(programs, "sh", "echo still here") == "still here"


def test_cleared_screens(programs: Cluster) -> None:
    assert ask(programs, "sh", "clear") == ""
    assert ask(programs, "sh", "clear; echo after") == "after"
    assert ask(programs, "sh", "printf 'gone\\n\\033[H\\033[2J\\033[3Jkept\\n'; seq 1 3") == "kept\n1\n2\n3"
    assert ask(programs, "sh", "echo calm") == "calm"
    assert ask(programs, "plain", "wipe") == "after"


def test_wide_and_coloured_prompts(programs: Cluster) -> None:
    assert ask(programs, "wide", "echo 全角文字") == "全角文字"
    assert ask(programs, "wide", f"echo {'全' * 60}") == "全" * 60
    assert ask(programs, "colour", "echo 1; echo c9") == "1\nc9"
    assert ask(programs, "colour", "printf half") == "half"


def test_a_marker_in_the_echo_does_not_end_the_turn(programs: Cluster) -> None:
    """The input names the marker literally; only the program's own ends the turn."""
    exchange = programs["marked"].ask("echo begin DONE-6; sleep 0.3; echo working # DONE-7\necho DONE-7", timeout=30)
    assert exchange.reply == "begin DONE-6\nworking"
    assert end_reason(programs, "marked") == "marker"
    assert ask(programs, "marked", "echo x; echo DONE-$((3+4)) and more; echo y") == "x"


def test_interrupt_where_no_marker_will_come(programs: Cluster) -> None:
    exchange = programs["marked"].send("sleep 600").accepted(10)
    programs["marked"].interrupt()
    with pytest.raises(TurnFailed, match="interrupted"):
        exchange.result(30)
    assert end_reason(programs, "marked") == "interrupted"
    assert ask(programs, "marked", "echo again; echo DONE-$((3+4))") == "again"


def test_interrupt_that_comes_before_the_command_starts(programs: Cluster) -> None:
    """The shell takes the signal for itself while it waits for it; the command that follows never received it."""
    marked = programs["marked"]
    exchange = marked.send("got=; trap got=1 INT; echo begun; while [ -z $got ]; do :; done; sleep 61").accepted(10)
    until(lambda: "begun" in marked.screen().text.split("\n"))
    marked.interrupt()
    with pytest.raises(TurnFailed, match="interrupted"):
        exchange.result(30)
    notes = [event for event in programs.events() if event.event == "note" and event.agent == "marked"]
    assert [note.attributes["text"] for note in notes][-2:] == ["interrupted", "interrupted again"]
    assert ask(programs, "marked", "trap - INT; echo next; echo DONE-$((3+4))") == "next"


def test_interrupted_python(programs: Cluster) -> None:
    exchange = programs["py"].send("import time; time.sleep(60)").accepted(10)
    programs["py"].interrupt()
    with pytest.raises(TurnFailed, match="interrupted"):
        exchange.result(30)
    assert "KeyboardInterrupt" in str(exchange.reply)
    assert ask(programs, "py", "2+2") == "4"


def test_quiet_ends_the_turn(programs: Cluster) -> None:
    assert ask(programs, "cat", "one\ntwo\n\nthree") == "one\ntwo\n\nthree"
    assert ask(programs, "cat", "echo me; 'x' \"y\" $(z) \\") == "echo me; 'x' \"y\" $(z) \\"
    assert end_reason(programs, "cat") == "quiet"


def test_a_line_that_the_terminal_would_cut_is_not_typed(programs: Cluster) -> None:
    """A terminal that edits lines itself keeps 4095 bytes of one: more would be lost without a word."""
    shown = programs["cat"].screen().text
    with pytest.raises(DeliveryFailed, match=r"cuts a line after 4095 bytes; send shorter lines"):
        ask(programs, "cat", "y" * 4096)
    with pytest.raises(DeliveryFailed, match="4095"):
        ask(programs, "cat", "short\n" + "日" * 1366)
    assert programs["cat"].screen().text == shown
    assert ask(programs, "cat", "y" * 4094) == "y" * 4094


def test_programs_that_do_not_echo(programs: Cluster) -> None:
    assert ask(programs, "secret", "hunter2") == "no newline before this: 7 hun"
    assert ask(programs, "secret", "secret> ") == "no newline before this: 8 sec"
    row = programs.run.messages.iloc[-1]
    assert (row["recipient"], row["acceptance_source"]) == ("secret", "terminal")
    # The prompt at which it was typed is not the next one.
    assert ask(programs, "mute", "first") == "heard first"
    assert ask(programs, "mute", "second") == "heard second"


def test_marker_with_silence_in_the_middle(programs: Cluster) -> None:
    assert ask(programs, "slow", "ping") == "first\nsecond ping "[:-1]
    assert ask(programs, "slow", "=over=") == "first\nsecond"


def test_prompts_of_line_editing_terminals(programs: Cluster) -> None:
    assert ask(programs, "plain", "shout") == "SHOUT"
    assert ask(programs, "plain", "half") == "no end of line"
    assert ask(programs, "plain", "silent") == ""


@pytest.mark.skipif(shutil.which("bc") is None, reason="no bc on this machine")
def test_bc(programs: Cluster) -> None:
    assert ask(programs, "bc", "2^70") == "1180591620717411303424"
    assert ask(programs, "bc", "scale=3; 1/3") == ".333"


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="no sqlite3 on this machine")
def test_sqlite(programs: Cluster) -> None:
    assert ask(programs, "sql", "create table t(a, b);") == ""
    assert ask(programs, "sql", "insert into t\nvalues (1, 'x'),\n(2, 'y;');") == ""
    assert ask(programs, "sql", "select a, b from t;") == "1|x\n2|y;"


def test_the_program_ends_in_the_middle_of_a_turn(programs: Cluster) -> None:
    exchange = programs["plain"].send("die")
    with pytest.raises(TurnFailed, match=r"plain ended"):
        exchange.result(20)
    assert exchange.message["status"] == "failed"
    assert programs["plain"].state == "exited"
    assert programs.run.agents.set_index("name").loc["plain", "exit_code"] == 7
    programs["plain"].restart()
    assert ask(programs, "plain", "back") == "BACK"


def test_the_program_ends_between_two_lines(programs: Cluster) -> None:
    """What was entered before is there: nothing says that the message failed whole, and nobody types it again."""
    text = "\n".join(["first", "die", *(f"line {number}" for number in range(40))])
    exchange = programs["plain"].send(text)
    with pytest.raises(DeliveryUncertain, match="plain ended"):
        exchange.result(20)
    programs["plain"].restart()
    assert ask(programs, "plain", "back again") == "BACK AGAIN"
    assert "FIRST" not in str(programs["plain"].screen())


def test_stop_by_text_and_by_key(programs: Cluster) -> None:
    """The configured text ends `plain` (status 7); bash ends on C-d, without a signal."""
    programs["plain"].stop()
    programs["colour"].stop()
    agents = programs.run.agents.set_index("name")
    assert agents.loc["plain", "exit_code"] == 7
    assert agents.loc["colour", "exit_code"] == 0
    ended = {event.agent: event.attributes for event in programs.events() if event.event == "agent.exited"}
    assert ended["colour"].get("signal") is None


def test_a_program_that_is_never_ready(runtime: Path) -> None:  # noqa: ARG001 - the place of its sockets
    folder = tempfile.mkdtemp(prefix="w")
    config = {
        "cluster": {"name": "late", "work_dir": folder, "runs_dir": f"{folder}/runs", "start_timeout_s": 2},
        "agents": [{"name": "sh", "kind": "program", "command": "cat", "turn_end": {"prompt": "^never> $"}}],
    }
    with pytest.raises(AgentFailed, match=r"agent 'sh' was not ready within 2 s \(start_timeout_s\)"):
        Cluster.start(config)
