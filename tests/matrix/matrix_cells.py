"""The delivery matrix: what is sent, in which state the recipient is, and what counts as right.

A cell is one message of one shape to one agent in one state. The ground truth is the recipient's own (the fake's log,
a transcript, a log of the lines read), never what the lab believes. Right is: delivered exactly once and whole, and
the lab says so; or not delivered, and the lab says so. Wrong is: accepted and not delivered, failed and delivered,
twice, damaged, typed into a dialog or a person's draft, or left without a word.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

STATES = ("idle", "busy", "dialog", "copy mode", "human draft", "just started", "dying")
SHAPES = (
    "one line",
    "200 lines",
    "100 kB",
    "wide",
    "controls",
    "ends in ;",
    "ends in \\",
    "starts with /",
    "starts with !",
    "starts with #",
    "starts with @",
    "empty",
)
BIG = "1 MB"
#: One line of 100 kB: more than a terminal that edits lines itself can take, so it must be refused.
LONG_LINE = "100 kB in a line"

_WORDS = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho".split()  # noqa: SIM905


def body(shape: str, tag: str, *, width: int = 12) -> str:
    """Return the text of a shape; the tag makes it unlike any other; `width` is the words of a line."""
    choose = random.Random(tag)  # noqa: S311 - the same text for the same tag

    def prose(size: int) -> str:
        lines, total = [f"{tag} begins"], 0
        while total < size:
            line = " " * choose.choice((0, 0, 2, 4)) + " ".join(choose.choices(_WORDS, k=width)) + str(len(lines))
            lines.append(line)
            total += len(line) + 1
        return "\n".join([*lines, f"{tag} ends"])

    bodies = {
        "one line": f"{tag} one line, no more",
        "200 lines": "\n".join(
            f"{tag} line {number}" if number % 7 else "" if 0 < number < 199 else f"{tag} edge" for number in range(200)
        ),
        "wide": f"{tag} 日本語のテキスト 한국어 👩‍👩‍👧 ﬁ ｆｕｌｌｗｉｄｔｈ e\u0301 ä ñ العربية 🇯🇵 end",
        "controls": f"{tag} a\x1b[201~b\r\x03c\x1b]0;t\x07d\x00e\x9b31mf\x7fg\x1a tab\there",
        "ends in ;": f"{tag} a command;",
        "ends in \\": f"{tag} a path\\",
        "starts with /": f"/{tag} is no command",
        "starts with !": f"!{tag} is no shell",
        "starts with #": f"#{tag} is no memory",
        "starts with @": f"@{tag} is no file",
        "empty": " \n\x1b",
    }
    if shape in bodies:
        return bodies[shape]
    if shape == LONG_LINE:
        return prose(100_000).replace("\n", " ")
    return prose({"100 kB": 100_000, BIG: 1_000_000}[shape])


@dataclass(frozen=True, slots=True)
class Truth:
    """What the recipient itself says came in since the cell began.

    ``prompts``: what it took, whole, in order. ``strays``: what was typed where no message belongs.
    """

    prompts: tuple[str, ...]
    strays: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell and how it ended."""

    kind: str
    state: str
    shape: str
    status: str
    verdict: str
    wrong: bool
    detail: str
    seconds: float


def judge(
    expected: str, status: str, error_type: str | None, truth: Truth, others: tuple[str, ...], *, dying: bool = False
) -> tuple[str, str]:
    """Return ("", verdict), or ("wrong", why); prompts in ``others`` came from elsewhere (a person, the set-up).

    One that is killed may have taken a part, when it reads line by line; that must be uncertain.
    """
    left = list(truth.prompts)
    for other in others:
        if other in left:
            left.remove(other)
    whole = [prompt for prompt in left if prompt.rstrip() == expected.rstrip()]
    rest = [prompt for prompt in left if prompt.rstrip() != expected.rstrip()]
    taken = status in {"accepted", "started", "answered"} or (error_type or "").startswith("turn_")
    if truth.strays:
        return "wrong", f"typed where it does not belong: {truth.strays[0][:60]!r}"
    if len(whole) > 1:
        return "wrong", f"delivered {len(whole)} times"
    if dying and not whole and status == "uncertain" and len(rest) == 1 and expected.startswith(rest[0]):
        return "", "in part, uncertain"
    if rest:
        return "wrong", f"damaged: {rest[0][:40]!r}…{rest[0][-40:]!r} ({len(rest[0])} of {len(expected)} characters)"
    if whole:
        if taken:
            return "", "delivered"
        if status == "uncertain":
            return "", "delivered, uncertain"
        return "wrong", f"delivered, but said to be {status}"
    if taken:
        return "wrong", f"said to be {status}, but never delivered"
    if status in {"refused", "expired", "failed"}:
        return "", f"not delivered, {status}"
    if status == "uncertain":
        return "", "not delivered, uncertain"
    return "wrong", f"neither delivered nor told: {status}"


def covering(states: tuple[str, ...], shapes: tuple[str, ...], shift: int) -> list[tuple[str, str]]:
    """Return cells that have each state and each shape; several shifts have each pair."""
    count = max(len(states), len(shapes))
    return [(states[(index + shift) % len(states)], shapes[index % len(shapes)]) for index in range(count)]
