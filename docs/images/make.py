# ruff: noqa: INP001 - a script beside what it makes
"""Take ``timeline.png``, the README's, out of the quickstart notebook: ``python docs/images/make.py``.

The other pictures are made by ``docs/screenshots.py``.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path

HERE = Path(__file__).resolve().parent
NOTEBOOK = HERE.parents[1] / "notebooks" / "01_quickstart.ipynb"


def main() -> None:
    """Write it."""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    shown = next(cell for cell in cells if cell["id"] == "timeline")["outputs"]
    data = next(one["data"]["image/png"] for one in shown if "image/png" in one.get("data", {}))
    (HERE / "timeline.png").write_bytes(base64.b64decode(data if isinstance(data, str) else "".join(data)))


if __name__ == "__main__":
    main()
