"""Commands for runs in one file (export, import, verify, open), and for what a run holds of its work folders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from orchestrator_lab.cli import common
from orchestrator_lab.cli.common import JsonOption

if TYPE_CHECKING:
    from orchestrator_lab.bundle.exporting import Export
    from orchestrator_lab.bundle.verifying import Verified

__all__ = ["export_run", "import_run", "initial", "open_bundled", "verify"]

_RUN = typer.Argument(None, metavar="[RUN]", help="A run's folder or id, or a cluster's name; the newest when omitted.")
_BUNDLE = typer.Argument(..., metavar="BUNDLE", help="A file such as night.olab.zip.")


def export_run(
    run: str | None = _RUN,
    *,
    output: str | None = typer.Option(
        None, "--output", "-o", metavar="FILE", help="The bundle; RUN_ID.olab.zip in this folder when omitted."
    ),
    notebook: str | None = typer.Option(None, "--notebook", metavar="FILE", help="A notebook to go with the run."),
    review: bool = typer.Option(
        False, "--review", help="Write nothing: list what would leave this machine, and what would be masked in it."
    ),
    leave_out: list[str] = typer.Option(
        [], "--leave-out", metavar="PART", help="A part that stays here, such as transcripts (repeatable)."
    ),
    words: list[str] = typer.Option([], "--mask", metavar="TEXT", help="Mask this text too (repeatable)."),
    keep: list[str] = typer.Option(
        [], "--keep", metavar="TEXT", help="Do not mask this; * stands for anything (repeatable)."
    ),
    unmasked: bool = typer.Option(False, "--unmasked", help="Mask nothing: for your own machines only."),
    force: bool = typer.Option(False, "--force", help="Replace the file if it is there."),
    as_json: bool = JsonOption,
) -> None:
    """Write a run as one file that others can open, what is private masked."""
    from orchestrator_lab.cli.records import find_run

    found = find_run(run)
    with common.busy(f"exporting {found.run_id}"):
        done = found.export(
            output,
            notebook=notebook,
            leave_out=leave_out,
            mask=not unmasked,
            privacy={"words": words, "keep": keep},
            review=review,
            overwrite=force,
        )
    if as_json:
        common.print_json(_told(done))
        return
    _show_export(done, unmasked=unmasked)


def _told(done: Export) -> dict[str, Any]:
    return {
        "run_id": done.run_id,
        "path": None if done.path is None else str(done.path.absolute()),
        "size": done.size,
        "files": [
            {
                "name": one.name,
                "size": one.size,
                "masked": one.masked,
                "looked_into": one.looked_into,
                "damage": list(one.damage),
            }
            for one in done.files
        ],
        "left_out": done.left_out,
        "masked": done.masked,
        "substitutes": [
            {"text": one.text, "pattern": one.pattern, "substitute": one.substitute} for one in done.substitutes
        ],
        "passed_over": list(done.passed_over),
    }


def _show_export(done: Export, *, unmasked: bool) -> None:
    from rich.filesize import decimal
    from rich.text import Text

    console = common.out()
    shown = common.table(("file", {"overflow": "fold"}), ("size", {"justify": "right"}), "masked")
    for one in done.files:
        said = ", ".join(f"{pattern} {count}" for pattern, count in sorted(one.masked.items()))
        shown.add_row(Text(one.name), decimal(one.size), Text(said if one.looked_into else "no text: not looked into"))
    console.print(shown)
    if done.substitutes:
        console.print()
        table = common.table(
            ("private text", {"overflow": "fold"}), "what it is", ("in its place", {"overflow": "fold"})
        )
        for text in done.substitutes:
            table.add_row(Text(common.harmless(text.text)), Text(text.pattern), Text(text.substitute))
        console.print(table)
    console.print()
    for name, why in sorted(done.left_out.items()):
        common.say_note(f"{name} is left out: {why}")
    for one in done.files:
        for sentence in one.damage:
            common.say_note(f"{one.name} is damaged: {sentence}")
    if done.passed_over:
        common.say_note(
            f"too common or too short to be masked as words: {', '.join(done.passed_over)}; --mask TEXT masks them"
        )
    if unmasked:
        common.say_note("nothing was masked")
    if done.path is None:
        typer.echo(f"{len(done.files)} files would leave this machine; nothing was written")
    else:
        typer.echo(f"{done.path}: {len(done.files)} files, {decimal(done.size or 0)}")


def initial(
    run: str | None = _RUN,
    *,
    to: str | None = typer.Option(None, "--to", metavar="DIR", help="Make them there: a new folder, or an empty one."),
    as_json: bool = JsonOption,
) -> None:
    """Show the work folders as they were before any agent started, or make them so somewhere."""
    from orchestrator_lab.cli.records import find_run
    from orchestrator_lab.errors import ConfigError

    found = find_run(run)
    state = found.initial_state()
    if state is None:
        raise ConfigError(
            f"run {found.run_id} has kept no work folder: it was made in another mode than record, by an earlier "
            "version, with initial_state: false, or its agents see no files"
        )
    if to is not None:
        with common.busy(f"making {to}"):
            state.restore(to)
    if as_json:
        common.print_json(state.to_dict())
    else:
        typer.echo(repr(state) if to is None else to)


def import_run(
    bundle: str = _BUNDLE,
    *,
    into: str | None = typer.Option(
        None, "--into", metavar="DIR", help="A folder of runs; runs_dir of this folder's cluster when omitted."
    ),
    as_json: bool = JsonOption,
) -> None:
    """Unpack a bundle into a folder of runs, every file checked."""
    from orchestrator_lab.bundle.importing import import_bundle
    from orchestrator_lab.cli.records import runs_dir

    with common.busy(f"importing {Path(bundle).name}"):
        path = import_bundle(bundle, Path(into) if into else runs_dir())
    if as_json:
        common.print_json({"run_id": path.name, "path": str(path.absolute())})
        return
    typer.echo(str(path))


def verify(bundle: str = _BUNDLE, *, as_json: bool = JsonOption) -> None:
    """Check every byte of a bundle; status 1 when it is damaged. This is no signature: it does not say who made it."""
    from orchestrator_lab.bundle.verifying import verify_bundle

    with common.busy(f"checking {Path(bundle).name}"):
        found = verify_bundle(bundle)
    if as_json:
        damages = [{"where": one.where, "what": one.what} for one in found.damages]
        before = [{"where": one.where, "what": one.what} for one in found.before]
        common.print_json(
            {"ok": found.ok, "files": found.files, "size": found.size, "damages": damages, "damaged_before": before}
        )
    else:
        _show_verified(found)
    if not found.ok:
        raise typer.Exit(1)


def _show_verified(found: Verified) -> None:
    from rich.filesize import decimal

    if found.ok:
        typer.echo(f"{found.path}: whole, {found.files} files, {decimal(found.size)} (this does not tell who made it)")
        for one in found.before:
            common.say_note(
                f"{common.harmless(one.where)} was damaged before it was packed: {common.harmless(one.what)}"
            )
        return
    typer.echo(f"{found.path}: damaged")
    for one in found.damages:
        typer.echo(f"  {common.harmless(one.where)}: {common.harmless(one.what)}")


def open_bundled(
    bundle: str = _BUNDLE,
    *,
    full: bool = typer.Option(False, "--full", help="Whole texts instead of their beginnings."),
    notebook: str | None = typer.Option(
        None, "--notebook", metavar="FILE", help="Write the notebook that came with the run there."
    ),
) -> None:
    """Check a bundle, show the run in it, and how to go on."""
    from orchestrator_lab.bundle.opening import open_bundle
    from orchestrator_lab.bundle.verifying import verify_bundle
    from orchestrator_lab.cli.records import show_run
    from orchestrator_lab.errors import BundleError, ConfigError
    from orchestrator_lab.run import Run

    with common.busy(f"checking {Path(bundle).name}"):
        found = verify_bundle(bundle)
    lost = [one for one in found.damages if one.where != "archive"]
    if lost:
        first = lost[0]
        raise BundleError(
            f"{found.path} is damaged, first at {first.where}: {first.what}",
            path=str(found.path),
        )
    opened = open_bundle(bundle)
    for one in found.damages:
        common.say_note(f"{found.path}: {one.what}")
    notebooks = opened.notebooks()
    if notebook is not None:
        target = Path(notebook).expanduser()
        if not notebooks:
            raise ConfigError(f"{found.path} holds no notebook; nothing was written to {target}")
        if target.exists():
            raise ConfigError(f"{target} exists: name another file for the notebook")
        opened.unpack(notebooks[0], target)
    run = Run(bundle)
    agents, messages, turns = (run.tables.fold(name).rows() for name in ("agents", "messages", "turns"))
    show_run(run, agents, messages, turns, full=full)
    for name in notebooks:
        if notebook is None:
            common.say_note(f"it holds the notebook {name}: --notebook FILE writes it")
        else:
            typer.echo(f"{notebook}: the notebook of the run")
