"""The command line as people use it: real processes, real tmux."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from last_words import last_words
from typer.testing import CliRunner

import orchestrator_lab
from orchestrator_lab import Cluster
from orchestrator_lab.cli.app import app

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROGRAM = [sys.executable, "-m", "orchestrator_lab"]
COMMANDS = [
    *("init", "start", "stop", "restart", "shutdown", "status", "list", "attach", "send", "ask", "logs", "runs"),
    *("models", "demo", "doctor", "config", "version"),
]


def run(*words: str, stdin: str | None = None, env: dict[str, str] | None = None, cwd: Path | None = None) -> Any:
    """Run a command; what it printed, and its exit status."""
    return subprocess.run(
        [*PROGRAM, *words],
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=cwd,
        env={**os.environ, **(env or {})},
    )


def good(*words: str, **rest: Any) -> str:
    done = run(*words, **rest)
    assert done.returncode == 0, (words, done.stderr)
    return str(done.stdout)


def sentence(*words: str, code: int = 2, **rest: Any) -> str:
    """Return the one sentence with which a command fails; nothing else is printed."""
    done = run(*words, **rest)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    return str(done.stderr.removeprefix("error: ").strip())


@pytest.fixture(scope="module")
def home(
    module_runtime: Path, script_config: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A folder with a cluster.yaml whose cluster runs."""
    folder = tmp_path_factory.mktemp("h")
    config = script_config(
        agents={"ada": {"role": "writes"}, "bob": {"role": "reads"}},
        name="shell",
        work_dir=".",
        runs_dir="runs",
        topology=["ada -> bob"],
        script=[
            {"when": {"contains": "fail"}, "error": {"status": 400, "type": "invalid_request_error", "message": "No."}},
            {"when": {"contains": "slowly"}, "reply": "at last", "delay_s": 600},
            {"reply": "{agent}: {text}"},
        ],
    )
    (folder / "cluster.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    said = good("start", "--param", "n=3", "--param", "style=short", "--tag", "t", "--seed", "7", cwd=folder)
    assert "tmux -u -S" in said
    assert str(folder / "runs") in said
    assert module_runtime.is_dir()
    yield folder
    good("shutdown", "shell", cwd=folder)
    assert list(module_runtime.glob("shell")) == []


# help and usage -----------------------------------------------------------------------------------


def test_help_names_every_command() -> None:
    said = CliRunner().invoke(app, ["--help"])
    assert said.exit_code == 0
    for command in COMMANDS:
        assert re.search(rf"^  {command} ", said.output, re.MULTILINE), command


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(command: str) -> None:
    said = CliRunner().invoke(app, [command, "--help"])
    assert said.exit_code == 0
    assert "Usage: " in said.output


@pytest.mark.parametrize("module", ["orchestrator_lab", "orchestrator_lab.cli"])
def test_it_is_a_module_too(module: str) -> None:
    done = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"orchestrator-lab {orchestrator_lab.__version__}\n"


@pytest.mark.parametrize("words", [["nonsense"], ["status", "--nonsense"], ["ask", "ada"]])
def test_wrong_usage_is_said_and_is_2(words: list[str]) -> None:
    done = run(*words)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr


def modules_of(*words: str, cwd: Path) -> set[str]:
    code = (
        "import sys, atexit, json\n"
        "atexit.register(lambda: print('\\n' + json.dumps(sorted({n.split('.')[0] for n in sys.modules}))))\n"
        f"sys.argv = ['orchestrator-lab', *{list(words)!r}]\n"
        "from orchestrator_lab.cli import main\nmain()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_help_loads_nothing_but_typer(tmp_path: Path) -> None:
    assert not modules_of("--help", cwd=tmp_path) & {"rich", "pydantic", "yaml", "httpx", "pandas", "asyncio"}


def test_daily_commands_never_load_pandas(home: Path) -> None:
    for words in (["status"], ["list"], ["send", "bob", "hi"], ["ask", "ada", "hi", "--json"], ["logs", "-n", "3"]):
        assert not modules_of(*words, cwd=home) & {"pandas", "numpy", "pyarrow", "matplotlib", "mcp", "libtmux"}, words


# a cluster that runs ------------------------------------------------------------------------------


def test_status_shows_agents_and_how_to_attach(home: Path) -> None:
    said = good("status", cwd=home)
    assert "shell" in said
    assert re.search(r"ada +● idle +chat +writes", said)
    assert "attach tmux -u -S" in said
    facts = json.loads(good("status", "shell", "--json"))
    assert [agent["name"] for agent in facts["agents"]] == ["ada", "bob"]
    assert "shell" in good("list")
    assert [one["name"] for one in json.loads(good("list", "--json"))] == ["shell"]


def test_ask_prints_the_reply_and_nothing_else(home: Path) -> None:
    assert good("ask", "ada", "hello", "there", cwd=home) == "ada: hello there\n"


def test_a_text_comes_from_the_standard_input_whole(home: Path) -> None:
    text = "erste Zeile äöü\n\n  日本語 🙂; `$(x)`"
    assert good("ask", "bob", "-", stdin=f"{text}\n", cwd=home) == f"bob: {text}\n"


def test_ask_as_json_holds_the_whole_exchange(home: Path) -> None:
    exchange = json.loads(good("ask", "ada", "tell me", "--json", cwd=home))
    assert exchange["reply"] == "ada: tell me"
    assert exchange["message"]["source"] == "human"
    assert exchange["message"]["acceptance_source"] == "hook"
    assert exchange["turn"]["reply"] == "ada: tell me"
    assert exchange["timings"]["response_s"] >= 0


def test_ask_that_takes_too_long_says_so(home: Path) -> None:
    said = sentence("ask", "bob", "slowly", "--timeout", "0.5", cwd=home)
    assert "bob has not answered within 0.5 s" in said
    assert "goes on" in said
    interrupt_bob()


def interrupt_bob() -> None:
    """End a turn that would go on for ten minutes, once it has begun."""
    cluster = Cluster.attach("shell")
    wait_until(lambda: cluster.run.messages.query("recipient == 'bob'")["status"].iloc[-1] in {"accepted", "started"})
    cluster["bob"].interrupt()
    wait_until(lambda: cluster["bob"].state == "idle")


def test_a_turn_that_fails_is_a_sentence(home: Path) -> None:
    assert "No." in sentence("ask", "ada", "fail", cwd=home)


def test_ctrl_c_while_waiting_leaves_the_turn_alone(home: Path, spawn: Callable[..., Any]) -> None:
    good("ask", "bob", "ready?", cwd=home)
    asked = spawn([*PROGRAM, "ask", "bob", "slowly please"], cwd=home, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: json.loads(good("status", "--json", cwd=home))["agents"][1]["state"] == "busy")
    asked.send_signal(signal.SIGINT)
    _, said = asked.communicate(timeout=60)
    assert asked.returncode == 130
    assert "go on" in said
    # It would answer in ten minutes; nobody but the next line ends it before.
    ended = good("logs", "--events", "turn.ended", "--agent", "bob", cwd=home)
    interrupt_bob()
    wait_until(lambda: good("logs", "--events", "turn.ended", "--agent", "bob", cwd=home) != ended)


def test_send_returns_an_id_for_each_recipient(home: Path) -> None:
    assert re.fullmatch(r"msg_\w+ → ada \(\w+\)\n", good("send", "--to", "ada", "one", cwd=home))
    sent = json.loads(good("send", "all", "to both", "--json", cwd=home))
    assert [one["recipient"] for one in sent] == ["ada", "bob"]
    assert {one["kind"] for one in sent} == {"broadcast"}


def test_wrong_names_are_sentences(home: Path) -> None:
    assert "it has: ada, bob" in sentence("ask", "eve", "hi", cwd=home)
    assert "--to ada|bob|all" in sentence("send", "whom?", cwd=home)
    assert "no cluster 'other' is running here; running: shell" in sentence("status", "other")
    assert "no agent 'eve'" in sentence("attach", "eve", "--print", cwd=home)
    assert "empty message" in sentence("send", "ada", "   ", cwd=home)


def test_attach_prints_the_command_and_needs_a_terminal(home: Path) -> None:
    said = good("attach", "bob", "--print", "--read-only", cwd=home)
    assert said.startswith("tmux ")
    assert "read-only" in said or " -r" in said
    assert "needs a terminal" in sentence("attach", "ada", cwd=home)


def test_attach_shows_the_agent_also_inside_tmux(home: Path, tmp_path: Path) -> None:
    socket = tmp_path / "outer"
    tmux = ["tmux", "-u", "-S", str(socket), "-f", "/dev/null"]
    inner = f"{sys.executable} -m orchestrator_lab attach bob"
    good("ask", "bob", "a mark on the screen", cwd=home)
    try:
        subprocess.run([*tmux, "new-session", "-d", "-x", "100", "-y", "30", "-c", str(home), inner], check=True)
        wait_until(lambda: "a mark on the screen" in capture(tmux))
    finally:
        subprocess.run([*tmux, "kill-server"], check=False)


def capture(tmux: list[str]) -> str:
    return subprocess.run([*tmux, "capture-pane", "-p"], capture_output=True, text=True, check=False).stdout


def wait_until(true: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)


def test_logs_are_chosen_by_agent_event_and_number(home: Path) -> None:
    good("ask", "ada", "for the log", cwd=home)
    said = good("logs", "--agent", "ada", "--events", "message.*", "--last", "12", cwd=home)
    assert "user → ada: for the log" in said
    assert "bob" not in said
    lines = [json.loads(line) for line in good("logs", "shell", "--events", "message.answered", "--json").splitlines()]
    assert {line["event"] for line in lines} == {"message.answered"}


def test_logs_follow_as_it_happens(home: Path, spawn: Callable[..., Any]) -> None:
    good("ask", "ada", "before anybody looks", cwd=home)
    words = [*PROGRAM, "logs", "--follow", "--events", "turn.ended", "--json", "-n", "1"]
    following = spawn(words, cwd=home, stdout=subprocess.PIPE, text=True)
    before = following.stdout.readline()  # from here on it looks
    assert json.loads(before)["attributes"]["reply"] == "ada: before anybody looks"
    good("ask", "ada", "while somebody looks", cwd=home)
    line = following.stdout.readline()
    following.send_signal(signal.SIGINT)
    assert following.wait(60) == 130
    assert json.loads(line)["attributes"]["reply"] == "ada: while somebody looks"


def test_a_closed_pipe_is_quiet(home: Path) -> None:
    line = f"{sys.executable} -m orchestrator_lab logs --json | head -n 1"
    done = subprocess.run(["bash", "-c", line], cwd=home, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert json.loads(done.stdout)["event"] == "run.started"


def test_runs_show_conditions_and_exchanges(home: Path) -> None:
    good("ask", "ada", "for the record", cwd=home)
    (row,) = json.loads(good("runs", "--json", cwd=home))
    assert (row["cluster"], row["status"], row["seed"]) == ("shell", "running", 7)
    assert json.loads(row["params"]) == {"n": 3, "style": "short"}
    said = good("runs", "show", row["run_id"][:12], cwd=home)
    assert "for the record" in said
    assert "open_run(" in said
    assert good("runs", "path", "shell", cwd=home).strip() == row["path"]
    assert row["run_id"] in good("runs", "list", str(home / "runs"))
    assert "no run of that name" in sentence("runs", "show", "nothing", cwd=home)


@pytest.mark.usefixtures("home")
def test_inside_a_pane_an_agent_writes_in_its_own_name(module_runtime: Path) -> None:
    agent = json.loads((module_runtime / "shell" / "agents" / "ada" / "agent.json").read_text(encoding="utf-8"))
    record = json.loads((module_runtime / "shell" / "cluster.json").read_text(encoding="utf-8"))
    pane = {
        "ORCHESTRATOR_LAB_AGENT": "ada",
        "ORCHESTRATOR_LAB_AGENT_TOKEN": agent["token"],
        "ORCHESTRATOR_LAB_AGENT_URL": f"http://127.0.0.1:{record['port']}",
        "HTTP_PROXY": "http://127.0.0.1:9",  # loopback is never reached through a proxy
    }
    (sent,) = json.loads(good("send", "bob", "from a pane", "--json", env=pane))
    assert (sent["sender"], sent["recipient"], sent["source"]) == ("ada", "bob", "agent")
    assert "from a pane" in good("messages", env=pane)
    assert "bob (" in good("agents", env=pane)
    assert "ada (" in good("agents", env=pane)
    assert "there is no message" in sentence("send", "bob", "x", "--in-reply-to", "msg_none", env=pane)
    assert "belongs to no agent" in sentence("agents", env={**pane, "ORCHESTRATOR_LAB_AGENT_TOKEN": "wrong"})
    nobody = {**pane, "ORCHESTRATOR_LAB_AGENT_URL": "http://127.0.0.1:9"}
    assert "does not answer" in sentence("send", "bob", "x", env=nobody)


@pytest.mark.usefixtures("home")
def test_what_the_topology_forbids_is_refused_in_a_pane(module_runtime: Path) -> None:
    agent = json.loads((module_runtime / "shell" / "agents" / "bob" / "agent.json").read_text(encoding="utf-8"))
    record = json.loads((module_runtime / "shell" / "cluster.json").read_text(encoding="utf-8"))
    pane = {
        "ORCHESTRATOR_LAB_AGENT": "bob",
        "ORCHESTRATOR_LAB_AGENT_TOKEN": agent["token"],
        "ORCHESTRATOR_LAB_AGENT_URL": f"http://127.0.0.1:{record['port']}",
    }
    assert "the topology does not let bob write to ada" in sentence("send", "ada", "psst", env=pane)


def test_stop_and_restart_keep_the_run(home: Path) -> None:
    good("stop", "--agent", "bob", cwd=home)
    assert "bob" in sentence("ask", "bob", "are you there?", cwd=home)
    good("restart", "--agent", "bob", cwd=home)
    assert good("ask", "bob", "again?", cwd=home) == "bob: again?\n"
    good("stop", cwd=home)
    assert "restart it first" in sentence("ask", "ada", "anyone?", cwd=home)
    assert "stopped" in good("status", cwd=home)
    good("restart", cwd=home)
    assert good("ask", "ada", "back?", cwd=home) == "ada: back?\n"
    assert len(json.loads(good("runs", "--json", cwd=home))) == 1


def test_a_cluster_that_runs_is_not_started_twice(home: Path) -> None:
    assert "running already" in sentence("start", cwd=home)


def test_another_folders_cluster_is_not_ended_by_mistake(home: Path, tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text("cluster: {name: mine}\nagents: [{name: a, kind: chat}]\n", encoding="utf-8")
    assert "name it to mean it" in sentence("shutdown", cwd=tmp_path)
    assert "shell" in good("status", cwd=tmp_path)  # looking is harmless
    assert home.is_dir()


# several, and none --------------------------------------------------------------------------------


def test_which_cluster_is_meant(runtime: Path, script_config: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    assert "no cluster is running" in sentence("status", cwd=tmp_path)
    assert "no cluster is running" in good("list", cwd=tmp_path)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        text = yaml.safe_dump(script_config("ada", name=name))
        (tmp_path / name / "cluster.yaml").write_text(text, encoding="utf-8")
        facts = json.loads(good("start", "--json", cwd=tmp_path / name))
        assert facts["name"] == name
    try:
        assert "several clusters are running (one, two)" in sentence("status", cwd=tmp_path)
        assert json.loads(good("status", "--json", cwd=tmp_path / "two"))["name"] == "two"
        assert good("ask", "ada", "x", "--cluster", "one", cwd=tmp_path) == "ada: x\n"
    finally:
        said = good("shutdown", "--all", cwd=tmp_path)
    assert "shut down one" in said
    assert "shut down two" in said
    assert [entry for entry in runtime.iterdir() if entry.is_dir()] == []


# wrong input --------------------------------------------------------------------------------------


def test_wrong_starts_leave_nothing_behind(runtime: Path, tmp_path: Path) -> None:
    def start(text: str, **rest: Any) -> str:
        (tmp_path / "cluster.yaml").write_text(text, encoding="utf-8")
        return sentence("start", cwd=tmp_path, **rest)

    one = "agents: [{name: a, kind: chat, gateway: {mode: script, script: [{reply: x}]}}]\n"
    assert "cluster.yaml" in sentence("start", cwd=tmp_path)
    assert "line 2" in start("cluster: {name: x}\nagent: []\n")
    assert "unknown template 'duoo'" in sentence("start", "template:duoo", cwd=tmp_path)
    assert "tmux" in start(f"cluster: {{name: x}}\n{one}", env={"PATH": str(tmp_path)})
    assert "UTF-8" in start(f"cluster: {{name: x}}\n{one}", env={"LC_ALL": "de_DE.ISO-8859-1"})
    deep = tmp_path / ("d" * 90)
    assert "ORCHESTRATOR_RUNTIME_DIR" in start(
        f"cluster: {{name: x}}\n{one}", env={"ORCHESTRATOR_RUNTIME_DIR": str(deep)}
    )
    said = start(
        "cluster: {name: x}\nagents: [{name: a, kind: program, command: not-there-xyz, turn_end: {quiet_s: 1}}]\n"
    )
    assert "not-there-xyz" in said
    said = start(
        "cluster: {name: x}\n"
        f"agents: [{{name: a, kind: program, command: [sh, -c, {json.dumps(last_words('out of order', 'exit 3'))}], "
        "ready: {prompt: '^never'}, turn_end: {quiet_s: 1}}]\n"
    )
    assert "out of order" in said
    assert "expected KEY=VALUE" in sentence("start", "--param", "nonsense", cwd=tmp_path)
    assert [entry.name for entry in runtime.iterdir() if entry.is_dir()] == []


@pytest.mark.parametrize("wait", ["process", "agent"])
def test_ctrl_c_during_a_start_leaves_nothing_behind(
    runtime: Path, tmp_path: Path, wait: str, spawn: Callable[..., Any]
) -> None:
    (tmp_path / "cluster.yaml").write_text(
        "cluster: {name: slow}\n"
        "agents: [{name: a, kind: program, command: [sleep, '600'], ready: {prompt: '^never'}, "
        "turn_end: {quiet_s: 1}}]\n",
        encoding="utf-8",
    )
    folder = runtime / "slow"
    starting = spawn([*PROGRAM, "start"], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    wait_until(folder.exists if wait == "process" else (lambda: "agent.started" in journal(tmp_path)))
    starting.send_signal(signal.SIGINT)
    starting.send_signal(signal.SIGINT)  # an impatient second one changes nothing
    _, said = starting.communicate(timeout=60)
    assert starting.returncode == 130
    assert "Traceback" not in said
    assert not folder.exists()


def journal(folder: Path) -> str:
    return "".join(path.read_text(encoding="utf-8") for path in folder.glob("runs/*/journal.jsonl"))


def test_a_bug_is_one_line_and_a_file(runtime: Path, tmp_path: Path) -> None:
    (runtime / "odd").mkdir(mode=0o700)
    (runtime / "odd" / "cluster.json").write_text("{}", encoding="utf-8")
    code = (
        "import sys\nfrom orchestrator_lab import cluster\n"
        "def broken(): raise ZeroDivisionError('something\\nlong')\n"
        "cluster.Cluster.list = staticmethod(broken)\n"
        "sys.argv = ['orchestrator-lab', 'list']\nfrom orchestrator_lab.cli import main\nmain()\n"
    )
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "ZeroDivisionError: something" in done.stderr
    assert "Traceback" in (runtime / "last-error.log").read_text(encoding="utf-8")
    env = {**os.environ, "ORCHESTRATOR_DEBUG": "1"}
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path, env=env)
    assert "Traceback" in done.stderr


# configurations -----------------------------------------------------------------------------------


def test_init_writes_what_start_reads_and_never_overwrites(tmp_path: Path) -> None:
    good("init", "boss-manager-specialists", cwd=tmp_path)
    assert "is right" in good("config", "validate", cwd=tmp_path)
    assert "--force" in sentence("init", cwd=tmp_path)
    good("init", "duo", "--kind", "chat", "--force", cwd=tmp_path)
    shown = json.loads(good("config", "show", "--json", cwd=tmp_path))
    assert {agent["kind"] for agent in shown["agents"]} == {"chat"}
    assert "round-table" in good("init", "--list")


def test_config_commands(tmp_path: Path) -> None:
    assert json.loads(good("config", "schema"))["type"] == "object"
    assert "no" in sentence("config", "validate", cwd=tmp_path).lower()
    old = (
        "cluster: {name: old, session_name: old, work_dir: .}\n"
        "agents: [{name: boss, role: x, personality_prompt_path: b.md, pane_index: 0}]\n"
    )
    (tmp_path / "cc-cluster.yaml").write_text(old, encoding="utf-8")
    (tmp_path / "b.md").write_text("You are the boss.", encoding="utf-8")
    done = run("config", "validate", cwd=tmp_path)
    assert done.returncode == 0
    assert "pane_index" in done.stderr


def test_models_are_listed(tmp_path: Path) -> None:
    env = {"XDG_DATA_HOME": str(tmp_path)}
    assert json.loads(good("models", "list", "--json", env=env)) == []
    assert "orchestrator-lab models pull" in good("models", env=env)
    assert "known are" in sentence("models", "pull", "no-such-model", env=env)


def test_the_console_script_is_installed() -> None:
    script = shutil.which("orchestrator-lab") or str(Path(sys.executable).with_name("orchestrator-lab"))
    assert subprocess.run([script, "version"], capture_output=True, check=True).stdout.startswith(b"orchestrator-lab ")
