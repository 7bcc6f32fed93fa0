# ruff: noqa: INP001 - a script beside what it makes
"""Make the pictures of the README out of what the quickstart notebook shows: its timeline and its stills.

    python docs/images/make.py

The stills are drawn by Chromium, so that one is needed (``chromium`` or ``google-chrome`` on the PATH).
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
NOTEBOOK = HERE.parents[1] / "notebooks" / "01_quickstart.ipynb"
_PAGE = """<!doctype html><meta charset="utf-8"><style>
body {{margin: 12px; font-family: sans-serif; font-size: 13px; background: white}}
body > div {{display: flex; gap: 12px}} body > div > div {{flex: 1; min-width: 0}}
pre {{height: 262px; overflow: hidden !important; font-size: 10px !important; margin: 4px 0 0 0 !important}}
</style><div>{body}</div>"""


def output(cells: list[dict[str, Any]], name: str, kind: str) -> str:
    """Return one output of the cell with this id."""
    cell = next(cell for cell in cells if cell["id"] == name)
    data = next(one["data"][kind] for one in cell["outputs"] if kind in one.get("data", {}))
    return data if isinstance(data, str) else "".join(data)


def main() -> int:
    """Write ``timeline.png`` and ``panes.png``."""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    (HERE / "timeline.png").write_bytes(base64.b64decode(output(cells, "timeline", "image/png")))
    browser = next((path for name in ("chromium", "google-chrome") if (path := shutil.which(name))), None)
    if browser is None:
        sys.exit("panes.png needs chromium or google-chrome on the PATH")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "panes.html"
        page.write_text(_PAGE.format(body=output(cells, "screens", "text/html")), encoding="utf-8")
        argv = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1100,325"]
        subprocess.run([*argv, f"--screenshot={HERE / 'panes.png'}", page.as_uri()], check=True, capture_output=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
