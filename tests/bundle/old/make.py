"""Make the old bundle of the present format: once, before the format or the schema changes.

    python tests/bundle/old/make.py

It is never made again: what an old version wrote is what later ones must read.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bundle_helpers import tell

from orchestrator_lab import frames
from orchestrator_lab.bundle import exporting
from orchestrator_lab.bundle.layout import FORMAT
from orchestrator_lab.run import Run
from orchestrator_lab.schema import SCHEMA_VERSION, TABLES

HERE = Path(__file__).parent
#: Of the machine that made it nothing is kept.
NEUTRAL = {"work_dir": "/home/ada/lab", "cwd": "/home/ada/lab", "git": {}, "platform": "Linux", "command": "start"}


def main() -> None:
    """Write the bundle and its tables."""
    bundle = HERE / f"format-{FORMAT}-schema-{SCHEMA_VERSION}.olab.zip"
    if bundle.exists():
        raise SystemExit(f"{bundle.name} is there")
    exporting.environment = lambda: "# Python 3.11 (CPython)\n"
    with tempfile.TemporaryDirectory() as folder:
        path = tell(Path(folder))
        manifest = json.loads((path / "manifest.json").read_text()) | NEUTRAL
        (path / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
        Run(path).export(bundle)
    tables = {}
    for table in TABLES:
        frame = getattr(frames, f"{table}_df")(bundle)
        tables[table] = json.loads(frame.to_json(orient="records", date_format="iso", date_unit="us"))
    bundle.with_suffix("").with_suffix(".json").write_text(json.dumps(tables, indent=1) + "\n")


if __name__ == "__main__":
    main()
