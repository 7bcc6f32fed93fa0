"""The application: which commands there are, and what happens to their errors."""

from __future__ import annotations

import typer

from orchestrator_lab.cli import alerts, asked, dashboard, export, guards, lifecycle, notebook, records, setup, talk
from orchestrator_lab.cli.group import Commands

__all__ = ["app"]

app = typer.Typer(
    name="orchestrator-lab",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

lifecycle.register(app)
talk.register(app)
alerts.register(app)
dashboard.register(app)
guards.register(app)
asked.register(app)
records.register(app)
export.register(app)
notebook.register(app)
setup.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        from orchestrator_lab import __version__

        typer.echo(f"orchestrator-lab {__version__}")
        raise typer.Exit


@app.callback()
def root(
    debug: bool = typer.Option(False, "--debug", help="Show tracebacks (or set ORCHESTRATOR_DEBUG=1)."),
    version: bool = typer.Option(  # noqa: ARG001 - its callback does the work
        False, "--version", callback=_version, is_eager=True, help="Show the version and end."
    ),
) -> None:
    """Run real command-line agents in tmux, let them write to each other, keep every exchange."""
    if debug:
        from orchestrator_lab.cli import common

        common.DEBUG = True
