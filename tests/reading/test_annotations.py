from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from orchestrator_lab.annotations import ANNOTATIONS, COLUMNS, JOINED
from orchestrator_lab.beginning import create_run
from orchestrator_lab.errors import ConfigError, EnvironmentProblem
from orchestrator_lab.frames import messages_df
from orchestrator_lab.run import Run

if TYPE_CHECKING:
    from pathlib import Path


def test_the_last_label_wins_and_all_are_kept(fresh: Run) -> None:
    journal = (fresh.path / "journal.jsonl").read_bytes()
    fresh.annotate("msg_1", label="question", by="ada")
    fresh.annotate("msg_1", note="with \u2028 and\nlines \udcff", by="bob")
    fresh.annotate("msg_2", label="question")
    fresh.annotate("msg_1", label="order")
    fresh.annotate("msg_2", label="")
    assert fresh.annotations["message_id"].tolist() == ["msg_1", "msg_1", "msg_2", "msg_1", "msg_2"]
    assert fresh.annotations["label"].tolist()[::3] == ["question", "order"]
    frame = messages_df(fresh, annotations=True).set_index("message_id")
    assert frame.loc["msg_1", "label"] == "order"
    assert str(frame.loc["msg_1", "note"]).startswith("with \u2028 and\nlines ")
    assert frame.loc[["msg_2", "msg_3"], "label"].isna().all()
    assert frame["annotated_at"].notna().tolist() == [True, True, False, False]
    assert frame["annotated_by"].isna().all()
    assert (fresh.path / "journal.jsonl").read_bytes() == journal
    assert "label" not in fresh.messages
    assert "annotated: label question (by ada)\nannotated: note with" in repr(fresh.story("msg_1"))
    assert "annotated: <bdi>taken back</bdi>" in fresh.story("msg_2")._repr_html_()
    assert (fresh.path / ANNOTATIONS).stat().st_mode & 0o777 == 0o600


def test_dtypes_also_without_annotations(fresh: Run, tmp_path: Path) -> None:
    dtypes = {column.name: column.dtype for column in JOINED}
    for source in ([], fresh, tmp_path, [fresh, fresh.path]):
        frame = messages_df(source, annotations=True)
        assert {name: str(frame.dtypes[name]) for name in dtypes} == dtypes
        assert frame.attrs["schema_version"] == 1
    assert {name: str(dtype) for name, dtype in fresh.annotations.dtypes.items()} == {
        column.name: column.dtype for column in COLUMNS
    }


def test_columns_agents_and_several_runs(fresh: Run, tmp_path: Path) -> None:
    create_run(tmp_path, config={}, name="other")
    fresh.annotate(fresh.search("seven times")["id"], label="sum")
    frame = messages_df(tmp_path, columns=["label", "content"], agents="worker", annotations=True)
    assert frame.columns.tolist() == ["label", "content"]
    assert frame["label"].fillna("").tolist() == ["sum", "", ""]
    with pytest.raises(ConfigError, match="no column 'lable'"):
        messages_df(fresh, columns=["lable"], annotations=True)


@pytest.mark.parametrize(
    ("ids", "said", "sentence"),
    [
        (
            "msg_9",
            {"label": "x"},
            r"annotate\('msg_9'\): run \w+ has no such message among its 4; nothing was kept",
        ),
        (["msg_1", "msg_9"], {"label": "x"}, "has no such message"),
        ("msg_1", {}, "says nothing: give a label, a note, or both"),
        ("msg_1", {"label": 3}, "label=3.*expected text, such as label='3'"),
    ],
)
def test_what_cannot_be_kept_is_named_and_leaves_nothing(
    fresh: Run, ids: object, said: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        fresh.annotate(ids, **said)  # type: ignore[arg-type]
    assert not (fresh.path / ANNOTATIONS).exists()


def test_torn_and_damaged_lines_are_passed_over(fresh: Run, caplog: pytest.LogCaptureFixture) -> None:
    fresh.annotate("msg_1", label="a")
    file = fresh.path / ANNOTATIONS
    with file.open("ab") as target:
        target.write(b'[1]\n{"label": "no id"}\n{"message_id": "msg_1", "lab')
    fresh.annotate("msg_2", label="b")
    assert fresh.annotations["label"].tolist() == ["a", "b"]
    assert "line 4 is damaged" in caplog.text
    assert file.read_bytes().endswith(b"\n")


def test_two_writers_at_once_lose_nothing(fresh: Run) -> None:
    code = textwrap.dedent(
        """
        import sys
        from orchestrator_lab.run import Run
        run = Run(sys.argv[1])
        print("ready", flush=True)
        sys.stdin.readline()
        for number in range(60):
            run.annotate(["msg_1", "msg_2"], note=f"{number} " + "long " * 400, by=sys.argv[2])
        """
    )
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(fresh.path), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("ada", "bob")
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.communicate("go\n", timeout=60)
        assert writer.returncode == 0
    frame = fresh.annotations
    assert len(frame) == 240
    for name in ("ada", "bob"):
        notes = frame[(frame["by"] == name) & (frame["message_id"] == "msg_1")]["note"]
        assert [int(note.split()[0]) for note in notes] == list(range(60))
    for line in (fresh.path / ANNOTATIONS).read_text(encoding="utf-8").splitlines():
        json.loads(line)


def test_a_folder_that_cannot_be_written_is_named(fresh: Run, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (fresh.path / ANNOTATIONS).symlink_to(elsewhere)
    with pytest.raises(EnvironmentProblem, match=r"annotations\.jsonl: the annotation cannot be kept .*copy the run"):
        fresh.annotate("msg_1", label="a")
    assert not elsewhere.exists()
    (fresh.path / ANNOTATIONS).unlink()
    (fresh.path / ANNOTATIONS).mkdir()
    with pytest.raises(EnvironmentProblem, match="cannot be kept"):
        fresh.annotate("msg_1", label="a")
    with pytest.raises(EnvironmentProblem, match="the annotations cannot be read"):
        _ = fresh.annotations


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_read_only_folder(fresh: Run) -> None:
    fresh.path.chmod(0o500)
    try:
        with pytest.raises(EnvironmentProblem, match="Permission denied"):
            fresh.annotate("msg_1", label="a")
    finally:
        fresh.path.chmod(0o700)


def test_a_full_disk_leaves_no_half_line(fresh: Run) -> None:
    fresh.annotate("msg_1", label="a")
    before = (fresh.path / ANNOTATIONS).read_bytes()
    code = (
        "import sys\nfrom orchestrator_lab.errors import DiskFull\nfrom orchestrator_lab.run import Run\n"
        "try:\n    Run(sys.argv[1]).annotate('msg_1', note='x' * 5000)\n"
        "except DiskFull as error:\n    print(error.message)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(fresh.path)],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)),
    )
    assert "the annotation cannot be kept (File too large); make room" in done.stdout
    assert (fresh.path / ANNOTATIONS).read_bytes() == before


def test_a_sealed_run_is_annotated_and_read_like_any_other(fresh: Run, tmp_path: Path) -> None:
    open_story, open_talk = repr(fresh.story("msg_1")), fresh.conversation().to_markdown()
    open_page, open_hits = fresh.conversation().to_html(), fresh.search("s")
    seal = fresh.seal()
    again = Run(fresh.path)
    again.annotate("msg_3", label="sum")
    for frame in (
        messages_df(again, annotations=True),
        messages_df(again, columns=["message_id", "label"], annotations=True),
        messages_df(tmp_path, agents="boss", annotations=True),
    ):
        assert frame.loc[frame["message_id"] == "msg_3", "label"].tolist() == ["sum"]
    assert Run(fresh.path).seal().rows == seal.rows  # what is said of a run does not break its seal
    assert again.search("42", kind="messages")["id"].tolist() == ["msg_3"]
    assert repr(again.story("msg_1")) == open_story
    assert again.conversation().to_markdown() == open_talk
    assert again.conversation().to_html() == open_page
    pd.testing.assert_frame_equal(again.search("s"), open_hits)
    assert again.tables.part("messages", ["seq"]) is not None  # read from the Parquet files alone
    (file,) = again.export_as("parquet", tmp_path / "turns.parquet", table="turns")
    pd.testing.assert_frame_equal(pd.read_parquet(file), fresh.turns)
