"""The command that replays a run by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from orchestrator_lab.cli import common
from orchestrator_lab.cli.common import JsonOption

if TYPE_CHECKING:
    from orchestrator_lab.rehearsing import Rehearsal

__all__ = ["replay"]


def replay(
    run: str = typer.Argument("last", metavar="[RUN]", help="A run's id, folder or bundle; the newest when omitted."),
    *,
    strict: bool = typer.Option(False, "--strict", help="Stop where something differs."),
    speed: str | None = typer.Option(
        None, "--speed", metavar="TIMES", help="1 is as recorded, 2 twice as fast; as fast as it can be when omitted."
    ),
    as_json: bool = JsonOption,
) -> None:
    """Replay a run from its beginning to its end: exit status 0 when it comes out the same, 1 when it does not.

    Its programs are played in real panes; they need not be installed. What was done from outside is done again.
    """
    from orchestrator_lab.cli.progress import interruptible
    from orchestrator_lab.rehearsing import rehearse

    with interruptible("Ending the replay"), common.busy("replaying") as spinner:

        def say(words: str) -> None:
            if spinner is not None:
                spinner.update(f"replaying: {words}")

        done = rehearse(run, mode="replay_strict" if strict else "replay", speed=speed, on_act=say)
    if as_json:
        common.print_json(
            {
                "run": str(done.run.path),
                "same": done.same,
                "tables": done.tables,
                "divergences": done.divergences,
                "took_s": round(done.took_s, 3),
                "recorded_s": round(done.recorded_s, 3),
            }
        )
    else:
        _tell(done)
    if not done.same:
        raise typer.Exit(1)


def _tell(done: Rehearsal) -> None:
    typer.echo(f"replayed {done.recorded_s:.1f} s in {done.took_s:.1f} s: {done.run.path}")
    for name, same in done.tables.items():
        rows = len(getattr(done.recorded, name))
        typer.echo(f"  {name:<11}{'the same' if same else 'differs':<10}{rows} rows")
    for sentence in done.divergences:
        typer.echo(f"  {sentence}")
    if not done.same:
        typer.echo(f"what differs: orchestrator-lab runs diff --exact {done.recorded.path} {done.run.path}")
