"""What turns change in work folders under git, in running clusters."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from care_helpers import until
from test_worktree import git, inside

from orchestrator_lab import Cluster, turns_df
from orchestrator_lab.supervisor import changes

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from orchestrator_lab.exchange import Exchange

PROGRAM = [sys.executable, "-q", "-c", "import code; code.interact(banner='', exitmsg='')"]
#: git, which says when a look at a folder is over.
GIT = """#!/bin/sh
{git} "$@"
status=$?
case "$*" in *write-tree*) echo >>{looks};; esac
exit $status
"""


def config(folder: Path, *names: str, **cluster: Any) -> dict[str, Any]:
    (folder / "work").mkdir(parents=True)
    git(folder / "work", "init", "-q")
    (folder / "work" / "a.txt").write_text("one\n")
    git(folder / "work", "add", "-A")
    git(folder / "work", "commit", "-qm", "first")
    agents = [{"name": name, "kind": "program", "command": PROGRAM, "turn_end": {"prompt": ">>> "}} for name in names]
    places = {"work_dir": str(folder / "work"), "runs_dir": str(folder / "work" / "runs")}
    return {"cluster": {"name": "diffs", "lifetime": "owner", **places, **cluster}, "agents": agents}


def turns(cluster: Cluster, count: int) -> pd.DataFrame:
    """Return the turns once git has said what they changed, which nobody waits for."""
    until(lambda: sum(event.event == "turn.changes" for event in cluster.events()) >= count)
    return turns_df(cluster)


def test_turns_have_their_changes(runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del runtime
    monkeypatch.setenv("DEPLOY_TOKEN", "very-secret-token-123")
    looks, real = tmp_path / "looks", shutil.which("git")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "git").write_text(GIT.format(git=real, looks=looks))
    (tmp_path / "bin" / "git").chmod(0o700)
    looks.touch()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")

    def begin(name: str, text: str) -> tuple[Exchange, Path]:
        """Begin a turn and return once the look of before it is over, with the file for which it waits."""
        over, go = len(looks.read_text()) + 1, tmp_path / f"go-{time.monotonic_ns()}"
        waits = f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\n\n"
        exchange = cluster[name].send(f"exec({waits + text!r})")
        until(lambda: len(looks.read_text()) >= over)
        return exchange, go

    def ask(name: str, text: str) -> None:
        exchange, go = begin(name, text)
        go.touch()
        exchange.result(30)

    with Cluster.start(config(tmp_path, "py", "two")) as cluster:
        before = inside(tmp_path / "work")
        write = "open('{}', 'w').write('{}')"
        ask("py", write.format("new.txt", "very-secret-token-123"))
        turns(cluster, 1)
        (tmp_path / "work" / "between.txt").write_text("the user's, between two turns\n")
        ask("py", write.format("a.txt", ""))
        turns(cluster, 2)
        cluster["py"].ask("1 + 1", timeout=30)
        found = turns(cluster, 3)
        assert found["files_changed"].tolist() == [1, 1, 0]
        assert found["lines_added"].tolist() == [1, 0, 0]
        assert found["lines_removed"].tolist() == [0, 1, 0]
        assert found["changes_shared"].tolist() == [False] * 3
        assert found["patch"].isna().tolist() == [False, False, True]
        patch = (cluster.run_dir / found["patch"].iloc[0]).read_text()
        assert patch.startswith("diff --git a/new.txt b/new.txt")
        assert "very-secret" not in patch
        assert inside(tmp_path / "work") == before

        slow, go = begin("two", "pass")
        ask("py", write.format("both.txt", "x"))
        turns(cluster, 4)
        go.touch()
        slow.result(30)
        found = turns(cluster, 5).set_index("agent")
        assert found.loc["two", "changes_shared"]
        assert found.loc["two", "files_changed"] == 1
        assert found.loc["py", "changes_shared"].tolist() == [False] * 3 + [True]
    assert not (tmp_path / "work" / ".git" / "index.lock").exists()


def test_it_can_be_switched_off_and_needs_a_repository(runtime: Path, tmp_path: Path) -> None:
    del runtime
    with Cluster.start(config(tmp_path / "off", "py", record_changes=False)) as cluster:
        cluster["py"].ask("_ = open('x', 'w').write('x')", timeout=30)
    assert turns_df(cluster.run)["files_changed"].isna().all()
    assert "turn.changes" not in {event.event for event in cluster.run.events()}


@pytest.mark.parametrize("typed", [False, True])
def test_a_look_is_late_only_where_its_program_had_the_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, typed: bool
) -> None:
    """A supervisor that stands still looks late and types late: nothing of the turn is missed."""
    config(tmp_path)
    monkeypatch.setattr(changes, "_LATE_S", 0.1)
    told: list[dict[str, Any]] = []
    work, agent = tmp_path / "work", SimpleNamespace(kind="program")
    cluster: Any = SimpleNamespace(
        config=SimpleNamespace(record_changes=True, work_dir_of=lambda _: work),
        journal=SimpleNamespace(append=lambda _, **facts: told.append(facts)),
        run_dir=tmp_path / "runs" / "run",
        folder=tmp_path / "lab",
    )
    runner: Any = SimpleNamespace(name="py", config=agent, folder=tmp_path / "lab" / "py")
    turn: Any = SimpleNamespace(turn_id="trn_1")

    async def play() -> None:
        watching, busy = changes.Changes(cluster), threading.Event()
        held = asyncio.ensure_future(watching._in_thread(busy.wait))
        watching.before(runner)
        if typed:
            watching.typing(runner)
        await asyncio.sleep(0.2)
        busy.set()
        await held
        await asyncio.wait(set(watching._tasks))
        watching.begin(runner, turn)
        watching.end(turn)
        await watching.close()

    asyncio.run(play())
    (facts,) = told
    if typed:
        assert "after it should have been" in facts["error"]
    else:
        assert (facts["files_changed"], facts.get("error")) == (0, None)
