"""A bundle is read like the folder that it was made of, and no more of it is unpacked than is used."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from bundle_helpers import members, repacked, tell
from recorded_run import write_run

from orchestrator_lab import frames, plots
from orchestrator_lab.bundle.importing import import_bundle
from orchestrator_lab.errors import BundleError, ConfigError, RunNotFound
from orchestrator_lab.journal.recording import CastWriter
from orchestrator_lab.resuming import prepare
from orchestrator_lab.run import Run, list_runs, open_run

if TYPE_CHECKING:
    from collections.abc import Callable

FRAMES = {name: getattr(frames, name) for name in frames.__all__ if name.endswith("_df")}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """A run of five agents, and its bundle."""
    place = tmp_path_factory.mktemp("pair")
    path = write_run(place / "runs", rounds=2)
    (path / "panes").mkdir()
    with CastWriter(path / "panes" / "boss.cast.zst", cols=60, rows=10) as cast:
        cast.write(b"boss is ready\r\n")
    Run(path).annotate(Run(path).messages["message_id"][0], label="plan")
    Run(path).export(place / "five.olab.zip", mask=False)
    return Run(path), place / "five.olab.zip"


def unpacked(run: Run) -> set[str]:
    return {path.relative_to(run.files).as_posix() for path in run.files.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", sorted(FRAMES))
def test_every_table_is_the_same(pair: tuple[Run, Path], name: str) -> None:
    run, bundle = pair
    pd.testing.assert_frame_equal(FRAMES[name](bundle), FRAMES[name](run.path))
    assert FRAMES[name](str(bundle)).attrs["source"] == [str(bundle)]
    table = name.removesuffix("_df")
    if table in {"messages", "turns", "tool_calls"}:
        chosen: dict[str, Any] = {"agents": "boss", "since": 3}
        pd.testing.assert_frame_equal(FRAMES[name](bundle, **chosen), FRAMES[name](run.path, **chosen))


def test_everything_that_reads_a_run_reads_a_bundle(pair: tuple[Run, Path], tmp_path: Path) -> None:
    run, bundle = pair
    opened = open_run(bundle)
    assert (opened.run_id, opened.path, opened.status) == (run.run_id, bundle, run.status)
    assert opened.events() == run.events()
    for read in (Run.conversation, lambda one: one.story(one.messages["message_id"][3])):
        assert str(read(opened)) == str(read(run))
    assert opened.conversation().to_html() == run.conversation().to_html()
    pd.testing.assert_frame_equal(opened.search("tests"), run.search("tests"))
    assert opened.screen("boss").text == run.screen("boss").text == "boss is ready"
    pd.testing.assert_frame_equal(opened.annotations, run.annotations)
    joined = frames.messages_df(bundle, annotations=True)
    assert joined["label"].tolist()[0] == "plan"
    assert joined["label"].notna().sum() == 1
    for to in ("csv", "cast", "markdown"):
        mine, theirs = (one.export_as(to, tmp_path / f"{to}-{number}") for number, one in enumerate((opened, run)))
        assert [path.read_bytes() for path in mine] == [path.read_bytes() for path in theirs]


@pytest.mark.parametrize("name", [name for name in plots.__all__ if name.startswith("plot_")])
def test_every_plot_is_drawn(pair: tuple[Run, Path], name: str) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    run, bundle = pair
    draw = getattr(plots, name)
    first = next(iter(inspect.signature(draw).parameters))
    mine, theirs = (draw(**{first: source}) for source in (open_run(bundle), run))
    assert [len(axes.get_children()) for axes in mine.figure.axes] == [
        len(axes.get_children()) for axes in theirs.figure.axes
    ]
    plt.close("all")


def test_no_more_is_unpacked_than_is_used(tmp_path: Path) -> None:
    path = tell(tmp_path / "runs")
    Run(path).export(tmp_path / "x.olab.zip")
    run = open_run(tmp_path / "x.olab.zip")
    first = {"manifest.json", "tables/seal.json"}
    assert unpacked(run) == first
    assert run.messages["content"].tolist() == ["Plan the parser."]
    assert len(frames.turns_df(run, columns="reply")) == len(run.events_df[run.events_df["event"] == "turn.ended"]) == 1
    assert unpacked(run) == first, "tables are read within the archive"
    run.screen("boss", "msg_1")
    assert unpacked(run) == first | {"panes/boss.cast.zst", "journal.jsonl"}
    for folder in (run.files, *run.files.parents[:3]):
        assert oct(folder.stat().st_mode & 0o777) == "0o700"
    assert {oct(file.stat().st_mode & 0o777) for file in run.files.rglob("*") if file.is_file()} == {"0o600"}
    # The same file is opened once.
    assert open_run(tmp_path / "x.olab.zip").files == run.files


def test_many_bundles_and_folders(tmp_path: Path) -> None:
    paths = [tell(tmp_path / "runs") for _ in range(3)]
    for path in paths[:2]:
        Run(path).export(tmp_path / "runs" / f"{path.name}.olab.zip")
    ids = [path.name for path in paths]
    assert frames.messages_df(tmp_path / "runs")["run_id"].tolist() == ids
    assert frames.messages_df(str(tmp_path / "runs" / "*"))["run_id"].tolist() == ids, "none is there twice"
    assert frames.messages_df(str(tmp_path / "runs" / "*.olab.zip"))["run_id"].tolist() == ids[:2]
    assert [run.run_id for run in list_runs(str(tmp_path / "runs" / "*.zip"))] == ids[:2]
    both = [tmp_path / "runs" / f"{ids[0]}.olab.zip", paths[2]]
    assert frames.messages_df(both)["run_id"].tolist() == [ids[0], ids[2]]
    with pytest.raises(RunNotFound, match="there is no run at"):
        open_run(tmp_path / "none.olab.zip")


def test_a_bundle_is_not_changed(tmp_path: Path) -> None:
    Run(tell(tmp_path / "runs")).export(tmp_path / "x.olab.zip")
    run = open_run(tmp_path / "x.olab.zip")
    before = (tmp_path / "x.olab.zip").read_bytes()
    for change in (run.seal, run.unseal, lambda: run.annotate("msg_1", label="x")):
        with pytest.raises(ConfigError, match="is a bundle, which is not changed"):
            change()
    with pytest.raises(RunNotFound, match="then resume the run that it gives"):
        prepare(tmp_path / "x.olab.zip", {})
    assert (tmp_path / "x.olab.zip").read_bytes() == before


def test_one_that_is_replaced_is_another(tmp_path: Path) -> None:
    place = tmp_path / "x.olab.zip"
    Run(tell(tmp_path / "runs", said="one")).export(place)
    old = open_run(place)
    Run(tell(tmp_path / "runs", said="two")).export(place, overwrite=True)
    assert open_run(place).messages["content"].tolist() == ["two"]
    with pytest.raises(BundleError, match="was replaced since it was opened"):
        old.messages  # noqa: B018 - to look at it is what is tried


def test_it_comes_back_as_a_run(tmp_path: Path) -> None:
    path = tell(tmp_path / "runs")
    Run(path).export(tmp_path / "x.olab.zip", mask=False)
    back = import_bundle(tmp_path / "x.olab.zip", tmp_path / "back")
    assert back == tmp_path / "back" / path.name
    mine = {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    theirs = {file.relative_to(back).as_posix(): file.read_bytes() for file in back.rglob("*") if file.is_file()}
    kept = {name: data for name, data in mine.items() if not name.startswith(("logs/", "journal.clock"))}
    assert {name: data for name, data in theirs.items() if not name.startswith("tables/")} == kept
    assert {oct(file.stat().st_mode & 0o777) for file in back.rglob("*") if file.is_file()} == {"0o600"}
    Run(back).annotate("msg_1", label="mine")
    pd.testing.assert_frame_equal(Run(back).messages, Run(path).messages)
    with pytest.raises(BundleError, match=r"is in .* already"):
        import_bundle(tmp_path / "x.olab.zip", tmp_path / "back")
    assert [one.name for one in (tmp_path / "back").iterdir()] == [path.name]


def test_nothing_is_left_of_an_import_that_fails(tmp_path: Path) -> None:
    Run(tell(tmp_path / "runs")).export(tmp_path / "x.olab.zip")
    found = members(tmp_path / "x.olab.zip")
    files = {**found, "panes/late.cast": b"x"}
    bad = repacked(tmp_path / "bad.olab.zip", {n: c for n, c in files.items() if n != "panes/late.cast"})
    data = bytearray(bad.read_bytes())
    place = data.index(b"transcripts/boss.jsonl") + 40
    data[place] ^= 1
    bad.write_bytes(data)
    with pytest.raises(BundleError, match=r"transcripts/boss.jsonl.* is damaged|is not what"):
        import_bundle(bad, tmp_path / "back")
    assert list((tmp_path / "back").iterdir()) == []


CODE = """
import sys, time
from orchestrator_lab import open_run
run = open_run(sys.argv[1])
run.events()
print(run.files, flush=True)
if sys.argv[2:]:
    sys.stdin.read()
"""


def test_what_was_unpacked_goes_with_the_process(tmp_path: Path, spawn: Callable[..., subprocess.Popen[str]]) -> None:
    Run(tell(tmp_path / "runs")).export(tmp_path / "x.olab.zip")
    (tmp_path / "t").mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path / "t")}
    command = [sys.executable, "-c", CODE, str(tmp_path / "x.olab.zip")]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    assert list((tmp_path / "t").iterdir()) == []
    pipe = subprocess.PIPE
    killed = spawn([*command, "wait"], env=environment, stdin=pipe, stdout=pipe, text=True)
    assert killed.stdout is not None
    left = Path(killed.stdout.readline().strip())
    # A living one's folder stays, whoever comes.
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    assert (left / "journal.jsonl").exists()
    killed.kill()
    killed.wait(10)
    assert left.exists()
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    assert list((tmp_path / "t").iterdir()) == []
