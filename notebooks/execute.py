"""Freeze the notebooks of this folder: execute them in replay, and keep outputs that do not change without a reason.

    python notebooks/execute.py [NOTEBOOK ...]

As ``orchestrator-lab notebook freeze`` does it; then their pictures are made small.
"""

from __future__ import annotations

import argparse
import base64
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from orchestrator_lab.notebook.executing import read
from orchestrator_lab.notebook.freezing import freeze, write

if TYPE_CHECKING:
    from nbformat import NotebookNode

HERE = Path(__file__).resolve().parent


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


def with_small_pictures(notebook: NotebookNode) -> NotebookNode:
    """Make the pictures of a notebook small, in place; return it."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                data["image/png"] = smaller(data["image/png"])
    return notebook


def main(argv: list[str] | None = None) -> int:
    """Freeze the notebooks named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("notebook", nargs="*", type=Path)
    chosen = parser.parse_args(argv).notebook or sorted(HERE.glob("*.ipynb"))
    for path in chosen:
        done = freeze(path)
        write(with_small_pictures(read(path)), path)
        sys.stdout.write(f"{path.name}: made from {', '.join(one.file for one in done.sources) or 'no run'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
