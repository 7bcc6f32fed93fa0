"""Work folders as they were before any agent started: kept by running clusters, and restored in replays."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator_lab import Cluster, Run, open_run
from orchestrator_lab.errors import AgentFailed, ConfigError
from orchestrator_lab.initial.keeping import gather
from orchestrator_lab.initial.walking import CREATED_MARK, Limits
from orchestrator_lab.runtime import cluster_dir, read_record
from orchestrator_lab.supervisor.initial import InitialFolders

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECRET = "very-secret-token-123"
PROMPT = {"turn_end": {"prompt": "ready> $"}, "env": {"PS1": "ready> "}}
SHELL = {"name": "sh", "kind": "program", "command": ["sh", "-i"], **PROMPT}
ADA = {"name": "ada", "kind": "chat", "gateway": {"script": [{"reply": "hi"}]}}


def config(folder: Path, *agents: dict[str, Any], **cluster: Any) -> dict[str, Any]:
    work = folder / "work"
    work.mkdir(parents=True, exist_ok=True)
    places = {"work_dir": str(work), "runs_dir": str(work / "runs")}
    return {"cluster": {"name": "initial", "lifetime": "owner", **places, **cluster}, "agents": list(agents)}


def told(run: Run, event: str) -> list[dict[str, Any]]:
    return [one.attributes for one in run.events() if one.event == event]


def notes(run: Run) -> list[str]:
    """What is noted of work folders; the keeper may have something to say as well."""
    return [str(one["text"]) for one in told(run, "note") if "work folder" in one["text"]]


def kept(run: Run) -> list[str]:
    state = run.initial_state()
    return [] if state is None else [path for folder in state.folders for path in folder.files]


def until(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def recorded(module_runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run in a folder that held something, with a secret in it; that folder is gone."""
    del module_runtime
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "work" / "sub").mkdir(parents=True)
    (folder / "work" / "note.txt").write_text(f"one {SECRET}\n")
    (folder / "work" / "sub" / "deep.txt").write_text("two\n")
    deep = {**SHELL, "name": "deep", "work_dir": str(folder / "work" / "sub")}
    ada = {**ADA, "env": {"DEPLOY_TOKEN": SECRET}}
    with Cluster.start(config(folder, SHELL, ada, deep)) as cluster:
        assert "one" in str(cluster["sh"].ask("cat note.txt; echo changed > note.txt", timeout=20).reply)
        cluster["ada"].ask("hello", timeout=20)
    shutil.move(cluster.run_dir, folder / cluster.run_dir.name)
    shutil.rmtree(folder / "work")
    return open_run(folder / cluster.run_dir.name)


def test_a_run_keeps_its_work_folder_as_it_was(recorded: Run) -> None:
    state = recorded.initial_state()
    assert state is not None
    (folder,) = state.folders
    assert folder.agents == {"sh": ".", "deep": "sub"}  # the lab's own chat program sees no file
    assert folder["note.txt"].read_text() == f"one {'*' * len(SECRET)}\n"
    assert list(folder.files) == ["note.txt", "sub/deep.txt"]  # and no run
    (event,) = told(recorded, "initial.recorded")
    assert (event["files"], event["bytes"], event["skipped"]) == (2, folder.size, 0)
    begun = next(one.monotonic_s for one in recorded.events() if one.event == "agent.added")
    assert 0 <= event["waited_s"] <= begun - next(iter(recorded.events())).monotonic_s
    assert not notes(recorded)


def test_a_replay_works_in_a_folder_as_it_was(
    runtime: Path, tmp_path: Path, recorded: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    del runtime
    monkeypatch.chdir(tmp_path)
    (tmp_path / "initial-replay").mkdir()
    (tmp_path / "initial-replay" / "mine").write_text("mine")
    with Cluster.start(mode="replay_strict", level="model", run=recorded) as cluster:
        made = tmp_path / "initial-replay-2"
        assert cluster["sh"].ask("pwd; cat note.txt; ls -A1", timeout=20).reply == (
            f"{made}\none {'*' * len(SECRET)}\nnote.txt\nsub"
        )
        assert cluster["deep"].ask("pwd; cat deep.txt", timeout=20).reply == f"{made}/sub\ntwo"
    assert [path.name for path in (tmp_path / "initial-replay").iterdir()] == ["mine"]
    again = open_run(cluster.run_dir)
    assert told(again, "initial.restored") == [{"folder": str(made), "agents": ["sh", "deep"], "files": 2}]
    assert kept(again) == kept(recorded)  # so that it can be replayed as well
    assert not (cluster.run_dir / "restoring.json").exists()


def test_on_the_terminal_no_program_works_anywhere(
    runtime: Path, tmp_path: Path, recorded: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    del runtime
    monkeypatch.chdir(tmp_path)
    with Cluster.start(mode="replay_strict", level="terminal", run=recorded) as cluster:
        assert "one" in str(cluster["sh"].ask("cat note.txt; echo changed > note.txt", timeout=20).reply)
        cluster["ada"].ask("hello", timeout=20)
    again = open_run(cluster.run_dir)
    assert not told(again, "initial.restored")
    assert not told(again, "replay.divergence")
    assert again.initial_state() is None
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("initial")]


def test_a_folder_of_ones_own_is_filled_when_it_is_empty_and_else_left_as_it_is(
    runtime: Path, tmp_path: Path, recorded: Run
) -> None:
    del runtime
    given = config(tmp_path, SHELL, ADA, runs_dir=str(tmp_path / "runs"))
    (tmp_path / "work" / "mine").write_text("mine")
    with Cluster.start(given, mode="replay", level="model", run=recorded) as cluster:
        assert cluster["sh"].ask("ls -1", timeout=20).reply == "mine"
    run = open_run(cluster.run_dir)
    assert notes(run) == [f"the work folder {tmp_path / 'work'} is used as it is: it holds something already"]
    assert not told(run, "initial.restored")
    (tmp_path / "work" / "mine").unlink()
    with Cluster.start(given, mode="replay", level="model", run=recorded) as cluster:
        assert cluster["sh"].ask("ls -1", timeout=20).reply == "note.txt\nsub"


def test_a_replay_that_cannot_start_leaves_no_folder(
    runtime: Path, tmp_path: Path, recorded: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    del runtime
    copy = tmp_path / recorded.path.name
    shutil.copytree(recorded.path, copy)
    (copy / "initial" / "index.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"index\.json cannot be read .* a work folder of your own"):
        Cluster.start(mode="replay", level="model", run=copy)
    shutil.copy(recorded.path / "initial" / "index.json", copy / "initial")
    text = (copy / "config.yaml").read_text()
    (copy / "config.yaml").write_text(text.replace("- sh\n", "- 'false'\n"))
    with pytest.raises(AgentFailed, match="ended with exit status 1"):
        Cluster.start(mode="replay", level="model", run=copy)
    assert [path.name for path in tmp_path.iterdir()] == [copy.name]


def test_what_is_not_kept(runtime: Path, tmp_path: Path) -> None:
    del runtime
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "a").write_text("0123456789")
    (tmp_path / "work" / "b").write_text("0123456789")
    with Cluster.start(config(tmp_path, SHELL, initial_state={"max_files": 1})) as cluster:
        pass
    assert kept(cluster.run) == []
    (note,) = notes(cluster.run)
    assert note == (
        f"the work folder {tmp_path / 'work'} is not kept as it was at the beginning: "
        "it holds more than 1 files (max_files)"
    )
    for given in (config(tmp_path, SHELL, initial_state=False), config(tmp_path, ADA)):
        with Cluster.start(given) as cluster:
            pass
        assert cluster.run.initial_state() is None
        assert not notes(cluster.run)
    with Cluster.start(config(tmp_path, SHELL), mode="live") as cluster:
        pass
    assert cluster.run.initial_state() is None


def test_a_supervisor_that_is_killed_before_it_has_written_says_so(runtime: Path, tmp_path: Path) -> None:
    """What was read went with it, and by then the agents have begun."""
    del runtime
    waits = "while [ ! -e go ]; do sleep 0.02; done; exec sh -i"
    given = config(tmp_path, {**SHELL, "command": ["sh", "-c", waits]})
    started: list[Cluster] = []
    starting = threading.Thread(target=lambda: started.append(Cluster.start(given)))
    starting.start()
    runs = tmp_path / "work" / "runs"
    until(lambda: any('"agent.started"' in path.read_text() for path in runs.glob("*/journal.jsonl")))
    record = read_record(cluster_dir("initial"))
    assert record is not None
    assert record.supervisor_pid is not None
    (run_dir,) = runs.iterdir()
    (run_dir / ".initial.partial").mkdir()
    os.kill(record.supervisor_pid, signal.SIGKILL)
    until(lambda: any("not kept" in path.read_text() for path in runs.glob("*/journal.jsonl")))
    (tmp_path / "work" / "go").touch()
    starting.join(60)
    started[0].shutdown()
    run = open_run(run_dir)
    assert run.initial_state() is None
    assert notes(run) == ["the work folders as they were at the beginning are not kept: the supervisor was killed"]
    assert not (run_dir / ".initial.partial").exists()


def test_a_kill_at_any_step_leaves_nothing_or_all(tmp_path: Path) -> None:
    work, run = tmp_path / "work", tmp_path / "run"
    (work / "sub").mkdir(parents=True)
    for name in ("a", "b", "sub/c"):
        (work / name).write_text(name)
    gathered = gather({"ada": work}, Limits(10, 1000, 1000), mask=bytes)
    whole: set[int] = set()
    for step in range(1, 100):
        shutil.rmtree(run, ignore_errors=True)
        run.mkdir()
        child = os.fork()
        if child == 0:
            _die_at(step)
            gathered.write(run)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        found = sorted(path.relative_to(run).as_posix() for path in (run / "initial").rglob("*") if path.is_file())
        assert found in ([], ["initial/1/a", "initial/1/b", "initial/1/sub/c", "initial/index.json"])
        whole |= {step} if found else set()
        if not os.WIFSIGNALED(status):
            break
    assert step > 10
    assert whole == {step}


def _die_at(step: int) -> None:
    """Kill this process at so many-th thing that it does with a file."""
    import sys

    left = step

    def hook(event: str, _: tuple[Any, ...]) -> None:
        nonlocal left
        if event in {"open", "os.mkdir", "os.rename", "os.rmdir", "os.scandir", "shutil.rmtree"}:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def test_a_supervisor_goes_on_with_a_folder_that_its_predecessor_had_begun(tmp_path: Path) -> None:
    work, run, target = tmp_path / "work", tmp_path / "run", tmp_path / "target"
    for folder in (work, run, target):
        folder.mkdir()
    (work / "a").write_text("whole")
    gather({"ada": work}, Limits(10, 1000, 1000), mask=bytes).write(run)
    (target / "a").write_text("ha")
    (target / CREATED_MARK).touch()
    (run / "restoring.json").write_text(json.dumps([str(target)]))
    said: list[str] = []
    supervisor: Any = SimpleNamespace(
        run_dir=run,
        replaying=SimpleNamespace(replays=True, mode="replay"),
        config=SimpleNamespace(seen_folders=lambda: {"ada": target}),
        journal=SimpleNamespace(append=lambda event, **_: said.append(event)),
    )
    folders = InitialFolders(supervisor)
    asyncio.run(folders.settle())
    assert (target / "a").read_text() == "whole"
    assert not (target / CREATED_MARK).exists()
    folders.over()
    asyncio.run(folders.settle())
    assert said == ["initial.restored", "note"]
