"""Execute the notebooks of this folder and write them back with outputs that do not change without a reason.

    python notebooks/execute.py [NOTEBOOK ...]

Each notebook runs in a fresh kernel, in this folder, with clusters in a private runtime folder. What differs from one
execution to the next (ids, ports) is replaced as ``sanitize.cfg`` says, the file that
``pytest --nbval --nbval-sanitize-with`` reads too. Widget state and timings are not stored.
"""

from __future__ import annotations

import argparse
import base64
import configparser
import io
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

HERE = Path(__file__).resolve().parent
CELL_TIMEOUT_S = 300


def sanitizers(path: Path = HERE / "sanitize.cfg") -> list[tuple[re.Pattern[str], str]]:
    """Return the patterns of a sanitizing file and what replaces them.

    Parameters
    ----------
    path : Path
        A file in nbval's form: sections with ``regex`` and ``replace``.

    Returns
    -------
    list of (re.Pattern, str)
        In the order of the file.
    """
    parser = configparser.RawConfigParser()
    parser.read_string(path.read_text(encoding="ascii"))
    return [(re.compile(parser[name]["regex"]), parser[name]["replace"]) for name in parser.sections()]


def execute(source: Path, *, parameters: dict[str, Any] | None = None) -> Any:  # noqa: ANN401 - a NotebookNode
    """Run one notebook in a fresh kernel.

    Parameters
    ----------
    source : Path
        The notebook; it is not changed.
    parameters : dict, optional
        Values for the cell tagged ``parameters``, assigned in a cell of their own after it, as papermill does.

    Returns
    -------
    nbformat.NotebookNode
        The executed notebook.
    """
    notebook = nbformat.read(source, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    if parameters:
        place = next(i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
        lines = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
        notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(lines, id="injected"))
    # Sockets need a short path, and nobody else's clusters are to be met.
    runtime = tempfile.mkdtemp(prefix="nb")
    before = os.environ.get("ORCHESTRATOR_RUNTIME_DIR")
    os.environ["ORCHESTRATOR_RUNTIME_DIR"] = runtime
    try:
        client = NotebookClient(
            notebook,
            timeout=CELL_TIMEOUT_S,
            kernel_name="python3",
            store_widget_state=False,
            record_timing=False,
            resources={"metadata": {"path": str(source.resolve().parent)}},
        )
        client.execute()
    finally:
        if before is None:
            del os.environ["ORCHESTRATOR_RUNTIME_DIR"]
        else:
            os.environ["ORCHESTRATOR_RUNTIME_DIR"] = before
        shutil.rmtree(runtime, ignore_errors=True)
    return notebook


def smaller(png: str) -> str:
    """Return a picture with 256 colours, which is a third of the bytes and the same to the eye.

    Parameters
    ----------
    png : str
        A PNG in base64.

    Returns
    -------
    str
        Likewise; unchanged when it has a palette already.
    """
    picture = Image.open(io.BytesIO(base64.b64decode(png)))
    if picture.mode == "P":
        return png
    few = picture.convert("RGB").quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    file = io.BytesIO()
    few.save(file, format="png", optimize=True)
    return base64.b64encode(file.getvalue()).decode("ascii")


def clean(notebook: Any) -> Any:  # noqa: ANN401 - a NotebookNode
    """Take out what differs from one execution to the next, and make pictures small.

    Parameters
    ----------
    notebook : nbformat.NotebookNode
        An executed notebook; changed in place.

    Returns
    -------
    nbformat.NotebookNode
        The same.
    """
    rules = sanitizers()

    def cleaned(value: Any) -> Any:  # noqa: ANN401 - JSON
        if isinstance(value, list):
            return [cleaned(one) for one in value]
        if isinstance(value, dict):
            return {key: smaller(one) if key == "image/png" else cleaned(one) for key, one in value.items()}
        if isinstance(value, str):
            for pattern, replacement in rules:
                value = pattern.sub(replacement, value)
        return value

    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({key: cell.metadata[key] for key in ("tags",) if key in cell.metadata})
        if cell.cell_type == "code":
            for output in cell.outputs:
                # A view is nothing without the kernel that it was of; its still is beside it.
                output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
            cell.outputs = [nbformat.from_dict(cleaned(output)) for output in cell.outputs]
    return notebook


def main(argv: list[str] | None = None) -> int:
    """Execute the notebooks named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("notebook", nargs="*", type=Path)
    chosen = parser.parse_args(argv).notebook or sorted(HERE.glob("*.ipynb"))
    for path in chosen:
        notebook = clean(execute(path))
        nbformat.validate(notebook)
        nbformat.write(notebook, path)
        sys.stdout.write(f"executed {path.name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
