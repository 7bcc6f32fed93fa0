"""Writes a template into a folder, for a start from the control panel."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from orchestrator_lab.config import FILE_NAMES, load_config, template_files
from orchestrator_lab.errors import ConfigError
from orchestrator_lab.runtime import cluster_dir

__all__ = ["written"]

_FILE = "cluster.yaml"
_NAME = re.compile(r"^(  name: )\S+", re.MULTILINE)


def written(template: str, kind: str | None, name: str, folder: str) -> Path:
    """Write a template's files into a folder, unless the same are there already.

    Parameters
    ----------
    template : str
        Which template.
    kind : str or None
        Kind of its agents; the template's own by default.
    name : str
        Name of the cluster; the template's own when empty.
    folder : str
        Where; it is made when it is not there.

    Returns
    -------
    Path
        The configuration, which was checked.

    Raises
    ------
    ConfigError
        When the name is none, or other files are there; nothing was written.
    """
    files = template_files(template, kind)
    if name:
        cluster_dir(name)  # says what is wrong with a name
        files[_FILE] = _NAME.sub(rf"\g<1>{name}", files[_FILE], count=1)
    place = Path(folder or ".").expanduser().absolute()
    others = [one for one in FILE_NAMES if one != _FILE and (place / one).exists()]
    for one, text in files.items():
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if (place / one).read_bytes() != text.encode():
                others.append(one)
    if others:
        raise ConfigError(
            f"{', '.join(others)} in {place} is there already and says something else: choose another folder, or start "
            f"it as it is with %cluster start"
        )
    new: list[Path] = []
    try:
        for one, text in files.items():
            path = place / one
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                new.append(path)
                path.write_text(text, encoding="utf-8")
        load_config(place / _FILE)
    except BaseException as error:
        for path in new:
            path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise ConfigError(f"cannot write into {place}: {error.strerror}") from error
        raise
    return place / _FILE
