"""Watching for clusters, as the control panel and the Jupyter Server do, and what is in folders."""

from __future__ import annotations

import shutil
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator_lab.discovery import follow
from orchestrator_lab.folders import size_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


#: Those of panels that other tests of this process left open.
BEFORE: set[int | None] = set()


@pytest.fixture(autouse=True)
def before() -> None:
    BEFORE.clear()
    BEFORE.update(one.ident for one in threading.enumerate())


def threads() -> list[str]:
    alive = [one for one in threading.enumerate() if one.ident not in BEFORE]
    return [one.name for one in alive if one.name == "orchestrator-lab-discovery"]


def test_it_tells_of_clusters_that_come_and_go(runtime: Path) -> None:
    told: list[int] = []
    end = follow(lambda: told.append(1))
    (runtime / "new").mkdir(mode=0o700)
    until(lambda: len(told) > 1)  # and once more when it is quiet
    told.clear()
    (runtime / "new" / "cluster.json").write_text("{}")
    until(lambda: told)
    told.clear()
    shutil.rmtree(runtime / "new")
    until(lambda: told)
    end()
    end()
    until(lambda: not threads())
    told.clear()
    (runtime / "newer").mkdir(mode=0o700)
    assert not told


def test_the_folder_itself_may_go_and_come_again(runtime: Path) -> None:
    told: list[int] = []
    end = follow(lambda: told.append(1))
    shutil.rmtree(runtime)
    until(lambda: told)
    told.clear()
    # Whoever hears of it has made the folder anew.
    until(runtime.is_dir)
    until(lambda: (runtime / "new").mkdir(mode=0o700, exist_ok=True) or told)
    end()
    until(lambda: not threads())


def test_ended_by_whoever_is_told(runtime: Path) -> None:
    ends: list[Callable[[], None]] = []
    told: list[int] = []

    def once() -> None:
        told.append(1)
        ends[0]()

    ends.append(follow(once))
    (runtime / "one").mkdir(mode=0o700)
    until(lambda: told and not threads())
    (runtime / "two").mkdir(mode=0o700)
    assert len(told) == 1


def test_where_nothing_is_told_it_looks(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: Any, **__: Any) -> Any:
        raise OSError(28, "inotify watch limit reached")

    monkeypatch.setattr("watchdog.observers.Observer", none_left)
    monkeypatch.setattr("orchestrator_lab.folders._POLL_S", 0.1)
    told: list[int] = []
    end = follow(lambda: told.append(1))
    (runtime / "new").mkdir(mode=0o700)
    until(lambda: told)
    end()
    until(lambda: not threads())


def test_the_size_of_a_folder_counts_files_and_follows_no_links(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "a").write_bytes(b"x" * 1000)
    (tmp_path / "b").write_bytes(b"x" * 10)
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.write_bytes(b"x" * 5000)
    (tmp_path / "link").symlink_to(outside)
    assert 1010 < size_of(tmp_path) < 5000
    assert size_of(tmp_path / "none") == 0
