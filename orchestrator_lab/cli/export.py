"""The command that gives a run to other tools."""

from __future__ import annotations

import typer

from orchestrator_lab.cli import common
from orchestrator_lab.cli.common import JsonOption
from orchestrator_lab.cli.records import find_run

__all__ = ["register"]

_RUN = typer.Argument(None, metavar="[RUN]", help="A run's folder or id, or a cluster's name; the newest when omitted.")


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(rich_help_panel="Records")(export)


def export(
    run: str | None = _RUN,
    *,
    to: str = typer.Option(
        ..., "--to", "-t", metavar="FORMAT", help="csv, parquet, jsonl, html, markdown, cast or inspect."
    ),
    output: str = typer.Option(
        ...,
        "--output",
        "-o",
        metavar="PATH",
        help="A folder for tables and recordings; a file for the others, and for one table or one recording.",
    ),
    table: list[str] = typer.Option([], "--table", metavar="TABLE", help="Only this table (repeatable)."),
    agent: list[str] = typer.Option([], "--agent", "-a", metavar="AGENT", help="Only this agent's (repeatable)."),
    exact: bool = typer.Option(
        False, "--exact", help="CSV: leave texts that a spreadsheet would take for formulas as they are."
    ),
    force: bool = typer.Option(False, "--force", help="Replace what is there."),
    as_json: bool = JsonOption,
) -> None:
    """Write a run for other tools: tables, the conversation, recordings, an Inspect AI log."""
    found = find_run(run)
    with common.busy(f"exporting {found.run_id}"):
        files = found.export_as(to, output, table=table or None, agent=agent or None, exact=exact, overwrite=force)
    if as_json:
        common.print_json({"run_id": found.run_id, "to": to, "files": [str(file.absolute()) for file in files]})
        return
    for file in files:
        typer.echo(str(file))
