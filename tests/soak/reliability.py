"""Kill everybody everywhere, send ten thousand messages while everybody is killed and ten thousand while nobody is.

``python tests/soak/reliability.py [--parts faults,kills,steady] [--messages 10000] [--seed N]
[--kinds fake,chat,claude,codex] [--out docs/reliability.md]``. Each part's figures are kept in
``build/reliability.json``, with what they were made of, so that parts may be run one by one; the page is written from
those that are there. It ends with status 1 when a message was lost, doubled or left unexplained, or when memory grew.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE))

import soak_messages  # noqa: E402
from fault_rig import VICTIMS, ChatRig, ClaudeRig, CodexRig, FakeRig, Rig  # noqa: E402

from orchestrator_lab import __version__  # noqa: E402
from orchestrator_lab.supervisor.steps import STEPS  # noqa: E402
from orchestrator_lab.tmux import find_tmux  # noqa: E402

KEPT = ROOT / "build" / "reliability.json"
CLAUDE = HERE.parent / "agents" / "node_modules" / ".bin" / "claude"
CODEX = CLAUDE.with_name("codex")
KINDS = ("fake", "chat", "claude", "codex")
PARTS = ("faults", "kills", "steady")
#: How much more memory than at the thousandth message is flat, and where the thousandth is in a shorter run.
FLAT = 1.10


def git(*words: str) -> str:
    return subprocess.run(["git", "-C", str(ROOT), *words], check=False, capture_output=True, text=True).stdout.strip()


def made_of() -> dict[str, Any]:
    dirty = ", changed" if git("status", "--porcelain", "-uno", "--", "orchestrator_lab") else ""
    return {
        "made": f"orchestrator-lab {__version__} ({git('rev-parse', '--short', 'HEAD')}{dirty}), "
        f"Python {platform.python_version()}, tmux {find_tmux().version}; {platform.system()} {platform.machine()}, "
        f"{os.cpu_count()} processors; {time.strftime('%Y-%m-%d', time.gmtime())}",
    }


# the parts ----------------------------------------------------------------------------------------


def faults(kind: str, *, every: int = 1) -> dict[str, Any]:
    """Kill each at each step of a kind."""
    rigs: dict[str, Any] = {
        "fake": FakeRig,
        "chat": ChatRig,
        "claude": lambda: ClaudeRig(os.environ.get("ORCHESTRATOR_LAB_TEST_CLAUDE") or str(CLAUDE)),
        "codex": lambda: CodexRig(os.environ.get("ORCHESTRATOR_LAB_TEST_CODEX") or str(CODEX)),
    }
    cases: list[dict[str, Any]] = []
    began = time.monotonic()
    rig: Rig = rigs[kind]()
    try:
        # A step with all its victims: the same one is not killed again at once.
        for step in rig.steps[::every]:
            for victim in VICTIMS:
                case = rig.run(step, victim)
                cases.append(dataclasses.asdict(case))
                if case.problem:
                    print(f"WRONG {kind} × {step} × {victim}: {case.status}: {case.problem}", flush=True)
    finally:
        rig.close()
    print(f"{kind}: {sum(bool(one['problem']) for one in cases)} wrong of {len(cases)}", flush=True)
    return {"seconds": time.monotonic() - began, "cases": cases, **made_of()}


def soak(count: int, seed: int, *, kills: bool) -> dict[str, Any]:
    """Send so many messages."""
    done = soak_messages.run(count, seed=seed, kills=kills, timeout_s=3600.0)
    found = done.account
    for problem in found.problems:
        print(f"WRONG {problem}", flush=True)
    return {
        "asked": count,
        "seed": seed,
        "seconds": done.seconds,
        "messages": found.messages,
        "kills": dict(done.kills),
        "rungs": dict(found.rungs),
        "reasons": dict(found.reasons),
        "lost": found.lost,
        "doubled": found.doubled,
        "unexplained": found.unexplained,
        "samples": done.samples,
        **made_of(),
    }


# the page -----------------------------------------------------------------------------------------


HEAD = """\
# Reliability, measured

Written by `make faults` and `make soak`. The truth is never the lab's own record: it is what the programs themselves
wrote down of what they took.
"""

FAULTS = """\
## Kill -9 at every step of the ladder

{count} faults in {minutes:.0f} minutes: **{lost} lost, {doubled} doubled, {unexplained} unexplained**.

The supervisor is held at a step (see [contributing](contributing.md#faults)), somebody is killed, and the message is
followed to its end, together with the answer that is forwarded to its sender. A cell says how it ended:

| mark | meaning |
|---|---|
| ✓ | taken once, and answered |
| ✓× | taken once; the turn ended with its program, and is said to have failed |
| ✓? | taken once, and said to be uncertain |
| ? | not taken, and said to be uncertain |
| told | not taken, and said to have failed: nothing was typed |
"""

KILLS = """\
## Messages while everybody is killed

{messages} messages among eight chat agents on the script gateway (sends, broadcasts, agents that ask each other and get
the answer typed, conversations) in {minutes:.0f} minutes, {rate:.0f} a second, while kill -9 fell {times} times:
{kills} (seed {seed}).

**{lost} lost, {doubled} doubled, {unexplained} unexplained**: {rungs}.

| end without an answer | messages |
|---|---|
{reasons}

{made}.
"""

STEADY = """\
## Memory and speed while nobody is killed

{messages} messages in {minutes:.0f} minutes, {rate:.0f} a second. From message {first} to the last the supervisor's
memory became {supervisor:.2f} times as large, the keeper's {keeper:.2f} times (flat is up to {flat:.2f}). How many
messages pass in a second depends on what else the machine does; the supervisor's own time for each does not.

| messages | a second, since the last row | supervisor's CPU for each | memory of supervisor | of keeper |
|---|---|---|---|---|
{rows}

{made}.
"""


def page(kept: dict[str, Any]) -> str:
    parts = [HEAD]
    if _kinds(kept):
        parts.append(_faults(_kinds(kept)))
    if "kills" in kept:
        parts.append(_kills(kept["kills"]))
    if "steady" in kept:
        parts.append(_steady(kept["steady"]))
    return "\n".join(parts).rstrip() + "\n"


def _kinds(kept: dict[str, Any]) -> list[dict[str, Any]]:
    return [kept[f"faults {kind}"] for kind in KINDS if f"faults {kind}" in kept]


def _faults(kinds: list[dict[str, Any]]) -> str:
    cases = [one for part in kinds for one in part["cases"]]
    count = Counter(one["problem"].split(":", 1)[0] for one in cases if one["problem"])
    lines = [
        FAULTS.format(
            count=len(cases),
            minutes=sum(part["seconds"] for part in kinds) / 60,
            lost=count["lost"],
            doubled=count["doubled"],
            unexplained=count["unexplained"],
        )
    ]
    for kind in dict.fromkeys(one["kind"] for one in cases):
        found = {(one["step"], one["victim"]): one for one in cases if one["kind"] == kind}
        made = next(part["made"] for part in kinds if part["cases"][0]["kind"] == kind)
        lines += [
            f"### {kind}",
            "",
            f"{made}.",
            "",
            f"| step | {' | '.join(VICTIMS)} |",
            "|---" * (len(VICTIMS) + 1) + "|",
        ]
        for step in (one for one in STEPS if (one, VICTIMS[0]) in found):
            row = " | ".join(_mark(found[step, victim]) if (step, victim) in found else "" for victim in VICTIMS)
            lines.append(f"| {step.replace('_', ' ')} | {row} |")
        lines.append("")
    return "\n".join(lines)


def _mark(case: dict[str, Any]) -> str:
    if case["problem"]:
        return f"**✗ {case['problem'].split(':', 1)[0]}**"
    status, taken = case["status"], case["taken"]
    if status.startswith("answered"):
        return "✓"
    if status.startswith("uncertain"):
        return "✓?" if taken else "?"
    if status.startswith("failed"):
        return "✓×" if taken else "told"
    return status.split(" ")[0]


def _kills(part: dict[str, Any]) -> str:
    def most(counts: dict[str, int]) -> list[tuple[str, int]]:
        return sorted(counts.items(), key=lambda one: -one[1])

    return KILLS.format(
        messages=part["messages"],
        minutes=part["seconds"] / 60,
        rate=part["messages"] / part["seconds"],
        times=sum(part["kills"].values()),
        kills=", ".join(f"{who} {count} times" for who, count in most(part["kills"])),
        seed=part["seed"],
        lost=len(part["lost"]),
        doubled=len(part["doubled"]),
        unexplained=len(part["unexplained"]),
        rungs=", ".join(f"{count} {what}" for what, count in most(part["rungs"])),
        reasons="\n".join(f"| {why} | {count} |" for why, count in most(part["reasons"])),
        made=part["made"],
    )


def at(samples: list[list[float]], messages: int) -> list[float]:
    """Return the first sample with so many messages, or the last."""
    return next((one for one in samples if one[0] >= messages), samples[-1])


def growth(part: dict[str, Any]) -> list[float]:
    """Return by what the memory of supervisor and keeper grew from the first tenth on."""
    first = at(part["samples"], part["asked"] // 10)
    return [part["samples"][-1][index] / first[index] for index in (2, 3)]


def _steady(part: dict[str, Any]) -> str:
    grown = growth(part)
    steps = [part["asked"] * number // 10 for number in range(1, 11)]
    chosen = [at(part["samples"], step) for step in steps]
    rows = []
    for last, one in zip([part["samples"][0], *chosen], chosen, strict=False):
        rate = (one[0] - last[0]) / (one[1] - last[1]) if one[1] > last[1] else 0.0
        cpu_ms = 1e3 * (one[4] - last[4]) / max(1, one[0] - last[0])
        memory = f"{one[2] / 1e6:.1f} MB | {one[3] / 1e6:.1f} MB"
        rows.append(f"| {one[0]:.0f} | {rate:.0f} | {cpu_ms:.1f} ms | {memory} |")
    return STEADY.format(
        messages=part["messages"],
        minutes=part["seconds"] / 60,
        rate=part["messages"] / part["seconds"],
        first=steps[0],
        supervisor=grown[0],
        keeper=grown[1],
        flat=FLAT,
        rows="\n".join(rows),
        made=part["made"],
    )


def wrong(kept: dict[str, Any], parts: list[str]) -> bool:
    bad = "faults" in parts and any(one["problem"] for part in _kinds(kept) for one in part["cases"])
    for part in ("kills", "steady"):
        bad = bad or (part in parts and any(kept[part][what] for what in ("lost", "doubled", "unexplained")))
    return bad or ("steady" in parts and max(growth(kept["steady"])) > FLAT)


def keep(part: str, found: dict[str, Any]) -> None:
    """Keep a part's figures beside the others', which may be made at the same time."""
    kept = {**(json.loads(KEPT.read_text()) if KEPT.exists() else {}), part: found}
    KEPT.parent.mkdir(exist_ok=True)
    KEPT.write_text(json.dumps(kept))


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--parts", default=",".join(PARTS))
    options.add_argument("--messages", type=int, default=10_000)
    options.add_argument("--seed", type=int, default=time.time_ns() % 100_000)
    options.add_argument("--kinds", default=",".join(KINDS))
    options.add_argument("--every", type=int, default=1, help="take every nth step only")
    options.add_argument("--out", type=Path, default=ROOT / "docs" / "reliability.md")
    chosen = options.parse_args()
    parts = chosen.parts.split(",")
    os.environ["ORCHESTRATOR_RUNTIME_DIR"] = tempfile.mkdtemp(prefix="r")
    for part in parts:
        if part == "faults":
            for kind in chosen.kinds.split(","):
                keep(f"faults {kind}", faults(kind, every=chosen.every))
        else:
            keep(part, soak(chosen.messages, chosen.seed, kills=part == "kills"))
    kept = json.loads(KEPT.read_text())
    chosen.out.write_text(page(kept), encoding="utf-8")
    print(f"written: {chosen.out}")
    return int(wrong(kept, parts))


if __name__ == "__main__":
    sys.exit(main())
