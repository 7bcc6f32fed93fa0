"""What turns change in work folders under git, in running clusters."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from test_worktree import git, inside

from orchestrator_lab import Cluster, turns_df

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    import pytest

PROGRAM = [sys.executable, "-q", "-c", "import code; code.interact(banner='', exitmsg='')"]


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
    deadline = time.monotonic() + 15
    while sum(event.event == "turn.changes" for event in cluster.events()) < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return turns_df(cluster)


def test_turns_have_their_changes(runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del runtime
    monkeypatch.setenv("DEPLOY_TOKEN", "very-secret-token-123")
    with Cluster.start(config(tmp_path, "py", "two")) as cluster:
        before = inside(tmp_path / "work")
        # What a model does takes longer than a look; a line of Python does not.
        write = "import time; time.sleep(0.5); _ = open('{}', 'w').write('{}')"
        cluster["py"].ask(write.format("new.txt", "very-secret-token-123"), timeout=30)
        turns(cluster, 1)
        (tmp_path / "work" / "between.txt").write_text("the user's, between two turns\n")
        cluster["py"].ask(write.format("a.txt", ""), timeout=30)
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

        with ThreadPoolExecutor(1) as pool:
            slow = pool.submit(cluster["two"].ask, "import time; time.sleep(2)", timeout=30)
            while "busy" not in cluster["two"].state:
                time.sleep(0.02)
            cluster["py"].ask(write.format("both.txt", "x"), timeout=30)
            slow.result()
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
