"""A notebook is run from top to bottom: in a fresh kernel, with clusters that are nobody else's."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator_lab.apart import apart, environment
from orchestrator_lab.errors import NotebookError
from orchestrator_lab.notebook.sources import Source, runs_among

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from nbclient import NotebookClient
    from nbformat import NotebookNode

__all__ = ["CELL_TIMEOUT_S", "Executed", "execute", "first_line", "marks", "numbered", "read"]

CELL_TIMEOUT_S = 300.0
_MODE = "ORCHESTRATOR_LAB_MODE"
_KERNEL = "orchestrator_lab.notebook.kernel"
#: What nbval lets a cell say in a comment or a tag, and nbclient in a tag.
_MARKS = {
    "nbval-ignore-output": "ignore",
    "nbval-check-output": "check",
    "nbval-raises-exception": "raises",
    "raises-exception": "raises",
    "nbval-skip": "skip",
    "skip-execution": "skip",
}
_COMPARING = {"ignore", "check"}


@dataclass(frozen=True, slots=True)
class Executed:
    """A notebook that was run.

    Parameters
    ----------
    notebook : nbformat.NotebookNode
        With the new outputs.
    sources : tuple of Source
        The runs that it read or replayed; those that it made itself are none.
    troubles : dict of int to str
        By a cell's index: why it could not be run to its end. What comes after a kernel's death was not run.
    """

    notebook: NotebookNode
    sources: tuple[Source, ...]
    troubles: dict[int, str]


def read(path: Path) -> NotebookNode:
    """Read a notebook.

    Parameters
    ----------
    path : pathlib.Path
        A file in Jupyter's format, version 3 or 4.

    Raises
    ------
    NotebookError
        When it is not there, is no notebook, or is not written in Python.
    """
    import nbformat

    try:
        notebook: NotebookNode = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except FileNotFoundError:
        raise NotebookError(f"{path}: there is no such notebook; give a file such as analysis.ipynb") from None
    except OSError as error:
        raise NotebookError(
            f"{path}: the notebook cannot be read ({error.strerror}); check its name and owner"
        ) from error
    except Exception as error:  # whatever a damaged file leads nbformat to
        said = str(error).strip().partition("\n")[0]
        raise NotebookError(f"{path} is no notebook ({said}); save it from JupyterLab again") from error
    language = notebook.metadata.get("kernelspec", {}).get("language", "python")
    if str(language).lower() != "python":
        raise NotebookError(f"{path} is written in {language}: only notebooks in Python can be run here")
    return notebook


def marks(cell: NotebookNode) -> set[str]:
    r"""Return what a cell asks for: ``ignore`` or ``check`` of its output, ``raises``, ``skip``.

    Parameters
    ----------
    cell : nbformat.NotebookNode
        A code cell: tags such as ``nbval-ignore-output``, or comments such as ``# NBVAL_IGNORE_OUTPUT``.

    Examples
    --------
    >>> from nbformat.v4 import new_code_cell
    >>> marks(new_code_cell("# NBVAL_SKIP\nrun()"))
    {'skip'}
    """
    comments = [line.strip().lstrip("#").strip() for line in cell.source.splitlines() if line.strip().startswith("#")]
    said = {_MARKS[one] for word in comments if word.isupper() and (one := word.lower().replace("_", "-")) in _MARKS}
    tags = {_MARKS[one] for one in cell.metadata.get("tags", []) if one in _MARKS}
    # A comment outdoes a tag.
    return said | (tags - _COMPARING if said & _COMPARING else tags)


def numbered(notebook: NotebookNode) -> dict[int, int]:
    """Return the number of each code cell by its index: what stands in brackets beside it after one execution."""
    found: dict[int, int] = {}
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type == "code" and cell.source.strip():
            found[index] = len(found) + 1
    return found


def first_line(cell: NotebookNode) -> str:
    """Return the first line of a cell's source that is no comment, to know it by."""
    lines = [line for line in cell.source.splitlines() if line.strip()]
    return next((line for line in lines if not line.lstrip().startswith("#")), lines[0] if lines else "")


def execute(
    source: Path,
    *,
    mode: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    timeout_s: float = CELL_TIMEOUT_S,
    go_on: bool = False,
) -> Executed:
    """Run a notebook in a fresh kernel, in its own folder; clusters that it leaves running are ended.

    Parameters
    ----------
    source : pathlib.Path
        The notebook; it is not changed.
    mode : str, optional
        ``ORCHESTRATOR_LAB_MODE`` while it runs; what the environment says when omitted.
    parameters : mapping, optional
        Values for the cell tagged ``parameters``, assigned in a cell of their own after it, as papermill does.
    timeout_s : float
        Seconds that a cell may take.
    go_on : bool
        Whether the cells after one that fails are run too.

    Returns
    -------
    Executed
        With all outputs.

    Raises
    ------
    NotebookError
        When it is no notebook, has no kernel, or, unless `go_on`, when a cell fails.
    """
    import nbformat

    notebook = read(source)
    for cell in notebook.cells:
        if cell.cell_type == "code" and "skip" not in marks(cell):
            cell.outputs, cell.execution_count = [], None
    if parameters:
        place = next(i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
        lines = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
        notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(lines, id="injected"))
    begun = time.time()
    with apart() as home, environment({_MODE: mode} if mode is not None else {}):
        client = _client(notebook, source, timeout_s, home.folder, go_on=go_on)
        troubles, opened = _run(client, source, go_on=go_on)
    return Executed(notebook, tuple(runs_among(opened, source.resolve().parent, before=begun)), troubles)


def _client(notebook: NotebookNode, source: Path, timeout_s: float, folder: Path, *, go_on: bool) -> NotebookClient:
    from nbclient import NotebookClient
    from traitlets.config import Config

    # Nobody else can open sockets in a private folder, and the kernel need not warn of TCP.
    config = Config({"ConnectionFileMixin": {"transport": "ipc", "ip": str(folder / "kernel")}})
    return NotebookClient(
        notebook,
        timeout=timeout_s,
        kernel_name="python3",
        allow_errors=go_on,
        store_widget_state=False,
        record_timing=False,
        resources={"metadata": {"path": str(source.resolve().parent)}},
        config=config,
    )


def _run(client: NotebookClient, source: Path, *, go_on: bool) -> tuple[dict[int, str], list[str]]:
    from jupyter_client.kernelspec import NoSuchKernel
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    notebook = client.nb
    numbers, troubles = numbered(notebook), {}
    try:
        # What a kernel says beside its cells would come between the lines of whoever asked.
        with client.setup_kernel(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
            _aside(client, "watch()")
            for index in numbers:
                cell, said = notebook.cells[index], None
                if "skip" in marks(cell):
                    continue
                try:
                    client.execute_cell(cell, index)
                except CellExecutionError as error:
                    if "raises" in marks(cell):
                        continue
                    said = f"ended with {error.ename}: {error.evalue}"
                    detail = _in_cell(error.traceback)
                except CellTimeoutError:
                    said, detail = f"took longer than {client.timeout:g} s; --timeout gives more", ""
                except DeadKernelError:
                    said, detail = "ended the kernel: the process died", ""
                if said is None:
                    continue
                if not go_on:
                    raise NotebookError(f"{source}: cell [{numbers[index]}] {said}; nothing was written{detail}")
                troubles[index] = said
                # A kernel that is dead, or still at work, runs no other cell.
                return troubles, []
            return troubles, json.loads(_aside(client, "print(__import__('json').dumps(opened()))"))
    except NoSuchKernel as error:
        raise NotebookError(f"{source}: there is no Python kernel ({error}); pip install ipykernel") from error


def _aside(client: NotebookClient, code: str) -> str:
    """Run something in the kernel that is no cell of the notebook; return what it printed."""
    import nbformat

    cell = nbformat.v4.new_code_cell(f"exec({f'from {_KERNEL} import opened, watch; {code}'!r}, {{}})")
    client.nb.cells.append(cell)
    try:
        client.execute_cell(cell, len(client.nb.cells) - 1, store_history=False)
    finally:
        client.nb.cells.pop()
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def _in_cell(traceback: str) -> str:
    """Return the lines of the cell that a traceback of IPython points at; what lies below them is not the user's."""
    import re

    found = re.search(
        r"^ *Cell In\s?\[.*?(?=\n *\n|\Z)", re.sub(r"\x1b\[[0-9;]*m", "", traceback), re.MULTILINE | re.DOTALL
    )
    return "" if found is None else f"\n{found[0]}"
