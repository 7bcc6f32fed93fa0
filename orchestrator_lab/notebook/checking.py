"""A notebook is run again, and each cell compared with what it showed."""

from __future__ import annotations

import difflib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator_lab.errors import NotebookError
from orchestrator_lab.notebook.executing import CELL_TIMEOUT_S, execute, first_line, marks, numbered, read
from orchestrator_lab.notebook.sanitizing import REFERENCE, sanitized, sanitizers

if TYPE_CHECKING:
    import os
    import re

    from nbformat import NotebookNode

    from orchestrator_lab.notebook.sources import Source

__all__ = ["CheckedCell", "CheckedNotebook", "CheckedSource", "check", "difference"]

#: What nbval compares is what is left without these; pictures are compared by their being there, since fonts differ.
_PASSED_OVER = {
    "metadata",
    "traceback",
    "prompt_number",
    "output_type",
    "name",
    "execution_count",
    "application/vnd.jupyter.widget-view+json",
}
#: Lines of a difference that are told.
_LONGEST_DIFF = 24


@dataclass(frozen=True, slots=True)
class CheckedCell:
    """What became of one cell.

    Parameters
    ----------
    number : int
        What stands in brackets beside it.
    source : str
        Its first line.
    state : {"same", "differs", "failed", "not compared", "not run"}
        Cells that ask for it are not compared or not run, as nbval has it (``nbval-ignore-output``, ``nbval-skip``).
    detail : str
        What differs, as a diff, or why it failed.
    """

    number: int
    source: str
    state: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class CheckedSource:
    """What became of one run that the notebook was made from.

    Parameters
    ----------
    file : str
        Its name in the notebook's metadata, or of one that is not named there.
    sha256 : str
        Of the file that was used; of the one that is named where none was.
    state : {"same", "changed", "not used", "added"}
        Added is one that was used and is not named.
    """

    file: str
    sha256: str
    state: str


@dataclass(frozen=True, slots=True)
class CheckedNotebook:
    """Whether a notebook still reproduces.

    Parameters
    ----------
    path : pathlib.Path
        The notebook.
    cells : tuple of CheckedCell
        In order.
    sources : tuple of CheckedSource
        The runs.
    frozen : bool
        Whether it says which runs it was made from.
    """

    path: Path
    cells: tuple[CheckedCell, ...]
    sources: tuple[CheckedSource, ...]
    frozen: bool

    @property
    def reproduces(self) -> bool:
        """Whether all that is compared is the same, from the same runs."""
        return not any(one.state in {"differs", "failed"} for one in self.cells) and not any(
            one.state in {"changed", "not used"} for one in self.sources
        )


def check(path: str | os.PathLike[str], *, mode: str = "replay", timeout_s: float = CELL_TIMEOUT_S) -> CheckedNotebook:
    """Run a notebook again in replay and compare what it shows with what it showed.

    Parameters
    ----------
    path : path-like
        The notebook; it is not changed.
    mode : {"replay", "replay_strict"}
        How clusters that it starts answer.
    timeout_s : float
        Seconds that a cell may take.

    Returns
    -------
    CheckedNotebook
        Cell by cell.

    Raises
    ------
    NotebookError
        When it cannot be checked: it is no notebook, was never executed, or a run beside it is missing.
    """
    source = Path(path).expanduser()
    stored = read(source)
    numbers = numbered(stored)
    if all(stored.cells[index].execution_count is None for index in numbers):
        raise NotebookError(
            f"{source} holds nothing to compare with: it was not executed; "
            "`orchestrator-lab notebook freeze` executes it and keeps what it shows"
        )
    told = _told_sources(stored, source)
    for one in told:
        if not one.get("outside") and not (source.resolve().parent / one["file"]).is_file():
            raise NotebookError(
                f"{source} was made from {one['file']} (SHA-256 {one['sha256']}), which is not beside it: get it from "
                "whoever gave you the notebook"
            )
    done = execute(source, mode=mode, timeout_s=timeout_s, go_on=True)
    rules, cells, dead = sanitizers(), [], False
    for index, number in numbers.items():
        line = first_line(stored.cells[index])
        if dead:
            cells.append(CheckedCell(number, line, "failed", "not reached: an earlier cell ended the notebook"))
        elif index in done.troubles:
            cells.append(CheckedCell(number, line, "failed", done.troubles[index]))
            dead = True
        else:
            state, detail = _compared(stored.cells[index], done.notebook.cells[index], rules)
            cells.append(CheckedCell(number, line, state, detail))
    sources = _checked_sources(told, () if dead else done.sources)
    return CheckedNotebook(source, tuple(cells), tuple(sources), REFERENCE in stored.metadata)


def _told_sources(notebook: NotebookNode, path: Path) -> list[dict[str, Any]]:
    told = notebook.metadata.get(REFERENCE, {"runs": []})
    try:
        found = [
            {"file": str(one["file"]), "sha256": str(one["sha256"]), "outside": bool(one.get("outside"))}
            for one in told["runs"]
        ]
    except (AttributeError, KeyError, TypeError) as error:
        raise NotebookError(
            f"{path}: its metadata {REFERENCE!r} does not name runs as file and sha256; freeze it again"
        ) from error
    return found


def _checked_sources(told: list[dict[str, Any]], used: tuple[Source, ...]) -> list[CheckedSource]:
    digests, by_name = {one.sha256 for one in used}, {one.file: one.sha256 for one in used}
    checked = []
    for one in told:
        file, digest = one["file"], one["sha256"]
        if digest in digests:
            checked.append(CheckedSource(file, digest, "same"))
        elif file in by_name:
            checked.append(CheckedSource(file, by_name[file], "changed"))
        else:
            checked.append(CheckedSource(file, digest, "not used"))
    known, names = {one["sha256"] for one in told}, {one["file"] for one in told}
    added = [one for one in used if one.sha256 not in known and one.file not in names]
    return [*checked, *(CheckedSource(one.file, one.sha256, "added") for one in added)]


def _compared(stored: NotebookNode, now: NotebookNode, rules: list[tuple[re.Pattern[str], str]]) -> tuple[str, str]:
    asked = marks(stored)
    if "skip" in asked:
        return "not run", ""
    error = next((one for one in now.outputs if one.output_type == "error"), None)
    if error is not None and "raises" not in asked:
        return "failed", f"{error.ename}: {error.evalue}"
    if "ignore" in asked or (stored.execution_count is None and not stored.outputs):
        return "not compared", ""
    found = difference(stored.outputs, now.outputs, rules)
    return ("same", "") if found is None else ("differs", found)


def difference(stored: list[Any], now: list[Any], rules: list[tuple[re.Pattern[str], str]] | None = None) -> str | None:
    r"""Return how outputs differ, None when they are the same as nbval sees them.

    Parameters
    ----------
    stored, now : list of outputs
        As in a notebook: what was shown, and what is shown.
    rules : list of (re.Pattern, str), optional
        What is replaced in both before; see :func:`~orchestrator_lab.notebook.sanitizing.sanitizers`.

    Returns
    -------
    str or None
        The first difference, as a diff.

    Examples
    --------
    >>> import nbformat
    >>> def said(text):
    ...     return [nbformat.v4.new_output("stream", name="stdout", text=text)]
    >>> difference(said("at 127.0.0.1:1"), said("at 127.0.0.1:2")) is None
    True
    >>> print(difference(said("one\n"), said("two\n")))
    stdout
    --- stored
    +++ now
    @@ -1 +1 @@
    -one
    +two
    """
    rules = sanitizers() if rules is None else rules
    before, after = _by_kind(stored, rules), _by_kind(now, rules)
    missing, more = sorted(before.keys() - after.keys()), sorted(after.keys() - before.keys())
    if missing or more:
        said = [f"no {kind} any more" for kind in missing] + [f"{kind}, which was not there" for kind in more]
        shown = [f"  {line}" for kind in more for one in after[kind] for line in one.splitlines()]
        return "\n".join([", ".join(said), *shown[:_LONGEST_DIFF]])
    for kind, values in before.items():
        if len(values) != len(after[kind]):
            return f"{kind}: {len(values)} outputs before, {len(after[kind])} now"
        for old, new in zip(values, after[kind], strict=True):
            if old != new:
                lines = list(difflib.unified_diff(old.splitlines(), new.splitlines(), "stored", "now", "", "", 1, ""))
                cut = [*lines[:_LONGEST_DIFF], f"… {len(lines) - _LONGEST_DIFF} lines more"]
                return "\n".join([kind, *(lines if len(lines) <= _LONGEST_DIFF else cut)])
    return None


def _by_kind(outputs: list[Any], rules: list[tuple[re.Pattern[str], str]]) -> dict[str, list[str]]:
    """Return outputs by what they are: streams by their name, data by their MIME type."""
    found: dict[str, list[str]] = defaultdict(list)
    for output in outputs:
        parts = {output.name: output.text} if output.output_type == "stream" else dict(output)
        data = parts.pop("data", {})
        for kind, value in {**parts, **data}.items():
            if kind not in _PASSED_OVER:
                found[kind].append("a picture" if kind.startswith("image/") else _text(sanitized(value, rules)))
    return found


def _text(value: Any) -> str:  # noqa: ANN401 - JSON
    import json

    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True, indent=1)
