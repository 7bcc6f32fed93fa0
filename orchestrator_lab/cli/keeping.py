"""Commands that keep recorded runs in order: seal, unseal, prune."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from orchestrator_lab.cli import common
from orchestrator_lab.cli.common import JsonOption

if TYPE_CHECKING:
    from orchestrator_lab.retention import Kept
    from orchestrator_lab.run import Run

__all__ = ["prune", "seal", "unseal"]

_RUNS = typer.Argument(None, metavar="[RUN]...", help="Runs: folders, ids or their beginnings; see also --all.")
_ALL = typer.Option(False, "--all", help="All runs of this folder's runs_dir that are over.")


def seal(
    runs: list[str] = _RUNS,
    *,
    everything: bool = _ALL,
    as_json: bool = JsonOption,
) -> None:
    """Keep a run's tables as Parquet files beside its journal, which load at once and by the column."""
    from orchestrator_lab.sealing import open_seal

    done = []
    for run in _chosen(runs, everything=everything):
        if everything and open_seal(run.path) is not None:
            continue
        made = run.seal()
        size = sum(made.file(table).stat().st_size for table in made.rows)
        done.append({"run_id": run.run_id, "path": str(run.path), "rows": made.rows, "bytes": size})
        if not as_json:
            typer.echo(f"sealed {run.run_id}: {sum(made.rows.values())} rows in {_bytes(size)}")
    if as_json:
        common.print_json(done)
    elif not done:
        typer.echo("nothing to seal")


def unseal(runs: list[str] = _RUNS, *, everything: bool = _ALL) -> None:
    """Take a run's Parquet files away; its journal stays."""
    for run in _chosen(runs, everything=everything):
        if run.unseal():
            typer.echo(f"unsealed {run.run_id}")


def prune(
    folder: str | None = typer.Argument(None, metavar="[DIR]", help="A folder of runs; runs_dir when omitted."),
    *,
    keep: int | None = typer.Option(None, "--keep", min=0, metavar="N", help="Keep the N newest."),
    days: float | None = typer.Option(None, "--days", min=0.0, metavar="N", help="Keep those of the last N days."),
    gigabytes: float | None = typer.Option(
        None, "--gigabytes", min=0.0, metavar="N", help="Keep the newest, up to N gigabytes in all."
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only say which would go."),
    yes: bool = typer.Option(False, "--yes", "-y", help="Do not ask."),
) -> None:
    """Remove runs beyond a number, an age or a size; never one that is recorded, has no end, or is annotated.

    What the options leave open comes from ORCHESTRATOR_RETENTION__KEEP, __DAYS and __GIGABYTES.
    """
    from orchestrator_lab.cli.records import runs_dir
    from orchestrator_lab.config import load_settings
    from orchestrator_lab.errors import ConfigError
    from orchestrator_lab.retention import expired, look_at, remove

    if keep is days is gigabytes is None:
        kept = load_settings().retention
        keep, days, gigabytes = kept.keep, kept.days, kept.gigabytes
    if keep is days is gigabytes is None:
        raise ConfigError(
            "say what is to be kept: --keep N, --days N or --gigabytes N, or ORCHESTRATOR_RETENTION__KEEP and its like"
        )
    place = Path(folder).expanduser() if folder else runs_dir()
    runs = look_at(place) if folder or place.is_dir() else []
    going = expired(runs, keep=keep, days=days, size=None if gigabytes is None else int(gigabytes * 1e9))
    if not going:
        typer.echo(f"nothing to remove: {len(runs)} runs in {place.absolute()}")
        return
    _show(going)
    total = _bytes(sum(run.size for run in going))
    if dry_run:
        typer.echo(f"{len(going)} of {len(runs)} runs would be removed, {total}")
        return
    if not yes:
        typer.confirm(f"Remove these {len(going)} of {len(runs)} runs, {total}, for good?", abort=True)
    remove(going)
    typer.echo(f"removed {len(going)} runs, {total}")


def _show(runs: list[Kept]) -> None:
    from orchestrator_lab.cli.words import moment

    shown = common.table(("run", {"no_wrap": True}), "started", "status", ("size", {"justify": "right"}))
    for run in runs:
        began = None if run.began is None else run.began.isoformat()
        shown.add_row(run.path.name, moment(began), common.state_text(run.status or "unknown"), _bytes(run.size))
    common.out().print(shown)


def _chosen(words: list[str], *, everything: bool) -> list[Run]:
    from orchestrator_lab.cli.records import find_run, runs_dir
    from orchestrator_lab.errors import ConfigError
    from orchestrator_lab.retention import look_at
    from orchestrator_lab.run import Run

    if everything == bool(words):
        raise ConfigError("name runs, or say --all, and not both")
    if not everything:
        return [find_run(word) for word in words]
    place = runs_dir()
    return [Run(run.path) for run in look_at(place) if run.status not in {None, "running"}] if place.is_dir() else []


def _bytes(count: int) -> str:
    from rich.filesize import decimal

    return decimal(count)
