"""What a run knows of its work folders as they were before any agent started."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from orchestrator_lab.errors import ConfigError
from orchestrator_lab.mirrors import present

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FORMAT", "INDEX", "INITIAL", "InitialFolder", "InitialState", "is_safe", "read_state"]

#: The part of a run, and what is beside the files in it.
INITIAL, INDEX = "initial", "index.json"
FORMAT = 1
#: An index is read at once.
_LONGEST = 64 << 20


@dataclass(frozen=True, slots=True)
class InitialFolder:
    """A work folder as it was before any agent started.

    Parameters
    ----------
    number : int
        Its files lie in ``initial/NUMBER`` of the run.
    path : str
        Where it was.
    agents : dict of str to str
        Who worked in it: by the agent's name the folder within, ``.`` for itself.
    why : str or None
        Why nothing of it is kept; None when it is.
    commit : str or None
        Of the git repository that it belonged to.
    files : dict of str to dict
        What a file's bytes do not say, by its path: ``mode`` (octal permissions), ``mtime_ns``, ``masked``.
    links : dict of str to str
        Links within, and where they lead.
    empty : tuple of str
        Folders without anything in them.
    skipped : dict of str to str
        What was left out, and why.
    more_skipped : int
        How much else was left out.
    tree : pathlib.Path
        Where the files lie.
    """

    number: int
    path: str
    agents: dict[str, str]
    why: str | None
    commit: str | None
    files: dict[str, dict[str, Any]]
    links: dict[str, str]
    empty: tuple[str, ...]
    skipped: dict[str, str]
    more_skipped: int
    tree: Path

    @property
    def size(self) -> int:
        """Bytes of all files that are kept."""
        return sum(path.stat().st_size for _, path in self.contents())

    def contents(self, inside: str = ".") -> Iterator[tuple[str, Path]]:
        """Yield the files that lie there: the path within, and where it can be read.

        Parameters
        ----------
        inside : str
            Only what is in this folder of it, with paths from there.
        """
        start = self.tree if inside == "." else self.tree / inside
        if not is_safe(inside) or _has_link(self.tree, start):
            return
        for place, folders, names in os.walk(start):
            folders.sort()
            for name in sorted(names):
                path = Path(place, name)
                # A run's files are no links; whoever made one of them wants something else to be read.
                if path.is_file() and not path.is_symlink():
                    yield path.relative_to(start).as_posix(), path

    def __getitem__(self, path: str) -> Path:
        if not is_safe(path) or not (found := present(self.tree / path)).is_file() or _has_link(self.tree, found):
            raise ConfigError(f"{path!r} is not among the files that are kept of {self.path}")
        return found


@dataclass(frozen=True, slots=True, repr=False)
class InitialState:
    """The work folders of a run as they were before any agent started.

    Parameters
    ----------
    folders : tuple of InitialFolder
        One for each; folders within others are with these.
    """

    folders: tuple[InitialFolder, ...]

    def of(self, agent: str) -> InitialFolder | None:
        """Return the folder in which an agent worked; None when nothing of it is kept."""
        return next((one for one in self.folders if agent in one.agents and one.why is None), None)

    def restore(self, to: str | os.PathLike[str]) -> Path:
        """Make the work folders as they were.

        Parameters
        ----------
        to : path-like
            A new folder, or an empty one; where the agents had several, they are in it.

        Returns
        -------
        pathlib.Path
            The folder.

        Raises
        ------
        ConfigError
            When it holds something.
        EnvironmentProblem, DiskFull
            When it cannot be written; nothing of it is left.

        Examples
        --------
        >>> open_run("night.olab.zip").initial_state().restore("as-it-was")  # doctest: +SKIP
        PosixPath('as-it-was')
        """
        from orchestrator_lab.initial.places import restore_state

        return restore_state(self, to)

    def to_dict(self) -> list[dict[str, Any]]:
        """Return it as JSON values: a row for each folder, with the sizes of its files."""
        return [
            {
                "path": one.path,
                "agents": one.agents,
                "why": one.why,
                "commit": one.commit,
                "files": {path: file.stat().st_size for path, file in one.contents()},
                "links": one.links,
                "skipped": one.skipped,
                "more_skipped": one.more_skipped,
            }
            for one in self.folders
        ]

    def __repr__(self) -> str:
        rows: list[str] = []
        for one in self.folders:
            who = ", ".join(one.agents) or "nobody"
            if one.why is not None:
                rows.append(f"{one.path}: not kept, {one.why}")
                continue
            kept = dict(one.contents())
            at = f", commit {one.commit[:12]}" if one.commit else ""
            rows.append(f"{one.path} ({who}): {len(kept)} files, {one.size} bytes{at}")
            rows += [f"  {path}" for path in kept]
            rows += [f"  {path} -> {target}" for path, target in one.links.items()]
            rows += [f"  left out: {path} ({why})" for path, why in one.skipped.items()]
            rows += [f"  left out: {one.more_skipped} more"] if one.more_skipped else []
        # A name may hold anything, also what moves a cursor.
        rows = [row if row.isprintable() else row.encode("unicode_escape").decode() for row in rows]
        return "\n".join(rows) or "no work folder is kept"


def is_safe(path: str) -> bool:
    """Tell whether a path stays in its folder, whatever it is joined to, and is written as paths here are.

    Examples
    --------
    >>> is_safe("a/b"), is_safe("."), is_safe("../a"), is_safe("/a"), is_safe("a/../../b"), is_safe("a//b")
    (True, True, False, False, False, False)
    """
    plain = PurePosixPath(path)
    return path == plain.as_posix() and "\0" not in path and not plain.is_absolute() and ".." not in plain.parts


def read_state(run_dir: Path) -> InitialState | None:
    """Return what a run knows of its work folders.

    Parameters
    ----------
    run_dir : pathlib.Path
        The run's folder. What is in it may come from others: nothing in it is believed that leads elsewhere.

    Returns
    -------
    InitialState or None
        None when nothing was kept.

    Raises
    ------
    ConfigError
        When it cannot be read.
    """
    place = present(run_dir / INITIAL / INDEX)
    if not place.is_file() or place.is_symlink():
        return None
    try:
        with place.open("rb") as file:
            whole = json.loads(file.read(_LONGEST))
        agents = {str(name): (int(one["folder"]), str(one["inside"])) for name, one in whole["agents"].items()}
        folders = tuple(_folder(row, agents, place.parent) for row in whole["folders"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ConfigError(
            f"{place} cannot be read ({type(error).__name__}: {error}): what the run knows of its work folder is "
            "damaged; replay it with a configuration and a work folder of your own"
        ) from error
    return InitialState(folders)


def _folder(row: dict[str, Any], agents: dict[str, tuple[int, str]], place: Path) -> InitialFolder:
    number = int(row["number"])
    why = row.get("why")
    return InitialFolder(
        number=number,
        path=str(row["path"]),
        agents={name: inside for name, (at, inside) in agents.items() if at == number and is_safe(inside)},
        why=None if why is None else str(why),
        commit=None if row.get("commit") is None else str(row["commit"]),
        files={str(path): dict(facts) for path, facts in row.get("files", {}).items()},
        links={str(path): str(target) for path, target in row.get("links", {}).items()},
        empty=tuple(str(path) for path in row.get("empty", ())),
        skipped={str(path): str(said) for path, said in row.get("skipped", {}).items()},
        more_skipped=int(row.get("more_skipped", 0)),
        tree=place / str(number),
    )


def _has_link(root: Path, path: Path) -> bool:
    """Tell whether there is a link on the way from a folder to something in it, the folder itself included."""
    way = [path, *path.parents]
    return any(one.is_symlink() for one in way[: way.index(root) + 1])
