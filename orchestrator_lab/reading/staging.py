"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from orchestrator_lab.errors import ConfigError, disk_error

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["staged_file", "staged_folder", "told_of"]


@contextmanager
def staged_file(output: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a path to write to, which becomes the output when all went well.

    Parameters
    ----------
    output : pathlib.Path
        Where the file is wanted.
    overwrite : bool
        Whether one that is there is replaced.

    Yields
    ------
    pathlib.Path
        Beside it, with the same suffix.

    Raises
    ------
    ConfigError
        When something is there.
    EnvironmentProblem, DiskFull
        When it cannot be written.
    """
    if output.is_dir():
        raise ConfigError(f"{output} is a folder: give the file to write, such as {output / 'run'}{output.suffix}")
    if output.exists() and not overwrite:
        raise ConfigError(f"{output} exists: name another file, or say that it may be replaced (overwrite, --force)")
    partial = output.with_name(f".{os.getpid()}.{output.name}")
    with told_of(output):
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            partial.replace(output)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def staged_folder(output: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a folder to write into, whose files go into the output when all went well.

    Parameters
    ----------
    output : pathlib.Path
        The folder wanted.
    overwrite : bool
        Whether it may hold something already; files of the same names are replaced, others stay.

    Yields
    ------
    pathlib.Path
        A new folder beside it.

    Raises
    ------
    ConfigError
        When it is a file, or holds something.
    EnvironmentProblem, DiskFull
        When it cannot be written.
    """
    if output.exists() and not output.is_dir():
        raise ConfigError(f"{output} is a file: several files are written, so give a folder")
    if output.is_dir() and not overwrite and any(output.iterdir()):
        raise ConfigError(f"{output} is not empty: name another folder, or say that it may be written into (--force)")
    partial = output.with_name(f".{os.getpid()}.{output.name or 'export'}")
    with told_of(output):
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            partial.mkdir()
            yield partial
            if output.is_dir():
                for file in sorted(partial.iterdir()):
                    file.replace(output / file.name)
            else:
                partial.rename(output)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def told_of(output: Path) -> Iterator[None]:
    """Turn the system's errors into a sentence.

    Parameters
    ----------
    output : pathlib.Path
        What is written meanwhile.

    Raises
    ------
    EnvironmentProblem, DiskFull
        When it cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise disk_error(
            f"{output} cannot be written ({error.strerror or error}); nothing of it was kept: check the place and the "
            "room there",
            error,
            path=output,
        ) from error
