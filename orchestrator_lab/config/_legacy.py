"""Reads the ``cc-cluster.yaml`` of orchestrator-cc and says what has become of each of its keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator_lab.config._yaml import Document

__all__ = ["convert", "is_legacy"]

_WITHOUT_EFFECT = {
    "marker": "the end of a turn is known from Claude Code's own hooks, no watchword is needed; "
    "take it out of the personality too",
    "pane_index": "panes are addressed by tmux's own ids, their order does not matter",
    "wait_time": "readiness is known from evidence, not from a fixed wait",
    "poll_interval": "events are pushed, nothing is polled",
}
_READ_AS = (
    "read as orchestrator-cc's form; every agent is of kind 'claude' with your own login and settings (config: inherit)"
)
_ASKS_FIRST = (
    "orchestrator-cc always passed --dangerously-skip-permissions; here agents ask before they "
    "act. "
    "Set 'permission_mode: bypassPermissions' per agent if you want the old behaviour"
)
_PATH_KEY = "personality_prompt_path"


def is_legacy(data: Any) -> bool:  # noqa: ANN401 - whatever the file says
    """Tell whether `data` has orchestrator-cc's form: its keys, and no agent with a kind."""
    agents = data.get("agents") if isinstance(data, dict) else None
    if not isinstance(agents, list) or not agents or not all(isinstance(agent, dict) for agent in agents):
        return False
    return all("kind" not in agent for agent in agents) and any(
        key in agent for agent in agents for key in (_PATH_KEY, *_WITHOUT_EFFECT)
    )


def convert(document: Document) -> tuple[Document, list[str]]:
    """Return the document in today's form, and a note for each key without effect.

    Parameters
    ----------
    document : Document
        For which :func:`is_legacy` holds.

    Returns
    -------
    tuple
        The new document (lines kept) and the notes.
    """
    lines = dict(document.lines)
    agents: list[dict[str, Any]] = []
    ignored: dict[str, list[str]] = {}
    for place, old in enumerate(document.data["agents"]):
        new: dict[str, Any] = {"kind": "claude"}
        for key, value in old.items():
            if key in _WITHOUT_EFFECT:
                ignored.setdefault(key, []).append(str(old.get("name", f"agents[{place}]")))
            elif key == _PATH_KEY:
                new["instructions_file"] = value
                if (found := document.line(("agents", place, key))) is not None:
                    lines[("agents", place, "instructions_file")] = found
            else:
                new[key] = value
        agents.append(new)
    notes = [f"{document.source}: {what}" for what in (_READ_AS, _ASKS_FIRST)]
    notes += [
        f"{document.source}: '{key}' has no effect any more ({', '.join(ignored[key])}): {why}"
        for key, why in _WITHOUT_EFFECT.items()
        if key in ignored
    ]
    return type(document)({**document.data, "agents": agents}, document.source, lines), notes
