"""Fixtures of every test: private places for clusters, small clusters, and a guard against what is left behind.

Everything that a test starts carries a mark in its environment, or works in the session's own folder. At the end of the
session whatever still runs is named, ended, and fails the run. No other process is ever touched.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import psutil
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_MARK = "OLAB_TEST_SESSION"
_HERE = Path(__file__).parent
#: Python's own helpers of the test process end with it.
_HELPERS = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")


# what is ours -------------------------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    # How long an example takes tells of the machine's load, not of the code.
    hypothesis.settings.register_profile("lab", deadline=None)
    hypothesis.settings.load_profile("lab")
    # Sockets need short paths: everything temporary goes to one short folder of this session.
    temporary = tempfile.gettempdir()
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", temporary)
    root = Path(tempfile.mkdtemp(prefix="ot", dir=temporary)).resolve()
    config.stash[_ROOT] = root
    os.environ[_MARK] = str(root)
    os.environ["TMPDIR"] = tempfile.tempdir = str(root)
    # What stands in a home is nobody's business here: a login shell waited a minute there for a lock that another one,
    # killed with its agent, had left. Downloads are shared all the same.
    os.environ.setdefault("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    home = root / "nobodys"
    home.mkdir()
    (home / ".gitconfig").write_text("[user]\n\tname = Test\n\temail = test@example.org\n", encoding="utf-8")
    os.environ["HOME"] = str(home)
    # A run started inside an agent's pane, or with the user's own clusters, must not meet them.
    for name in [key for key in os.environ if key.startswith("ORCHESTRATOR_") and key not in _KEPT]:
        del os.environ[name]
    for name in ("LC_ALL", "LC_CTYPE", "LANG"):
        value = os.environ.get(name, "")
        if value:
            if "utf" not in value.lower():
                os.environ["LC_ALL"] = "C.UTF-8"
            break
    else:
        os.environ["LC_ALL"] = "C.UTF-8"


_ROOT = pytest.StashKey[Path]()
_KEPT = {"ORCHESTRATOR_LAB_TEST_CHROMIUM", "ORCHESTRATOR_LAB_TEST_CLAUDE", "ORCHESTRATOR_LAB_TEST_CODEX"}


def pytest_sessionfinish(session: pytest.Session) -> None:
    root = session.config.stash[_ROOT]
    left = survivors(str(root), grace_s=30.0)
    if left:
        lines = "\n".join(f"  {describe(one)}" for one in left)
        end(left)
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.write_line(f"\nleft behind by the tests (ended now):\n{lines}", red=True, bold=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    shutil.rmtree(root, ignore_errors=True)


def ours(place: str) -> list[psutil.Process]:
    """Return the processes that carry a place in their command line, or this session's mark with it."""
    kin = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    session = place == os.environ[_MARK]
    found = []
    for process in psutil.process_iter():
        if process.pid in kin:
            continue
        with contextlib.suppress(psutil.Error, OSError):
            words = process.cmdline()
            if process.status() == psutil.STATUS_ZOMBIE or any(helper in " ".join(words) for helper in _HELPERS):
                continue
            # A tmux server and what runs in its panes, the keeper and the supervisor name their folder.
            named = any(word == place or f"{place}/" in word for word in words)
            if named or process.environ().get(_MARK if session else "ORCHESTRATOR_RUNTIME_DIR") == place:
                found.append(process)
    return found


def survivors(place: str, grace_s: float) -> list[psutil.Process]:
    """Return what still runs after a grace."""
    deadline = time.monotonic() + grace_s
    while (left := ours(place)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def describe(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return f"{process.pid} {' '.join(process.cmdline())[:160]}"
    return str(process.pid)


def end(processes: list[psutil.Process]) -> None:
    """Kill processes, the keepers first: they would start the others again."""
    for process in sorted(processes, key=lambda one: "orchestrator_lab.keeper" not in " ".join(_words(one))):
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGKILL)
    psutil.wait_procs(processes, timeout=30)


def _words(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return process.cmdline()
    return []


# places -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def private_runtime() -> Iterator[Path]:
    """A runtime folder of its own with a short path; what still runs in it afterwards is ended, and is a failure."""
    place = Path(tempfile.mkdtemp(prefix="r"))
    before = os.environ.get("ORCHESTRATOR_RUNTIME_DIR")
    os.environ["ORCHESTRATOR_RUNTIME_DIR"] = str(place)
    try:
        yield place
        left = survivors(str(place), grace_s=30.0)
    except BaseException:
        end(survivors(str(place), grace_s=0.0))
        raise
    finally:
        if before is None:
            os.environ.pop("ORCHESTRATOR_RUNTIME_DIR", None)
        else:
            os.environ["ORCHESTRATOR_RUNTIME_DIR"] = before
    named = "\n".join(describe(one) for one in left)
    end(left)
    shutil.rmtree(place, ignore_errors=True)
    assert not left, f"this test left processes behind (ended now):\n{named}"


@pytest.fixture
def runtime() -> Iterator[Path]:
    """A private ``ORCHESTRATOR_RUNTIME_DIR`` for one test."""
    with private_runtime() as place:
        yield place


@pytest.fixture(scope="module")
def module_runtime() -> Iterator[Path]:
    """A private ``ORCHESTRATOR_RUNTIME_DIR`` for the clusters that the tests of one module share."""
    with private_runtime() as place:
        yield place


@pytest.fixture
def spawn() -> Iterator[Callable[..., subprocess.Popen[Any]]]:
    """Start processes that end with the test at the latest, whatever becomes of it.

    ``with subprocess.Popen(...)`` would wait for ever for a process that a failed test no longer ends.
    """
    started: list[subprocess.Popen[Any]] = []

    def start(*args: Any, **kwargs: Any) -> subprocess.Popen[Any]:
        started.append(subprocess.Popen(*args, **kwargs))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait(30)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


# clusters -----------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def script_config() -> Callable[..., dict[str, Any]]:
    """Configurations of chat agents on the script gateway.

    ``script_config("ada", "bob")`` answers ``"<agent>: <text>"`` at once. ``script=`` gives the rules for all agents;
    ``agents={"ada": {...keys}}`` adds keys to one; any other keyword is a key of ``cluster:``. Work folder and runs
    folder are new ones unless they are given.
    """

    def make(
        *names: str, script: Any = None, agents: dict[str, dict[str, Any]] | None = None, **cluster: Any
    ) -> dict[str, Any]:
        folder = Path(tempfile.mkdtemp(prefix="w"))
        rules = [{"reply": "{agent}: {text}"}] if script is None else script
        extra = agents or {}
        listed = [*names, *(name for name in extra if name not in names)]
        for key in ("work", "runs"):
            if f"{key}_dir" not in cluster:
                (folder / key).mkdir()
                cluster[f"{key}_dir"] = str(folder / key)
        return {
            "cluster": {"name": "lab", "gateway": {"mode": "script", "script": rules}, **cluster},
            "agents": [{"name": name, "kind": "chat", **extra.get(name, {})} for name in listed],
        }

    return make


@pytest.fixture(scope="session")
def claude_command() -> str:
    """Path of the real Claude Code that tests drive."""
    return _program("claude", "Claude Code")


@pytest.fixture(scope="session")
def codex_command() -> str:
    """Path of the real Codex that tests drive."""
    return _program("codex", "Codex")


def _program(name: str, called: str) -> str:
    variable = f"ORCHESTRATOR_LAB_TEST_{name.upper()}"
    chosen = os.environ.get(variable)
    path = Path(chosen) if chosen else _HERE / "agents" / "node_modules" / ".bin" / name
    if not path.exists():
        where = f"{variable} names it" if chosen else f"run 'npm ci' in {_HERE / 'agents'}"
        pytest.fail(f"the real {called} is not at {path}: {where}, or set {variable} to its path")
    return str(path)
