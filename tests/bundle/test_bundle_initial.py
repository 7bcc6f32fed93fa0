"""Work folders in bundles: somebody's own files, masked and else as they were."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from bundle_helpers import PARTS, members, tell
from typer.testing import CliRunner

from orchestrator_lab.bundle import privacy
from orchestrator_lab.cli.app import app
from orchestrator_lab.initial.keeping import gather
from orchestrator_lab.initial.restoring import fill
from orchestrator_lab.initial.walking import Limits
from orchestrator_lab.run import Run, open_run

if TYPE_CHECKING:
    from pathlib import Path

FILES = {
    "src/plantedperson.py": "# by plantedperson\n",
    "settings.json": '{\n    "by": "plantedperson",\n\n    "n": 1.50\n}\n',
    "escaped.json": '{"by": "planted\\u0070erson"}\n',
    "lines.jsonl": '{"by": "plantedperson"}\nno JSON\n{ "by":  "somebody" }\n{"by": "planted\\u0070erson"}\n',
    "no recording.cast": "plantedperson was here\n",
    "no.cassette.jsonl.zst": "plantedperson was here\n",
    "README": "one\n",
    "readme": "two\n",
    "con.py": "a name that not every machine has\n",
    "ünïcode ☃.txt": "three\n",
}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(privacy.getpass, "getuser", lambda: "plantedperson")
    work = tmp_path / "work"
    for name, text in FILES.items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(text)
    (work / "src" / "plantedperson.py").chmod(0o755)
    (work / "link").symlink_to("src/plantedperson.py")
    (work / "blob").write_bytes(bytes(range(256)))
    parts = {name: data for name, data in PARTS.items() if not name.startswith("initial/")}
    path = tell(tmp_path / "runs", parts=parts)
    gather({"boss": work}, Limits(100, 1 << 20, 1 << 20), mask=bytes).write(path)
    return Run(path)


def test_somebodys_files_are_masked_and_else_as_they_were(run: Run, tmp_path: Path) -> None:
    review = run.export(tmp_path / "x.olab.zip", review=True)
    done = run.export(tmp_path / "x.olab.zip")
    assert [one.name for one in review.files] == [one.name for one in done.files]
    who = next(one.substitute for one in done.substitutes if one.text == "plantedperson")
    found = members(tmp_path / "x.olab.zip")
    assert found["initial/1/settings.json"].decode() == FILES["settings.json"].replace("plantedperson", who)
    assert found["initial/1/lines.jsonl"].decode().splitlines()[1:3] == ["no JSON", '{ "by":  "somebody" }']
    assert {json.loads(found["initial/1/escaped.json"])["by"]} == {who}
    assert found["initial/1/no recording.cast"].decode() == f"{who} was here\n"
    assert found["initial/1/blob"] == bytes(range(256))
    by_name = {one.name: one for one in done.files}
    assert by_name[f"initial/1/src/{who}.py"].masked == {"user": 2}
    assert not by_name["initial/1/blob"].looked_into
    assert b"plantedperson" not in b"".join([*found.values(), *(name.encode() for name in found)])
    assert done.left_out["initial/1/readme"] == "on some machines it has the name of 'initial/1/README'"
    assert done.left_out["initial/1/con.py"] == "it names a device"
    assert "initial/" in found["README.md"].decode()
    assert run.export(tmp_path / "y.olab.zip").size == done.size
    assert (tmp_path / "y.olab.zip").read_bytes() == (tmp_path / "x.olab.zip").read_bytes()


def test_a_bundle_shows_the_work_folder_and_gives_it_back(run: Run, tmp_path: Path) -> None:
    done = run.export(tmp_path / "x.olab.zip")
    who = next(one.substitute for one in done.substitutes if one.text == "plantedperson")
    bundle = open_run(tmp_path / "x.olab.zip")
    state = bundle.initial_state()
    assert state is not None
    (folder,) = state.folders
    assert folder[f"src/{who}.py"].read_text() == f"# by {who}\n"
    assert "ünïcode ☃.txt" in repr(state)
    assert not (bundle.files / "panes").exists()  # only what was asked for is unpacked
    target = tmp_path / "target"
    target.mkdir()
    fill(target, folder)
    assert (target / "link").read_text() == f"# by {who}\n"
    assert (target / "src" / f"{who}.py").stat().st_mode & 0o777 == 0o755
    assert sorted(path.name for path in target.iterdir()) == sorted(
        {name.partition("/")[0] for name in FILES} - {"readme", "con.py"} | {"link", "blob"}
    )


def test_it_can_stay_here(run: Run, tmp_path: Path) -> None:
    run.export(tmp_path / "x.olab.zip", leave_out=["initial"])
    assert open_run(tmp_path / "x.olab.zip").initial_state() is None
    done = run.export(tmp_path / "y.olab.zip", initial_limit=100)
    assert set(done.left_out) >= {"initial"}


def test_the_command_shows_it_and_makes_it_again(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run.export(tmp_path / "x.olab.zip", mask=False)

    def call(*words: str, status: int = 0) -> str:
        done: Any = CliRunner().invoke(app, ["runs", "initial", *words])
        assert done.exit_code == status, done.output
        return str(done.output)

    assert "  src/plantedperson.py\n" in call(run.run_id)
    (row,) = json.loads(call("x.olab.zip", "--json"))
    assert row["files"]["README"] == 4
    assert call("x.olab.zip", "--to", "again") == "again\n"
    assert (tmp_path / "again" / "README").read_text() == "one\n"
    assert "holds something already" in call("x.olab.zip", "--to", "again", status=2)
    run.export(tmp_path / "y.olab.zip", leave_out=["initial"])
    assert "has kept no work folder" in call("y.olab.zip", status=2)
