"""One of two runs that are compared: its tables as they are now, and what stands for its texts."""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING, Any

from orchestrator_lab.casting import to_values
from orchestrator_lab.folds.messages import RUNGS
from orchestrator_lab.mirrors import present

if TYPE_CHECKING:
    import pandas as pd

    from orchestrator_lab.tables import RunTables

__all__ = ["COMPARED", "IDS", "Side"]

#: The id of a row in each table that is aligned.
IDS = {
    "agents": "agent_id",
    "messages": "message_id",
    "turns": "turn_id",
    "tool_calls": "tool_call_id",
    "dialogs": "dialog_id",
}
#: What is compared: no ids, instants or durations, no process ids, and nothing that follows from the rest.
COMPARED = {
    "agents": (
        "name", "role", "kind", "program", "program_version", "provider", "model", "state", "restarts", "exit_code",
        "cols", "rows", "cwd", "instructions_sha256",
    ),
    "messages": (
        "sender", "recipient", "kind", "source", "hop", "content", "status", "acceptance_source", "error_type",
        "error_message",
    ),
    "turns": (
        "agent", "reply", "end_reason", "model", "input_tokens", "output_tokens", "cache_read_input_tokens",
        "cache_creation_input_tokens", "cost_usd", "tool_call_count", "files_changed", "lines_added", "lines_removed",
    ),
    "tool_calls": ("agent", "name", "input", "output", "status", "error_message"),
    "dialogs": ("agent", "kind", "subject", "options", "answered_by", "decision"),
}  # fmt: skip
#: Ids in texts, as the lab and the agents' programs make them.
_ID = re.compile(r"\b(?:run|agt|msg|trn|cnv|dlg|tcl|alr|toolu|call)_[0-9A-Za-z]{24,26}\b")
#: Characters of instructions that are shown as they are; of longer ones the digest is compared.
_INSTRUCTIONS = 1 << 20


class Side:
    """One of the two runs.

    Parameters
    ----------
    tables : RunTables
        Of the run.
    work_dir : str or None
        The folder that it worked in, where the other run had another: a path in it counts as the same.
    """

    def __init__(self, tables: RunTables, work_dir: str | None) -> None:
        self.tables = tables
        self.frames: dict[str, pd.DataFrame] = {table: tables.frame(table) for table in IDS}
        self._columns: dict[tuple[str, str], list[Any]] = {}
        self._keys: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
        self._places: dict[str, dict[str, int]] = {}
        self._work_dir = work_dir

    def column(self, table: str, name: str) -> list[Any]:
        """Return a column as plain values; NA is None, an instant stays what it is."""
        key = (table, name)
        if key not in self._columns:
            self._columns[key] = to_values(self.frames[table][name], instants_as_text=False)
        return self._columns[key]

    def count(self, table: str) -> int:
        """Return how many rows a table has."""
        return len(self.frames[table])

    def plain(self, value: object) -> object:
        """Return a value without what is expected to differ: ids, and the work folder's own path."""
        if not isinstance(value, str):
            return value
        if "_" in value:
            value = _ID.sub(lambda found: f"{found[0].partition('_')[0]}_\0", value)
        return value if self._work_dir is None else value.replace(self._work_dir, "\0work_dir")

    def keys(self, table: str, *names: str) -> list[tuple[str, ...]]:
        """Return what rows are known by: columns without what is expected to differ; nothing differs from no text."""
        asked = (table, *names)
        if asked not in self._keys:
            lists = [self._texts(table, name) for name in names]
            self._keys[asked] = list(zip(*lists, strict=True))
        return self._keys[asked]

    def _texts(self, table: str, name: str) -> list[str]:
        return ["" if one is None else f"={self.plain(one)}" for one in self.column(table, name)]

    @cached_property
    def rungs(self) -> list[str]:
        """The rungs that each message came to."""
        frame = self.frames["messages"]
        codes = [0] * len(frame)
        for place, rung in enumerate(RUNGS):
            bit = 1 << place
            codes = [
                code + bit if there else code for code, there in zip(codes, frame[f"{rung}_at"].notna(), strict=True)
            ]
        words = {code: " ".join(rung for n, rung in enumerate(RUNGS) if code >> n & 1) for code in set(codes)}
        return [words[code] for code in codes]

    def places(self, table: str) -> dict[str, int]:
        """Return the place of each row by its id."""
        if table not in self._places:
            ids = self.column(table, IDS[table])
            self._places[table] = {key: place for place, key in enumerate(ids) if key is not None}
        return self._places[table]

    def instructions(self, place: int) -> str | None:
        """Return what an agent was told, from the run's folder; None when it is not there."""
        name = self.column("agents", "name")[place]
        if self.tables.path is None or not name or "/" in name or name in {".", ".."}:
            return None
        path = present(self.tables.path / "instructions" / f"{name}.md")
        try:
            if path.is_symlink() or path.stat().st_size > _INSTRUCTIONS:  # a run's folder may come from anybody
                return None
            return path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
