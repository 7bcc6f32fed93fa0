"""What tests of the documentation share: which pages there are, their blocks and their headings."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
#: Run, and checked, by test_operations.py.
OPERATIONS = sorted((DOCS / "operations").glob("*.md"))
#: The same commands and examples as their English pages have.
JAPANESE = [page for page in (ROOT / "README.ja.md", *OPERATIONS) if page.name.endswith(".ja.md")]
#: Beside the operations pages, these have a Japanese one; it stands with those.
TRANSLATED = [DOCS / "dashboard.md"]
PAGES = [ROOT / "README.md", ROOT / "README.ja.md", ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md")), *OPERATIONS]
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
#: A block with this word in its first line is shown and not run.
NOT_RUN = "no-run"


def blocks(page: Path, language: str) -> list[tuple[int, str, str]]:
    """Return line, first line and text of each block in a language."""
    text = page.read_text(encoding="utf-8")
    return [
        (text[: found.start()].count("\n") + 1, found[1], found[2])
        for found in FENCE.finditer(text)
        if found[1].split()[:1] == [language]
    ]


def prose(page: Path) -> str:
    """Return a page without its blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """Return what a link may name behind its #."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def label(page: Path) -> str:
    """Return a page's path from the root."""
    return page.relative_to(ROOT).as_posix()
