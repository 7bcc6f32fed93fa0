"""The story of a message as HTML."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator_lab.reading.chat import named, tool_calls_html
from orchestrator_lab.reading.story import annotated
from orchestrator_lab.reading.texts import block, escaped, shown_seconds

if TYPE_CHECKING:
    from orchestrator_lab.reading.story import Story

__all__ = ["story_html"]

_QUIET = "opacity:.75;font-size:.9em"
_CELL = "text-align:left;padding:1px 12px 1px 0;vertical-align:top;overflow-wrap:anywhere"
#: Short cells keep their words whole; what a narrow page takes from a table, it takes from the details.
_SHORT = "text-align:left;padding:1px 12px 1px 0;vertical-align:top;white-space:nowrap"
_BOX = "margin:8px 0;padding:3px 0 3px 10px;border-left:4px solid {color}"
_MOST = 20_000


def story_html(story: Story) -> str:
    """Return a story as HTML: text, ladder, turn, tool calls, dialogs, screens.

    Parameters
    ----------
    story : Story
        Of one message.

    Returns
    -------
    str
        One ``<div>``, without script; every text is escaped.
    """
    row, colors = story.message, story.colors
    sender, recipient = str(row["sender"] or "?"), str(row["recipient"] or "?")
    parts = [
        f'<div role="group" aria-label="{escaped(story.title)}">',
        (
            f"<div>{named(sender, colors)} → {named(recipient, colors)} "
            f'<span style="{_QUIET}">{escaped(row["status"] or "unknown")} · {escaped(row["message_id"])}</span></div>'
        ),
    ]
    if row["error_message"]:
        parts.append(f"<div>{escaped(row['error_message'])}</div>")
    if story.asked is not None:
        parts.append(f'<div style="{_QUIET}">answers {escaped(story.asked["message_id"])}</div>')
        parts.append(block(story.asked["content"] or "", most=_MOST))
    box = _BOX.format(color=colors.get(sender, "#777777"))
    parts.append(f'<div style="{box}">{block(row["content"] or "", most=_MOST)}</div>')
    parts.append(_ladder(story))
    if story.turn is not None:
        box = _BOX.format(color=colors.get(recipient, "#777777")) + ";background:rgba(127,127,127,.09)"
        parts.append(
            f'<div style="{box}"><div>{named(str(story.turn["agent"] or "?"), colors)} '
            f'<span style="{_QUIET}">{escaped(story.turn_facts)}</span></div>'
            f"{block(story.turn['reply'] or '', most=_MOST)}{tool_calls_html(story.tool_calls, _MOST)}</div>"
        )
    for dialog in story.dialogs:
        by = f" by {dialog['answered_by']}" if dialog["answered_by"] else ""
        wait = f" after {shown_seconds(dialog['wait_s'])}" if dialog["wait_s"] is not None else ""
        answer = dialog["decision"] or ("not answered" if dialog["answered_at"] is None else "went away")
        parts.append(
            f'<div style="{_BOX.format(color="#999999")};border-left-style:dashed">'
            f'<span style="{_QUIET}">asks its user ({escaped(dialog["kind"] or "unknown")})</span>'
            f"{block(dialog['subject'] or '', most=_MOST)}"
            f'<div style="{_QUIET}">answer{escaped(by)}{escaped(wait)}: <bdi>{escaped(answer)}</bdi></div></div>'
        )
    for reply in story.replies:
        to = f"{named(str(reply['sender'] or '?'), colors)} → {named(str(reply['recipient'] or '?'), colors)}"
        parts.append(f'<div>answered by {to} <span style="{_QUIET}">{escaped(reply["message_id"])}</span></div>')
    parts += [f"<div>annotated: <bdi>{escaped(annotated(one))}</bdi></div>" for one in story.annotations]
    parts += [
        f'<details><summary style="cursor:pointer">screen: {escaped(moment.what)} '
        f'<span style="{_QUIET}">{escaped(shown_seconds(moment.offset_s))} of the recording</span></summary>'
        f"{moment.screen._repr_html_()}</details>"
        for moment in story.screens
    ]
    if not story.screens:
        parts.append(f'<div style="{_QUIET}"><i>the pane was not recorded</i></div>')
    return "".join([*parts, "</div>"])


def _ladder(story: Story) -> str:
    heads = "".join(
        f'<th scope="col" style="{_CELL if name == "details" else _SHORT}">{name}</th>'
        for name in ("after", "event", "evidence", "details")
    )
    rows = []
    for step in story.steps:
        short = (shown_seconds(step.after_s, "+"), step.event.event, step.event.source or "")
        cells = [f'<td style="{_SHORT}">{escaped(cell)}</td>' for cell in short]
        cells.append(f'<td style="{_CELL}">{escaped(step.details)}</td>')
        title = escaped(f"{step.event.at}, event {step.event.seq}")
        rows.append(f'<tr title="{title}">{"".join(cells)}</tr>')
    body = "".join(rows)
    return f'<table style="font-size:.9em;margin:6px 0"><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>'
