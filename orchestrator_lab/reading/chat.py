"""A conversation as HTML: styles in place, no script, no link but to its own entries, every text escaped.

Styles stand in the elements and use translucent colours, since Jupyter and GitHub take ``<style>`` away from a page
that nobody trusts yet, and the same output is shown in light and in dark.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from orchestrator_lab.reading.entries import ladder
from orchestrator_lab.reading.texts import block, escaped, shown_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator_lab.reading.conversation import Conversation
    from orchestrator_lab.reading.entries import Entry

__all__ = ["anchor_of", "chat_html", "entries_html", "named", "page", "tool_calls_html"]

_OUTSIDE = "#777777"
_QUIET = "opacity:.75;font-size:.9em"
#: What is out of sight is not laid out: ten thousand entries scroll.
_ENTRY = "margin:8px 0;padding:3px 0 3px 10px;border-left:4px solid {color};content-visibility:auto"
_ENTRY += ";contain-intrinsic-size:auto 4em"


def page(title: str, body: str) -> str:
    """Return a whole page around a body.

    Parameters
    ----------
    title : str
        Its title; escaped here.
    body : str
        HTML that is safe already.

    Returns
    -------
    str
        A page that may load and run nothing.
    """
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escaped(title)}</title>\n"
        "<style>:root{color-scheme:light dark}body{font-family:system-ui,sans-serif;line-height:1.45;max-width:60rem;"
        "margin:1.5rem auto;padding:0 1rem}@media print{details::details-content{content-visibility:visible}}</style>\n"
        f"</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def chat_html(talk: Conversation, entries: Sequence[Entry], *, hidden: int, most: int | None) -> str:
    """Return entries as a chat.

    Parameters
    ----------
    talk : Conversation
        Whose entries they are.
    entries : sequence of Entry
        Those to show.
    hidden : int
        How many earlier ones are left out, which is said.
    most : int, optional
        Characters of each text to show.

    Returns
    -------
    str
        One ``<div>``.
    """
    parts = [f'<div role="log" aria-label="{escaped(talk.title)}"><div><b>{escaped(talk.title)}</b></div>']
    if hidden:
        entries_word = "entry" if hidden == 1 else "entries"
        parts.append(
            f'<div style="{_QUIET}"><i>{hidden} more {entries_word} before these: conversation(limit=None) shows all, '
            "to_html() is a page of all</i></div>"
        )
    if not entries:
        parts.append(f'<div style="{_QUIET}"><i>nothing was said</i></div>')
    return "".join([*parts, entries_html(talk, entries, most=most), "</div>"])


def entries_html(talk: Conversation, entries: Sequence[Entry], *, most: int | None) -> str:
    """Return entries, one ``<div>`` each.

    Parameters
    ----------
    talk : Conversation
        Whose entries they are.
    entries : sequence of Entry
        Those to show.
    most : int, optional
        Characters of each text to show.

    Returns
    -------
    str
        HTML. Each entry has an anchor, and a link to it where it says when: in a player it leads to the moment.
    """
    return "".join(_entry(talk, entry, most) for entry in entries)


def anchor_of(entry: Entry) -> str:
    """Return the name of an entry's anchor: none that a page around it has for itself."""
    return f"olab-{entry.id}"


def named(name: str, colors: dict[str, str]) -> str:
    """Return a name with its colour beside it: the letters stay legible on any ground."""
    color = colors.get(name, _OUTSIDE)
    return (
        f'<span aria-hidden="true" style="display:inline-block;width:.65em;height:.65em;border-radius:50%;'
        f'margin-right:.3em;background:{color}"></span><bdi><b>{escaped(name)}</b></bdi>'
    )


def _entry(talk: Conversation, entry: Entry, most: int | None) -> str:
    colors = talk.colors
    row = entry.row
    color = colors.get(entry.who, _OUTSIDE)
    to = ", ".join(named(name, colors) for name in entry.to)
    style = _ENTRY.format(color=color)
    if entry.kind == "message":
        hover = f"{ladder(row)}; {row['message_id']}"
        head = f"{named(entry.who, colors)} → {to}"
        facts = [row["status"] or "unknown"]
    elif entry.kind == "turn":
        begin = row["cast_offset_s"]
        hover = ", ".join(
            [
                f"started {row['started_at']}",
                f"ended {row['ended_at']}",
                str(row["turn_id"]),
                *([] if begin is None else [f"{shown_seconds(begin)} of {entry.who}'s recording"]),
            ]
        )
        head = named(entry.who, colors) + (f" answers {to}" if to else " works by itself")
        facts = _turn_facts(row)
        style += ";background:rgba(127,127,127,.09)"
    else:
        hover = f"{row['dialog_id']}, opened {row['opened_at']}"
        head = f"{named(entry.who, colors)} asks its user"
        facts = [str(row["kind"] or "unknown")]
        style += ";border-left-style:dashed"
    anchor = anchor_of(entry)
    link = f'<a href="#{quote(anchor, errors="replace")}" style="color:inherit">{escaped(talk.when(entry))}</a>'
    said = " · ".join([link, *(escaped(fact) for fact in facts if fact)])
    body = ""
    if entry.repeats:
        body = f'<div style="{_QUIET}"><i>the text of the reply above</i></div>'
    elif entry.text:
        body = block(entry.text, most=most)
    body += tool_calls_html(entry.calls, most)
    if entry.kind == "dialog":
        body += _dialog(row)
    if row.get("error_message"):
        body += f'<div style="{_QUIET}">{escaped(row["error_message"])}</div>'
    head = f'<div title="{escaped(hover)}">{head} <span style="{_QUIET}">{said}</span></div>'
    return f'<div id="{escaped(anchor)}" style="{style}">{head}{body}</div>'


def _turn_facts(row: dict[str, Any]) -> list[str]:
    reason = row["end_reason"]
    how = "at work" if row["ended_at"] is None else "" if reason == "completed" else str(reason or "unknown")
    tokens = ""
    if row["output_tokens"] is not None:
        into = "?" if row["input_tokens"] is None else row["input_tokens"]
        tokens = f"{into} tokens in, {row['output_tokens']} out"
    took = shown_seconds(row["duration_s"])
    return [how, f"took {took}" if took else "", tokens]


def _dialog(row: dict[str, Any]) -> str:
    answer = "not answered" if row["answered_at"] is None else str(row["decision"] or "went away")
    by = f" by {row['answered_by']}" if row["answered_by"] else ""
    wait = f" after {shown_seconds(row['wait_s'])}" if row["wait_s"] is not None else ""
    return f'<div style="{_QUIET}">answer{escaped(by)}{escaped(wait)}: <bdi>{escaped(answer)}</bdi></div>'


def tool_calls_html(calls: Sequence[dict[str, Any]], most: int | None) -> str:
    """Return the tool calls of a turn, folded.

    Parameters
    ----------
    calls : sequence of dict
        Rows of the tool_calls table.
    most : int, optional
        Characters of each input and output to show.

    Returns
    -------
    str
        Nothing when there are none.
    """
    if not calls:
        return ""
    names = ", ".join(dict.fromkeys(str(call["name"] or "?") for call in calls))
    number = "1 tool call" if len(calls) == 1 else f"{len(calls)} tool calls"
    parts = [f'<details><summary style="cursor:pointer">{number}: {escaped(names)}</summary>']
    for call in calls:
        facts = " · ".join(one for one in (call["status"] or "running", shown_seconds(call["duration_s"])) if one)
        parts.append(
            f'<div style="margin:4px 0 4px 14px"><b>{escaped(call["name"] or "?")}</b> '
            f'<span style="{_QUIET}">{escaped(facts)}</span>'
        )
        parts += [block(str(call[name]), most=most, mono=True) for name in ("input", "output") if call[name]]
        if call["error_message"]:
            parts.append(f"<div>{escaped(call['error_message'])}</div>")
        parts.append("</div>")
    return "".join([*parts, "</details>"])
