"""The command that compares two runs."""

from __future__ import annotations

from pathlib import Path

import typer

from orchestrator_lab.cli import common
from orchestrator_lab.cli.common import JsonOption

__all__ = ["diff"]


def diff(
    first: str = typer.Argument(..., metavar="A", help="A run's folder or id, or a cluster's name."),
    second: str = typer.Argument(..., metavar="B", help="The run that it is compared with."),
    *,
    exact: bool = typer.Option(False, "--exact", help="Compare ids, instants, durations and process ids as well."),
    html: str | None = typer.Option(None, "--html", metavar="FILE", help="Write it as a page instead of text."),
    force: bool = typer.Option(False, "--force", help="Replace the page that is there."),
    as_json: bool = JsonOption,
) -> None:
    """Compare two runs: exit status 0 when they are the same, 1 when they differ, 2 when something is wrong."""
    from orchestrator_lab.cli.records import find_run
    from orchestrator_lab.reading.staging import staged_file

    runs = find_run(first), find_run(second)
    with common.busy("comparing"):
        found = runs[0].diff(runs[1], exact=exact)
    if html is not None:
        with staged_file(Path(html).expanduser(), overwrite=force) as file:
            file.write_text(found.to_html(), encoding="utf-8")
    if as_json:
        common.print_json(found.to_dict())
    else:
        typer.echo(found.to_text() if html is None else html)
    if not found.equal:
        raise typer.Exit(1)
