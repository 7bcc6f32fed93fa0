"""How commands are listed, and how an error becomes one sentence and an exit status."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from orchestrator_lab.errors import OrchestratorLabError

if TYPE_CHECKING:
    # typer carries a copy of click since 0.16; its types are reached through typer where it names them.
    Formatter = Any

__all__ = ["Commands"]

#: Exit status after Ctrl-C, as shells have it (128 + SIGINT).
INTERRUPTED = 130


class Commands(TyperGroup):
    """A group that lists its commands in sections and turns errors into sentences."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override] # typer's own Context is click's
        """Return the commands in the order in which they were added."""
        del ctx
        return list(self.commands)

    def format_commands(self, ctx: typer.Context, formatter: Formatter) -> None:  # type: ignore[override]
        """Write the commands, each section under its own heading."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is None or command.hidden:
                continue
            panel = getattr(command, "rich_help_panel", None)
            heading = panel if isinstance(panel, str) else "Commands"
            sections.setdefault(heading, []).append((name, command.get_short_help_str(limit=100)))
        width = max((len(name) for rows in sections.values() for name, _ in rows), default=0)
        for heading, rows in sections.items():
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(width), text) for name, text in rows])

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override] # noqa: ANN401 - a command's value
        """Run the command that was named; end with a sentence where it fails."""
        if ctx.parent is not None:  # a group inside: the outermost one reports
            return super().invoke(ctx)
        try:
            value = super().invoke(ctx)
            sys.stdout.flush()
        except OrchestratorLabError as error:
            from orchestrator_lab.cli import common

            if common.debugging():
                raise
            common.say_error(error.message)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            import signal

            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C has nothing left to interrupt
            from orchestrator_lab.cli import common

            common.say_note("interrupted")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # Whoever read our output (head, less) has seen enough. Python must not flush into it at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except Exception as error:
            from orchestrator_lab.cli import common

            if common.is_usage(error) or common.debugging():
                raise
            common.say_unexpected(error)
            raise typer.Exit(1) from None
        return value
