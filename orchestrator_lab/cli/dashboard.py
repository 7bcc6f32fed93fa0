"""The command that serves the dashboard."""

from __future__ import annotations

from pathlib import Path

import typer

from orchestrator_lab.cli import common

__all__ = ["dashboard", "register"]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(
        rich_help_panel="Watching", context_settings={"allow_extra_args": True, "ignore_unknown_options": True}
    )(dashboard)


def dashboard(
    context: typer.Context,
    *,
    port: int = typer.Option(8000, "--port", min=0, max=65535, help="Where it listens; the next free one when taken."),
    ip: str = typer.Option("127.0.0.1", "--ip", metavar="ADDRESS", help="Address that it listens on."),
    certfile: str | None = typer.Option(None, "--certfile", metavar="FILE", help="Certificate for TLS."),
    keyfile: str | None = typer.Option(None, "--keyfile", metavar="FILE", help="The certificate's private key."),
    no_browser: bool = typer.Option(False, "--no-browser", help="Open no browser."),
) -> None:
    """Serve the dashboard to browsers; options of 'jupyter server' may follow."""
    from orchestrator_lab.errors import ConfigError
    from orchestrator_lab.server.dashboard import arguments, exposed, run
    from orchestrator_lab.server.page import what_is_missing

    for option, file in (("--certfile", certfile), ("--keyfile", keyfile)):
        if file is not None and not Path(file).is_file():
            raise ConfigError(f"{option} {file!r} is no file: give the path of a PEM file")
    if keyfile is not None and certfile is None:
        raise ConfigError("--keyfile is of no use without a certificate: give --certfile, too")
    for word in context.args:
        if not word.startswith("--"):
            raise ConfigError(f"{word!r} is no option: 'dashboard' takes its own options and those of 'jupyter server'")
    if exposed(ip, certfile):
        common.say_note(f"{ip} can be reached by other machines, and without --certfile the token travels in the clear")
    missing = what_is_missing()
    if missing is not None:
        common.say_note(missing)
    run(
        arguments(
            port=port,
            ip=ip,
            certfile=certfile,
            keyfile=keyfile,
            browser=not no_browser and missing is None,
            more=context.args,
        )
    )
