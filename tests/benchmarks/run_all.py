"""Run every benchmark and write the figures: ``make bench``.

    python tests/benchmarks/run_all.py [--quick] [--only NAME] [--write docs/benchmarks.md]

Run it on a machine that does nothing else. A benchmark that fails leaves the others standing, and the page says so.
Reports are kept in ``.benchmarks/``, so that ``--only`` renews one section of the page and keeps the others.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from _lab import spoken

_HERE = Path(__file__).parent
#: What is run, with the sentences that explain its table.
_BENCHES = {
    "bench_messages": (
        "Messages",
        """From `ask()` to acceptance (the program's own hook, as journalled) and to the reply of a scripted model that
answers at once. The baseline is the least that is correct: one asyncio loop that holds a tmux control client, pastes,
waits for Claude Code's echo, sends Enter and takes the hooks; no journal, no flush to the disk, no second process. Its
model is inside the same loop.""",
    ),
    "bench_turn_end": (
        "End of a turn to the reply in the caller",
        "The baseline asks the pane every 0.5 s for a watchword, as orchestrator-cc does.",
    ),
    "bench_record": (
        "Recording",
        """The same agents in mode `record` and in mode `live`, the baseline, in turns. The model answers at once; with
one that thinks the share is smaller.""",
    ),
    "bench_replay": (
        "Replays on the terminal",
        """Recorded runs, replayed from beginning to end as fast as it can be; the baseline is the time that the run
itself took. Each replay came out the same, or the benchmark would have failed.""",
    ),
    "bench_exit": (
        "End of an agent",
        """The baseline asks tmux once a second whether the pane is dead and how. The lab's time is that of the event
`agent.exited`, with the signal, in the journal.""",
    ),
    "bench_start": (
        "Start of Claude agents",
        """The baseline is a shell script that starts the same number of bare `claude` processes side by side, with the
same settings and hooks, in panes of a tmux server that runs already. Ready means the same on both sides: SessionStart
has come and bracketed-paste mode is on.""",
    ),
    "bench_cpu": (
        "Processor time",
        """Percent of one core for supervisor, keeper and tmux together. The baseline is a bare tmux server with the
same panes over the same seconds.""",
    ),
    "bench_view": (
        "Live view in a notebook",
        """A JupyterLab in a headless Chromium shows 12 panes that write 10 lines a second each. A line's delay is from
the program's write to the frame in which its terminal was painted. The baseline of a cell's round trip is the same
notebook with its view closed, in turns, while the panes go on writing.""",
    ),
    "bench_import": ("Import and help", "The baseline is `python -c pass`."),
    "bench_journal": ("Journal", "Each line names its baseline."),
    "bench_tables": (
        "Tables of long runs",
        """Runs of five agents that talk, as the journal's own writer writes them: 16 events and 5.5 kB a message. Each
read is a process of its own, with its libraries loaded and the files in the page cache; the memory is what it adds.""",
    ),
    "bench_bundle": (
        "Bundles",
        """A run of 100 000 messages with 100 MB of recordings. The export masks what is private and makes the tables
anew from the masked journal, which no zip does; what remains of it without both stands in a line of its own.""",
    ),
    "bench_tmux": (
        "tmux driver",
        """The baseline is libtmux on the same panes (and asking every 250 ms where something has to be noticed). Here
the ratio says how many times faster the driver is.""",
    ),
}


#: Where the last report of each benchmark is kept.
_KEPT = _HERE.parents[1] / ".benchmarks"


def run(name: str, *, quick: bool) -> dict[str, Any] | str:
    """Run one benchmark in a process of its own; return its report, or why there is none."""
    _KEPT.mkdir(exist_ok=True)
    out = _KEPT / f"{name}.json"
    out.unlink(missing_ok=True)
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, str(_HERE / f"{name}.py"), "--json", str(out), *(["--quick"] if quick else [])]
    done = subprocess.run(command, env=environ, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode or not out.exists():
        sys.stderr.write(done.stderr)
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return re.sub(r"(/[\w.-]+){2,}", "…", last)
    return dict(json.loads(out.read_text(encoding="utf-8")))


def kept(name: str) -> dict[str, Any] | None:
    """Return the last report of a benchmark, None when there is none."""
    try:
        return dict(json.loads((_KEPT / f"{name}.json").read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def table(report: dict[str, Any]) -> list[str]:
    """Return a report as a Markdown table."""
    if "ratios" in report:
        lines = ["| | libtmux | driver | times faster | 95 % interval | goal | |", "|---|--:|--:|--:|--:|--:|---|"]
        for row in report["ratios"]:
            goal = "" if row["target"] is None else f"≥ {row['target']:g} ×, {'met' if row['met'] else '**missed**'}"
            times = f"{spoken(row['baseline_s'])} | {spoken(row['ours_s'])}"
            interval = f"{row['low']:.1f} – {row['high']:.1f}"
            lines.append(f"| {row['name']} | {times} | {row['ratio']:.1f} | {interval} | {goal} | {row['note']} |")
        return lines
    lines = ["| | baseline | lab | lab / baseline | 95 % interval | rounds | goal | |"]
    lines.append("|---|--:|--:|--:|--:|--:|---|---|")
    for row in report["figures"]:
        base = "" if row["baseline"] is None else spoken(row["baseline"], row["unit"])
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.3g}"
        interval = "" if row["low"] is None else f"{row['low']:.3g} – {row['high']:.3g}"
        goal = row["goal"].replace(" x", " ×")
        verdict = "" if row["met"] is None else f"{goal}, {'met' if row['met'] else '**missed**'}"
        ours = spoken(row["ours"], row["unit"])
        cells = [row["name"], base, ours, ratio, interval, str(row["rounds"]), verdict, row["note"]]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def page(reports: dict[str, dict[str, Any] | str], *, quick: bool) -> str:
    """Return the whole page."""
    told = [report["about"] for report in reports.values() if not isinstance(report, str)]
    facts = max(told, key=len) if told else {}
    lines = [
        "# Benchmarks",
        "",
        "Made by `make bench`; do not edit. What is reported is a ratio: baseline and lab take turns in one run, in",
        "a new random order each round, so both meet the same machine. Times are medians, the interval is the 95 %",
        "bootstrap interval of the ratio of medians. The programs are real, the model is a script that answers at",
        "once, nothing leaves the machine.",
        "",
        *[f"- {key}: {value}" for key, value in facts.items() if key not in {"at", "load"}],
    ]
    if quick:
        lines += ["", "This is a **quick** run with few rounds: its intervals are wide."]
    for name, report in reports.items():
        title, text = _BENCHES[name]
        lines += ["", f"## {title}", "", f"{text} (`tests/benchmarks/{name}.py`)", ""]
        if isinstance(report, str):
            lines.append(f"It did not finish: `{report}`")
            continue
        load = report["about"].get("load")
        lines += table(report)
        if load is not None:
            lines += ["", f"{report['about']['at']}; load of the machine when it began: {load}."]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", action="append", choices=list(_BENCHES))
    parser.add_argument("--again", action="store_true", help="measure nothing: write the page from the kept reports")
    parser.add_argument("--write", type=Path, help="write the page here")
    args = parser.parse_args()
    reports: dict[str, dict[str, Any] | str] = {}
    for name in _BENCHES:
        if not args.again and name in (args.only or _BENCHES):
            print(f"== {name}", flush=True)
            reports[name] = run(name, quick=args.quick)
        elif (report := kept(name)) is not None:
            reports[name] = report
    if args.write is not None:
        args.write.parent.mkdir(exist_ok=True)
        args.write.write_text(page(reports, quick=args.quick), encoding="utf-8")
        print(f"wrote {args.write}")
    return 1 if any(isinstance(report, str) for report in reports.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
