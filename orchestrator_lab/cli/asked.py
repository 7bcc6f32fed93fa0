"""Commands about the questions that agents ask: list them, answer one, explain a state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from orchestrator_lab.cli import common
from orchestrator_lab.cli.common import ClusterOption, JsonOption

if TYPE_CHECKING:
    from orchestrator_lab.dialog import Dialog

__all__ = ["answer", "dialogs", "explain", "register", "tell_dialogs"]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    panel = "Dialogs"
    app.command(rich_help_panel=panel)(dialogs)
    app.command(rich_help_panel=panel)(answer)
    app.command(rich_help_panel=panel)(explain)


def tell_dialogs(facts: dict[str, Any]) -> None:
    """Say which questions are open, and how to answer them.

    Parameters
    ----------
    facts : dict
        A cluster's status.
    """
    for agent in facts["agents"]:
        dialog = agent["dialog"]
        if dialog is None:
            continue
        options = f" ({' / '.join(map(str, dialog['options']))})" if dialog["options"] else ""
        how = f"answer it: orchestrator-lab answer {agent['name']} OPTION --cluster {facts['name']}"
        if not dialog["options"]:
            how = f"answer it in its pane: orchestrator-lab attach {agent['name']} --cluster {facts['name']}"
        subject = common.fold(str(dialog["subject"] or ""), 200)
        common.say_note(f"{agent['name']} asks its user ({dialog['kind']}): {subject}{options}; {how}")


def dialogs(cluster: str | None = ClusterOption, as_json: bool = JsonOption) -> None:
    """Show the questions that agents ask now."""
    found = common.pick(cluster).dialogs
    if as_json:
        common.print_json([one.to_dict() for one in found])
        return
    if not found:
        typer.echo("no agent asks anything")
        return
    for one in found:
        _show(one)


def _show(dialog: Dialog) -> None:
    from orchestrator_lab.cli.words import moment

    when = moment(dialog.opened_at.isoformat())
    typer.echo(f"{dialog.agent} ({dialog.kind}, since {when}): {common.fold(dialog.subject, 300)}")
    for number, option in enumerate(dialog.options, 1):
        typer.echo(f"  {number}. {option}")


def answer(
    agent: str = typer.Argument(..., help="Whose question."),
    option: str = typer.Argument(..., help="A label or its beginning, its number, allow or deny."),
    cluster: str | None = ClusterOption,
    dialog_id: str | None = typer.Option(
        None, "--dialog", metavar="ID", help="Only if it is this one; see 'dialogs --json'."
    ),
) -> None:
    """Answer an agent's question: the option is chosen in its pane, by its label."""
    from orchestrator_lab.cli.talk import in_pane
    from orchestrator_lab.errors import ConfigError, DialogNotAnswered

    if in_pane():
        raise ConfigError("an agent may not answer a dialog; a person does, outside of the agents' panes")
    found = common.pick(cluster, careful=True)
    dialog = found[agent].dialog
    if dialog is None:
        raise DialogNotAnswered(f"{agent} asks nothing now")
    if dialog_id is not None and dialog.dialog_id != dialog_id:
        raise DialogNotAnswered(f"dialog {dialog_id} of {agent} is not open (any more); it asks {dialog.dialog_id} now")
    with common.busy(f"Answering {agent}"):
        chosen = dialog.answer(int(option) if option.isdigit() else option)
    typer.echo(f"answered {agent}: {chosen}")


def explain(
    agent: str = typer.Argument(..., help="Whose state."),
    cluster: str | None = ClusterOption,
    as_json: bool = JsonOption,
) -> None:
    """Show why an agent is in its state: each vote with its source and age, and what its screen shows."""
    from orchestrator_lab.cli.words import seconds

    found = common.pick(cluster)[agent].explain()
    if as_json:
        common.print_json(found)
        return
    typer.echo(f"{agent} is {found['state']}, by {found['decision']} ({found['source']})")
    rows = common.table("fact", "source", "says", ("for", {"justify": "right"}))
    for vote in found["votes"]:
        mark = "→ " if vote["fact"] == found["decision"] else "  "
        rows.add_row(mark + vote["fact"], vote["source"], vote["says"], seconds(vote.get("age_s")))
    common.out().print(rows)
    screen = found["screen"]
    measured = f", measured with {screen['measured']}" if screen["measured"] else ""
    typer.echo(f"screen rules: {screen['rules'] or 'none'}{measured}")
    if screen["input_line"] is not None:
        typer.echo(f"input line: {screen['input_line']}")
    for one in screen["matched"]:
        typer.echo(f"on the screen: {one['rule']} ({one['region']}: {one['means']}): {common.fold(one['line'], 120)}")
    if screen["note"]:
        common.say_note(screen["note"])
