"""The troubleshooting page: nothing that can go wrong is missing there, and nothing stands there that cannot."""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pages import DOCS, ROOT, anchors

from orchestrator_lab import errors

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = DOCS / "operations"
TROUBLE = FOLDER / "troubleshooting.md"
PACKAGE = Path(inspect.getfile(errors)).parent
#: What stands for a part of a sentence that varies.
HOLE = "\0"


# sentences in the code ----------------------------------------------------------------------------


def _trees() -> Iterator[tuple[Path, ast.Module]]:
    for file in sorted(PACKAGE.rglob("*.py")):
        yield file.relative_to(PACKAGE), ast.parse(file.read_text(encoding="utf-8"))


TREES = list(_trees())


def _texts(node: ast.expr | None, known: dict[str, list[ast.expr]]) -> list[str]:
    """Return the forms that a sentence may take, with holes; nothing when it is made elsewhere."""
    match node:
        case ast.Constant(value=str() as text):
            return [text]
        case ast.JoinedStr(values=values):
            return ["".join(_piece(one, known) for one in values)]
        case ast.IfExp(body=body, orelse=other):
            return [*_texts(body, known), *_texts(other, known)]
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            ends = _texts(right, known) or [HOLE]
            return [start + end for start in _texts(left, known) for end in ends]
        case ast.Name(id=name):
            return [text for value in known.get(name, []) for text in _texts(value, {})]
    return []


def _piece(node: ast.expr, known: dict[str, list[ast.expr]]) -> str:
    """Return a piece of a text: a hole, unless a constant stands there."""
    if isinstance(node, ast.FormattedValue) and isinstance(node.value, ast.Name):
        told = [one.value for one in known.get(node.value.id, []) if isinstance(one, ast.Constant)]
        return str(told[0]) if len(told) == 1 and isinstance(told[0], str) else HOLE
    return str(node.value) if isinstance(node, ast.Constant) else HOLE


def _assigned(tree: ast.AST) -> dict[str, list[ast.expr]]:
    found: dict[str, list[ast.expr]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found.setdefault(node.targets[0].id, []).append(node.value)
    return found


def _called(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")


CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, errors.OrchestratorLabError)
}


def _sentences() -> dict[str, str]:
    """Return each sentence that an error of the lab may have, and where it is made."""
    found = {}
    for file, tree in TREES:
        raised = {*CLASSES, "disk_error", *(["ValueError"] if file.parts[0] == "config" else [])}
        constants = {name: value for name, value in _assigned(tree).items() if name.isupper()}
        for function in (one for one in ast.walk(tree) if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)):
            known = constants | _assigned(function)
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and _called(node) in raised and node.args:
                    for text in _texts(node.args[0], known):
                        if len(re.sub(r"[^a-z]", "", text)) >= 8:
                            found[text] = f"{file}:{node.lineno}"
    return found


SENTENCES = _sentences()


def _spans(page: Path = TROUBLE) -> list[str]:
    """Return the messages in the tables of errors and notes."""
    text = page.read_text(encoding="utf-8").partition("\n## Errors\n")[2].partition("\n## What doctor finds\n")[0]
    cells = [line.split(" | ")[0].removeprefix("| ") for line in text.splitlines() if line.startswith("| `")]
    return [span for cell in cells for span in re.findall(r"`([^`]+)`", cell)]


def _says(span: str, sentence: str) -> bool:
    """Tell whether a message on the page, with its dots, is this sentence."""
    place = 0
    pieces = [piece.strip() for piece in span.split("…")]
    if len(re.sub(r"[^A-Za-z]", "", "".join(pieces))) < 6:
        return False
    for piece in pieces:
        place = sentence.find(piece, place)
        if place < 0:
            return False
        place += len(piece)
    return True


def test_every_error_message_has_its_cause_and_cure() -> None:
    spans = _spans()
    missing = [f"{where}: {text}" for text, where in SENTENCES.items() if not any(_says(one, text) for one in spans)]
    assert not missing, "add to docs/operations/troubleshooting.md and .ja.md:\n" + "\n".join(missing)


def test_every_error_message_on_the_page_exists() -> None:
    sources = "\n".join(file.read_text(encoding="utf-8") for file in PACKAGE.rglob("*.py"))
    joined = re.sub(r'"\s*\n\s*f?"', "", sources)
    stale = [
        span
        for span in _spans()
        if not any(_says(span, text) for text in SENTENCES)
        and not all(piece.strip() in joined for piece in re.split(r"…|\$\{NAME\}", span))
    ]
    assert not stale, stale


def test_every_class_of_error_has_its_section() -> None:
    headings = re.findall(r"^### `(\w+)`$", TROUBLE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(CLASSES) == sorted(name for name in headings if name in CLASSES)


def _error_types() -> set[str]:
    found: set[str] = set()
    for _, tree in TREES:
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg == "error_type":
                found.update(_texts(node.value, {}))
    # How turns end: each may end a message's exchange.
    found.discard(f"turn_{HOLE}")
    return {one for one in found if one and HOLE not in one}


def test_every_error_type_is_on_the_page() -> None:
    text = TROUBLE.read_text(encoding="utf-8")
    ends = {f"turn_{reason}" for reason in ("error", "interrupted", "limit", "exited", "unknown")}
    for name in _error_types() | ends:
        assert f"`{name}`" in text, name


def _alert_rules() -> set[str]:
    found: set[str] = set()
    for file, tree in TREES:
        module = {name: value for name, value in _assigned(tree).items() if name.isupper() or name.startswith("_")}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and node.args:
                of_alerts = isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value).endswith("alerts")
                if (_called(node) == "_say" and file.name == "monitor.py") or (_called(node) == "open" and of_alerts):
                    found.update(_texts(node.args[0], module))
    return found


def _all_alert_rules() -> set[str]:
    from orchestrator_lab.config import Limits

    found = _alert_rules()
    with contextlib.suppress(ImportError):
        found.update(importlib.import_module("orchestrator_lab.supervisor.health").AGENT_RULES)
    if f"guard_{HOLE}" in found:
        # A time to try again is no limit.
        found.update(f"guard_{name}" for name in Limits.model_fields if name != "retry_s")
    return {one for one in found if HOLE not in one}


@pytest.mark.parametrize("page", ["troubleshooting.md", "troubleshooting.ja.md", "monitoring.md", "monitoring.ja.md"])
def test_every_alert_rule_is_on_the_page(page: str) -> None:
    text = (FOLDER / page).read_text(encoding="utf-8")
    for rule in _all_alert_rules():
        assert f"`{rule}`" in text, rule


def test_every_check_of_doctor_is_on_the_page() -> None:
    text = TROUBLE.read_text(encoding="utf-8").partition("## What doctor finds")[2]
    calls = [
        node
        for file, tree in TREES
        if file.parts[0] == "doctor"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and _called(node) == "Finding"
    ]
    assert len(calls) > 20
    for node in calls:
        fine = isinstance(node.args[1], ast.Constant) and node.args[1].value == "ok"
        for name in _texts(node.args[0], {}):
            # A check that is always fine says so by another name ("clusters").
            assert fine or f"`{name}`" in text, name


def test_doctor_leads_to_its_section() -> None:
    from orchestrator_lab.cli.setup import DOCTOR_PAGE

    page, _, anchor = DOCTOR_PAGE.partition("#")
    assert anchor in anchors(ROOT / page)
