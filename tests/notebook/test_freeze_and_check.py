"""Notebooks that are frozen and checked, in real kernels: what is kept, what is told, and what is left alone."""

from __future__ import annotations

import hashlib
import json
import shutil
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from typer.testing import CliRunner

from orchestrator_lab import Cluster
from orchestrator_lab.cli.app import app
from orchestrator_lab.errors import NotebookError
from orchestrator_lab.notebook.checking import check, difference
from orchestrator_lab.notebook.executing import marks, read
from orchestrator_lab.notebook.freezing import freeze
from orchestrator_lab.notebook.sources import runs_among

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KERNEL_OF_R = {"name": "ir", "display_name": "R", "language": "R"}
WIDGET = "application/vnd.jupyter.widget-view+json"
#: A replay whose cluster is left running, a view, a widget of somebody else, an error that is meant, a table.
REPLAY = [
    """
from orchestrator_lab import Cluster, open_run
cluster = Cluster.start(run='recorded')
cluster.run.manifest['mode']""",
    "# NBVAL_IGNORE_OUTPUT\ncluster",
    "print(cluster['ada'].ask('hello', timeout=60).reply, cluster.run_id)",
    "import ipywidgets\nipywidgets.IntSlider()",
    "# NBVAL_RAISES_EXCEPTION\nint('x')",
    "open_run('night.olab.zip').messages[['sender', 'content']]",
]
#: It shows a recorded run, and in which mode it is run.
MODE = """
import os
from orchestrator_lab import messages_df
len(messages_df('recorded')), os.environ['ORCHESTRATOR_LAB_MODE']"""


def notebook(path: Path, *sources: str, executed: bool = False, **metadata: Any) -> Path:
    made = new_notebook(cells=[new_code_cell(one) for one in sources], metadata=metadata)
    for number, cell in enumerate(made.cells, 1):
        cell.execution_count = number if executed else None
    nbformat.write(made, path)
    return path


def run(*words: str) -> Any:
    return CliRunner().invoke(app, ["notebook", *words])


@pytest.fixture(scope="module")
def folder(
    module_runtime: Path, script_config: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with a recorded run and a notebook that replays it."""
    del module_runtime
    place = tmp_path_factory.mktemp("n")
    config = script_config("ada", runs_dir=str(place / "recorded"), name="frozen")
    with Cluster.start(config) as cluster:
        assert cluster["ada"].ask("hello", timeout=60).reply == "ada: hello"
    cluster.run.export(place / "night.olab.zip")
    notebook(place / "replay.ipynb", *REPLAY, widgets={"state": {}}, authors=[{"name": "Ada"}])
    return place


@pytest.fixture(scope="module")
def frozen(folder: Path) -> Path:
    (folder / "replay.ipynb").chmod(0o640)
    result = run("freeze", str(folder / "replay.ipynb"))
    assert result.exit_code == 0, result.output
    assert "frozen, 6 cells" in result.output
    return folder / "replay.ipynb"


def test_a_frozen_notebook_holds_what_a_reader_needs_and_nothing_of_the_session(frozen: Path) -> None:
    assert frozen.stat().st_mode & 0o777 == 0o640
    made = nbformat.read(frozen, as_version=4)
    journal = next(frozen.parent.glob("recorded/*/journal.jsonl"))
    assert made.metadata["orchestrator_lab"]["runs"] == [
        {"file": file.relative_to(frozen.parent).as_posix(), "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        for file in (frozen.parent / "night.olab.zip", journal)
    ]
    assert made.metadata["authors"] == [{"name": "Ada"}]
    assert "widgets" not in made.metadata
    assert [cell.execution_count for cell in made.cells] == [1, 2, 3, 4, 5, 6]
    assert made.cells[0].outputs[0]["data"]["text/plain"] == "'replay'"
    still = made.cells[1].outputs[0]["data"]
    # The pane as it was at the end, long after the view was shown.
    assert "ada: hello" in still["text/html"]
    assert WIDGET not in frozen.read_text(encoding="utf-8")
    assert made.cells[2].outputs[0]["text"] == "ada: hello run_...\n"
    assert made.cells[4].outputs[0]["ename"] == "ValueError"


def test_it_reproduces(frozen: Path) -> None:
    before = frozen.read_bytes()
    result = run("check", str(frozen), "--json")
    told = json.loads(result.stdout)
    # What a pane shows depends on the moment at which it is looked at.
    assert [one["state"] for one in told["cells"]] == ["same", "not compared", *["same"] * 4], told
    assert [one["state"] for one in told["runs"]] == ["same", "same"]
    assert told["reproduces"]
    assert told["frozen"]
    assert result.exit_code == 0
    assert frozen.read_bytes() == before


def test_what_does_not_reproduce_is_told_cell_by_cell(folder: Path) -> None:
    path = notebook(
        folder / "changed.ipynb",
        "print('new')",
        "# NBVAL_IGNORE_OUTPUT\nprint('whatever')",
        "# NBVAL_SKIP\nundefined",
        "1 / 0",
        "print('id', id(object), hex(id(object)))",
        MODE,
        "import os\nos._exit(3)",
        "'not reached'",
        executed=True,
    )
    stored = nbformat.read(path, as_version=4)
    stored.cells[0].outputs = [new_output("stream", name="stdout", text="old\n")]
    stored.cells[5].outputs = [new_output("execute_result", {"text/plain": "(1, 'replay_strict')"}, execution_count=6)]
    stored.metadata["orchestrator_lab"] = {
        "runs": [{"file": next(folder.glob("recorded/*/journal.jsonl")).relative_to(folder).as_posix(), "sha256": "00"}]
    }
    nbformat.write(stored, path)
    result = run("check", str(path), "--strict")
    assert result.exit_code == 1
    lines = [line.split() for line in result.output.splitlines()]
    states = [" ".join(words[1:3]) for words in lines if words and words[0] in {f"[{n}]" for n in range(1, 9)}][:8]
    assert states == [
        "differs print('new')",
        "not compared",
        "not run",
        "failed 1",
        "differs print('id',",
        "same import",
        "failed import",
        "failed 'not",
    ]
    assert "-old\n+new" in result.output
    assert "ZeroDivisionError: division by zero" in result.output
    assert "ended the kernel: the process died" in result.output
    assert "does not reproduce, 5 of 8 cells" in result.output


def test_a_changed_run_is_told(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "recorded", tmp_path / "recorded")
    journal = next(tmp_path.glob("recorded/*/journal.jsonl"))
    told = {
        "file": journal.relative_to(tmp_path).as_posix(),
        "sha256": hashlib.sha256(journal.read_bytes()).hexdigest(),
    }
    journal.write_bytes(journal.read_bytes().replace(b"hello", b"hallo"))
    path = notebook(
        tmp_path / "n.ipynb",
        "from orchestrator_lab import open_run\nrun = open_run('recorded').status",
        executed=True,
        orchestrator_lab={"runs": [told]},
    )
    done = check(path)
    assert [(one.state, one.file) for one in done.sources] == [("changed", told["file"])]
    assert [one.state for one in done.cells] == ["same"]
    assert not done.reproduces


@pytest.mark.parametrize(
    ("cells", "timeout_s", "message"),
    [
        (
            ["'first'", "a = 1\n1 / 0"],
            60.0,
            "cell [2] ended with ZeroDivisionError: division by zero; nothing was written",
        ),
        # No other before it: on a busy machine that may take as long.
        (["import time\ntime.sleep(600)"], 1.0, "cell [1] took longer than 1 s"),
    ],
)
def test_a_notebook_that_does_not_run_is_left_as_it_was(
    cells: list[str], timeout_s: float, message: str, runtime: Path, tmp_path: Path
) -> None:
    del runtime
    path = notebook(tmp_path / "n.ipynb", *cells)
    before = path.read_bytes()
    with pytest.raises(NotebookError) as error:
        freeze(path, timeout_s=timeout_s)
    assert message in error.value.message
    # The cell's own line is shown where it raised, and nothing of what it called.
    assert ("----> 2 1 / 0" in error.value.message) == ("1 / 0" in cells[-1])
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["n.ipynb"]


@pytest.mark.parametrize(
    ("content", "command", "message"),
    [
        (None, "freeze", "there is no such notebook"),
        ("{", "freeze", "is no notebook"),
        ('{"cells": 3, "nbformat": 4, "nbformat_minor": 5, "metadata": {}}', "check", "is no notebook"),
        (new_notebook(metadata={"kernelspec": KERNEL_OF_R}), "check", "written in R"),
        (new_notebook(cells=[new_code_cell("1")]), "check", "nothing to compare with"),
        (
            new_notebook(
                cells=[new_code_cell("1", execution_count=1)],
                metadata={"orchestrator_lab": {"runs": [{"file": "night.olab.zip", "sha256": "ab12"}]}},
            ),
            "check",
            "was made from night.olab.zip (SHA-256 ab12), which is not beside it",
        ),
        (
            new_notebook(cells=[new_code_cell("1", execution_count=1)], metadata={"orchestrator_lab": {"runs": [7]}}),
            "check",
            "does not name runs",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_one_sentence(content: Any, command: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "n.ipynb"
    if content is not None:
        path.write_text(content if isinstance(content, str) else nbformat.writes(content), encoding="utf-8")
    result = run(command, str(path))
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output


def test_where_it_cannot_be_written_nothing_is_run(tmp_path: Path) -> None:
    path = notebook(tmp_path / "n.ipynb", "open('ran', 'w').close()")
    result = run("freeze", str(path), "-o", str(tmp_path / "no" / "where.ipynb"))
    assert result.exit_code == 2
    assert "there is no folder" in result.output
    assert not (tmp_path / "ran").exists()


def test_what_a_cell_asks_for() -> None:
    assert marks(new_code_cell("x = 1  # NBVAL_SKIP")) == set()
    assert marks(new_code_cell("# nbval_skip")) == set()
    assert marks(new_code_cell("#NBVAL_IGNORE_OUTPUT\nx")) == {"ignore"}
    tagged = new_code_cell("# NBVAL_CHECK_OUTPUT\nx", metadata={"tags": ["nbval-ignore-output", "raises-exception"]})
    assert marks(tagged) == {"check", "raises"}


def test_outputs_are_compared_as_nbval_does() -> None:
    def shown(**data: str) -> list[Any]:
        return [new_output("display_data", {key.replace("_", "/"): value for key, value in data.items()})]

    assert difference(shown(text_plain="0x7f01a2b3c4d5"), shown(text_plain="0x7f01a2b3c4d6")) is None
    assert difference(shown(image_png="AAAA"), shown(image_png="BBBB")) is None
    assert "image/png" in str(difference(shown(image_png="AAAA"), []))
    assert "2 outputs before, 1 now" in str(difference(shown(text_plain="a") * 2, shown(text_plain="a")))
    many = "\n".join(str(number) for number in range(100))
    assert "lines more" in str(difference(shown(text_plain=many), shown(text_plain="x")))
    stream = [new_output("stream", name="stderr", text="oh")]
    assert "stderr, which was not there\n  oh" in str(difference([], stream))


def test_runs_made_meanwhile_or_looked_at_only_are_not_named(folder: Path) -> None:
    journal = next(folder.glob("recorded/*/journal.jsonl"))
    cassette = next(folder.glob("recorded/*/cassettes/*"))
    later = journal.stat().st_mtime + 10
    found = runs_among([str(cassette), str(journal)], folder, before=later)
    assert [one.file for one in found] == [journal.relative_to(folder).as_posix()]
    assert runs_among([str(journal.with_name("manifest.json"))], folder, before=later) == []
    assert runs_among([str(journal)], folder, before=journal.stat().st_mtime - 1) == []
    outside = runs_among([str(journal)], folder / "recorded" / "elsewhere", before=later)
    assert [(one.file, one.outside) for one in outside] == [(f"{journal.parent.name}/journal.jsonl", True)]


def test_an_old_notebook_is_read(tmp_path: Path) -> None:
    path = tmp_path / "old.ipynb"
    cell = {"cell_type": "code", "source": ["1"], "metadata": {}, "outputs": [], "execution_count": None}
    path.write_text(json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 2}), encoding="utf-8")
    assert read(path).cells[0].source == "1"
