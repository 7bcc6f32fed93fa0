"""Commands around the lab itself: demo, models, doctor, config."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    panel = "Setup"

    @app.command(rich_help_panel=panel)
    def version() -> None:
        """Show the version."""
        from orchestrator_lab import __version__

        typer.echo(f"orchestrator-lab {__version__}")
