"""Commands for backups: create, list, verify, restore."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from orchestrator_lab.cli import common
from orchestrator_lab.cli.common import JsonOption
from orchestrator_lab.cli.group import Commands

if TYPE_CHECKING:
    from orchestrator_lab.backup import Backup, Created, Restored

__all__ = ["register"]

_BACKUP = typer.Argument(
    None, metavar="[BACKUP]", help="A backup's folder, or its name or the beginning of it; the newest when omitted."
)
_IN = typer.Option(
    None, "--in", metavar="DIR", help="The folder of backups; ORCHESTRATOR_BACKUP__DIR, or one of your own, if omitted."
)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    made = typer.Typer(
        cls=Commands,
        rich_markup_mode=None,
        no_args_is_help=True,
        help="Back a cluster up, configuration, settings and runs without secrets, and bring it back.",
    )
    for command in (create, list_, verify, restore):
        made.command(command.__name__.rstrip("_"))(command)
    app.add_typer(made, name="backup", rich_help_panel="Records")


def create(
    config: str | None = typer.Argument(
        None, metavar="[CONFIG]", help="A cluster's configuration or its folder; that of this folder when omitted."
    ),
    *,
    to: str | None = typer.Option(
        None,
        "--to",
        metavar="DIR",
        help="The folder of backups; ORCHESTRATOR_BACKUP__DIR, or one of your own, if omitted.",
    ),
    work_folders: bool = typer.Option(
        False, "--work-folders", help="The agents' work folders too, as they are now, within initial_state's limits."
    ),
    keep: int | None = typer.Option(None, "--keep", min=1, metavar="N", help="Then keep the N newest of this cluster."),
    days: float | None = typer.Option(None, "--days", min=0.0, metavar="N", help="Then keep those of the last N days."),
    as_json: bool = JsonOption,
) -> None:
    """Back up a cluster's configuration, settings and runs, never its secrets; runs may be recorded meanwhile.

    What --keep and --days leave open comes from ORCHESTRATOR_BACKUP__KEEP and __DAYS; without any, all backups stay.
    Status 1 when a run or a work folder could not be kept.
    """
    from orchestrator_lab.backup import create_backup
    from orchestrator_lab.config import load_settings

    if keep is days is None:
        said = load_settings().backup
        keep, days = said.keep, said.days
    with common.busy("backing up"):
        done = create_backup(config, to, work_folders=work_folders, keep=keep, days=days)
    if as_json:
        common.print_json(
            {
                **_row(done.backup),
                "size": done.size,
                "new": done.new,
                "masked": list(done.masked),
                "work": done.work,
                "left_out": done.left_out,
                "removed": [str(path) for path in done.removed],
            }
        )
    else:
        _show_created(done)
    if done.left_out or any(one["why"] is not None for one in done.work or ()):
        raise typer.Exit(1)


def _show_created(done: Created) -> None:
    from rich.filesize import decimal

    for name in done.masked:
        common.say_note(f"{name} holds secrets: they are not in the backup")
    for one in done.work or ():
        if one["why"] is not None:
            common.say_note(f"the work folder {one['path']} is not in the backup: {one['why']}")
    for run_id, why in done.left_out.items():
        common.say_note(f"run {run_id} is not in the backup: {why}")
    typer.echo(
        f"{done.backup.path}: {_count(len(done.backup.facts['files']), 'file')} of the configuration, "
        f"{_count(len(done.backup.runs), 'run')}, "
        + (f"{_count(sum(one['files'] for one in done.work), 'file')} of work folders, " if done.work else "")
        + f"{decimal(done.size)}, {decimal(done.new)} of it new"
    )
    for path in done.removed:
        typer.echo(f"removed {path}")


def list_(
    *,
    place: str | None = _IN,
    runs: bool = typer.Option(False, "--runs", help="Show the runs in each."),
    as_json: bool = JsonOption,
) -> None:
    """List the backups, the newest last."""
    from orchestrator_lab.backup import find_backups
    from orchestrator_lab.backup.listing import backup_dir

    folder = backup_dir(place)
    found, faults = find_backups(folder)
    for fault in faults:
        common.say_note(fault.message)
    if as_json:
        common.print_json([_row(one) for one in found])
        return
    if not found:
        typer.echo(f"no backup in {folder}")
        return
    _show_list(found, runs=runs)


def _show_list(found: list[Backup], *, runs: bool) -> None:
    from rich.filesize import decimal

    from orchestrator_lab.cli.words import moment

    if runs:
        shown = common.table("backup", ("run", {"no_wrap": True}), "status", ("size", {"justify": "right"}))
        for one in found:
            for run in one.runs:
                shown.add_row(
                    one.path.name, run["run_id"], common.state_text(run["status"] or "unknown"), decimal(run["size"])
                )
    else:
        shown = common.table(
            "backup", "made", "cluster", "folder", ("runs", {"justify": "right"}), ("size", {"justify": "right"})
        )
        for one in found:
            size = sum(run["size"] for run in one.runs)
            made = moment(one.created_at.isoformat())
            shown.add_row(one.path.name, made, one.cluster or "", one.folder, str(len(one.runs)), decimal(size))
    common.out().print(shown)


def _row(backup: Backup) -> dict[str, Any]:
    return {
        "path": str(backup.path),
        "name": backup.path.name,
        "created_at": backup.created_at.isoformat(timespec="microseconds"),
        "cluster": backup.cluster,
        "folder": backup.folder,
        "files": list(backup.facts["files"]),
        "runs": [{key: run[key] for key in ("run_id", "status", "size")} for run in backup.runs],
        "left_out": backup.facts["left_out"],
    }


def verify(backup: str | None = _BACKUP, *, place: str | None = _IN, as_json: bool = JsonOption) -> None:
    """Check every byte of a backup; status 1 when it is damaged."""
    from rich.filesize import decimal

    from orchestrator_lab.backup import verify_backup

    chosen = _find(backup, place)
    with common.busy(f"checking {chosen.path.name}"):
        found = verify_backup(chosen)
    if as_json:
        damages = [{"where": one.where, "what": one.what} for one in found.damages]
        common.print_json(
            {"path": str(found.path), "ok": found.ok, "files": found.files, "size": found.size, "damages": damages}
        )
    elif found.ok:
        typer.echo(f"{found.path}: whole, {found.files} files, {decimal(found.size)}")
    else:
        typer.echo(f"{found.path}: damaged")
        for one in found.damages:
            typer.echo(f"  {common.harmless(one.where)}: {common.harmless(one.what)}")
    if not found.ok:
        raise typer.Exit(1)


def restore(
    backup: str | None = _BACKUP,
    *,
    place: str | None = _IN,
    into: str = typer.Option(".", "--into", metavar="DIR", help="The folder of the cluster; this one when omitted."),
    runs_dir: str | None = typer.Option(
        None, "--runs-dir", metavar="DIR", help="The folder of its runs; where its configuration has it if omitted."
    ),
    runs: list[str] = typer.Option(
        [], "--run", metavar="ID", help="Only this run, without the configuration (repeatable)."
    ),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace what is there and differs."),
    as_json: bool = JsonOption,
) -> None:
    """Bring a cluster back from a backup: checked first, all of it or nothing; never over what is there unasked."""
    from orchestrator_lab.backup import restore_backup

    chosen = _find(backup, place, into=into)
    with common.busy(f"restoring {chosen.path.name}"):
        done = restore_backup(chosen, into, runs_dir=runs_dir, runs=runs, overwrite=overwrite)
    if as_json:
        common.print_json(
            {
                "backup": str(chosen.path),
                "into": str(done.into),
                "runs_dir": str(done.runs_dir),
                **{
                    key: [str(path) for path in getattr(done, key)]
                    for key in ("files", "runs", "work", "same", "resumable")
                },
                "notes": list(done.notes),
            }
        )
        return
    _show_restored(done)


def _show_restored(done: Restored) -> None:
    for note in done.notes:
        common.say_note(note)
    typer.echo(
        f"{done.into}: {_count(len(done.files), 'file')} of the configuration, {_count(len(done.runs), 'run')}"
        + (f", {_count(len(done.work), 'work folder')}" if done.work else "")
        + " restored"
        + (f"; {len(done.same)} were there already" if done.same else "")
    )
    for path in done.resumable:
        typer.echo(f"it can go on: orchestrator-lab start --resume {path}")


def _find(backup: str | None, place: str | None, *, into: str = ".") -> Backup:
    from orchestrator_lab.backup import find_backup
    from orchestrator_lab.backup.listing import backup_dir, full

    return find_backup(backup, backup_dir(place), place=full(into))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
