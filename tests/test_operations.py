"""The operations pages: every command on them runs, and every file on them is valid.

Blocks of commands run line by line in a scratch folder with a cluster of chat agents. :data:`STAGES` says which of them
need that cluster in another state than running. ``no-run`` marks what needs root, systemd, a network or another system.
"""

from __future__ import annotations

import configparser
import importlib
import json
import os
import pty
import pwd
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import yaml
from pages import FENCE, JAPANESE, NOT_RUN, OPERATIONS, ROOT, blocks
from power_cut import until
from typer.testing import CliRunner

from orchestrator_lab import Cluster
from orchestrator_lab.cli.app import app
from orchestrator_lab.config import load_config
from orchestrator_lab.runtime import read_record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator_lab.runtime import ClusterRecord

PAGES = [page for page in OPERATIONS if page not in JAPANESE]
FAKE = ROOT / "tests" / "fake_agent" / "fake_agent.py"

#: What the cluster must be like before a block: by page, heading, and the first line where only one block is meant.
#: All others find it running.
STAGES = {
    ("deployment", "What every place needs"): "nothing",
    ("deployment", "Workstation"): "nothing",
    ("runbook", "Agent that waits for a person"): "asking",
    ("runbook", "Usage limit reached"): "limited",
    ("runbook", "Guard tripped"): "guarded",
    ("runbook", "Dead tmux server"): "no tmux",
    ("runbook", "Dead tmux server", "orchestrator-lab restart"): "running",
    ("runbook", "Supervisor or keeper killed"): "unwatched",
    ("runbook", "After a reboot"): "rebooted",
    ("runbook", "Leftovers of dead clusters"): "dead",
    ("runbook", "Start of day", "orchestrator-lab config validate"): "down",
    ("runbook", "Upgrade of the lab", "orchestrator-lab version"): "down",
    ("runbook", "End of day", "orchestrator-lab shutdown"): "ending",
}
#: In this order the stages are gone through, so that the cluster is seldom started.
ORDER = [
    *("nothing", "down", "running", "unwatched", "no tmux", "rebooted"),
    *("ending", "asking", "limited", "guarded", "dead"),
]
#: Stages with a cluster of their own, or with none, and the folders that they are brought about in.
OF_THEIR_OWN = {"nothing": "empty", "asking": "asking", "limited": "limited", "guarded": "duo"}
#: What is killed before a block.
KILLED = {
    "unwatched": ("keeper", "supervisor"),
    "no tmux": ("tmux",),
    "rebooted": ("keeper", "supervisor", "tmux"),
    "dead": ("keeper", "supervisor", "tmux"),
}
#: Words of commands that change something, if only for the next command that looks.
CHANGES = {"init", "start", "stop", "restart", "shutdown", "send", "ask", "answer", "lift", "ack", "clear", "--fix"}


# blocks -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Block:
    """Commands of one page that are run together."""

    page: str
    heading: str
    line: int
    lines: tuple[str, ...]

    @property
    def stage(self) -> str:
        place = (self.page, self.heading)
        return STAGES.get((*place, self.lines[0])) or STAGES.get(place, "running")


def _commands(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for line, info, body in blocks(page, "shell"):
        if NOT_RUN not in info.split():
            above = FENCE.sub("", "\n".join(text.splitlines()[: line - 1]))
            heading = re.findall(r"^#+ (.+)$", above, re.MULTILINE)[-1]
            yield Block(page.stem, heading, line, tuple(one for one in body.splitlines() if one.strip()))


BLOCKS = sorted((one for page in PAGES for one in _commands(page)), key=lambda one: ORDER.index(one.stage))


# a place to run them in ---------------------------------------------------------------------------


class Lab:
    """A folder with the cluster ``duo``, as the pages have it, brought into whatever state a block needs."""

    def __init__(self, place: Path, runtime: Path) -> None:
        self.place = place
        self.runtime = runtime
        self.home = place / "home"
        self._stage = "nothing"
        #: Lines that only look, and have been run in this state.
        self._seen: set[str] = set()
        for folder in ("home", "duo", "asking", "limited", "empty"):
            (place / folder).mkdir()
        (place / "script.yaml").write_text('- reply: "{agent}: {text}"\n', encoding="utf-8")
        os.environ["HOME"] = str(self.home)
        os.environ["ORCHESTRATOR_CLUSTER__GATEWAY__MODE"] = "script"
        os.environ["ORCHESTRATOR_CLUSTER__GATEWAY__SCRIPT"] = str(place / "script.yaml")
        os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        os.chdir(place / "duo")
        self.good("orchestrator-lab init duo --kind chat")
        (place / "duo" / "team.yaml").write_bytes((place / "duo" / "cluster.yaml").read_bytes())
        for folder, script in (
            ("asking", {"on_start": [{"do": "dialog", "kind": "permission"}]}),
            ("limited", {"limit": True}),
        ):
            self._with_fake(place / folder, script)

    def _with_fake(self, folder: Path, script: dict[str, Any]) -> None:
        """Write a cluster ``duo`` whose writer is a program that does as it is told."""
        (folder / "script.json").write_text(json.dumps(script), encoding="utf-8")
        command = [sys.executable, "-S", "-E", str(FAKE), "--log", "truth.jsonl", "--script", "script.json"]
        agents = [{"name": "writer", "kind": "chat", "command": command}, {"name": "critic", "kind": "chat"}]
        config = {"cluster": {"name": "duo", "work_dir": ".", "runs_dir": "runs"}, "agents": agents}
        (folder / "cluster.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")

    # states -------------------------------------------------------------------------------------

    def bring(self, stage: str) -> None:
        """See to it that the cluster is in a state."""
        new = stage != self._stage
        apart = stage in OF_THEIR_OWN or (self._stage in OF_THEIR_OWN and stage != "dead")
        if self.runs and (stage == "down" or (new and apart)):
            self.good("orchestrator-lab shutdown --all")
        os.chdir(self.place / OF_THEIR_OWN.get(stage, "duo"))
        os.environ.pop("ORCHESTRATOR_CLUSTER__LIMITS__MESSAGES", None)
        if stage == "guarded":
            os.environ["ORCHESTRATOR_CLUSTER__LIMITS__MESSAGES"] = "1"
        if stage == "nothing":
            Path("cluster.yaml").unlink(missing_ok=True)
        elif stage != "down" and not self.runs:
            self.good("orchestrator-lab start")
        if stage in {"limited", "guarded"} and new:
            self.good("orchestrator-lab send writer One.")
            self.good("orchestrator-lab send writer Two.")
            until(lambda: Cluster.attach("duo").guards)
        if stage == "asking":
            until(lambda: Cluster.attach("duo").dialogs)
        if stage in KILLED:
            self._kill(*KILLED[stage])
        if new or stage in KILLED:
            self._seen.clear()
        self._stage = stage

    @property
    def runs(self) -> bool:
        return (self.runtime / "duo").is_dir()

    def _kill(self, *who: str) -> None:
        """Kill processes of the cluster at one moment, so that none can start another again."""
        record = until(lambda: self._whole(who))
        processes = [psutil.Process(getattr(record, f"{one}_pid")) for one in who]
        for process in processes:
            process.suspend()
        for process in processes:
            process.kill()
        until(lambda: not any(record.alive(one) for one in who))

    def _whole(self, who: tuple[str, ...]) -> ClusterRecord | None:
        """Return the cluster's record, once what it says of these processes is so."""
        record = read_record(self.runtime / "duo")
        return record if record is not None and all(record.alive(one) for one in who) else None

    # commands -----------------------------------------------------------------------------------

    def once(self, line: str) -> None:
        """Run one line of a page, unless it only looks and has been run in this very state."""
        if line not in self._seen:
            self.good(line)
        if CHANGES & set(line.split()):
            self._seen.clear()
        else:
            self._seen.add(line)

    def good(self, line: str) -> None:
        """Run one line, the way it is meant to be run; it must end well."""
        words = shlex.split(line)
        if words[0] == "orchestrator-lab" and {"--follow", "--watch", "attach"} & set(words):
            self._in_terminal(words)
        elif words[0] == "orchestrator-lab" and not re.search(r"[|&;<>$`]", line):
            done = CliRunner().invoke(app, words[1:], catch_exceptions=False)
            assert done.exit_code == 0, f"{line}: {done.output}"
        else:
            ran = subprocess.run(
                ["bash", "-c", line], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=150, check=False
            )
            assert ran.returncode == 0, f"{line}: {ran.stdout}{ran.stderr}"

    def _in_terminal(self, words: list[str]) -> None:
        """Run what goes on until somebody ends it, in a terminal, for as long as it takes to show something."""
        pid, terminal = pty.fork()
        if pid == 0:
            os.execvpe(words[0], words, {**os.environ, "TERM": "xterm-256color"})  # noqa: S606 - no shell is wanted
        keys = b"\x02d" if "attach" in words else b"\x03"
        shown, asked_at, deadline = b"", None, time.monotonic() + 60
        try:
            while True:
                now = time.monotonic()
                assert now < deadline, f"{words} is still there: {shown.decode(errors='replace')}"
                # Keys that come while a program sets its terminal up may be lost: they are typed again, as people do.
                if re.search(rb"\w\w\w", shown) and (asked_at is None or now > asked_at + 1):
                    os.write(terminal, keys)
                    asked_at = now
                if select.select([terminal], [], [], 0.5)[0]:
                    piece = self._read(terminal)
                    if not piece:
                        break
                    shown += piece
        except BaseException:
            os.kill(pid, signal.SIGKILL)
            raise
        finally:
            _, status = os.waitpid(pid, 0)
            os.close(terminal)
        # Ctrl-C ends with the status that shells give it.
        assert os.waitstatus_to_exitcode(status) in {0, 130}, (words, status, shown.decode(errors="replace"))

    @staticmethod
    def _read(terminal: int) -> bytes:
        """Read what is there; nothing when the program has closed its end, which Linux tells by an error."""
        try:
            return os.read(terminal, 65536)
        except OSError:
            return b""


@pytest.fixture(scope="module")
def lab(module_runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    before, folder = dict(os.environ), Path.cwd()
    made = Lab(tmp_path_factory.mktemp("ops"), module_runtime)
    try:
        yield made
        if made.runs:
            made.good("orchestrator-lab shutdown --all")
    finally:
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(before)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda one: f"{one.page}:{one.line}")
def test_commands_run(block: Block, lab: Lab) -> None:
    lab.bring(block.stage)
    for line in block.lines:
        lab.once(line)


def test_every_stage_is_of_a_block() -> None:
    places = {(one.page, one.heading) for one in BLOCKS}
    assert set(STAGES) <= places | {(one.page, one.heading, one.lines[0]) for one in BLOCKS}


def test_what_is_not_run_could_not_be() -> None:
    """Only what needs root, a network, another system or somebody's decision may be left out."""
    reasons = r"sudo|systemctl|pip install|brew|wsl\.exe|>> ~/|\brm -r|/logs/"
    for page in PAGES:
        for line, info, text in blocks(page, "shell"):
            if NOT_RUN in info.split():
                assert re.search(reasons, text), f"{page.name}, line {line}"


# other files on the pages -------------------------------------------------------------------------


def _parts(language: str, mark: str | None = None) -> list[Any]:
    found = [
        (page, line, info, text)
        for page in PAGES
        for line, info, text in blocks(page, language)
        if mark is None or mark in info.split()
    ]
    return [pytest.param(text, id=f"{page.stem}:{line}") for page, line, info, text in found if mark or " " not in info]


@pytest.mark.parametrize("text", _parts("yaml"))
def test_configurations_are_valid(text: str, tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(text, encoding="utf-8")
    config = load_config(file, overrides=False)
    assert config.agents
    assert not config.notes


@pytest.mark.parametrize("text", _parts("dotenv"))
def test_dotenv_files_are_read(text: str, tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text("cluster: {name: a}\nagents: [{name: b, kind: chat}]\n", encoding="utf-8")
    plain = load_config(tmp_path / "cluster.yaml")
    (tmp_path / ".env").write_text(text, encoding="utf-8")
    changed = load_config(tmp_path / "cluster.yaml")
    for line in text.splitlines():
        key = line.split("=")[0].lower()
        name = key.removeprefix("orchestrator_cluster__").removeprefix("orchestrator_").split("__")[0]
        assert getattr(changed, name) != getattr(plain, name), line


@pytest.mark.parametrize("text", _parts("ini", "unit"))
def test_units_are_valid(text: str, tmp_path: Path) -> None:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    kind = "service" if "Service" in parser else "timer"
    assert {"Unit", "Install"} & set(parser.sections())
    for command in re.findall(r"^Exec\w+=-?(\S+)", text, re.MULTILINE):
        assert command.startswith(("%h/", "/")), command
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        return
    program = tmp_path / "home" / "lab" / "bin" / "orchestrator-lab"
    program.parent.mkdir(parents=True)
    program.touch(mode=0o755)
    (tmp_path / "run").mkdir(mode=0o700)
    # A timer is read together with the service of its name.
    (tmp_path / "unit@duo.service").write_text("[Service]\nExecStart=/bin/true\n", encoding="utf-8")
    unit = tmp_path / f"unit@duo.{kind}"
    unit.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [analyze, "verify", "--user", "--man=no", str(unit)],
        env={"HOME": str(tmp_path / "home"), "XDG_RUNTIME_DIR": str(tmp_path / "run"), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    # It passes over keys that it does not know, and says so.
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("text", _parts("ini", "wsl"))
def test_wsl_files_are_valid(text: str) -> None:
    parser = configparser.ConfigParser()
    parser.read_string(text)
    assert parser["boot"]["systemd"] == "true"


@pytest.mark.parametrize("text", _parts("python", "jupyterhub"))
def test_hub_configurations_work(text: str, tmp_path: Path) -> None:
    from traitlets.config import Config

    space: dict[str, Any] = {"c": Config()}
    exec(compile(text.replace("/run/olab", str(tmp_path / "olab")), "jupyterhub_config.py", "exec"), space)  # noqa: S102
    spawner = SimpleNamespace(user=SimpleNamespace(name=pwd.getpwuid(os.getuid()).pw_name))
    hook = space["c"].Spawner.get("pre_spawn_hook")
    if callable(hook):
        folder = Path(space["c"].Spawner.environment["ORCHESTRATOR_RUNTIME_DIR"](spawner))
        for _ in range(2):
            hook(spawner)
            assert (folder.stat().st_mode & 0o777, folder.stat().st_uid) == (0o700, os.getuid())
    else:
        assert {one["name"] for one in space["c"].JupyterHub.services} == {
            name for role in space["c"].JupyterHub.load_roles for name in role["services"]
        }


@pytest.mark.parametrize("text", _parts("yaml", "prometheus"))
def test_prometheus_rules_are_about_figures_that_exist(text: str) -> None:
    groups = yaml.safe_load(text)["groups"]
    known = importlib.import_module("orchestrator_lab.metrics").render([_FIGURES])
    for rule in (rule for group in groups for rule in group["rules"]):
        assert {"alert", "expr", "labels", "annotations"} <= set(rule)
        assert rule["expr"].count("(") == rule["expr"].count(")")
        for name in re.findall(r"orchestrator_lab_\w+", rule["expr"]):
            family = next(line for line in known.splitlines() if re.match(rf"{name}[ {{]", line))
            for label in re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])):
                assert f'{label}="' in family, (name, label)


_AGENT = {
    "name": "writer",
    "state": "idle",
    "state_s": 1.0,
    "last_activity_s": 1.0,
    "cpu_percent": 1.0,
    "rss_bytes": 1,
    "queued": 1,
    "restarts": 1,
}
_FIGURES = {
    "name": "duo",
    "run_id": "run_x",
    "version": "1.0",
    "status": "running",
    "run_s": 1.0,
    "events": 1,
    "agents": [_AGENT],
    "delivery": {"bounds_s": [1.0], "counts": [1, 0], "sum_s": 0.1},
    "alerts": {},
}
