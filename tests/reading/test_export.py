"""What is exported is read by the tools that it is for."""

from __future__ import annotations

import csv
import json
import resource
import subprocess
import sys
from typing import TYPE_CHECKING

import avt
import pandas as pd
import pyarrow.parquet as pq
import pytest
from telling import NASTY
from test_conversation import Page

from orchestrator_lab import frames
from orchestrator_lab.annotations import ANNOTATIONS
from orchestrator_lab.beginning import create_run
from orchestrator_lab.errors import AgentNotFound, ConfigError, EnvironmentProblem
from orchestrator_lab.reading.export import FORMATS
from orchestrator_lab.run import Run
from orchestrator_lab.schema import TABLES, conform

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("table", [*TABLES])
def test_parquet_keeps_every_dtype(told: Run, tmp_path: Path, table: str) -> None:
    (file,) = told.export_as("parquet", tmp_path / "tables", table=table)
    back = pd.read_parquet(file)
    own = told.tables.frame(table)
    attrs = back.attrs
    if own.empty:  # Parquet itself forgets a closed set of which there is no row
        back = conform(back, table)
    assert [str(dtype) for dtype in back.dtypes] == [column.dtype for column in TABLES[table]]
    for column in TABLES[table]:
        if column.categories is not None:
            assert tuple(back[column.name].cat.categories) == column.categories
    pd.testing.assert_frame_equal(back, own)
    assert attrs == {"schema_version": 1, "source": [told.run_id]}
    assert str(told.path.parent).encode() not in file.read_bytes()
    assert pq.read_metadata(file).row_group(0).column(0).compression == "ZSTD"


def test_parquet_of_an_empty_run(tmp_path: Path) -> None:
    run = Run(create_run(tmp_path / "runs", config={}, name="duo"))
    files = run.export_as("parquet", tmp_path / "out")
    assert [file.stem for file in files] == list(TABLES)
    for file in files:
        assert [str(dtype) for dtype in pd.read_parquet(file).dtypes] == [column.dtype for column in TABLES[file.stem]]


def test_csv_is_read_back_and_runs_no_formula(fresh: Run, tmp_path: Path) -> None:
    fresh.annotate("msg_1", label="=SUM(A1:A9)", note="-1")
    files = fresh.export_as("csv", tmp_path / "out")
    assert [file.name for file in files] == [f"{table}.csv" for table in (*TABLES, "annotations")]
    for file in files:
        with file.open(encoding="utf-8", newline="") as source:
            cells = [cell for row in csv.reader(source) for cell in row]
        assert not [cell for cell in cells if cell.startswith(("=", "@", "\t", "\r", "+"))]
    back = pd.read_csv(tmp_path / "out" / "messages.csv", parse_dates=["queued_at"])
    assert back["content"].tolist() == fresh.messages["content"].tolist()
    assert back["queued_at"].tolist() == fresh.messages["queued_at"].tolist()
    notes = pd.read_csv(tmp_path / "out" / "annotations.csv")
    assert notes[["label", "note"]].to_numpy().tolist() == [["'=SUM(A1:A9)", "'-1"]]
    (file,) = fresh.export_as("csv", tmp_path / "exact.csv", table="annotations", exact=True)
    assert pd.read_csv(file)["label"].tolist() == ["=SUM(A1:A9)"]


def test_jsonl_has_plain_values(told: Run, tmp_path: Path) -> None:
    (file,) = told.export_as("jsonl", tmp_path / "turns.jsonl", table="turns")
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n")[:-1]]
    assert [list(row) for row in rows] == [[column.name for column in TABLES["turns"]]] * 3
    assert [row["output_tokens"] for row in rows] == [7, 7, 7]
    assert rows[0]["cost_usd"] is None
    back = frames.build_frame("turns", {name: [row[name] for row in rows] for name in rows[0]})
    pd.testing.assert_frame_equal(back, told.turns, check_exact=True)


def test_agents_are_chosen(told: Run, tmp_path: Path) -> None:
    told.export_as("jsonl", tmp_path / "out", table=["messages", "turns"], agent="worker")
    lines = (tmp_path / "out" / "messages.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    assert [json.loads(line)["message_id"] for line in lines] == ["msg_2", "msg_3", "msg_4"]
    with pytest.raises(AgentNotFound):
        told.export_as("jsonl", tmp_path / "out2", agent="bos")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_conversation_as_page_and_markdown(told: Run, tmp_path: Path) -> None:
    (page,) = told.export_as("html", tmp_path / "new" / "duo.html")
    assert NASTY.split("\n")[0] in Page(page.read_text(encoding="utf-8")).text
    (text,) = told.export_as("markdown", tmp_path / "duo.md", agent="worker")
    assert text.read_text(encoding="utf-8").startswith("# duo: conversation of worker\n")


def test_recordings_play_in_asciinemas_own_terminal(told: Run, tmp_path: Path) -> None:
    files = told.export_as("cast", tmp_path / "casts")
    assert [file.name for file in files] == ["boss.cast", "worker.cast"]
    header, *events = (json.loads(line) for line in files[0].read_text(encoding="utf-8").splitlines())
    assert header["version"] == 3
    terminal = avt.Vt(header["term"]["cols"], header["term"]["rows"])
    for _, code, data in events:
        if code == "o":
            terminal.feed_str(data)
    assert terminal.text()[0].rstrip() == "finished ✓"
    (one,) = told.export_as("cast", tmp_path / "w.cast", agent="worker")
    assert one.read_bytes() == files[1].read_bytes()
    with pytest.raises(ConfigError, match="is one file, but 2 are to be written"):
        told.export_as("cast", tmp_path / "both.cast")
    with pytest.raises(ConfigError, match="holds no recording"):
        Run(create_run(tmp_path / "runs", config={}, name="duo")).export_as("cast", tmp_path / "none")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("xls", "a"), "no format 'xls' to export to; the formats are: csv, parquet, jsonl, html"),
        (("csv", "a", "mesages"), "no table 'mesages' to export; the tables are: runs"),
        (("html", "a", "messages"), "table=.*'messages'.* does not go with 'html'"),
        (("inspect", "a.log"), r"a\.log: Inspect knows its logs by their suffix, so call it a\.eval"),
        (("csv", "a.csv"), r"a\.csv is one file, but 10 are to be written"),
        (("csv", "full"), "full is not empty: name another folder"),
        (("csv", "there.txt"), r"there\.txt is a file: several files are written"),
        (("html", "there.txt"), r"there\.txt exists: name another file"),
        (("html", "full"), "full is a folder: give the file to write"),
        (("html", "there.txt/x.html"), r"x\.html cannot be written \(.*\); nothing of it was kept"),
        (("csv", "there.txt/x"), r"there\.txt/x cannot be written"),
    ],
)
def test_what_cannot_be_written_is_named_and_leaves_nothing(
    told: Run, tmp_path: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    (tmp_path / "there.txt").write_text("mine")
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    to, output, *table = arguments
    with pytest.raises((ConfigError, EnvironmentProblem), match=sentence):
        told.export_as(to, tmp_path / output, table=table or None)
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before
    assert (tmp_path / "there.txt").read_text() == "mine"


def test_what_may_be_replaced_is_and_the_rest_stays(told: Run, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "turns.csv").write_text("old")
    told.export_as("csv", tmp_path, table=["turns", "messages"], overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["messages.csv", "mine", "turns.csv"]
    assert (tmp_path / "turns.csv").read_text().startswith("run_id,")
    told.export_as("html", tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine").read_text().startswith("<!doctype html>")


def test_a_full_disk_leaves_nothing(told: Run, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom orchestrator_lab.errors import DiskFull\nfrom orchestrator_lab.run import Run\n"
        "try:\n    Run(sys.argv[1]).export_as('html', sys.argv[2])\n"
        "except DiskFull as error:\n    print(error.message)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(told.path), str(tmp_path / "duo.html")],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)),
    )
    assert "duo.html cannot be written (File too large); nothing of it was kept" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_every_format_has_its_words() -> None:
    assert list(FORMATS) == ["csv", "parquet", "jsonl", "html", "markdown", "cast", "inspect"]
    assert ANNOTATIONS.endswith(".jsonl")
