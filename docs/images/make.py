# ruff: noqa: INP001 - a script beside what it makes
"""Make the pictures of the README out of what the quickstart notebook shows.

    python docs/images/make.py [CLAUDE]

``timeline.png`` is the notebook's own. ``claude.png`` is made when the path of a Claude Code is given: the notebook's
conversation, with the same script, between real Claude Codes.

The stills are drawn by Chromium, so that one is needed (``chromium`` or ``google-chrome`` on the PATH).
"""

from __future__ import annotations

import argparse
import base64
import json
import re
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
pre {{height: 300px; overflow: hidden !important; font-size: 10px !important; margin: 4px 0 0 0 !important}}
</style><div>{body}</div>"""


def output(cells: list[dict[str, Any]], name: str, kind: str) -> str:
    """Return one output of the cell with this id."""
    cell = next(cell for cell in cells if cell["id"] == name)
    data = next(one["data"][kind] for one in cell["outputs"] if kind in one.get("data", {}))
    return data if isinstance(data, str) else "".join(data)


def claude_stills(cells: list[dict[str, Any]], program: str) -> str:
    """Run the notebook's conversation between real Claude Codes; return their stills."""
    from orchestrator_lab import Cluster

    source = next(cell["source"] for cell in cells if cell["id"] == "config")
    space: dict[str, Any] = {"agents": "script"}
    exec(source if isinstance(source, str) else "".join(source), space)  # noqa: S102 - our own notebook
    config = space["config"]
    for agent in config["agents"]:
        agent |= {"kind": "claude", "command": [program]}
    config["cluster"] |= {"cols": 64, "rows": 24}
    names = [agent["name"] for agent in config["agents"]]
    # Its path is in the picture: a short one, made by the lab, so that nobody has to say that it is trusted.
    work = Path(tempfile.gettempdir()) / "quickstart"
    with tempfile.TemporaryDirectory() as folder:
        config["cluster"] |= {"work_dir": str(work), "runs_dir": folder}
        with Cluster.start(config) as cluster:
            cluster.converse(names, "Explain what a rainbow is.", rounds=2).wait(120)
            cluster.wait(timeout=60)
            stills = cluster.screens()._repr_html_()
    shutil.rmtree(work, ignore_errors=True)
    return stills


def draw(body: str, path: Path) -> None:
    """Have stills drawn side by side."""
    browser = next((found for name in ("chromium", "google-chrome") if (found := shutil.which(name))), None)
    if browser is None:
        sys.exit(f"{path.name} needs chromium or google-chrome on the PATH")
    body = re.sub(r"msg_[0-9a-z]{26}", "msg_...", body)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "panes.html"
        page.write_text(_PAGE.format(body=body), encoding="utf-8")
        argv = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1240,360"]
        subprocess.run([*argv, f"--screenshot={path}", page.as_uri()], check=True, capture_output=True)


def main(argv: list[str] | None = None) -> int:
    """Write ``timeline.png``, and ``claude.png`` when there is a Claude Code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("claude", nargs="?", metavar="CLAUDE", help="path of Claude Code")
    program = parser.parse_args(argv).claude
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    (HERE / "timeline.png").write_bytes(base64.b64decode(output(cells, "timeline", "image/png")))
    if program:
        draw(claude_stills(cells, str(Path(program).resolve())), HERE / "claude.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
