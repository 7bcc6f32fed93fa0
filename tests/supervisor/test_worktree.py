"""Looks at folders under git: what changed is told, and nothing of the repository is touched."""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from orchestrator_lab.supervisor import worktree
from orchestrator_lab.supervisor.worktree import LookFailedError, WorkTree, in_repository

if TYPE_CHECKING:
    from pathlib import Path


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=me", "-c", "user.email=me@example.org", "-c", "init.defaultBranch=main")
    return subprocess.run(
        ["git", *who, "-C", str(folder), *arguments], capture_output=True, text=True, check=True
    ).stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    (folder / "sub").mkdir(parents=True)
    git(folder, "init", "-q")
    (folder / "a.txt").write_text("one\ntwo\nthree\n")
    (folder / "sub" / "b.txt").write_text("b\n")
    (folder / ".gitignore").write_text("*.log\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "first")
    return folder


def inside(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Everything in a repository's own folder: names, times and bytes."""
    files = sorted(path for path in (folder / ".git").rglob("*") if path.is_file())
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_all_kinds_of_changes_and_nothing_is_touched(repository: Path, tmp_path: Path) -> None:
    (repository / "a.txt").write_text("one\ntwo\nthree\nmine\n")  # a change of the user's, before
    (repository / "staged.txt").write_text("staged\n")
    git(repository, "add", "staged.txt")
    status = git(repository, "status", "--porcelain")
    tree = WorkTree(repository, tmp_path / "own", [repository / "runs"])
    before = inside(repository)
    first = tree.look()
    assert tree.look() == first
    (repository / "a.txt").write_text("one\nTWO\nthree\nmine\n")
    (repository / "sub" / "b.txt").unlink()
    (repository / "new dir").mkdir()
    (repository / "new dir" / "ünï\n.txt").write_text("1\n2\n")
    (repository / "picture.bin").write_bytes(bytes(range(256)))
    (repository / "debug.log").write_text("ignored\n")
    (repository / "runs").mkdir()
    (repository / "runs" / "journal.jsonl").write_text("ours\n")
    change = tree.change(first, tree.look())
    assert (change.files, change.lines_added, change.lines_removed) == (4, 3, 2)
    assert b"-two\n+TWO\n" in change.patch
    assert b"mine" not in change.patch.replace(b" mine", b"")  # only as context
    assert b"ours" not in change.patch
    assert not change.truncated
    assert inside(repository) == before
    (repository / "sub" / "b.txt").write_text("b\n")
    git(repository, "stash", "-uq")  # git itself finds nothing wrong
    git(repository, "fsck", "--strict")
    assert "staged.txt" in status


def test_a_commit_within_a_turn_hides_nothing(repository: Path, tmp_path: Path) -> None:
    tree = WorkTree(repository, tmp_path / "own")
    first = tree.look()
    (repository / "a.txt").write_text("other\n")
    git(repository, "commit", "-qam", "second")
    change = tree.change(first, tree.look())
    assert (change.files, change.lines_added, change.lines_removed) == (1, 1, 3)
    git(repository, "checkout", "-q", "HEAD~1")
    assert tree.look() == first


def test_a_folder_in_a_repository_is_looked_at_alone(repository: Path, tmp_path: Path) -> None:
    tree = WorkTree(repository / "sub", tmp_path / "own")
    first = tree.look()
    (repository / "a.txt").write_text("not here\n")
    (repository / "sub" / "c.txt").write_text("here\n")
    change = tree.change(first, tree.look())
    assert (change.files, change.lines_added) == (1, 1)
    assert in_repository(repository / "sub")
    assert not in_repository(tmp_path)


def test_a_repository_without_a_commit_and_one_within_another(tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    git(folder, "init", "-q")
    tree = WorkTree(folder, tmp_path / "own")
    first = tree.look()
    (folder / "x").write_text("x\n")
    (folder / "inner").mkdir()
    git(folder / "inner", "init", "-q")
    (folder / "inner" / "y").write_text("y\n")
    assert tree.change(first, tree.look()).files == 1


def test_bounds(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = WorkTree(repository, tmp_path / "own")
    first = tree.look()
    monkeypatch.setattr(worktree, "MAX_FILE", 100)
    (repository / "large").write_bytes(b"x" * 101)
    assert tree.change(first, tree.look()).files == 0
    assert tree.left_out == 1
    monkeypatch.setattr(worktree, "MAX_PATCH", 50)
    (repository / "many").write_text("line\n" * 19)
    change = tree.change(first, tree.look())
    assert (change.lines_added, len(change.patch), change.truncated) == (19, 50, True)
    monkeypatch.setattr(worktree, "MAX_FILES", 1)
    for name in "xyz":
        (repository / name).write_text(name)
    with pytest.raises(LookFailedError, match="files have changed, more than 1"):
        tree.look()
    monkeypatch.setattr(worktree, "MAX_FILES", 9)
    monkeypatch.setattr(worktree, "_MAX_OBJECTS", 1)
    assert tree.look() != first  # index and objects are made again
    monkeypatch.setattr(worktree, "TIMEOUT_S", 0.0)
    with pytest.raises(LookFailedError, match="took more than"):
        tree.look()


def test_what_git_says_is_told(tmp_path: Path) -> None:
    tree = WorkTree(tmp_path, tmp_path / "own")
    with pytest.raises(LookFailedError, match="not a git repository"):
        tree.look()


def test_a_git_that_hangs_is_ended(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = WorkTree(repository, tmp_path / "own")
    first = tree.look()
    (repository / "more").write_text("more\n")
    second = tree.look()
    hung = tmp_path / "bin" / "git"
    hung.parent.mkdir()
    hung.write_text('#!/bin/sh\ncase "$*" in *numstat*) exit 0;; esac\nexec sleep 600\n')
    hung.chmod(0o700)
    assert tree._environment is not None
    tree._environment["PATH"] = f"{hung.parent}:{os.environ['PATH']}"
    monkeypatch.setattr(worktree, "TIMEOUT_S", 0.5)
    began = time.monotonic()
    with pytest.raises(LookFailedError, match="took more than"):
        tree.change(first, second)
    assert time.monotonic() - began < 20
