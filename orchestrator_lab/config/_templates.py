"""The configurations that come with the package."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

from orchestrator_lab.config._problems import suggestion
from orchestrator_lab.config._yaml import Document, parse_yaml
from orchestrator_lab.errors import ConfigError

__all__ = ["template_files", "template_names", "template_text"]

_FILE = "cluster.yaml"
_KINDS = ("claude", "codex", "chat")

#: What the comments of the templates say for Claude Code, and what they say for Codex.
_AS_CODEX_SAYS = {
    "the real Claude Code; ": "the real Codex; ",
    "# model: opus ": "# model: gpt-5 ",
    "# permission_mode: plan ": "# permission_mode: readOnly ",
    "ask (default), acceptEdits, plan, ...": "ask (default), readOnly, dontAsk, ...",
}


def _folder() -> Path:
    return Path(str(resources.files("orchestrator_lab"))) / "templates"


def template_names() -> list[str]:
    """Return the names of the templates.

    Examples
    --------
    >>> template_names()
    ['boss-manager-specialists', 'demo', 'duo', 'round-table']
    """
    return sorted(path.parent.name for path in _folder().glob(f"*/{_FILE}"))


def _existing(name: str) -> Path:
    if name not in template_names():
        raise ConfigError(f"unknown template {name[:60]!r}" + suggestion(name, template_names(), what="templates"))
    return _folder() / name


def template_text(name: str, kind: str | None = None) -> str:
    """Return the commented YAML of a template.

    Parameters
    ----------
    name : str
        One of :func:`template_names`.
    kind : {"claude", "chat"}, optional
        Kind of its agents; the template's own when omitted. ``chat`` agents have no tools and no
        login: they get the local model, and edges on which the lab forwards replies.

    Returns
    -------
    str
        What ``orchestrator-lab init`` writes.

    Raises
    ------
    ConfigError
        When there is no such template or kind.
    """
    text = (_existing(name) / _FILE).read_text(encoding="utf-8")
    if kind is None or f"kind: {kind}" in re.findall(r"^ +kind: \w+", text, re.MULTILINE):
        return text
    if kind not in _KINDS:
        raise ConfigError(f"templates cannot be written for kind {kind[:60]!r}; known kinds: {', '.join(_KINDS)}")
    text = re.sub(r"^( +kind:) (?:claude|codex|chat)\b", rf"\1 {kind}", text, flags=re.MULTILINE)
    if kind == "chat":
        text = re.sub(r"^( +)# (gateway: \{mode: local\})", r"\1\2", text, flags=re.MULTILINE)
        return _with_replies(text, "forward")
    text = re.sub(r"^ +(?:max_tokens|temperature):.*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"^( +)(gateway: \{mode: local\})", r"\1# \2", text, flags=re.MULTILINE)
    if kind == "codex":
        for claudes, codexs in _AS_CODEX_SAYS.items():
            text = text.replace(claudes, codexs)
    return _with_replies(text, "tool")


def _with_replies(text: str, how: str) -> str:
    """Return a template whose edges have one way of replies; the comments explain both, and stay."""
    return re.sub(r"^( +- \{[^#\n]*replies: )(?:tool|forward)", rf"\1{how}", text, flags=re.MULTILINE)


def template_files(name: str, kind: str | None = None) -> dict[str, str]:
    """Return every file of a template.

    Parameters
    ----------
    name, kind : str
        See :func:`template_text`.

    Returns
    -------
    dict of str to str
        Relative path to text: ``cluster.yaml`` first, then the instruction files that it names.
    """
    folder = _existing(name)
    files = {_FILE: template_text(name, kind)}
    for path in sorted(folder.rglob("*.md")):
        files[path.relative_to(folder).as_posix()] = path.read_text(encoding="utf-8")
    return files


def template_document(name: str) -> tuple[Document, Path]:
    """Return the data of ``NAME`` or ``NAME/KIND``, and the folder of its instruction files."""
    kind = None
    for known in _KINDS:
        if name.endswith(f"/{known}"):
            name, kind = name.removesuffix(f"/{known}"), known
    return parse_yaml(template_text(name, kind), f"template {name}"), _existing(name)
