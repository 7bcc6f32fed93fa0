"""What differs from one execution of a notebook to the next, and is taken out of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nbformat import NotebookNode

__all__ = ["REFERENCE", "SANITIZERS", "clean", "sanitized", "sanitizers"]

#: Patterns and what replaces them, in nbval's form: for ``pytest --nbval-sanitize-with`` too.
SANITIZERS = Path(__file__).with_name("sanitize.cfg")
#: Key of a notebook's metadata under which the runs stand that it was made from.
REFERENCE = "orchestrator_lab"

_WIDGET = "application/vnd.jupyter.widget-view+json"
#: What front ends and runners write that tells of one session only.
_VOLATILE = {"ExecuteTime", "collapsed", "execution", "papermill", "scrolled", "trusted", "vscode", "widgets"}


def sanitizers(path: Path = SANITIZERS) -> list[tuple[re.Pattern[str], str]]:
    r"""Return the patterns of a sanitizing file and what replaces them.

    Parameters
    ----------
    path : Path
        A file in nbval's form: sections with ``regex`` and ``replace``.

    Returns
    -------
    list of (re.Pattern, str)
        In the order of the file.

    Examples
    --------
    >>> sanitizers()[1][0].sub(sanitizers()[1][1], "chat at 127.0.0.1:43035")
    'chat at 127.0.0.1:...'
    """
    import configparser

    parser = configparser.RawConfigParser()
    parser.read_string(path.read_text(encoding="utf-8"))
    return [(re.compile(parser[name]["regex"]), parser[name]["replace"]) for name in parser.sections()]


def sanitized(value: Any, rules: list[tuple[re.Pattern[str], str]]) -> Any:  # noqa: ANN401 - JSON
    """Return a JSON value with all its texts sanitized; pictures stay as they are.

    Parameters
    ----------
    value : JSON value
        An output, or a part of one.
    rules : list of (re.Pattern, str)
        See :func:`sanitizers`.

    Examples
    --------
    >>> sanitized({"text/plain": "<object at 0x7f01a2b3c4d5>"}, sanitizers())
    {'text/plain': '<object at 0x...>'}
    """
    if isinstance(value, list):
        return [sanitized(one, rules) for one in value]
    if isinstance(value, dict):
        return {key: one if key.startswith("image/") else sanitized(one, rules) for key, one in value.items()}
    if isinstance(value, str):
        for pattern, replacement in rules:
            value = pattern.sub(replacement, value)
    return value


def clean(notebook: NotebookNode, rules: list[tuple[re.Pattern[str], str]] | None = None) -> NotebookNode:
    """Take out what differs from one execution to the next: widgets' state, times, ids, ports.

    Parameters
    ----------
    notebook : nbformat.NotebookNode
        An executed notebook; changed in place.
    rules : list of (re.Pattern, str), optional
        What is replaced in outputs; that of :data:`SANITIZERS` when omitted.

    Returns
    -------
    nbformat.NotebookNode
        The same.
    """
    import nbformat

    rules = sanitizers() if rules is None else rules
    kept = {key: value for key, value in notebook.metadata.items() if key not in _VOLATILE}
    kept["kernelspec"] = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    kept["language_info"] = {"name": "python"}
    notebook.metadata = nbformat.from_dict(kept)
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({key: value for key, value in cell.metadata.items() if key not in _VOLATILE})
        if cell.cell_type == "code":
            for output in cell.outputs:
                # A view is nothing without the kernel that it was of; its still is beside it.
                output.get("data", {}).pop(_WIDGET, None)
            cell.outputs = [nbformat.from_dict(sanitized(output, rules)) for output in cell.outputs]
    return notebook
