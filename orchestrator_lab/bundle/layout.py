"""What a bundle is made of: names, parts, and what a name may be."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

__all__ = [
    "CHECKSUMS",
    "CRATE",
    "ENVIRONMENT",
    "FACTS",
    "FORMAT",
    "GENERATED",
    "INITIAL",
    "JOURNAL",
    "MANIFEST",
    "NOTEBOOK",
    "PARTS",
    "README",
    "SUFFIX",
    "TABLES",
    "fault_of_name",
    "is_bundle",
    "part_of",
]

#: How bundles are named.
SUFFIX = ".olab.zip"
#: Version of what is described here; raised when an older reader would misread a bundle.
FORMAT = 1

MANIFEST, JOURNAL, TABLES, INITIAL = "manifest.json", "journal.jsonl", "tables", "initial"
#: What is made at the export, beside the run's own files.
FACTS, README, CRATE = "bundle.json", "README.md", "ro-crate-metadata.json"
ENVIRONMENT, CHECKSUMS, NOTEBOOK = "environment.txt", "checksums.sha256", "notebook"
GENERATED = (README, FACTS, CRATE, ENVIRONMENT, CHECKSUMS)

#: The parts of a run that go into a bundle, in the order in which they are looked through, and what they are.
PARTS = {
    "manifest.json": "what was known when the run began: configuration, versions, platform",
    "config.yaml": "the configuration, secrets masked",
    "journal.jsonl": "every event, one JSON object a line: the run's record",
    "annotations.jsonl": "what analysts said of messages",
    "instructions": "what each agent was told",
    "sessions": "each agent's session and configuration",
    "transcripts": "the programs' own records of their sessions",
    "cassettes": "recorded answers of the models",
    "changes": "what each turn changed in its work folder",
    INITIAL: "the work folders as they were before any agent started",
    "panes": "recordings of the panes, asciicast v3",
}

_LONGEST_NAME, _LONGEST_PART = 1024, 255
_DRIVE = re.compile(r"[A-Za-z]:")
# Names that open a device on Windows, whatever their suffix.
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.IGNORECASE)


def is_bundle(path: str | os.PathLike[str]) -> bool:
    """Tell whether a path names a bundle: a file called ``*.zip``.

    Parameters
    ----------
    path : path-like
        Any path.

    Returns
    -------
    bool
        Whether it is in order is told when it is opened.

    Examples
    --------
    >>> is_bundle("/nonexistent.olab.zip")
    False
    """
    place = Path(path)
    return place.suffix.lower() == ".zip" and place.is_file()


def part_of(name: str) -> str:
    """Return the part of a run to which a file belongs.

    Examples
    --------
    >>> part_of("panes/boss.cast.zst"), part_of("journal.jsonl")
    ('panes', 'journal.jsonl')
    """
    return name.partition("/")[0]


def fault_of_name(name: str) -> str | None:
    r"""Return why a file of this name must not be unpacked, None when it may be.

    Examples
    --------
    >>> fault_of_name("panes/boss.cast.zst") is None
    True
    >>> fault_of_name("../.bashrc"), fault_of_name("/etc/passwd"), fault_of_name("a\\b")
    ('it leads out of its folder', 'it is absolute', 'it holds a backslash')
    """
    if name.startswith("/") or _DRIVE.match(name):
        return "it is absolute"
    if "\\" in name:
        return "it holds a backslash"
    if any(unicodedata.category(one) in {"Cc", "Cs", "Co", "Cn"} for one in name):
        return "it holds control characters"
    parts = name.split("/")
    if ".." in parts:
        return "it leads out of its folder"
    if "" in parts or "." in parts:
        return "it has an empty part"
    if len(name) > _LONGEST_NAME or any(len(part.encode()) > _LONGEST_PART for part in parts):
        return "it is too long"
    if any(_DEVICE.fullmatch(part) for part in parts):
        return "it names a device"
    return None
