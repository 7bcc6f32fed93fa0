"""A run's conversation, to read: as HTML, as Markdown, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator_lab.errors import ConfigError
from orchestrator_lab.plots import agent_colors
from orchestrator_lab.reading.chat import chat_html, page
from orchestrator_lab.reading.entries import agent_names, chosen_agents, entries_of, ladder, run_start
from orchestrator_lab.reading.texts import clean, fenced, one_line, seconds_between, shown_seconds, worded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from orchestrator_lab.reading.entries import Entry
    from orchestrator_lab.tables import RunTables

__all__ = ["Conversation"]

#: Entries that a notebook shows of a long conversation; a page and Markdown have all.
LIMIT = 200
_TEXT_ENTRIES = 20


class Conversation:
    """Who said what to whom, in the order in which it happened.

    Messages, the turns that answered them with their tool calls, and dialogs. Shown in a notebook it is an HTML chat;
    ``print`` gives its end as text.

    Parameters
    ----------
    tables : RunTables
        The run.
    agent : str or iterable of str, optional
        Only what these said, were told and did.
    limit : int or None
        How many entries a notebook shows, the latest ones; None shows all.

    Raises
    ------
    AgentNotFound
        When nobody of this name is in the run.
    ConfigError
        When the limit is no positive number.

    Examples
    --------
    >>> run.conversation("boss")  # doctest: +SKIP
    >>> Path("boss.html").write_text(run.conversation("boss").to_html())  # doctest: +SKIP
    """

    def __init__(
        self, tables: RunTables, agent: str | Iterable[str] | None = None, *, limit: int | None = LIMIT
    ) -> None:
        if limit is not None and limit < 1:
            raise ConfigError(f"limit={limit!r}: expected a number of entries from 1 on, or None for all")
        self._limit = limit
        self._agents = chosen_agents(tables, agent)
        self._names = agent_names(tables)
        #: Colour of each agent, as in :mod:`orchestrator_lab.plots`.
        self.colors = agent_colors(self._names)
        #: What was said, asked and answered, in its order.
        self.entries: list[Entry] = entries_of(tables, self._agents)
        self._start = run_start(tables) or next((entry.at for entry in self.entries if entry.at), None)
        self.run_id = tables.run_id
        self._name = str(tables.manifest.get("name") or "run")

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    @property
    def title(self) -> str:
        """What is shown, on one line."""
        whose = "" if self._agents is None else f" of {', '.join(sorted(self._agents))}"
        return f"{self._name}: conversation{whose}"

    def _count(self) -> str:
        kinds = [entry.kind for entry in self.entries]
        messages, turns, dialogs = (kinds.count(kind) for kind in ("message", "turn", "dialog"))
        parts = [_number(messages, "message"), _number(turns, "turn")]
        return ", ".join([*parts, _number(dialogs, "dialog")] if dialogs else parts)

    def __repr__(self) -> str:
        lines = [f"{self.title} ({self._count()})"]
        shown = self.entries[-_TEXT_ENTRIES:]
        if hidden := len(self.entries) - len(shown):
            lines.append(f"… {hidden} earlier entries; to_markdown() has all")
        for entry in shown:
            lines.append(f"{self.when(entry):>10}  {said(entry)}")
            if text := entry.text:
                lines.append(f"{'':>10}  {one_line(text, 300)}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        shown = self.entries if self._limit is None else self.entries[-self._limit :]
        hidden = len(self.entries) - len(shown)
        return chat_html(self, shown, hidden=hidden, most=4000)

    def when(self, entry: Entry) -> str:
        """Return when an entry happened, in seconds of the run."""
        return shown_seconds(seconds_between(self._start, entry.at), "+") or "?"

    def to_html(self) -> str:
        """Return a whole page, with every entry and every text.

        Returns
        -------
        str
            HTML without script or anything from elsewhere, for light and dark; also for printing.
        """
        return page(clean(self.title), chat_html(self, self.entries, hidden=0, most=None))

    def to_markdown(self) -> str:
        """Return all of it as Markdown.

        Returns
        -------
        str
            Texts stand in fenced blocks, so nothing that an agent wrote is taken for markup.
        """
        lines = [f"# {worded(self.title)}", "", f"Run `{self.run_id}`, {self._count()}."]
        for entry in self.entries:
            lines += ["", f"**{worded(said(entry))}** · {worded(self.when(entry))}", ""]
            if entry.kind == "message":
                lines += [f"*{worded(ladder(entry.row))}*", ""]
            if entry.repeats:
                lines.append("The text of the reply above.")
            elif entry.text:
                lines.append(fenced(entry.text))
            for call in entry.calls:
                status = call["status"] or "running"
                lines += [
                    "",
                    f"- tool {worded(str(call['name']))}, {status} {shown_seconds(call['duration_s'])}".rstrip(),
                ]
                for text in (call["input"], call["output"], call["error_message"]):
                    if text:
                        lines += ["", _indented(fenced(text))]
            if entry.kind == "dialog" and entry.row["decision"]:
                by = entry.row["answered_by"] or "somebody"
                lines += ["", f"Answered by {by}: {worded(str(entry.row['decision']))}"]
        return "\n".join(lines).rstrip() + "\n"


def said(entry: Entry) -> str:
    """Return who said something to whom, and how it stands, on one line."""
    to = ", ".join(entry.to)
    if entry.kind == "message":
        return f"{entry.who} → {to} ({entry.row['status'] or 'unknown'})"
    if entry.kind == "dialog":
        answer = f": {one_line(entry.row['decision'], 60)}" if entry.row["decision"] else ""
        return f"{entry.who} asks its user ({entry.row['kind'] or 'unknown'}){answer}"
    reason = entry.row["end_reason"]
    how = (
        "still at work" if entry.row["ended_at"] is None else "" if reason == "completed" else str(reason or "unknown")
    )
    parts = [how, shown_seconds(entry.row["duration_s"])]
    if entry.row["output_tokens"] is not None:
        parts.append(f"{entry.row['output_tokens']} tokens")
    if entry.calls:
        parts.append(_number(len(entry.calls), "tool call"))
    facts = ", ".join(part for part in parts if part)
    answers = f" answers {to}" if to else " by itself"
    return f"{entry.who}{answers}" + (f" ({facts})" if facts else "")


def _number(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.split("\n"))
