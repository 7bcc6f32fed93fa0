"""What a bundle says of itself: an RO-Crate for machines, a page for people, the packages it was made with.

References
----------
RO-Crate 1.1, https://www.researchobject.org/ro-crate/specification/1.1/ ; Process Run Crate 0.5,
https://www.researchobject.org/workflow-run-crate/profiles/process_run_crate/
"""

from __future__ import annotations

import json
import mimetypes
import platform
import re
from datetime import UTC, datetime
from importlib import metadata
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from orchestrator_lab.bundle.layout import CHECKSUMS, CRATE, ENVIRONMENT, FACTS, NOTEBOOK, PARTS, README, part_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["crate", "environment", "readme"]

_ROCRATE = "https://w3id.org/ro/crate/1.1"
_PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
_LAB = "https://pypi.org/project/orchestrator-lab/"
_STATUS = {"completed": "CompletedActionStatus", "failed": "FailedActionStatus", "cancelled": "FailedActionStatus"}
#: Where each kind of program comes from; of others nothing is known.
_ORIGINS = {
    "claude": "https://www.npmjs.com/package/@anthropic-ai/claude-code",
    "codex": "https://www.npmjs.com/package/@openai/codex",
    "chat": _LAB,
    "replay": _LAB,
}
_FORMATS = {
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".md": "text/markdown",
    ".yaml": "application/yaml",
    ".parquet": "application/vnd.apache.parquet",
    ".zst": "application/zstd",
    ".cast": "application/x-asciicast",
    ".ipynb": "application/x-ipynb+json",
    ".patch": "text/x-diff",
    ".txt": "text/plain",
    ".sha256": "text/plain",
}
_WHAT = {
    "tables": "the tables of the run, made of its journal",
    NOTEBOOK: "the notebook that came with the run",
    FACTS: "what this bundle is: format, versions, what was left out and masked",
    README: "what this bundle is, for people",
    ENVIRONMENT: "the Python packages with which it was exported",
    CHECKSUMS: "SHA-256 of every file",
}


def environment() -> str:
    """Return the Python packages of this process, as pip takes them.

    Returns
    -------
    str
        One a line, in order, under a line that names the Python.

    Examples
    --------
    >>> environment().startswith("# Python 3.")
    True
    """
    found: dict[str, str] = {}
    for one in metadata.distributions():
        # The head of the file is enough: to have it parsed whole takes a second where many are installed.
        head = (one.read_text("METADATA") or one.read_text("PKG-INFO") or "").partition("\n\n")[0]
        told = {key: value.strip() for key, _, value in (line.partition(":") for line in head.splitlines())}
        if "Name" in told and "Version" in told:
            found.setdefault(re.sub(r"[-_.]+", "-", told["Name"]).lower(), told["Version"])
    lines = [f"# Python {platform.python_version()} ({platform.python_implementation()})"]
    return "\n".join([*lines, *(f"{name}=={found[name]}" for name in sorted(found))]) + "\n"


def crate(
    files: Iterable[str],
    *,
    run: Mapping[str, Any],
    agents: Sequence[Mapping[str, Any]],
    name: str,
    package_version: str,
) -> str:
    """Return ``ro-crate-metadata.json``: a Process Run Crate of the run.

    Parameters
    ----------
    files : iterable of str
        Everything in the bundle but this.
    run : mapping
        The run's row of the runs table; instants as ISO 8601.
    agents : sequence of mapping
        Rows of the agents table.
    name : str
        Of the cluster.
    package_version : str
        Version of orchestrator-lab that recorded the run.

    Returns
    -------
    str
        JSON-LD.
    """
    listed = [one for one in files if one != CRATE]
    run_id = str(run["run_id"])
    action_id = f"#{run_id}"
    ended = run.get("ended_at") or run.get("started_at") or "1980-01-01T00:00:00Z"
    programs = _programs(agents)
    action: dict[str, Any] = {
        "@id": action_id,
        "@type": "CreateAction",
        "name": f"Run {run_id} of cluster {name}",
        "description": f"{len(agents)} interactive agents wrote to each other in terminal panes",
        "instrument": [{"@id": one["@id"]} for one in [_lab(package_version), *programs]],
        "object": [{"@id": quote(one)} for one in listed if part_of(one) in {"config.yaml", "instructions", "initial"}],
        "result": [
            {"@id": one}
            for one in listed
            if part_of(one) in {"journal.jsonl", "tables", "panes", "transcripts", "changes", "cassettes"}
        ],
    }
    for key, column in (("startTime", "started_at"), ("endTime", "ended_at")):
        if run.get(column):
            action[key] = _instant(run[column])
    status = _STATUS.get(str(run.get("status")))
    if status is not None:
        action["actionStatus"] = f"http://schema.org/{status}"
    if run.get("error_message"):
        action["error"] = str(run["error_message"])
    graph: list[dict[str, Any]] = [
        {
            "@id": CRATE,
            "@type": "CreativeWork",
            "about": {"@id": "./"},
            "conformsTo": {"@id": _ROCRATE},
        },
        {
            "@id": "./",
            "@type": "Dataset",
            "name": f"{name}: {run_id}",
            "description": f"The record of run {run_id} of the cluster {name}, made by Orchestrator Lab",
            "datePublished": _instant(ended),
            "license": {"@id": "#licence"},
            "conformsTo": {"@id": _PROFILE},
            "hasPart": [{"@id": quote(one)} for one in listed],
            "mentions": {"@id": action_id},
        },
        {
            "@id": "#licence",
            "@type": "CreativeWork",
            "name": "No licence is stated",
            "description": "Ask whoever gave you this bundle what you may do with it.",
        },
        {"@id": _PROFILE, "@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"},
        _lab(package_version),
        *programs,
        action,
        *(_file(one) for one in listed),
    ]
    document = {"@context": f"{_ROCRATE}/context", "@graph": graph}
    return json.dumps(document, ensure_ascii=False, indent=1) + "\n"


def _lab(version: str) -> dict[str, Any]:
    return {
        "@id": _LAB,
        "@type": "SoftwareApplication",
        "name": "Orchestrator Lab",
        "softwareVersion": version,
        "url": _LAB,
    }


def _programs(agents: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the programs that the agents were, each once."""
    found: dict[str, dict[str, Any]] = {}
    for agent in agents:
        name = str(agent.get("program") or agent.get("kind") or "program")
        version, origin = agent.get("program_version"), _ORIGINS.get(str(agent.get("kind")))
        mark = re.sub(r"[^A-Za-z0-9.]+", "-", f"{name}-{version or 'unknown'}")
        key = f"#program-{mark}" if origin is None else f"{origin}#{mark}"
        found[key] = {"@id": key, "@type": "SoftwareApplication", "name": name}
        found[key] |= {"softwareVersion": str(version)} if version else {}
        found[key] |= {"url": origin} if origin else {}
    return list(found.values())


def _file(name: str) -> dict[str, Any]:
    suffix = "." + name.rpartition(".")[2]
    part = part_of(name)
    told = {"@id": quote(name), "@type": "File", "name": name.rpartition("/")[2]}
    if what := PARTS.get(part) or _WHAT.get(part):
        told["description"] = what
    # The types of this machine may differ from those of another.
    known = mimetypes.MimeTypes(filenames=()).guess_type(name)[0]
    told["encodingFormat"] = _FORMATS.get(suffix) or known or "application/octet-stream"
    return told


def _instant(text: object) -> str:
    """Return an instant as the profile writes it."""
    return datetime.fromisoformat(str(text)).astimezone(UTC).isoformat(timespec="milliseconds")


def readme(
    files: Iterable[str],
    *,
    run: Mapping[str, Any],
    agents: Sequence[Mapping[str, Any]],
    name: str,
    package_version: str,
    left_out: Mapping[str, str],
    masked: Mapping[str, int] | None,
    damage: Mapping[str, Sequence[str]],
) -> str:
    """Return the page for whoever opens the bundle without the package.

    Parameters
    ----------
    files, run, agents, name, package_version
        As for :func:`crate`.
    left_out : mapping of str to str
        Parts that are not in it, and why.
    masked : mapping of str to int or None
        How often each pattern was masked; None when nothing was looked for.
    damage : mapping of str to sequence of str
        By file, what of it could not be read when the bundle was made.

    Returns
    -------
    str
        Markdown.
    """
    there = ", ".join(f"{_plain(one['name'])} ({_plain(one['kind'])})" for one in agents)
    parts: dict[str, int] = {}
    for one in files:
        parts[part_of(one)] = parts.get(part_of(one), 0) + 1
    lines = [
        f"# {_plain(name)}: {run['run_id']}",
        "",
        (
            "The record of interactive command-line agents that wrote to each other, made by Orchestrator Lab "
            f"{_plain(package_version)}."
        ),
        "",
        f"- started: {run.get('started_at') or 'unknown'}",
        f"- ended: {run.get('ended_at') or 'unknown'} ({_plain(run.get('status') or 'no end')})",
        f"- agents: {there or 'none'}",
        f"- messages: {run.get('message_count') or 0}",
        "",
        "## To open it",
        "",
        "```sh",
        "pip install orchestrator-lab",
        "orchestrator-lab runs verify NAME.olab.zip",
        "orchestrator-lab runs open NAME.olab.zip",
        "```",
        "",
        "```python",
        "from orchestrator_lab import open_run",
        "",
        'run = open_run("NAME.olab.zip")',
        "run.messages",
        "run.conversation()",
        "```",
        "",
        "No agent, key or network is needed. Without the package: the tables are Parquet files, the recordings",
        "asciicast v3 (`zstd -d`, then any player), everything else is text. It is checked by",
        f"`sha256sum -c {CHECKSUMS}`; the checksums tell damage, not who made the bundle.",
        "",
        "## What is in it",
        "",
        "| | files | what |",
        "|---|--:|---|",
    ]
    known = [*PARTS, *_WHAT]
    lines += [
        f"| `{part}` | {parts[part]} | {PARTS.get(part) or _WHAT.get(part, '')} |"
        for part in sorted(parts, key=lambda one: (known.index(one) if one in known else len(known), one))
    ]
    if left_out:
        lines += ["", "Left out: " + "; ".join(f"{part} ({why})" for part, why in sorted(left_out.items())) + "."]
    if damage:
        lines += ["", "## What was damaged before it was packed", ""]
        lines += [f"- `{name}`: {_plain(sentence)}" for name, found in sorted(damage.items()) for sentence in found]
    lines += ["", "## What is masked", ""]
    if masked is None:
        lines.append("Nothing was masked at the export, beside the secrets that were masked when the run was recorded.")
    elif not masked:
        lines.append("Nothing private was found at the export.")
    else:
        lines.append("Each private text has one substitute of the same width, everywhere in the bundle.")
        lines += ["", "| pattern | times |", "|---|--:|"]
        lines += [f"| {_plain(pattern)} | {masked[pattern]} |" for pattern in sorted(masked)]
    return "\n".join(lines) + "\n"


def _plain(text: object) -> str:
    """Return a text for a line of Markdown in which nothing is markup."""
    line = " ".join("".join(char if char.isprintable() else " " for char in str(text)).split())
    return re.sub(r"([\\`*_\[\]<>|~&#])", r"\\\1", line)
