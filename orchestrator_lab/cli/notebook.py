"""Commands for notebooks that others are to reproduce: freeze, check."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from orchestrator_lab.cli import common
from orchestrator_lab.cli.common import JsonOption
from orchestrator_lab.cli.group import Commands

if TYPE_CHECKING:
    from rich.text import Text

    from orchestrator_lab.notebook.checking import CheckedNotebook

__all__ = ["register"]

_FILE = typer.Argument(..., metavar="FILE", help="A notebook, such as analysis.ipynb.")
_STRICT = typer.Option(False, "--strict", help="Stop a replay at the first difference (replay_strict).")
_TIMEOUT = typer.Option(300.0, "--timeout", metavar="SECONDS", min=1.0, help="Longest time of one cell.")
_STYLES = {
    "same": "green",
    "differs": "bold red",
    "failed": "bold red",
    "changed": "bold red",
    "not used": "bold red",
    "added": "yellow",
}


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    group = typer.Typer(
        cls=Commands,
        rich_markup_mode=None,
        no_args_is_help=True,
        help="Freeze a notebook so that others can reproduce it, and check that it reproduces.",
    )
    group.command()(freeze)
    group.command()(check)
    app.add_typer(group, name="notebook", rich_help_panel="Records")


def _mode(*, strict: bool) -> str:
    return "replay_strict" if strict else "replay"


def freeze(
    file: str = _FILE,
    *,
    output: str | None = typer.Option(
        None, "--output", "-o", metavar="FILE", help="Where it is written; FILE itself when omitted."
    ),
    strict: bool = _STRICT,
    timeout: float = _TIMEOUT,
    as_json: bool = JsonOption,
) -> None:
    """Execute a notebook in replay and write it so that others can check it, with stills for widgets."""
    from orchestrator_lab.notebook.freezing import freeze as freeze_notebook

    with common.busy(f"executing {file}"):
        done = freeze_notebook(file, output, mode=_mode(strict=strict), timeout_s=timeout)
    if as_json:
        common.print_json(
            {
                "path": str(done.path.absolute()),
                "cells": done.cells,
                "runs": [one.to_json() for one in done.sources],
            }
        )
        return
    typer.echo(f"{done.path}: frozen, {done.cells} cells")
    for one in done.sources:
        typer.echo(f"  made from {common.harmless(one.file)} (SHA-256 {one.sha256})")
        if one.outside:
            common.say_note(f"{one.file} is outside the notebook's folder: a reader needs it where the notebook looks")
    if not done.sources:
        common.say_note("it reads and replays no run that was there before")


def check(
    file: str = _FILE,
    *,
    strict: bool = _STRICT,
    timeout: float = _TIMEOUT,
    as_json: bool = JsonOption,
) -> None:
    """Run a notebook again and tell, cell by cell, whether it shows the same; status 1 when not."""
    from orchestrator_lab.notebook.checking import check as check_notebook

    with common.busy(f"executing {file}"):
        done = check_notebook(file, mode=_mode(strict=strict), timeout_s=timeout)
    if as_json:
        common.print_json(
            {
                "path": str(done.path.absolute()),
                "reproduces": done.reproduces,
                "frozen": done.frozen,
                "runs": [asdict(one) for one in done.sources],
                "cells": [asdict(one) for one in done.cells],
            }
        )
    else:
        _show(done)
    if not done.reproduces:
        raise typer.Exit(1)


def _show(done: CheckedNotebook) -> None:
    from rich.text import Text

    console = common.out()
    shown = common.table(("cell", {"justify": "right"}), "outcome", ("source", {"overflow": "fold"}))
    for cell in done.cells:
        shown.add_row(f"[{cell.number}]", _styled(cell.state), Text(common.fold(cell.source, 90)))
    console.print(shown)
    for cell in done.cells:
        if cell.detail:
            console.print()
            console.print(Text(f"[{cell.number}] {cell.state}: ", style="bold") + Text(cell.detail))
    if done.sources:
        console.print()
        table = common.table(("run", {"overflow": "fold"}), "outcome", "SHA-256")
        for one in done.sources:
            table.add_row(Text(one.file), _styled(one.state), f"{one.sha256[:16]}…")
        console.print(table)
    console.print()
    if not done.frozen:
        common.say_note("it was not frozen: nothing says which runs it was made from")
    wrong = sum(one.state in {"differs", "failed"} for one in done.cells)
    if done.reproduces:
        same = sum(one.state == "same" for one in done.cells)
        typer.echo(f"{done.path}: reproduces, {same} of {len(done.cells)} cells compared")
    elif wrong:
        typer.echo(f"{done.path}: does not reproduce, {wrong} of {len(done.cells)} cells are not as they were")
    else:
        typer.echo(f"{done.path}: does not reproduce, it was made from other runs")


def _styled(state: str) -> Text:
    from rich.text import Text

    return Text(state, style=_STYLES.get(state, "dim"))
