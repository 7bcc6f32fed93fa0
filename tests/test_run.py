from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from orchestrator_lab.beginning import create_run
from orchestrator_lab.errors import ConfigError, EnvironmentProblem, RunNotFound
from orchestrator_lab.journal import JournalWriter
from orchestrator_lab.run import Run, list_runs, open_run

if TYPE_CHECKING:
    from pathlib import Path


def test_manifest_holds_what_a_reader_needs(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    git = ["git", "-C", str(work), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    (work / "file").write_text("one")
    subprocess.run([*git, "add", "file"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "one"], check=True)
    clean = create_run(tmp_path / "runs", config={"work_dir": str(work)}, name="duo")
    (work / "file").write_text("two")
    config = {"work_dir": str(work), "agents": [{"name": "bóss"}]}
    dirty = create_run(
        tmp_path / "runs", config=config, name="duo", experiment="e", params={"n": 1},
        tags=["a"], seed=4, mode="record", parent_run_id=clean.name,
    )  # fmt: skip
    first, second = (open_run(path).manifest for path in (clean, dirty))
    assert first["git"]["work_dir"]["dirty"] is False
    assert second["git"]["work_dir"]["dirty"] is True
    assert len(second["git"]["work_dir"]["commit"]) == 40
    assert second["config"] == config
    assert second["run_id"] == dirty.name
    assert second["parent_run_id"] == clean.name
    assert {"experiment": "e", "params": {"n": 1}, "tags": ["a"], "seed": 4, "mode": "record"}.items() <= second.items()  # fmt: skip  # noqa: E501
    assert set(second["versions"]) == {"orchestrator_lab", "python", "tmux"}
    row = open_run(dirty).runs.iloc[0]
    assert row["git_dirty"]
    assert row["tags"] == '["a"]'
    assert clean.name < dirty.name


def test_run_folder_is_private_and_whole(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        path = create_run(tmp_path / "new" / "runs", config={}, name="duo")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o700
    assert [file.name for file in path.iterdir()] == ["manifest.json"]
    assert (path / "manifest.json").stat().st_mode & 0o777 == 0o600


def test_work_folder_without_git_has_no_git_state(tmp_path: Path) -> None:
    path = create_run(tmp_path, config={"work_dir": str(tmp_path)}, name="duo")
    assert open_run(path).manifest["git"]["work_dir"] is None
    assert open_run(path).runs["git_commit"].isna().all()


def test_wrong_arguments_are_named_and_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no mode 'dead'; the modes are: live"):
        create_run(tmp_path, config={}, name="duo", mode="dead")
    with pytest.raises(ConfigError, match="must be JSON values"):
        create_run(tmp_path, config={}, name="duo", params={"n": object()})
    with pytest.raises(ConfigError, match="must be JSON values"):
        create_run(tmp_path, config={}, name="duo", params={"n": float("nan")})
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentProblem, match="cannot be made"):
        create_run(tmp_path / "file", config={}, name="duo")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_full_disk_leaves_no_half_run(tmp_path: Path) -> None:
    code = textwrap.dedent(
        """
        import sys
        from orchestrator_lab.errors import DiskFull, EnvironmentProblem
        from orchestrator_lab.beginning import create_run
        try:
            create_run(sys.argv[1], config={"big": "x" * 10_000}, name="duo")
        except (DiskFull, EnvironmentProblem) as error:
            print(type(error).__name__, error.message)
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000)),
    )
    assert done.stdout.startswith("DiskFull")
    assert "cannot be made" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_open_run_finds_one_run_and_says_what_it_expected(tmp_path: Path) -> None:
    path = create_run(tmp_path, config={}, name="duo")
    for place in (path, str(path), path / "manifest.json", tmp_path):
        assert open_run(place).run_id == path.name
    with pytest.raises(RunNotFound, match="there is no run at"):
        open_run(tmp_path / "none")
    with pytest.raises(RunNotFound, match=r"expected a folder with manifest\.json"):
        Run(tmp_path)
    create_run(tmp_path, config={}, name="duo")
    with pytest.raises(RunNotFound, match="holds 2 runs"):
        open_run(tmp_path)
    assert len(list_runs(tmp_path)) == 2
    assert list_runs(path)[0].path == path


def test_run_without_manifest_can_be_read(tmp_path: Path) -> None:
    with JournalWriter(tmp_path / "journal.jsonl", run_id="run_x") as writer:
        writer.append("note", text="a")
    run = open_run(tmp_path)
    assert [event.attributes["text"] for event in run.events()] == ["a"]
    assert run.run_id == tmp_path.name


def test_newer_schema_is_read_as_far_as_it_goes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = create_run(tmp_path, config={}, name="duo")
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, "schema_version": 99}))
    assert open_run(path).messages.empty
    assert "newer orchestrator-lab" in caplog.text


def test_representations_are_stable_and_tell_the_story(tmp_path: Path) -> None:
    texts = set()
    for _ in range(2):
        path = create_run(tmp_path, config={}, name="duo", experiment="<e>", params={"n": 1}, tags=["a"], seed=2)
        with JournalWriter(path / "journal.jsonl", run_id=path.name) as writer:
            writer.append("agent.added", agent="boss", agent_id="agt_1", name="boss", kind="chat")
            for number, step in ((1, "answered"), (2, "answered"), (3, "refused")):
                writer.append("message.queued", message_id=f"m{number}", agent="boss")
                writer.append(f"message.{step}", message_id=f"m{number}")
            writer.append("turn.usage", turn_id="t", input_tokens=12345, output_tokens=6)
            writer.append("run.ended", status="completed")
        run = open_run(path)
        texts.add(repr(run))
        html = run._repr_html_()
        assert "&lt;e&gt;" in html
        assert str(tmp_path) not in html + repr(run)
        assert path.name not in html + repr(run)
    (text,) = texts
    assert text.splitlines() == [
        "Run duo: completed",
        "  experiment: <e>",
        "  params: n=1",
        "  tags: a",
        "  seed: 2",
        "  agents: boss (chat)",
        "  messages: 3 (2 answered, 1 refused)",
        "  turns: 1",
        "  tokens: 12 345 input, 6 output",
    ]


def test_empty_run_has_a_representation(tmp_path: Path) -> None:
    run = open_run(create_run(tmp_path, config={}, name="duo"))
    assert repr(run).startswith("Run duo: no end recorded")


def test_importing_runs_needs_no_pandas() -> None:
    code = "import sys, orchestrator_lab.run, orchestrator_lab.journal.writer; print('pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
