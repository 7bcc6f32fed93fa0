# ruff: noqa: INP001 - a script beside what it makes
"""Make the pictures of ``docs/plots.md``: ``python docs/plots.py``.

They show a run that the real journal writer recorded from a seeded story (``tests/recorded_run.py``), so they are the
same each time, and need no agents.
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from recorded_run import FIVE, write_run  # noqa: E402 - below the path that it needs

from orchestrator_lab import open_run  # noqa: E402
from orchestrator_lab import plots as p  # noqa: E402

if TYPE_CHECKING:
    from matplotlib.axes import Axes

IMAGES = ROOT / "docs" / "images"
#: Bytes that a picture may have at most.
LARGEST = 60_000


def draw(folder: Path) -> dict[str, Axes]:
    """Return the axes of each picture by its name."""
    run = open_run(write_run(folder / "five"))
    short = open_run(write_run(folder / "short", rounds=1, seed=11))
    for repeat in range(6):
        for topology, pace in (("ring", 1.0), ("star", 1.3)):
            params: dict[str, Any] = {"topology": topology, "repeat": repeat}
            write_run(folder / "runs", agents=FIVE[:3], rounds=2, seed=repeat, pace=pace, params=params)
    return {
        "timeline": p.plot_timeline(run),
        "messages": p.plot_messages(short),
        "matrix": p.plot_matrix(run),
        "network": p.plot_network(run),
        "latency": p.plot_latency(run),
        "latency-agents": p.plot_latency(run, by="agent"),
        "tokens": p.plot_tokens(run),
        "tokens-agents": p.plot_tokens(run, stack="agent"),
        "tokens-classes": p.plot_tokens(run, stack="class"),
        "cost": p.plot_cost(run),
        "tools": p.plot_tools(run),
        "states": p.plot_states(run),
        "runs": p.compare_runs(folder / "runs", by="topology", pair="repeat"),
    }


def main() -> None:
    """Write them all, in 256 colours each."""
    mpl.use("agg")
    with tempfile.TemporaryDirectory() as folder:
        for name, axes in draw(Path(folder)).items():
            whole = io.BytesIO()
            axes.figure.savefig(whole, format="png", dpi=120)
            file = IMAGES / f"plot-{name}.png"
            small = Image.open(whole).convert("RGB").quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
            small.save(file, optimize=True)
            size = file.stat().st_size
            print(f"{file.name}: {size} bytes")  # noqa: T201 - a script
            if size > LARGEST:
                raise SystemExit(f"{file.name} has {size} bytes, at most {LARGEST} are wanted")
        plt.close("all")


if __name__ == "__main__":
    main()
