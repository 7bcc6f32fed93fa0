"""Commands about what pauses delivery: limits that are reached, usage limits that programs reported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from orchestrator_lab.cli import common
from orchestrator_lab.cli.common import ClusterOption, JsonOption
from orchestrator_lab.cli.group import Commands

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["guards_lift", "guards_list", "register", "tell_guards"]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    guards = typer.Typer(cls=Commands, rich_markup_mode=None, help="Show what pauses delivery, and let it go on.")
    guards.callback(invoke_without_command=True)(_guards)
    guards.command("list")(guards_list)
    guards.command("lift")(guards_lift)
    app.add_typer(guards, name="guards", rich_help_panel="Messages")


def _guards(context: typer.Context, cluster: str | None = ClusterOption, as_json: bool = JsonOption) -> None:
    """Show what pauses delivery, and let it go on."""
    if context.invoked_subcommand is None:
        guards_list(cluster, as_json=as_json)


def guards_list(cluster: str | None = ClusterOption, *, as_json: bool = JsonOption) -> None:
    """Show the guards that hold messages, with the reason of each."""
    found = common.pick(cluster).guards
    if as_json:
        common.print_json(found)
        return
    if not found:
        typer.echo("nothing pauses delivery")
        return
    from orchestrator_lab.cli.words import moment

    rows = common.table(("guard", {"no_wrap": True}), "of", "rule", "since", "until", ("why", {"overflow": "fold"}))
    for guard in found:
        whose = guard["agent"] if guard["scope"] == "agent" else guard["scope"]
        until = moment(guard["until"]) if guard["until"] else "lifted"
        rows.add_row(guard["guard_id"], whose, guard["rule"], moment(guard["since"]), until, guard["message"])
    common.out().print(rows)


def guards_lift(
    guard: str | None = typer.Argument(None, metavar="[GUARD]", help="Id of the guard; all when omitted."),
    *,
    limit: float | None = typer.Option(None, "--limit", metavar="N", help="The figure at which it holds again."),
    allowance: float | None = typer.Option(
        None, "--allowance", metavar="N", help="How much further it may go; as far again as the limit when omitted."
    ),
    by: str = typer.Option("user", "--by", metavar="NAME", help="Who lifts it, for the record."),
    cluster: str | None = ClusterOption,
    as_json: bool = JsonOption,
) -> None:
    """Let delivery go on."""
    lifted = common.pick(cluster).lift(guard, by=by, limit=limit, allowance=allowance)
    if as_json:
        common.print_json(lifted)
        return
    for one in lifted:
        typer.echo(f"lifted {one['guard_id']} ({one['rule']})")
    if not lifted:
        typer.echo("nothing paused delivery")


def tell_guards(guards: Sequence[dict[str, Any]]) -> None:
    """Say below a status what pauses delivery."""
    for guard in guards:
        common.say_note(f"{guard['message']} [{guard['guard_id']}]")
