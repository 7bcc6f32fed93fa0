"""Commands around the lab itself: demo, models, doctor, config, version."""

from __future__ import annotations

from typing import Any

import typer

from orchestrator_lab.cli import common
from orchestrator_lab.cli.common import JsonOption
from orchestrator_lab.cli.group import Commands

__all__ = ["DOCTOR_PAGE", "demo", "doctor", "register", "version"]

#: Where each finding of `doctor` is explained.
DOCTOR_PAGE = "docs/operations/troubleshooting.md#what-doctor-finds"

_SOURCE = typer.Argument(
    None, metavar="[FILE|template:NAME]", help="cluster.yaml (or cc-cluster.yaml) of this folder when omitted."
)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    panel = "The lab itself"
    app.command(rich_help_panel=panel)(demo)
    app.command(rich_help_panel=panel)(doctor)
    config = typer.Typer(
        cls=Commands, rich_markup_mode=None, no_args_is_help=True, help="Check and show configurations."
    )
    config.command("validate")(config_validate)
    config.command("show")(config_show)
    config.command("schema")(config_schema)
    app.add_typer(config, name="config", rich_help_panel=panel)
    models = typer.Typer(cls=Commands, rich_markup_mode=None, help="List and get local language models.")
    models.callback(invoke_without_command=True)(_models)
    models.command("list")(models_list)
    models.command("pull")(models_pull)
    app.add_typer(models, name="models", rich_help_panel=panel)
    app.command(rich_help_panel=panel)(version)


def version() -> None:
    """Show the version."""
    from orchestrator_lab import __version__

    typer.echo(f"orchestrator-lab {__version__}")


def demo(
    *,
    rounds: int = typer.Option(2, "--rounds", min=1, max=50, help="How often each agent speaks."),
    keep: bool = typer.Option(False, "--keep", help="Leave the cluster running."),
    script: bool = typer.Option(False, "--script", help="No language model: fixed answers instead."),
    runs_dir: str = typer.Option("runs", "--runs-dir", metavar="DIR", help="Where the run is recorded."),
) -> None:
    """Let three agents with a small local language model talk to each other."""
    from orchestrator_lab.cli.demonstrate import run_demo

    run_demo(rounds=rounds, keep=keep, script=script, runs_dir=runs_dir)


def doctor(
    *,
    fix: bool = typer.Option(False, "--fix", help="Remove what dead clusters left behind."),
    as_json: bool = JsonOption,
) -> None:
    """Check this machine, and say what to do about each problem."""
    from dataclasses import asdict

    from orchestrator_lab.cli.records import runs_dir
    from orchestrator_lab.doctor import examine, repair

    with common.busy("Looking at this machine"):
        findings = examine(runs_dir=runs_dir())
    if fix:
        done = repair(findings)
        for line in done:
            common.say_note(line)
        if done:
            findings = examine(runs_dir=runs_dir())
    if as_json:
        rows = [asdict(finding) for finding in findings]
        common.print_json({"ok": all(one.level != "fail" for one in findings), "checks": rows})
    else:
        _show_findings(findings)
    if any(one.level == "fail" for one in findings):
        raise typer.Exit(1)


def _show_findings(findings: list[Any]) -> None:
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    console = common.out()
    marks = {"ok": ("✓", "green"), "warn": ("!", "bold yellow"), "fail": ("✗", "bold red")}
    rows = Table.grid(padding=(0, 1, 0, 0))
    rows.add_column(no_wrap=True)
    rows.add_column(no_wrap=True)
    rows.add_column(ratio=1, overflow="fold")
    for one in findings:
        mark, style = marks[one.level]
        rows.add_row(Text(mark, style=style), Text(one.check, style="bold"), Text(one.found))
        if one.advice:
            rows.add_row(
                "", "", Padding(Text(f"→ {one.advice}", style="dim" if one.level == "ok" else style[5:] or style))
            )
    console.print(rows)
    console.print()
    counts = {level: sum(one.level == level for one in findings) for level in marks}
    if counts["fail"]:
        console.print(f"[bold red]{counts['fail']} to repair[/bold red], {counts['warn']} to look at")
    elif counts["warn"]:
        console.print(f"[green]ready[/green], {counts['warn']} to look at")
    else:
        console.print("[green]ready[/green]")
    if counts["fail"] or counts["warn"]:
        console.print(Text(f"what each means: {DOCTOR_PAGE}", style="dim"), soft_wrap=True)


def config_validate(source: str | None = _SOURCE) -> None:
    """Check a configuration; say what is wrong, and where."""
    from orchestrator_lab.config import load_config, notify_addresses
    from orchestrator_lab.errors import ConfigError

    config = load_config(source)
    for note in config.notes:
        common.say_note(note)
    if config.alerts.enabled and config.alerts.notify:
        import os

        try:
            notify_addresses(config.alerts.notify, os.environ, check=True)
        except ConfigError as error:
            # Elsewhere its variables may be set: a note here, an error at the start.
            common.say_note(error.message)
    kinds: dict[str, int] = {}
    for agent in config.agents:
        kinds[agent.kind] = kinds.get(agent.kind, 0) + 1
    listed = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    typer.echo(f"{config.source or source or 'configuration'} is right: cluster {config.name}, agents: {listed}")


def config_show(source: str | None = _SOURCE, *, as_json: bool = JsonOption) -> None:
    """Show a configuration as the lab understands it: defaults, overrides and paths filled in."""
    from orchestrator_lab.config import load_config, to_dict, to_yaml

    config = load_config(source)
    if as_json:
        common.print_json(to_dict(config))
        return
    typer.echo(to_yaml(config), nl=False)
    for note in config.notes:
        common.say_note(note)


def config_schema() -> None:
    """Print the JSON schema of cluster.yaml, for editors."""
    from orchestrator_lab.config import json_schema

    common.print_json(json_schema())


def _models(context: typer.Context, as_json: bool = JsonOption) -> None:
    """List and get local language models."""
    if context.invoked_subcommand is None:
        models_list(as_json=as_json)


def models_list(*, as_json: bool = JsonOption) -> None:
    """List the local language models of this machine."""
    from dataclasses import asdict

    from orchestrator_lab.models import DEFAULT_MODEL, installed, models_dir

    found = installed()
    if as_json:
        common.print_json([asdict(model) for model in found])
        return
    if not found:
        typer.echo(f"no local model in {models_dir()}; get {DEFAULT_MODEL}: orchestrator-lab models pull")
        return
    from orchestrator_lab.cli.words import bytes_

    rows = common.table(
        ("model", {"style": "bold"}), ("size", {"justify": "right"}), "licence", ("file", {"overflow": "fold"})
    )
    for model in found:
        rows.add_row(model.name, bytes_(model.size), model.licence or "", str(model.path))
    common.out().print(rows)


def models_pull(name: str | None = typer.Argument(None, help="Which model; the default one when omitted.")) -> None:
    """Get a local language model (100 MB)."""
    from orchestrator_lab.models import DEFAULT_MODEL

    typer.echo(str(pull_with_progress(name or DEFAULT_MODEL)))


def pull_with_progress(name: str) -> Any:  # noqa: ANN401 - a Path
    """Get a model, showing what is being done."""
    import sys

    from orchestrator_lab.models import pull

    if not sys.stderr.isatty():
        return pull(name, lambda said: typer.echo(said, err=True))
    with common.err().status(name, spinner="dots") as status:
        return pull(name, status.update)
