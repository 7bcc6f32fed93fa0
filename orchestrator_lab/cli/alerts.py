"""Commands about what is wrong and how much there is: alerts, metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from orchestrator_lab.cli import common
from orchestrator_lab.cli.common import ClusterOption, JsonOption
from orchestrator_lab.cli.group import Commands

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

__all__ = ["alert_lines", "register"]

_LEVELS = ("info", "warning", "error", "critical")
_STYLES = {"info": "cyan", "warning": "yellow", "error": "bold red", "critical": "bold red reverse"}
_ID = typer.Argument(..., metavar="ID|all", help="Which alert; 'all' for every open one.")
_LEVEL = typer.Option(None, "--level", metavar="LEVEL", help="Only this level (info … critical) and graver ones.")
_ALL = typer.Option(False, "--all", help="Those that are over, too.")


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    panel = "Watching"
    alerts = typer.Typer(cls=Commands, rich_markup_mode=None, help="List what is wrong, and say that it was seen.")
    alerts.callback(invoke_without_command=True)(_alerts)
    alerts.command("list")(alerts_list)
    alerts.command("ack")(alerts_ack)
    alerts.command("clear")(alerts_clear)
    app.add_typer(alerts, name="alerts", rich_help_panel=panel)
    app.command(rich_help_panel=panel)(metrics)


def _alerts(
    context: typer.Context,
    cluster: str | None = ClusterOption,
    level: str | None = _LEVEL,
    everything: bool = _ALL,
    as_json: bool = JsonOption,
) -> None:
    """List what is wrong, and say that it was seen."""
    if context.invoked_subcommand is None:
        alerts_list(cluster=cluster, level=level, everything=everything, as_json=as_json)


def alerts_list(
    *,
    cluster: str | None = ClusterOption,
    level: str | None = _LEVEL,
    everything: bool = _ALL,
    as_json: bool = JsonOption,
) -> None:
    """List the open alerts of a cluster."""
    from orchestrator_lab.errors import ConfigError

    if level is not None and level not in _LEVELS:
        raise ConfigError(f"--level {level!r} is no level; use {', '.join(_LEVELS)}")
    found = common.pick(cluster)
    if everything:
        from orchestrator_lab.folds import fold
        from orchestrator_lab.journal.reader import read_events

        rows = fold("alerts", read_events(found.run_dir / "journal.jsonl")[0]).rows()
    else:
        rows = found.client.get("/alerts", timeout_s=20.0)["alerts"]
    least = _LEVELS.index(level) if level is not None else 0
    rows = [row for row in rows if row["level"] not in _LEVELS or _LEVELS.index(row["level"]) >= least]
    if as_json:
        common.print_json(rows)
    elif not rows:
        typer.echo(f"{found.name}: no alert is open" if not everything else f"{found.name}: there was no alert")
    else:
        common.out().print(alert_lines(rows))


def alerts_ack(alert_id: str = _ID, cluster: str | None = ClusterOption) -> None:
    """Say that an alert was seen: it is not told again unless it becomes graver."""
    seen = common.pick(cluster).acknowledge(alert_id)
    typer.echo(f"acknowledged {', '.join(seen)}" if seen else "nothing to acknowledge")


def alerts_clear(alert_id: str = _ID, cluster: str | None = ClusterOption) -> None:
    """Close an alert by hand; it comes again when its cause does, or gets worse."""
    over = common.pick(cluster).clear(alert_id)
    typer.echo(f"cleared {', '.join(over)}" if over else "no alert is open")


def metrics(
    name: str | None = typer.Argument(None, metavar="[NAME]", help="Which cluster; every one that runs when omitted."),
) -> None:
    """Print the figures of clusters in the text format of Prometheus."""
    from orchestrator_lab.cluster import Cluster
    from orchestrator_lab.errors import ClusterNotFound
    from orchestrator_lab.metrics import render

    names = [name] if name else common.running_names()
    if not names:
        raise ClusterNotFound("no cluster is running; start one: orchestrator-lab start")
    typer.echo(render([Cluster.attach(one).figures() for one in names]), nl=False)


def alert_lines(alerts: Sequence[dict[str, Any]]) -> RenderableType:
    """Return alerts as lines for people: level, how it stands, id, sentence."""
    from rich.table import Table
    from rich.text import Text

    from orchestrator_lab.cli.words import moment

    lines = Table.grid(padding=(0, 1, 0, 0))
    lines.add_column(no_wrap=True)
    lines.add_column(ratio=1, overflow="fold")
    for alert in alerts:
        style = _STYLES.get(str(alert["level"]), "")
        said = Text(str(alert["message"]))
        how = f"since {moment(alert['opened_at'])}"
        if alert.get("resolved_at"):
            how = f"{moment(alert['opened_at'])} to {moment(alert['resolved_at'])}"
        elif alert.get("acknowledged_at"):
            how += ", acknowledged"
        said.append(f"\n{alert['rule']}, {how}, {alert['alert_id']}", style="dim")
        lines.add_row(Text(str(alert["level"]), style=style), said)
    return lines
