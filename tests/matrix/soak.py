"""Run the whole delivery matrix three times, every cell of every kind, and write docs/delivery.md.

``python tests/matrix/soak.py [--rounds 3] [--kinds fake,program,chat] [--out docs/delivery.md]``. It ends with status 1
when a cell was wrong; the page is written either way.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE))

import matrix_rigs as rigs  # noqa: E402
from matrix_cells import BIG, LONG_LINE, SHAPES, STATES, Cell  # noqa: E402

from orchestrator_lab import __version__  # noqa: E402
from orchestrator_lab.tmux import find_tmux  # noqa: E402

AGENTS = HERE.parent / "agents" / "node_modules" / ".bin"
KINDS = ("claude", "codex", "chat", "program", "fake", "fake, silent")


def make(kind: str) -> rigs.Rig:
    place = rigs.folder()
    if kind == "claude":
        return rigs.ClaudeRig(place, command=os.environ.get("ORCHESTRATOR_LAB_TEST_CLAUDE") or str(AGENTS / "claude"))
    made = {
        "codex": rigs.CodexRig,
        "chat": rigs.ChatRig,
        "program": rigs.ProgramRig,
        "fake": rigs.FakeRig,
        "fake, silent": rigs.SilentFakeRig,
    }
    return made[kind](place)


def run(kind: str, found: list[Cell], versions: dict[str, str], number: int) -> None:
    rig = make(kind)
    rig.count = number  # what every other cell does differently changes from round to round
    rig.start()
    try:
        for state in rig.states:
            for shape in rig.shapes:
                cell = rig.run(state, shape)
                found.append(cell)
                if cell.wrong:
                    print(f"WRONG {kind} × {state} × {shape}: {cell.status}: {cell.verdict}\n{cell.detail}", flush=True)
        with contextlib.suppress(Exception):  # a version that is not told is left out
            row = rig.cluster.run.agents.iloc[0]
            if kind in {"claude", "codex"} and row["program_version"] == row["program_version"]:
                versions[str(row["program"])] = str(row["program_version"])
    finally:
        rig.close()


def guarded(kind: str, found: list[Cell], versions: dict[str, str], number: int, lost: list[str]) -> None:
    """Run one kind; a kind that cannot be run is no success."""
    try:
        run(kind, found, versions, number)
    except Exception as error:  # noqa: BLE001 - told at the end
        lost.append(f"{kind}, round {number + 1}: {error}")


def mark(cells: list[Cell]) -> str:
    """Return a cell of the table: how its rounds ended."""
    if not cells:
        return ""
    wrong = sum(one.wrong for one in cells)
    if wrong:
        return f"**✗ {wrong}/{len(cells)}**"
    words = {
        "delivered": "✓",
        "delivered, uncertain": "✓?",
        "in part, uncertain": "½?",
        "not delivered, expired": "held",
        "not delivered, failed": "told",
        "not delivered, refused": "refused",
        "not delivered, uncertain": "?",
    }
    seen = collections.Counter(words.get(one.verdict, one.verdict) for one in cells)
    return " ".join(sorted(seen))


def git(*words: str) -> str:
    return subprocess.run(["git", "-C", str(ROOT), *words], check=False, capture_output=True, text=True).stdout.strip()


def page(found: list[Cell], rounds: int, seconds: float, versions: dict[str, str]) -> str:
    commit = git("rev-parse", "--short", "HEAD")
    dirty = git("status", "--porcelain", "-uno")
    wrong = sum(one.wrong for one in found)
    at = collections.defaultdict(list)
    for one in found:
        at[one.kind, one.state, one.shape].append(one)
    versions = {"Python": platform.python_version(), "tmux": find_tmux().version, **versions}
    made_by = ", ".join(f"{name} {version}" for name, version in versions.items())
    text = f"""\
# Delivery, measured

Written by `make soak`: {len(at)} cells, each {"once" if rounds == 1 else f"{rounds} times"}, {len(found)} messages in
{seconds / 60:.0f} minutes, **{wrong} wrong**.

A cell is one message of one shape to one agent in one state. The truth is the recipient's own: the log of a program
made for this (`tests/fake_agent`), the transcripts of Claude Code and the chat program, the rollout of Codex, the lines
that a program read. Wrong is: accepted and not delivered, failed and delivered, delivered twice or damaged, typed into
a dialog or into a person's draft, or left without a word.

| mark | meaning |
|---|---|
| ✓ | delivered once and whole, and said to be |
| held | not delivered while a dialog or a draft stood in the way: nothing was typed, and the message expired |
| told | not delivered, and said to have failed: the program ended first, or the text does not fit its terminal |
| refused | an empty message is not taken in |
| ? | killed in the middle: not delivered, and said to be uncertain |
| ✓? | killed in the middle: delivered, and said to be uncertain |
| ½? | killed in the middle, line by line: a part was read, and said to be uncertain |

In the states *dialog* and *human draft* every other message finds its way cleared after a moment, and goes in.

orchestrator-lab {__version__} ({commit}{", changed" if dirty else ""}), {made_by}; {platform.system()}
{platform.machine()}, {os.cpu_count()} processors; {time.strftime("%Y-%m-%d", time.gmtime())}.
"""
    lines = [text]
    for kind in dict.fromkeys(one.kind for one in found):
        shapes = [shape for shape in (*SHAPES, BIG, LONG_LINE) if any(key[0] == kind and key[2] == shape for key in at)]
        states = [state for state in STATES if any(key[:2] == (kind, state) for key in at)]
        lines += [f"## {kind}", "", f"| | {' | '.join(states)} |", "|---" * (len(states) + 1) + "|"]
        for shape in shapes:
            row = " | ".join(mark(at[kind, state, shape]) for state in states)
            lines.append(f"| {shape.replace('|', chr(92) + '|')} | {row} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--kinds", default=",".join(kind for kind in KINDS if "," not in kind) + ",silent")
    options.add_argument("--out", type=Path, default=ROOT / "docs" / "delivery.md")
    chosen = options.parse_args()
    wanted = {"fake, silent" if kind == "silent" else kind for kind in chosen.kinds.split(",")}
    os.environ["ORCHESTRATOR_RUNTIME_DIR"] = tempfile.mkdtemp(prefix="r")
    found: list[Cell] = []
    versions: dict[str, str] = {}
    lost: list[str] = []
    began = time.monotonic()
    for number in range(chosen.rounds):
        # All kinds at once: mostly they wait.
        threads = [
            threading.Thread(target=guarded, args=(kind, found, versions, number, lost))
            for kind in KINDS
            if kind in wanted
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(f"round {number + 1}: {sum(one.wrong for one in found)} wrong of {len(found)}", flush=True)
    order = {kind: index for index, kind in enumerate(KINDS)}
    found.sort(key=lambda one: order[one.kind])
    chosen.out.write_text(page(found, chosen.rounds, time.monotonic() - began, versions), encoding="utf-8")
    print(f"written: {chosen.out}")
    for what in lost:
        print(f"LOST {what}")
    return int(bool(lost) or any(one.wrong for one in found))


if __name__ == "__main__":
    sys.exit(main())
