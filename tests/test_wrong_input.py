"""Every wrong input: one clear sentence, the right class, exit status 2, and nothing left behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from last_words import last_words

from orchestrator_lab import Cluster, errors
from orchestrator_lab.errors import OrchestratorLabError
from orchestrator_lab.runtime import PROTOCOL, read_record, update_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    ConfigMaker = Callable[..., dict[str, Any]]

CHAT = {"name": "ada", "kind": "chat", "gateway": {"mode": "script", "script": [{"reply": "{text}"}]}}


def broken(words: str) -> dict[str, Any]:
    """Return a program that is not ready before it ends."""
    program = {"name": "ada", "kind": "program", "command": ["sh", "-c", words]}
    return {**program, "turn_end": {"quiet_s": 0.5}, "ready": {"quiet_s": 60}}


@dataclass
class Case:
    """A configuration, the environment for it, and what must be said."""

    error: str
    says: tuple[str, ...]
    agents: list[Any] = field(default_factory=lambda: [CHAT])
    cluster: dict[str, Any] = field(default_factory=dict)
    environ: dict[str, str] = field(default_factory=dict)
    tmux: str | None = None
    runtime: str = ""


CASES = {
    "unknown key": Case("ConfigError", ("modle", "model", "cluster.yaml", "line"), [{**CHAT, "modle": "x"}]),
    "unknown kind": Case("ConfigError", ("chta", "chat", "cluster.yaml"), [{**CHAT, "kind": "chta"}]),
    "unknown cluster key": Case("ConfigError", ("work_dri", "work_dir"), cluster={"work_dri": "."}),
    "one name twice": Case("ConfigError", ("ada", "cluster.yaml"), [CHAT, CHAT]),
    "no instructions file": Case(
        "ConfigError", ("nowhere.md", "line", "agents[0]"), [{**CHAT, "instructions_file": "nowhere.md"}]
    ),
    "no work folder": Case("ConfigError", ("/nowhere/at/all",), cluster={"work_dir": "/nowhere/at/all"}),
    "no work folder of an agent": Case("ConfigError", ("/nowhere/at/all",), [{**CHAT, "work_dir": "/nowhere/at/all"}]),
    "name with a space": Case("ConfigError", ("'a b'",), cluster={"name": "a b"}),
    "name with a colon": Case("ConfigError", ("'a:b'",), cluster={"name": "a:b"}),
    "name with a dot": Case("ConfigError", ("'a.b'",), cluster={"name": "a.b"}),
    "agent's name with a space": Case("ConfigError", ("'a b'",), [{**CHAT, "name": "a b"}]),
    "no tmux": Case("TmuxMissing", ("tmux", "install"), tmux=""),
    "old tmux": Case("TmuxTooOld", ("3.1c", "3.2a"), tmux="tmux 3.1c"),
    "no such program": Case(
        "ProgramNotFound",
        ("no-such-program", "ada"),
        [{"name": "ada", "kind": "program", "command": ["no-such-program"], "turn_end": {"quiet_s": 1}}],
    ),
    "program that ends at once": Case(
        "AgentFailed",
        ("ada", "exit status 7", "cannot find my keys"),
        [broken(last_words("cannot find my keys", "exit 7"))],
    ),
    "program that is killed at once": Case("AgentFailed", ("ada", "signal 9"), [broken("kill -9 $$")]),
    "one of two ends at once": Case(
        "AgentFailed", ("bob", "oh no"), [CHAT, {**broken(last_words("oh no", "exit 1")), "name": "bob"}]
    ),
    "never ready": Case(
        "AgentFailed",
        ("ada", "start_timeout_s", "not yet"),
        [{**broken("echo not yet; sleep 60"), "turn_end": {"prompt": "^never>"}}],
        {"start_timeout_s": 4},
    ),
    "socket path too long": Case("EnvironmentProblem", ("ORCHESTRATOR_RUNTIME_DIR", "bytes"), runtime="/" + "x" * 90),
    "no UTF-8 locale": Case("EnvironmentProblem", ("LC_ALL=C", "UTF-8"), environ={"LC_ALL": "C"}),
    "key variable not set": Case(
        "ConfigError",
        ("NO_SUCH_KEY",),
        [
            {
                "name": "ada",
                "kind": "chat",
                "gateway": {"mode": "upstream", "base_url": "http://127.0.0.1:9", "key_env": "NO_SUCH_KEY"},
            }
        ],
    ),
}


@dataclass
class Place:
    """A configuration file in a folder of its own."""

    folder: Path
    runtime: Path
    environ: dict[str, str]

    @property
    def config(self) -> Path:
        return self.folder / "cluster.yaml"

    def is_clean(self) -> None:
        assert sorted(one.name for one in self.folder.iterdir() if one.name != "bin") == ["cluster.yaml", "work"]
        assert list((self.folder / "work").iterdir()) == []
        deadline = time.monotonic() + 30
        while (left := [one.name for one in self.runtime.rglob("*")]) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert left == []


@pytest.fixture
def place(runtime: Path) -> Callable[[Case], Place]:
    def make(case: Case) -> Place:
        folder = Path(tempfile.mkdtemp(prefix="w"))
        (folder / "work").mkdir()
        where = Path(f"{runtime}{case.runtime}")
        environ = {"ORCHESTRATOR_RUNTIME_DIR": str(where), **case.environ}
        if case.tmux is not None:
            (folder / "bin").mkdir()
            for name in ("sh", "env"):
                (folder / "bin" / name).symlink_to(str(shutil.which(name)))
            if case.tmux:
                (folder / "bin" / "tmux").write_text(f"#!/bin/sh\necho {case.tmux}\n")
                (folder / "bin" / "tmux").chmod(0o755)
            environ["PATH"] = str(folder / "bin")
        cluster = {"name": "wrong", "work_dir": "work", "runs_dir": "runs", **case.cluster}
        (folder / "cluster.yaml").write_text(yaml.safe_dump({"cluster": cluster, "agents": case.agents}))
        return Place(folder, where, environ)

    return make


@pytest.mark.parametrize("name", CASES)
def test_in_python(name: str, place: Callable[[Case], Place], monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[name]
    here = place(case)
    for key, value in here.environ.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(OrchestratorLabError) as caught:
        Cluster.start(here.config)
    assert type(caught.value).__name__ == case.error, caught.value
    check_sentence(str(caught.value), case)
    if case.runtime:
        shutil.rmtree(here.runtime, ignore_errors=True)
    here.is_clean()


@pytest.mark.parametrize(
    "name",
    [
        "unknown key",
        "one name twice",
        "no instructions file",
        "no work folder",
        "name with a colon",
        "no tmux",
        "old tmux",
        "no such program",
        "program that ends at once",
        "socket path too long",
        "no UTF-8 locale",
    ],
)
def test_in_a_shell(name: str, place: Callable[[Case], Place]) -> None:
    case = CASES[name]
    here = place(case)
    done = shell("start", str(here.config), environ=here.environ)
    assert done.returncode == 2, done
    assert "Traceback" not in done.stdout + done.stderr
    check_sentence(re.sub(r"\s+", " ", done.stderr) if "\n" in done.stderr.strip() else done.stderr, case, wrapped=True)
    if case.runtime:
        shutil.rmtree(here.runtime, ignore_errors=True)
    here.is_clean()


def shell(*words: str, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "orchestrator_lab", *words],
        env={**os.environ, "COLUMNS": "400", **(environ or {})},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def check_sentence(said: str, case: Case, *, wrapped: bool = False) -> None:
    for word in case.says:
        assert word in said, said
    assert "Errno" not in said
    if case.error != "AgentFailed" and not wrapped:  # whose sentence ends with the last screen
        assert "\n" not in said.strip()


# a running cluster --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def running(module_runtime: Path, script_config: ConfigMaker) -> Iterator[Cluster]:
    script = [{"when": {"text": "slow"}, "reply": "at last", "delay_s": 600}, {"reply": "{text}"}]
    with Cluster.start(script_config("ada", "bob", name="right", script=script)) as cluster:
        yield cluster
    assert not (module_runtime / "right").exists()


def test_cluster_is_running_already(running: Cluster, script_config: ConfigMaker) -> None:
    config = script_config("ada", name="right")
    with pytest.raises(errors.ClusterExists, match=r"'right' is running already.*orchestrator-lab shutdown right"):
        Cluster.start(config)
    assert not list(Path(config["cluster"]["runs_dir"]).iterdir())
    assert running["ada"].ask("still there?", timeout=20).reply == "still there?"


def test_unknown_cluster(running: Cluster) -> None:
    with pytest.raises(errors.ClusterNotFound, match=f"'wrong'.*{running.name}"):
        Cluster.attach("wrong")
    done = shell("status", "wrong")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "wrong" in done.stderr
    assert "right" in done.stderr


def test_unknown_agent(running: Cluster) -> None:
    with pytest.raises(errors.AgentNotFound, match=r"'bos'.*'right'.*ada, bob"):
        running["bos"]
    with pytest.raises(errors.AgentNotFound, match="'bos'"):
        running.send(["ada", "bos"], "hello")
    # All or none: ada got nothing.
    assert not any(event.attributes.get("content") == "hello" for event in running.events())


def test_timeout(running: Cluster) -> None:
    with pytest.raises(errors.ExchangeTimeout, match=r"ada has not answered within 0.5 s.*goes on.*result") as caught:
        running["ada"].ask("slow", timeout=0.5)
    assert isinstance(caught.value, TimeoutError)
    with pytest.raises(errors.ExchangeTimeout, match=r"not all agents are idle after 0.2 s: .*ada"):
        running.wait(timeout=0.2)
    running.client.get(f"/messages/{caught.value.details['message_id']}", timeout_s=30.0, until="accepted")
    running["ada"].interrupt()
    running.wait(timeout=20)


def test_what_is_no_message(running: Cluster) -> None:
    with pytest.raises(errors.ConfigError, match="a message is a text, got int"):
        running["ada"].send(7)  # type: ignore[arg-type]
    with pytest.raises(errors.MessageRefused, match="empty"):
        running["ada"].send(" \n")
    with pytest.raises(errors.ConfigError, match=r"'later'.*'idle'.*'now'"):
        running["ada"].send("x", when="later")
    with pytest.raises(errors.MessageRefused, match="msg_none"):
        running["ada"].send("x", in_reply_to="msg_none")
    with pytest.raises(errors.ConfigError, match="two agents or more"):
        running.converse(["ada"], "go")
    with pytest.raises(errors.ConfigError, match="rounds=0"):
        running.converse(["ada", "bob"], "go", rounds=0)


def test_agent_that_cannot_join(running: Cluster) -> None:
    for wrong, error in (
        ({**CHAT}, errors.OrchestratorLabError),
        ({**CHAT, "name": "c d"}, errors.ConfigError),
        ({**broken("exit 3"), "name": "eve"}, errors.AgentFailed),
        (
            {"name": "eve", "kind": "program", "command": "no-such-program", "turn_end": {"quiet_s": 1}},
            errors.ProgramNotFound,
        ),
    ):
        with pytest.raises(error):
            running.add(wrong)
        assert running.names == ["ada", "bob"]
        assert [agent.name for agent in running.config.agents] == ["ada", "bob"]
    assert not (running.client.folder / "agents" / "eve").exists()


def test_version_of_the_client_is_another(running: Cluster) -> None:
    update_record(running.client.folder, protocol=PROTOCOL + 1, version="9.9")
    try:
        with pytest.raises(errors.VersionMismatch, match=r"9\.9.*protocol 2.*protocol 1.*use that version"):
            Cluster.attach("right")
        done = shell("status", "right")
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        assert "9.9" in done.stderr
    finally:
        update_record(running.client.folder, protocol=PROTOCOL)
    assert Cluster.attach("right").names == ["ada", "bob"]


def test_stopped_cluster_takes_no_messages(runtime: Path, script_config: ConfigMaker) -> None:
    with Cluster.start(script_config("ada", name="halt")) as cluster:
        cluster.stop()
        with pytest.raises(errors.ClusterStopped, match=r"'ada'.*'halt'.*restart"):
            cluster["ada"].ask("anybody there?")
        with pytest.raises(errors.ClusterStopped, match="interrupt"):
            cluster["ada"].interrupt()
        assert "message.queued" not in [event.event for event in cluster.events()]
    with pytest.raises(errors.ClusterNotFound, match="'halt'"):
        cluster["ada"].ask("and now?")
    assert list(runtime.iterdir()) == [] or all(one.name.startswith(".gone") for one in runtime.iterdir())


# interrupts and disks -----------------------------------------------------------------------------


@pytest.mark.parametrize("delay", [0.0, 0.4, 1.0])
def test_interrupt_during_the_start(place: Callable[[Case], Place], delay: float) -> None:
    here = place(Case("", (), [{**broken("sleep 60"), "turn_end": {"prompt": "^never>"}}]))
    program = f"from orchestrator_lab import Cluster; Cluster.start({str(here.config)!r})"
    client = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, **here.environ},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 30
    while read_record(here.runtime / "wrong") is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    time.sleep(delay)
    client.send_signal(signal.SIGINT)
    _, said = client.communicate(timeout=40)
    assert client.returncode != 0
    assert "KeyboardInterrupt" in said
    here.is_clean()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prlimit is Linux's")
def test_full_disk_stops_delivery_and_room_lets_it_go_on(runtime: Path, script_config: ConfigMaker) -> None:
    import resource

    with Cluster.start(script_config("ada", name="full", script=[{"reply": "{text}"}])) as cluster:
        assert cluster["ada"].ask("one", timeout=20).reply == "one"
        record = read_record(runtime / "full")
        assert record is not None
        assert record.supervisor_pid is not None
        # The supervisor may write not one byte more to its journal; its files are all smaller.
        size = (cluster.run_dir / "journal.jsonl").stat().st_size
        before = resource.prlimit(record.supervisor_pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        with pytest.raises(errors.DiskFull, match=r"journal\.jsonl"):
            cluster["ada"].ask("two", timeout=20)
        with pytest.raises(errors.DiskFull):
            cluster["ada"].send("three")
        resource.prlimit(record.supervisor_pid, resource.RLIMIT_FSIZE, before)
        deadline = time.monotonic() + 20
        while True:
            try:
                assert cluster["ada"].ask("four", timeout=20).reply == "four"
                break
            except errors.DiskFull:
                assert time.monotonic() < deadline
                time.sleep(0.2)
        lines = (cluster.run_dir / "journal.jsonl").read_bytes().splitlines()
        assert [json.loads(line)["seq"] for line in lines] == list(range(1, len(lines) + 1))
        prompts = [row["content"] for _, row in cluster.run.messages.iterrows()]
        assert prompts == ["one", "four"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prlimit is Linux's")
def test_a_message_that_expires_while_the_disk_is_full_ends_no_mailbox(
    runtime: Path, script_config: ConfigMaker
) -> None:
    import resource

    script = [{"when": {"contains": "slowly"}, "delay_s": 600, "reply": "at last"}, {"reply": "{text}"}]
    with Cluster.start(script_config("ada", name="full", script=script)) as cluster:
        slow = cluster["ada"].send("slowly").accepted(20)
        waiting = cluster["ada"].send("in vain", expires=0.5)
        record = read_record(runtime / "full")
        assert record is not None
        assert record.supervisor_pid is not None
        size = (cluster.run_dir / "journal.jsonl").stat().st_size
        before = resource.prlimit(record.supervisor_pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        time.sleep(1.0)  # its time runs out, and nothing can be written about it
        resource.prlimit(record.supervisor_pid, resource.RLIMIT_FSIZE, before)
        with pytest.raises(errors.MessageExpired):
            waiting.result(20)
        assert slow.status in {"accepted", "started"}
        cluster["ada"].interrupt()
        assert cluster["ada"].ask("next", timeout=20).reply == "next"
