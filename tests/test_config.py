from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from orchestrator_lab import config as configuration
from orchestrator_lab.config import (
    ChatAgent,
    ClaudeAgent,
    ClusterConfig,
    GatewayConfig,
    ProgramAgent,
    Topology,
    add_agent,
    instructions_text,
    json_schema,
    load_config,
    load_settings,
    to_dict,
    to_yaml,
)
from orchestrator_lab.config._yaml import MAX_BYTES, parse_yaml
from orchestrator_lab.errors import AgentNotFound, ConfigError

MINIMAL = "cluster: {name: duo}\nagents:\n  - {name: boss, kind: claude}\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith("ORCHESTRATOR_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(text: str, name: str = "cluster.yaml") -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(write(text))
    return caught.value.message


def test_the_smallest_file(folder: Path) -> None:
    write(MINIMAL)
    config = load_config()
    assert config.source == folder / "cluster.yaml"
    assert (config.name, config.session_name, config.names) == ("duo", "duo", ["boss"])
    assert (config.work_dir, config.runs_dir) == (folder, folder / "runs")
    assert (config.cols, config.rows, config.layout, config.lifetime) == (
        200,
        50,
        "windows",
        "detached",
    )
    assert config.topology.all_to_all
    assert config.notes == []
    assert config.gateway_of(config.agent("boss")).mode == "none"
    with pytest.raises(AgentNotFound, match="no agent 'bos' in cluster 'duo'; it has: boss"):
        config.agent("bos")


def test_everything_that_can_be_said(folder: Path) -> None:
    (folder / "work" / "lib").mkdir(parents=True)
    write("You are kind.\n", "texts/boss.md")
    write("- {reply: hello}\n", "rules.yaml")
    path = write(
        """
cluster:
  name: lab-1
  session_name: my_session
  work_dir: work
  runs_dir: records
  layout: tiled
  cols: 120
  rows: 40
  lifetime: owner
  start_timeout_s: 12.5
  gateway: {mode: script, script: rules.yaml}
  topology:
    - boss -> coder, repl
    - {from: coder, to: [repl], both: true, replies: forward}
agents:
  - name: boss
    kind: claude
    role: decides
    instructions_file: texts/boss.md
    model: opus
    env: {LEVEL: 3, VERSION: 1.10, DEBUG: true, EMPTY: ""}
    config: isolated
    command: ./bin/claude --verbose
    args: [--add-dir, /tmp]
    mcp: false
    allowed_tools: ["Bash(git log:*)"]
    permission_mode: acceptEdits
    cols: 100
  - name: coder
    kind: chat
    instructions: "Be brief."
    gateway: upstream
    api: openai
    base_url: http://localhost:8080/v1/
    key_env: MY_KEY
    max_tokens: 50
    temperature: 0
    work_dir: work/lib
    response_timeout_s: 9
  - name: repl
    kind: program
    command: "python3 -q -i"
    turn_end: {prompt: "^>>> $"}
    ready: {quiet_s: 0.5}
    stop: exit()
    echo: false
""",
        "sub/../cluster.yaml",
    )
    config = load_config(path)
    boss, coder, repl = config.agents
    assert isinstance(boss, ClaudeAgent)
    assert isinstance(coder, ChatAgent)
    assert isinstance(repl, ProgramAgent)
    assert boss.env == {"LEVEL": "3", "VERSION": "1.10", "DEBUG": "true", "EMPTY": ""}
    assert boss.command == [str(folder / "bin/claude"), "--verbose"]
    assert instructions_text(boss, config) == "You are kind.\n"
    assert instructions_text(coder, config) == "Be brief."
    assert instructions_text(repl, config) is None
    assert config.gateway.script == str(folder / "rules.yaml")
    assert coder.base_url == "http://localhost:8080/v1"
    assert config.gateway_of(coder).mode == "upstream"
    assert config.work_dir_of(coder) == folder / "work/lib"
    assert config.work_dir_of(boss) == folder / "work"
    assert config.size_of(boss) == (100, 40)
    assert repl.command == ["python3", "-q", "-i"]
    assert repl.stop.text == "exit()"
    assert config.topology.replies("coder", "repl") == "forward"
    assert len(config.notes) == 1  # boss -> coder expects a tool that a chat does not have
    assert ClusterConfig.from_json(config.to_json()) == config
    again = load_config(write(to_yaml(config), "resolved.yaml"))
    assert again.model_copy(update={"source": config.source, "notes": config.notes}) == config


# What the user reads. {dir} is the folder of the test.
WRONG = {
    "unknown key": (
        MINIMAL + "    colour: red\n".replace("    ", "  - {name: b, kind: claude, ", 1)[:-1] + "}\n",
        "cluster.yaml, line 4: agents[1].colour: unknown key; did you mean 'cols'?",
    ),
    "misspelt kind": (
        "cluster: {name: a}\nagents:\n  - {name: a, kind: claude}\n  - name: b\n    knd: chat\n",
        "cluster.yaml, line 5: agents[1].knd: unknown key; did you mean 'kind'?",
    ),
    "no kind": (
        "cluster: {name: a}\nagents:\n  - {name: a}\n",
        "cluster.yaml, line 3: agents[0]: the key 'kind' is missing; known kinds: claude, codex, chat, program",
    ),
    "unknown kind": (
        "cluster: {name: a}\nagents:\n  - {name: a, kind: gpt}\n",
        "cluster.yaml, line 3: agents[0].kind: unknown kind 'gpt'; known kinds: claude, codex, chat, program",
    ),
    "near kind": (
        "cluster: {name: a}\nagents:\n  - {name: a, kind: Claude}\n",
        "cluster.yaml, line 3: agents[0].kind: unknown kind 'Claude'; did you mean 'claude'?",
    ),
    "key of another kind": (
        "cluster: {name: a}\nagents:\n  - {name: a, kind: claude, echo: true}\n",
        "cluster.yaml, line 3: agents[0].echo: only agents of kind 'program' have this key",
    ),
    "one name twice": (
        MINIMAL + "  - {name: boss, kind: chat}\n",
        "cluster.yaml, line 4: agents[1].name: 'boss' is also the name of agents[0] (line 3); names must differ",
    ),
    "one name twice but for case": (
        MINIMAL + "  - {name: Boss, kind: chat}\n",
        (
            "cluster.yaml, line 4: agents[1].name: 'Boss' is also the name of agents[0] (line 3) ('boss'; "
            "only the case differs); names must differ"
        ),
    ),
    "missing instructions": (
        MINIMAL.replace("kind: claude", "kind: claude, instructions_file: no/such.md"),
        "cluster.yaml, line 3: agents[0].instructions_file: the instructions file no/such.md does not exist",
    ),
    "missing work folder": (
        MINIMAL.replace("name: duo", "name: duo, work_dir: gone"),
        (
            "cluster.yaml, line 1: cluster.work_dir: the work folder gone does not exist; make it, or set "
            "create_work_dir: true"
        ),
    ),
    "work folder is a file": (
        MINIMAL.replace("name: duo", "name: duo, work_dir: cluster.yaml"),
        "cluster.yaml, line 1: cluster.work_dir: cluster.yaml is not a folder",
    ),
    "missing script": (
        MINIMAL.replace("name: duo", "name: duo, gateway: {script: gone.yaml}"),
        "cluster.yaml, line 1: cluster.gateway.script: the script gone.yaml does not exist",
    ),
    "space in a name": (
        MINIMAL.replace("boss", "big boss"),
        (
            "cluster.yaml, line 3: agents[0].name: 'big boss' is not a name; use a letter, then up to 31 letters, "
            "digits, '-' or '_' (no spaces, ':' or '.')"
        ),
    ),
    "reserved name": (
        MINIMAL.replace("boss", "User"),
        "cluster.yaml, line 3: agents[0].name: 'User' is reserved; choose another name",
    ),
    "number as a name": (
        MINIMAL.replace("boss", "7"),
        "cluster.yaml, line 3: agents[0].name: text is expected, found 7; put it in quotes",
    ),
    "no mapping": (
        "- 1\n",
        "cluster.yaml holds a list; a mapping with the keys 'cluster' and 'agents' is expected",
    ),
    "empty": (
        "# nothing\n",
        "cluster.yaml is empty; a mapping with the keys 'cluster' and 'agents' is expected",
    ),
    "no agents": (
        "cluster: {name: a}\nagents: []\n",
        "cluster.yaml, line 2: agents: at least one is needed (found an empty list)",
    ),
    "no cluster": (
        "agents: [{name: a, kind: chat}]\n",
        "cluster.yaml, line 1: the key 'cluster' is missing; it holds at least 'name'",
    ),
    "no cluster name": (
        "cluster: {cols: 90}\nagents: [{name: a, kind: chat}]\n",
        "cluster.yaml, line 1: cluster: the key 'name' is missing",
    ),
    "cluster keys at the top": (
        "name: a\nagents: [{name: a, kind: chat}]\n",
        "cluster.yaml, line 1: name: unknown key at the top; it belongs under 'cluster:'",
    ),
    "bad YAML": (
        "cluster: {name: a\nagents: [\n",
        "cluster.yaml, line 2, column 7: not valid YAML: while parsing a flow mapping expected ',' or '}', but got ':'",
    ),
    "tab": (
        "cluster:\n\tname: a\n",
        (
            "cluster.yaml, line 2, column 1: not valid YAML: while scanning for the next token found character "
            "'\\t' that cannot start any token"
        ),
    ),
    "duplicate key": (
        "cluster:\n  name: a\n  cols: 80\n  name: b\n",
        "cluster.yaml, line 4, column 3: the key 'name' appears twice (first in line 2)",
    ),
    "tag": (
        "cluster: !!python/object/apply:os.system [id]\n",
        (
            "cluster.yaml, line 1, column 10: the tag !!python/object/apply:os.system is not allowed; a "
            "configuration is plain data"
        ),
    ),
    "two documents": (
        MINIMAL + "---\na: 1\n",
        (
            "cluster.yaml, line 4, column 1: not valid YAML: expected a single document in the stream but found "
            "another document"
        ),
    ),
    "recursive alias": (
        "cluster: &a {name: *a}\n",
        "cluster.yaml, line 1, column 10: an alias that contains itself",
    ),
    "unknown agent in topology": (
        MINIMAL.replace("name: duo", "name: duo, topology: [boss -> bos]"),
        "cluster.yaml, line 1: cluster.topology[0]: unknown agent 'bos'; the agents are: boss",
    ),
    "no edge": (
        MINIMAL.replace("name: duo", "name: duo, topology: [boss]"),
        "cluster.yaml, line 1: cluster.topology[0]: 'boss' is not an edge; write 'a -> b', 'a <-> b' or 'a -> b, c'",
    ),
    "wrong type": (
        MINIMAL.replace("name: duo", "name: duo, cols: wide"),
        "cluster.yaml, line 1: cluster.cols: a whole number is expected (found 'wide')",
    ),
    "out of range": (
        MINIMAL.replace("name: duo", "name: duo, rows: 1"),
        "cluster.yaml, line 1: cluster.rows: the value should be greater than or equal to 5 (found 1)",
    ),
    "no such choice": (
        MINIMAL.replace("name: duo", "name: duo, layout: tile"),
        (
            "cluster.yaml, line 1: cluster.layout: one of 'windows' or 'tiled' is expected; did you mean 'tiled'? "
            "(found 'tile')"
        ),
    ),
    "both instructions": (
        MINIMAL.replace("kind: claude", "kind: claude, instructions: a, instructions_file: b"),
        "cluster.yaml, line 3: agents[0]: give 'instructions' or 'instructions_file', not both",
    ),
    "key instead of its variable": (
        MINIMAL.replace("kind: claude", "kind: chat, key_env: sk-ant-very-secret"),
        (
            "cluster.yaml, line 3: agents[0].key_env: give the name of an environment variable (letters, digits, "
            "'_'), never the key itself"
        ),
    ),
    "login in an address": (
        MINIMAL.replace("kind: claude", "kind: chat, base_url: 'http://u:pw@host'"),
        (
            "cluster.yaml, line 3: agents[0].base_url: a login in an address would be recorded; name its variable "
            "in 'key_env' instead"
        ),
    ),
    "no address": (
        MINIMAL.replace("kind: claude", "kind: chat, base_url: 'localhost:80'"),
        (
            "cluster.yaml, line 3: agents[0].base_url: 'localhost:80' is no address; it must begin with http:// or "
            "https://"
        ),
    ),
    "script without rules": (
        MINIMAL.replace("name: duo", "name: duo, gateway: {mode: script}"),
        (
            "cluster.yaml, line 1: cluster.gateway: mode 'script' needs 'script': the path of a YAML file, or the "
            "rules themselves"
        ),
    ),
    "two turn ends": (
        MINIMAL.replace("kind: claude", "kind: program, command: cat, turn_end: {marker: x, quiet_s: 1}"),
        (
            "cluster.yaml, line 3: agents[0].turn_end: give exactly one of 'prompt', 'marker' and 'quiet_s' (found "
            "marker and quiet_s)"
        ),
    ),
    "bad pattern": (
        MINIMAL.replace("kind: claude", "kind: program, command: cat, turn_end: {prompt: '('}"),
        (
            "cluster.yaml, line 3: agents[0].turn_end.prompt: '(' is not a regular expression: missing ), "
            "unterminated subpattern at position 0"
        ),
    ),
    "open quote": (
        MINIMAL.replace("kind: claude", "kind: program, command: 'a \"b', turn_end: {quiet_s: 1}"),
        "cluster.yaml, line 3: agents[0].command: the command cannot be split into words: No closing quotation",
    ),
    "program without an end": (
        MINIMAL.replace("kind: claude", "kind: program, command: cat"),
        "cluster.yaml, line 3: agents[0]: the key 'turn_end' is missing",
    ),
    "own variable": (
        MINIMAL.replace("kind: claude", "kind: claude, env: {TMUX: x}"),
        "cluster.yaml, line 3: agents[0].env: TMUX is set by the lab itself; leave it out",
    ),
    "permission mode of a chat": (
        MINIMAL.replace("kind: claude", "kind: chat, permission_mode: ask"),
        "cluster.yaml, line 3: agents[0]: 'permission_mode' has no effect for kind 'chat'; leave it out",
    ),
    "half a surrogate pair": (
        'cluster: {name: "\\ud800"}\n',
        "cluster.yaml, line 1, column 17: half of a surrogate pair; write the character itself",
    ),
    "escape beyond Unicode": (
        'cluster: {name: "\\UFFFFFFFF"}\n',
        "cluster.yaml: not valid YAML: ",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_clear_sentence(case: str) -> None:
    text, expected = WRONG[case]
    message = refusal(text)
    if expected.endswith(": "):
        assert message.startswith(expected)
    else:
        assert message == expected


def test_every_problem_is_told_at_once_in_the_order_of_the_file() -> None:
    text = "cluster: {name: a, colz: 1}\nagents:\n  - {name: a b, kind: chat}\n  - {name: c, kind: x}\n"
    with pytest.raises(ConfigError) as caught:
        load_config(write(text))
    problems = caught.value.details["problems"]
    assert [(problem["line"], problem["key"]) for problem in problems] == [
        (1, "cluster.colz"),
        (3, "agents[0].name"),
        (4, "agents[1].kind"),
    ]
    assert caught.value.message.count("\n") == 2


def test_values_of_env_never_appear_in_an_error() -> None:
    message = refusal(MINIMAL.replace("kind: claude", "kind: claude, env: {KEY: [hunter2]}"))
    assert "agents[0].env.KEY" in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"cluster: \xff\xfe\n", "line 1: not UTF-8 text"),
        (b"cluster\0", "is a binary file"),
        (b"#" * (MAX_BYTES + 1), "is larger than 1 MiB"),
        (b"[" * 5000, "nested too deeply"),
        (b"cluster: \x01\n", "line 1: not valid YAML"),
    ],
)
def test_what_is_no_text(raw: bytes, expected: str) -> None:
    Path("cluster.yaml").write_bytes(raw)
    with pytest.raises(ConfigError, match=expected):
        load_config()


def test_alias_bombs_are_refused() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
    )
    assert "more than 20,000 values" in refusal(bomb)
    heavy = f"a: &a {'x' * 500_000}\nb: [{', '.join(['*a'] * 50)}]\n"
    assert "MiB of text" in refusal(heavy)


def test_anchors_and_merge_keys_work() -> None:
    config = load_config(
        write(
            "cluster: {name: a}\nagents:\n  - &base {name: a, kind: chat, max_tokens: 7}\n  - <<: *base\n    name: b\n"
        )
    )
    assert [agent.max_tokens for agent in config.agents if isinstance(agent, ChatAgent)] == [7, 7]
    assert refusal("a: &a {b: 1}\ncluster: {<<: [*a, 3]}\n").endswith("'<<' merges mappings only")


def test_yaml_words_stay_text() -> None:
    data = parse_yaml("a: no\nb: 12:30\nc: 2024-01-02\nd: 0x10\ne: true\nf: 1e3\ng: ~\n", "x").data
    assert data == {
        "a": "no",
        "b": "12:30",
        "c": "2024-01-02",
        "d": 16,
        "e": True,
        "f": 1000.0,
        "g": None,
    }


def test_where_a_file_is_looked_for(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"no cluster\.yaml in .*orchestrator-lab init"):
        load_config()
    with pytest.raises(ConfigError, match=r"the configuration other.yaml does not exist"):
        load_config("other.yaml")
    write(MINIMAL, "sub/cluster.yaml")
    assert load_config("sub").source == folder / "sub/cluster.yaml"
    assert load_config("sub").work_dir == folder / "sub"
    with pytest.raises(ConfigError, match="not int"):
        load_config(3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config("a\0b")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config("a" * 5000)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file() -> None:
    write(MINIMAL).chmod(0)
    with pytest.raises(ConfigError, match="cannot be read: Permission denied"):
        load_config()


def test_lost_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = folder / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(ConfigError, match="current folder does not exist any more"):
        load_config()


def test_mappings_and_models_from_python(folder: Path) -> None:
    config = load_config(
        {
            "cluster": {"name": "a", "work_dir": folder},
            "agents": [ChatAgent(name="x", temperature=0.5), {"name": "y", "kind": "claude"}],
        }
    )
    assert config.names == ["x", "y"]
    assert load_config(config) is config
    for wrong in (float("nan"), object(), {"a": float("inf")}, "\ud800"):
        with pytest.raises(ConfigError):
            load_config({"cluster": {"name": "a", "cols": wrong}, "agents": []})
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(ConfigError, match="nested more than"):
        load_config({"cluster": loop})
    with pytest.raises(ConfigError, match=r"configuration: agents\[0\]\.name: 'a b' is not a name"):
        load_config({"cluster": {"name": "a"}, "agents": [{"name": "a b", "kind": "chat"}]})
    with pytest.raises(ConfigError, match="found function"):
        load_config({"cluster": {"name": "a", "gateway": {"script": lambda: 1}}, "agents": []})


def test_adding_an_agent() -> None:
    config = load_config(write(MINIMAL))
    more = add_agent(config, {"name": "new", "kind": "chat"})
    assert (config.names, more.names) == (["boss"], ["boss", "new"])
    with pytest.raises(ConfigError, match="the new agent: name: there is an agent 'BOSS' already"):
        add_agent(config, {"name": "BOSS", "kind": "chat"})
    with pytest.raises(ConfigError, match=r"the new agent: instructions_file: .* does not exist"):
        add_agent(config, ClaudeAgent(name="b", instructions_file=Path("x.md")))


def test_what_was_not_said_stays_unsaid() -> None:
    for said in ("", ", config: inherit"):
        config = load_config(write(MINIMAL.replace("kind: claude", f"kind: claude{said}")))
        trips = [
            config,
            ClusterConfig.from_json(config.to_json()),
            load_config(write(to_yaml(config), "trip.yaml")),
            load_config({"cluster": {"name": "a"}, "agents": [config.agents[0]]}),
        ]
        for trip in trips:
            assert ("config" in trip.agents[0].model_fields_set) == bool(said)
            assert isinstance(trip.agents[0], ClaudeAgent)
            assert trip.agents[0].config == "inherit"


def test_create_work_dir_is_left_to_the_start(folder: Path) -> None:
    config = load_config(write(MINIMAL.replace("name: duo", "name: duo, work_dir: a/b, create_work_dir: true")))
    assert config.work_dir == folder / "a/b"
    assert not config.work_dir.exists()


def test_paths_with_a_home(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("HOME", str(folder))
    config = load_config(write(MINIMAL.replace("name: duo", "name: duo, runs_dir: ~/r")))
    assert config.runs_dir == folder / "r"
    message = refusal(MINIMAL.replace("name: duo", "name: duo, work_dir: ~nobody_here/x"))
    assert "cannot be expanded" in message


def test_secrets_are_noted_and_masked() -> None:
    config = load_config(
        write(
            MINIMAL.replace(
                "kind: claude",
                "kind: claude, args: [--key, sk-ant-0123456789abcdef], env: "
                "{MY_API_KEY: hunter2, OTHER: ghp_0123456789abcdef, MAX_TOKENS: 5, PLAIN: x}",
            )
        )
    )
    assert [note.split(" looks")[0] for note in config.notes] == [
        "cluster.yaml, line 3: agents[0].env.MY_API_KEY",
        "cluster.yaml, line 3: agents[0].env.OTHER",
    ]
    text = to_yaml(config)
    assert "hunter2" not in text
    assert "0123456789abcdef" not in text
    assert to_dict(config)["agents"][0]["env"] == {
        "MY_API_KEY": "***",
        "OTHER": "***",
        "MAX_TOKENS": "***",
        "PLAIN": "x",
    }
    assert to_dict(config, masked=False)["agents"][0]["env"]["MY_API_KEY"] == "hunter2"
    assert ClusterConfig.from_json(config.to_json()).agents[0].env["MY_API_KEY"] == "hunter2"


def test_agents_that_ask_nobody_are_noted() -> None:
    config = load_config(write(MINIMAL.replace("kind: claude", "kind: claude, permission_mode: bypassPermissions")))
    assert config.notes == ["cluster.yaml: agent 'boss' acts without asking, whatever it does"]


def test_chat_agents_on_tool_edges_are_noted() -> None:
    base = "cluster:\n  name: a\n  topology: [{}]\nagents: [{{name: a, kind: chat}}, {{name: b, kind: chat}}]\n"
    assert "a (kind 'chat') cannot write back" in load_config(write(base.format("b -> a"))).notes[0]
    forward = "{from: a, to: b, both: true, replies: forward}"
    assert load_config(write(base.format(forward))).notes == []


def test_from_json_of_something_else() -> None:
    with pytest.raises(ConfigError, match=r"config\.json"):
        ClusterConfig.from_json("{}")
    with pytest.raises(ConfigError, match=r"config\.json"):
        ClusterConfig.from_json("no json")


# --- topology


def test_topology_rules() -> None:
    topology = Topology.model_validate(["boss <-> manager", {"from": "manager", "to": "*", "replies": "forward"}])
    assert topology.allows("boss", "manager")
    assert topology.allows("manager", "boss")
    assert topology.allows("manager", "coder")
    assert not topology.allows("coder", "manager")
    assert not topology.allows("boss", "boss")
    assert topology.allows("user", "coder")
    assert not topology.allows("manager", "user")
    assert topology.replies("boss", "manager") == "tool"
    assert topology.replies("manager", "boss") == "forward"
    assert topology.replies("user", "coder") == "tool"
    assert topology.recipients("manager", ["boss", "manager", "coder"]) == ["boss", "coder"]


def test_topology_extremes() -> None:
    everyone = Topology()
    assert everyone.all_to_all
    assert everyone.allows("a", "user")
    nobody = Topology.model_validate([])
    assert not nobody.all_to_all
    assert not nobody.allows("a", "b")
    assert nobody.allows("user", "b")
    assert Topology.model_validate("all").all_to_all
    assert Topology.model_validate("a -> b").allows("a", "b")


# --- the environment


def test_environment_overrides_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(MINIMAL)
    write("ORCHESTRATOR_CLUSTER__COLS=90\nORCHESTRATOR_CLUSTER__ROWS=30\nOTHER=1\n", ".env")
    monkeypatch.setenv("ORCHESTRATOR_CLUSTER__COLS", "120")
    monkeypatch.setenv("ORCHESTRATOR_CLUSTER__GATEWAY__MODE", "local")
    monkeypatch.setenv("ORCHESTRATOR_RUNS_DIR", "elsewhere")
    config = load_config()
    assert (config.cols, config.rows, config.gateway.mode) == (120, 30, "local")
    assert config.runs_dir == folder / "elsewhere"
    assert load_config(overrides=False).cols == 200


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("ORCHESTRATOR_CLUSTER__COLS", "x", "ORCHESTRATOR_CLUSTER__COLS: a whole number is expected"),
        ("ORCHESTRATOR_CLUSTER__COLZ", "1", "ORCHESTRATOR_CLUSTER__COLZ: unknown key; did you mean 'c"),
        ("ORCHESTRATOR_CLUSTER", "{", "environment: ORCHESTRATOR_"),
        ("ORCHESTRATOR_LAB_MODE", "liv", "ORCHESTRATOR_LAB_MODE: one of 'live'"),
        ("ORCHESTRATOR_CLUSTER__NAME", "a b", "ORCHESTRATOR_CLUSTER__NAME: 'a b' is not a name"),
        ("ORCHESTRATOR_CLUSTER__GATEWAY__MODE", "scrip", "ORCHESTRATOR_CLUSTER__GATEWAY__MODE"),
    ],
)
def test_wrong_variables_are_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        load_config(write(MINIMAL))
    assert expected in caught.value.message


def test_near_misses_of_variables_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_RUN_DIR", "x")
    monkeypatch.setenv("ORCHESTRATOR_LAB_AGENT", "x")
    notes = load_config(write(MINIMAL)).notes
    assert len(notes) == 1
    assert "ORCHESTRATOR_RUN_DIR has no effect" in notes[0]


def test_unreadable_env_file() -> None:
    Path(".env").write_bytes(b"ORCHESTRATOR_LAB_MODE=\xff\xfe\n")
    with pytest.raises(ConfigError, match="environment"):
        load_settings()


def test_settings_are_loaded_when_first_used() -> None:
    assert configuration.Settings().mode is None
    with pytest.raises(AttributeError):
        configuration.nothing  # noqa: B018


# --- orchestrator-cc

CC = """
cluster:
  name: "orchestrator-cc"
  session_name: "orchestrator-cc"
  work_dir: "."
agents:
  - name: "grand_boss"
    role: "grand_boss"
    personality_prompt_path: "personalities/grand_boss.txt"
    marker: "GRAND BOSS OK"
    pane_index: 0
  - name: "middle_manager"
    role: "middle_manager"
    personality_prompt_path: "personalities/middle_manager.txt"
    marker: "MIDDLE MANAGER OK"
    pane_index: 4
    wait_time: 5.0
    poll_interval: 0.5
"""


def test_the_ancestor_s_file_is_read(folder: Path) -> None:
    write("You are the boss.", "personalities/grand_boss.txt")
    write("You manage.", "personalities/middle_manager.txt")
    write(CC, "config/cc-cluster.yaml")
    config = load_config()
    assert config.names == ["grand_boss", "middle_manager"]
    assert config.work_dir == folder
    boss = config.agents[0]
    assert isinstance(boss, ClaudeAgent)
    assert (boss.config, boss.permission_mode, boss.args) == ("inherit", None, [])
    assert instructions_text(boss, config) == "You are the boss."
    told = "\n".join(config.notes)
    assert "--dangerously-skip-permissions" in told
    for key in ("marker", "pane_index", "wait_time", "poll_interval"):
        assert f"'{key}' has no effect any more" in told
    assert "'wait_time' has no effect any more (middle_manager)" in told


def test_errors_in_the_ancestor_s_file_keep_their_line() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(CC, "cc-cluster.yaml"))
    assert caught.value.message.splitlines()[0] == (
        "cc-cluster.yaml, line 9: agents[0].instructions_file: the instructions file "
        "personalities/grand_boss.txt does not exist"
    )


# --- the schema


@pytest.mark.parametrize("case", ["unknown key", "unknown kind", "no cluster", "no such choice"])
def test_the_schema_refuses_what_we_refuse(case: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(WRONG[case][0]), json_schema())


def test_the_schema_is_valid_and_knows_the_short_forms() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    data = {
        "cluster": {"name": "a", "topology": ["a <-> b", {"from": "*", "to": "b, a"}], "gateway": "local"},
        "agents": [
            {"name": "a", "kind": "claude", "env": {"A": 1}, "command": "claude --x"},
            {"name": "b", "kind": "program", "command": "cat", "turn_end": {"quiet_s": 1}, "stop": "q"},
        ],
    }
    jsonschema.validate(data, json_schema())
    load_config(data)


# --- properties

PROPERTY = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    deadline=None,
    # shrinking a whole cluster takes minutes, and the example found says enough
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)

NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,31}", fullmatch=True).filter(
    lambda name: name.lower() not in {"user", "all"}
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def clusters(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique_by=str.lower))
    agents: list[dict[str, Any]] = []
    for name in names:
        agent: dict[str, Any] = {"name": name, "kind": draw(st.sampled_from(["claude", "chat", "program"]))}
        if draw(st.booleans()):
            agent["instructions"] = draw(TEXTS)
        if draw(st.booleans()):
            agent["env"] = draw(st.dictionaries(st.from_regex(r"X_[A-Z0-9]{1,8}", fullmatch=True), TEXTS, max_size=2))
        if draw(st.booleans()):
            agent["gateway"] = {"mode": "script", "script": draw(st.lists(VALUES, max_size=2))}
        if agent["kind"] == "program":
            agent["command"] = draw(st.lists(TEXTS, max_size=2).map(lambda words: ["cat", *words]))
            agent["turn_end"] = draw(st.sampled_from([{"prompt": r"\$ $"}, {"marker": "OK: 1"}, {"quiet_s": 0.25}]))
        agents.append(agent)
    cluster: dict[str, Any] = {"name": draw(NAMES), "cols": draw(st.integers(20, 1000))}
    if draw(st.booleans()):
        places = st.lists(st.sampled_from([*names, "*"]), min_size=1, max_size=3)
        cluster["topology"] = draw(
            st.lists(
                st.fixed_dictionaries(
                    {
                        "from": places,
                        "to": places,
                        "both": st.booleans(),
                        "replies": st.sampled_from(["tool", "forward"]),
                    }
                ),
                max_size=3,
            )
        )
    return {"cluster": cluster, "agents": agents}


@given(clusters())
@example(
    {
        "cluster": {"name": "a"},
        "agents": [
            {"name": x, "kind": "chat", "instructions": text}
            for x, text in {"a": "0o7", "b": "\x85", "c": "a\u2028\nb", "d": "<<", "e": " |\n x"}.items()
        ],
    }
)
@settings(PROPERTY, max_examples=60)
def test_json_and_yaml_round_trip(data: dict[str, Any]) -> None:
    config = load_config(data)
    assert ClusterConfig.from_json(config.to_json()) == config
    again = load_config(write(to_yaml(config, masked=False), "trip.yaml"))
    assert to_dict(again, masked=False) == to_dict(config, masked=False)
    assert again.agents == config.agents
    jsonschema.validate(to_dict(config), json_schema())
    json.dumps(to_dict(config))


@given(st.text(max_size=200) | st.text("{}[]:,-&*!|>'\"\\\n #<?%@~ a1\t", max_size=60))
@example("%YAML " + "9" * 5000 + ".1\n---\n")
@example("a: " + "9" * 5000)
@example("a: 1e999")
@example("? [a]\n: b")
@example("!!binary x: 1")
@example("&a [*a]")
@example("<<: {<<: {a: 1}}")
@settings(PROPERTY, max_examples=300)
def test_any_text_gives_a_configuration_or_a_config_error(text: str) -> None:
    Path("any.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
    message = "any.yaml"
    try:
        load_config("any.yaml")
    except ConfigError as error:
        message = error.message
    assert message.removeprefix("the configuration ").startswith("any.yaml")


KEYS = ["name", "kind", "cluster", "agents", "gateway", "topology", "env", "script", "mode", "from", "to"]
KEYS += ["turn_end", "command", "work_dir", "instructions_file", "stop", "cols", "template", "marker"]


@given(
    st.dictionaries(
        st.sampled_from([*ClusterConfig.model_fields, *GatewayConfig.model_fields, *KEYS]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), inner, max_size=4)
            ),
            max_leaves=12,
        ),
        max_size=5,
    ),
    st.sampled_from(["claude", "chat", "program", None]),
)
@settings(PROPERTY, max_examples=300)
def test_any_mapping_gives_a_configuration_or_a_config_error(data: dict[str, Any], kind: str | None) -> None:
    agent = {"name": "a", "kind": kind, **data}
    for source in (data, {"cluster": {"name": "a", **data}, "agents": [agent]}):
        try:
            config = load_config(source)
        except ConfigError:
            continue
        assert ClusterConfig.from_json(config.to_json()) == config
