"""What of a folder is content, with git and without."""

from __future__ import annotations

import os
import socket
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator_lab.initial import walking
from orchestrator_lab.initial.walking import CREATED_MARK, Limits, Look, TooMuchError, look

if TYPE_CHECKING:
    from pathlib import Path

LIMITS = Limits(files=100, size=1 << 20, file_size=1 << 16)


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        place = folder / name.replace("__", "/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)


def git(folder: Path, *words: str) -> str:
    command = ["git", "-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-C", str(folder), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def paths(found: Look) -> list[str]:
    return [*found.files, *found.links]


def test_ordinary_files_count_and_all_else_is_told(tmp_path: Path) -> None:
    write(tmp_path, a="1", sub__b="2", node_modules__x="3", env__pyvenv__cfg="4")
    (tmp_path / "env" / "pyvenv.cfg").write_text("")
    for name in (".env", ".env.example", "server.pem", "id_rsa", CREATED_MARK):
        (tmp_path / name).write_text("s")
    (tmp_path / "large").write_bytes(bytes(LIMITS.file_size + 1))
    (tmp_path / "empty" / "deeper").mkdir(parents=True)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / os.fsdecode(b"caf\xe9")).write_text("x")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(tmp_path, os.O_RDONLY)
        listener.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)
        found = look(tmp_path, LIMITS)
    assert paths(found) == [".env.example", "a", "sub/b"]
    assert found.empty == ["empty/deeper"]
    assert found.commit is None
    assert found.skipped == {
        ".env": "such files hold secrets",
        "caf?": "its name is no UTF-8",
        "env/": "made by tools",
        "id_rsa": "such files hold secrets",
        "large": f"{LIMITS.file_size + 1} bytes, more than {LIMITS.file_size} (max_file_mb)",
        "node_modules/": "made by tools",
        "pipe": "a named pipe",
        "server.pem": "such files hold secrets",
        "socket": "a socket",
    }


def test_links_count_where_they_stay_within(tmp_path: Path) -> None:
    work = tmp_path / "work"
    write(work, a="1", sub__b="2")
    inside = {"to": "a", "sub/up": "../a", "folder": "sub", "dangling": "nothing"}
    outside = {"out": "..", "etc": "/etc/passwd", "sub/far": "../../x", "by": "folder/../../x", "root": str(work / "a")}
    for name, target in {**inside, **outside}.items():
        (work / name).symlink_to(target)
    found = look(work, LIMITS)
    assert found.links == dict(sorted(inside.items()))
    assert found.skipped == dict.fromkeys(sorted(outside), "a link that leads out of the folder")
    assert list(found.files) == ["a", "sub/b"]


def test_git_says_what_is_content(tmp_path: Path) -> None:
    work = tmp_path / "repository" / "part"
    write(work, tracked="1", deleted="2", sub__deep="3", other="4", ignored__x="5", build__y="6")
    write(tmp_path / "repository", above="0")
    (work / ".gitignore").write_text("ignored/\n*.log\n")
    (work / "noise.log").write_text("x")
    git(tmp_path, "init", "-q", str(tmp_path / "repository"))
    git(work, "add", "tracked", "deleted", "sub", ".gitignore")
    git(work, "commit", "-qm", "first")
    (work / "deleted").unlink()
    write(work, inner__z="7", inner__ignored="8", runs__run_1__journal="9", node_modules__m="10")
    git(work, "init", "-q", "inner")
    (work / "inner" / ".gitignore").write_text("ignored\n")
    before = sorted(path.name for path in (tmp_path / "repository" / ".git").iterdir())
    found = look(work, LIMITS, without=[work / "runs"])
    assert paths(found) == [
        ".gitignore", "build/y", "inner/.gitignore", "inner/z", "other", "sub/deep", "tracked",
    ]  # fmt: skip
    assert found.skipped == {"node_modules/": "made by tools"}
    assert found.commit == git(work, "rev-parse", "HEAD")
    assert sorted(path.name for path in (tmp_path / "repository" / ".git").iterdir()) == before


def test_a_folder_that_its_repository_ignores_is_looked_at_without_git(tmp_path: Path) -> None:
    work = tmp_path / "scratch"
    write(work, a="1")
    (tmp_path / ".gitignore").write_text("scratch/\n")
    git(tmp_path, "init", "-q")
    assert paths(look(work, LIMITS)) == ["a"]


def test_it_does_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(tmp_path, "init", "-q")
    write(tmp_path, a="1")
    monkeypatch.setenv("PATH", str(tmp_path))
    found = look(tmp_path, LIMITS)
    assert paths(found) == ["a"]
    assert found.skipped == {".git/": "made by tools"}


def test_what_the_configuration_names_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, data__x="1", a="2", sub__b="3")
    (tmp_path / "t.parquet").write_text("4")
    found = look(tmp_path, Limits(100, 1000, 1000, ("data", "*.parquet", "sub/*")))
    assert paths(found) == ["a"]
    assert set(found.skipped) == {"data/", "t.parquet", "sub/b"}


@pytest.mark.parametrize("repository", [False, True])
@pytest.mark.parametrize(
    ("limits", "why"),
    [
        (Limits(files=3, size=1 << 20, file_size=1 << 20), r"more than 3 files \(max_files\)"),
        (Limits(files=100, size=30, file_size=1 << 20), r"more than .* MB \(max_mb\)"),
    ],
)
def test_a_large_folder_is_given_up(tmp_path: Path, limits: Limits, why: str, *, repository: bool) -> None:
    for number in range(4):
        write(tmp_path, **{f"f{number}": "0123456789"})
    if repository:
        git(tmp_path, "init", "-q")
    with pytest.raises(TooMuchError, match=why):
        look(tmp_path, limits)


@pytest.mark.parametrize("repository", [False, True])
def test_the_look_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, repository: bool) -> None:
    """By entries, whatever they are, and by time."""
    (tmp_path / "__pycache__").mkdir()
    for number in range(1200):
        (tmp_path / f"{number}.pem").touch()
    if repository:
        git(tmp_path, "init", "-q")
    with pytest.raises(TooMuchError, match="with those left out"):
        look(tmp_path, Limits(1, 1000, 1000))
    seen: list[Any] = []
    monkeypatch.setattr(walking, "_TIMEOUT_S", 0.0)
    with pytest.raises(TooMuchError, match="takes more than 0 s"):
        seen.append(look(tmp_path, LIMITS))
    assert not seen


def test_many_things_that_are_left_out_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "_LISTED", 2)
    for name in "abcd":
        (tmp_path / f"{name}.pem").touch()
    found = look(tmp_path, LIMITS)
    assert (list(found.skipped), found.more_skipped) == (["a.pem", "b.pem"], 2)
