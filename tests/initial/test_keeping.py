"""Work folders kept in a run, and put into other folders, also by runs that nobody honest makes."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator_lab.errors import ConfigError, DiskFull
from orchestrator_lab.initial import keeping
from orchestrator_lab.initial.keeping import gather
from orchestrator_lab.initial.places import give_state, place_folders
from orchestrator_lab.initial.restoring import fill, is_blank
from orchestrator_lab.initial.state import INITIAL, InitialState, is_safe, read_state
from orchestrator_lab.initial.walking import CREATED_MARK, Limits, leads_out

LIMITS = Limits(files=100, size=1 << 20, file_size=1 << 16)


def hide(data: bytes) -> bytes:
    return data.replace(b"secret", b"******")


@pytest.fixture
def work(tmp_path: Path) -> Path:
    work = tmp_path / "work"
    (work / "sub" / "none").mkdir(parents=True)
    (work / "a.txt").write_text("secret\n")
    (work / "run.sh").write_bytes(b"#!/bin/sh\n\xff\0")
    (work / "run.sh").chmod(0o755)
    (work / "sub" / "b").write_text("b")
    os.utime(work / "sub" / "b", ns=(10**18 + 5, 10**18 + 5))
    (work / "sub" / "link").symlink_to("../a.txt")
    return work


def kept(run: Path, limits: Limits = LIMITS, **agents: Path) -> InitialState:
    run.mkdir(exist_ok=True)
    gather(agents, limits, mask=hide).write(run)
    state = read_state(run)
    assert state is not None
    return state


def tree(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        found[name] = (
            os.readlink(path) if path.is_symlink() else None if path.is_dir() else path.read_bytes()  # noqa: PTH115
        )
    return found


def test_what_is_kept_comes_back(tmp_path: Path, work: Path) -> None:
    state = kept(tmp_path / "run", ada=work, bob=work / "sub")
    (folder,) = state.folders
    assert folder.agents == {"ada": ".", "bob": "sub"}
    assert folder.files["a.txt"]["masked"]
    assert "masked" not in folder.files["run.sh"]
    assert (folder["a.txt"].read_text(), folder.size) == ("******\n", 20)
    for place, _, names in os.walk(tmp_path / "run" / INITIAL):
        assert stat.S_IMODE(Path(place).stat().st_mode) == 0o700
        assert {stat.S_IMODE(Path(place, name).stat().st_mode) for name in names} <= {0o600}
    target = tmp_path / "target"
    target.mkdir()
    (target / CREATED_MARK).touch()
    assert is_blank(target)
    assert fill(target, folder) == 3
    expected = {**tree(work), "a.txt": b"******\n"}
    assert tree(target) == expected
    assert stat.S_IMODE((target / "run.sh").stat().st_mode) == 0o755
    assert (target / "sub" / "b").stat().st_mtime_ns == 10**18 + 5
    assert not is_blank(target)
    (target / "a.txt").write_text("half")
    fill(target, folder)  # as after a supervisor that was killed
    assert tree(target) == expected
    part = tmp_path / "part"
    part.mkdir()
    assert fill(part, folder, "sub") == 1
    assert tree(part) == {"b": b"b", "none": None}  # the link leads out of this part


def test_the_same_folder_gives_the_same_bytes(tmp_path: Path, work: Path) -> None:
    kept(tmp_path / "one", ada=work, bob=work)
    kept(tmp_path / "two", ada=work, bob=work)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_runs_beside_each_other_share_what_is_the_same(tmp_path: Path, work: Path) -> None:
    (work / "large").write_bytes(b"x" * 5000)
    (work / "other").write_bytes(b"y" * 5000)
    runs = tmp_path / "runs"
    runs.mkdir()
    first, second, third = (runs / f"run_0{number}" for number in range(3))
    kept(first, ada=work)
    (work / "other").write_bytes(b"z" * 5000)
    kept(second, ada=work)
    (runs / "run_01a").mkdir()  # one that has kept nothing
    links = {name: (second / INITIAL / "1" / name).stat().st_nlink for name in ("large", "other", "a.txt")}
    assert links == {"large": 2, "other": 1, "a.txt": 1}
    assert (first / INITIAL / "1" / "other").read_bytes() == b"y" * 5000
    # What somebody else could write to, or has put a link to, is not shared.
    (second / INITIAL / "1" / "large").chmod(0o644)
    (second / INITIAL / "1" / "other").unlink()
    (second / INITIAL / "1" / "other").symlink_to(work / "other")
    kept(third, ada=work)
    for name in ("large", "other"):
        assert (third / INITIAL / "1" / name).lstat().st_nlink == 1
        assert (third / INITIAL / "1" / name).read_bytes() == (work / name).read_bytes()


def test_what_changes_after_the_reading_is_not_kept(tmp_path: Path, work: Path) -> None:
    (tmp_path / "run").mkdir()
    read = gather({"ada": work}, LIMITS, mask=hide)
    assert read.read
    (work / "sub" / "b").write_text("changed")
    (work / "a.txt").unlink()
    read.write(tmp_path / "run")
    assert (tmp_path / "run" / INITIAL / "1" / "sub" / "b").read_text() == "b"
    assert (tmp_path / "run" / INITIAL / "1" / "a.txt").exists()


def test_what_is_too_large_to_be_held_is_read_as_it_is_written(
    tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "_IN_MEMORY", 3)
    (tmp_path / "run").mkdir()
    later = gather({"ada": work}, LIMITS, mask=hide)
    assert not later.read
    (work / "run.sh").unlink()
    later.write(tmp_path / "run")
    state = read_state(tmp_path / "run")
    assert state is not None
    assert sorted(state.folders[0].files) == ["a.txt", "sub/b"]
    assert state.folders[0].skipped == {"run.sh": "it cannot be read (No such file or directory)"}


def test_of_a_large_folder_its_parts_may_be_kept(tmp_path: Path, work: Path) -> None:
    state = kept(tmp_path / "run", Limits(2, 1 << 20, 1 << 20), ada=work, bob=work / "sub")
    assert state.of("ada") is None
    bob = state.of("bob")
    assert bob is not None
    assert bob.agents == {"bob": "."}
    assert list(bob.files) == ["b"]
    assert repr(state).splitlines()[0] == f"{work}: not kept, it holds more than 2 files (max_files)"


def test_nothing_is_left_of_what_cannot_be_written(tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / ".initial.partial" / "1").mkdir(parents=True)  # of a process that was killed
    monkeypatch.setattr(keeping, "_write", full)
    with pytest.raises(DiskFull, match=r"cannot be kept there \(No space left"):
        gather({"ada": work}, LIMITS, mask=hide).write(run)
    assert not list(run.iterdir())
    monkeypatch.undo()
    assert kept(run, ada=work).folders[0].size == 20


def full(*_: Any) -> None:
    raise OSError(28, "No space left on device")


# what others wrote ----------------------------------------------------------------------------------


def forged(run: Path, **row: Any) -> InitialState:
    (run / INITIAL / "1" / "sub").mkdir(parents=True)
    (run / INITIAL / "1" / "sub" / "a").write_text("a")
    whole = {
        "format": 1,
        "agents": {"ada": {"folder": 1, "inside": row.pop("inside", ".")}},
        "folders": [{"number": 1, "path": "/w", "commit": None, **row}],
    }
    (run / INITIAL / "index.json").write_text(json.dumps(whole))
    state = read_state(run)
    assert state is not None
    return state


def test_a_forged_state_stays_in_its_folder(tmp_path: Path) -> None:
    target, outside = tmp_path / "target", tmp_path / "outside"
    target.mkdir()
    outside.mkdir()
    (outside / "mine").write_text("mine")
    run = tmp_path / "run"
    state = forged(
        run,
        files={"sub/a": {"mode": "7777", "mtime_ns": 10**30}, "../x": {"mode": "644"}},
        links={
            "up": "..", "abs": str(outside), "../l": "sub", "sub": "../outside", "a//b": "../../outside",
            "good": "sub/a", "chain/one": "..", "two": "chain/one/../../outside", "sub/a/in": "x",
        },
        empty=["../made", "/made", "fine", "sub/a/below"],
        skipped={},
    )  # fmt: skip
    (run / INITIAL / "1" / "steal").symlink_to(outside / "mine")
    (run / INITIAL / "1" / "folder").symlink_to(outside)
    before = tree(outside)
    assert fill(target, state.folders[0]) == 1
    assert tree(target) == {"sub": None, "sub/a": b"a", "good": "sub/a", "chain": None, "chain/one": "..", "fine": None}
    assert stat.S_IMODE((target / "sub" / "a").stat().st_mode) == 0o777
    assert tree(outside) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside", "run", "target"]
    for name in ("steal", "folder/mine", "../../config.yaml", "nothing"):
        with pytest.raises(ConfigError, match="is not among the files"):
            state.folders[0][name]


def test_a_tree_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    state = forged(tmp_path / "run")
    tree_of = tmp_path / "run" / INITIAL / "1"
    tree_of.rename(tmp_path / "elsewhere")
    tree_of.symlink_to(tmp_path / "elsewhere")
    assert not list(state.folders[0].contents())


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"agents": {}, "folders": [{}]}', '{"agents": {"a": 1}, "folders": []}', "[" * 100_000]
)
def test_a_damaged_state_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / INITIAL).mkdir()
    (tmp_path / INITIAL / "index.json").write_text(text)
    with pytest.raises(ConfigError, match=r"index\.json cannot be read"):
        read_state(tmp_path)


@settings(max_examples=100)
@given(
    path=st.from_regex(r"[ab./]{1,12}", fullmatch=True),
    target=st.from_regex(r"[ab./]{0,12}", fullmatch=True),
    other=st.from_regex(r"[ab./]{1,12}", fullmatch=True),
    way=st.from_regex(r"[ab./]{0,12}", fullmatch=True),
)
def test_no_two_links_lead_out(
    tmp_path_factory: pytest.TempPathFactory, path: str, target: str, other: str, way: str
) -> None:
    """Whatever two links say, none that is made leads out of the folder, also by way of the other."""
    base = tmp_path_factory.mktemp("links")
    folder = base / "f"
    folder.mkdir()
    wanted = {name: to for name, to in ((path, target), (other, way)) if is_safe(name) and not leads_out(name, to)}
    for name in wanted:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    made = []
    for name, to in wanted.items():
        with contextlib.suppress(OSError):
            (folder / name).symlink_to(to)
            made.append(folder / name)
    for link in made:
        try:
            link.stat()
        except OSError as error:
            if error.errno == errno.ELOOP:
                continue
        assert link.resolve().is_relative_to(folder)


# where a replay works ---------------------------------------------------------------------------------


def test_a_replay_gets_new_folders(tmp_path: Path, work: Path) -> None:
    other = tmp_path / "other" / "work"
    other.mkdir(parents=True)
    (other / "x").write_text("x")
    kept(tmp_path / "run", ada=work, bob=work / "sub", cy=other)
    base = tmp_path / "lab-replay"
    base.mkdir()
    (base / "mine").write_text("the user's")
    data: dict[str, Any] = {
        "cluster": {"name": "lab", "work_dir": str(work)},
        "agents": [
            {"name": "ada"}, {"name": "bob", "work_dir": str(work / "sub")}, {"name": "cy", "work_dir": str(other)},
            {"name": "new", "work_dir": "/elsewhere"},
        ],
    }  # fmt: skip
    place_folders(data, tmp_path / "run", base)
    new = f"{base}-2"
    assert data["cluster"]["work_dir"] == f"{new}/work"
    assert [one.get("work_dir") for one in data["agents"]] == [None, f"{new}/work/sub", f"{new}/2", "/elsewhere"]
    again = {"cluster": {"name": "lab"}, "agents": [{"name": "ada"}]}
    place_folders(again, tmp_path / "other", base)
    assert again == {"cluster": {"name": "lab"}, "agents": [{"name": "ada"}]}
    (tmp_path / "second").mkdir()
    give_state(tmp_path / "run", tmp_path / "second")
    assert tree(tmp_path / "second") == tree(tmp_path / "run")


def test_the_folders_are_made_again_where_one_wants_them(tmp_path: Path, work: Path) -> None:
    state = kept(tmp_path / "run", ada=work)
    target = state.restore(tmp_path / "new" / "place")
    assert tree(target) == {**tree(work), "a.txt": b"******\n"}
    with pytest.raises(ConfigError, match="place holds something already: name a new folder, or an empty one"):
        state.restore(target)
    other = tmp_path / "else" / "where"
    other.mkdir(parents=True)
    (other / "x").write_text("x")
    both = kept(tmp_path / "two", ada=work, bob=other).restore(tmp_path / "both")
    assert sorted(path.name for path in both.iterdir()) == ["where", "work"]


def test_nothing_is_left_of_folders_that_cannot_be_made(
    tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = kept(tmp_path / "run", ada=work)
    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(DiskFull, match=r"cannot be made as it was \(No space left"):
        state.restore(tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_names_cannot_move_a_cursor(tmp_path: Path) -> None:
    state = forged(tmp_path, skipped={"a\x1b[2J": "b\r"})
    assert repr(state).isprintable() or repr(state).replace("\n", "").isprintable()
