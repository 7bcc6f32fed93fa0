"""How a run's models answer: the switch, and what a replay needs of the run that it replays."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator_lab.bundle import is_bundle
from orchestrator_lab.cassette import CASSETTES, SUFFIX
from orchestrator_lab.errors import ConfigError, EnvironmentProblem
from orchestrator_lab.resuming import default_runs_dir, find_run
from orchestrator_lab.run import MODES
from orchestrator_lab.runtime import private_dir

if TYPE_CHECKING:
    from orchestrator_lab.config import ClusterConfig
    from orchestrator_lab.run import Run

__all__ = ["Recorded", "choose_mode", "recorded_run"]

#: What stands in a run's record in place of a secret.
_MASK = "***"


def choose_mode(mode: str | None, *, has_run: bool) -> str:
    """Return the mode of a run that is about to start.

    Parameters
    ----------
    mode : str or None
        What the caller said; None leaves it to ``ORCHESTRATOR_LAB_MODE``, in the environment or in ``.env``.
    has_run : bool
        Whether a run to replay was named.

    Returns
    -------
    str
        ``replay`` when nobody says anything and a run was named, else ``record``.

    Raises
    ------
    ConfigError
        When there is no such mode, or a replay has no run.

    Examples
    --------
    >>> choose_mode("replay_strict", has_run=True)
    'replay_strict'
    """
    from orchestrator_lab.config import load_settings

    chosen = mode or load_settings().mode or ("replay" if has_run else "record")
    if chosen not in MODES:
        raise ConfigError(f"there is no mode {chosen!r}; the modes are: {', '.join(MODES)}")
    if chosen.startswith("replay") and not has_run:
        raise ConfigError(f"mode {chosen} needs the run that is to be replayed: give run= (--run on the command line)")
    return chosen


class Recorded:
    """A run that is to be replayed.

    Parameters
    ----------
    path : Path
        Its folder.

    Raises
    ------
    ConfigError
        When no model was recorded in it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cassettes = sorted((path / CASSETTES).glob(f"*{SUFFIX}"))
        if not self.cassettes:
            raise ConfigError(
                f"run {path.name} holds no cassette: it was made in mode live, or its agents talk to their models "
                "themselves; record it again in mode record with a gateway, or look at it as data with open_run"
            )

    @property
    def run_id(self) -> str:
        """Its id."""
        return self.path.name

    def config(self) -> ClusterConfig:
        """Return what it was started with, for this machine.

        Secrets, which a run does not hold, are left out, and so are scripts, since no model is asked. A work folder
        that is not here is made in the current folder, empty. Runs go where they go from here.
        """
        import yaml

        from orchestrator_lab.config import load_config

        place = self.path / "config.yaml"
        try:
            data: dict[str, Any] = yaml.safe_load(place.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise ConfigError(
                f"{place} cannot be read ({error}): say what to start, with a configuration of your own"
            ) from error
        cluster = data["cluster"]
        cluster["runs_dir"] = str(default_runs_dir().absolute())
        for one in [cluster, *data["agents"]]:
            _fit(one, Path.cwd() / f"{cluster['name']}-replay")
        return load_config(data, base_dir=Path.cwd())

    def give(self, run_dir: Path) -> None:
        """Copy what was recorded into the run that replays it."""
        folder = private_dir(run_dir / CASSETTES)
        for cassette in self.cassettes:
            try:
                shutil.copyfile(cassette, folder / cassette.name)
                (folder / cassette.name).chmod(0o600)
            except OSError as error:
                raise EnvironmentProblem(
                    f"the cassette {cassette} cannot be copied into the new run ({error.strerror}); check its owner "
                    "and the space left",
                    path=str(cassette),
                ) from error


def recorded_run(run: str | os.PathLike[str] | Run) -> Recorded:
    """Return the run that is to be replayed.

    Parameters
    ----------
    run : path-like or Run
        A run; its folder, its bundle, its id, or ``last``.

    Raises
    ------
    RunNotFound
        When there is no such run.
    ConfigError
        When no model was recorded in it.
    """
    path = Path(getattr(run, "path", None) or os.fspath(run)).expanduser()  # type: ignore[arg-type]
    if is_bundle(path):
        from orchestrator_lab.bundle.opening import open_bundle

        return Recorded(open_bundle(path).all())
    return Recorded(path if hasattr(run, "path") else find_run(run))


def _fit(part: dict[str, Any], folder: Path) -> None:
    """Fit the configuration of a cluster or an agent to this machine."""
    if part.get("work_dir") and not Path(part["work_dir"]).is_dir():
        part.update(work_dir=str(folder), create_work_dir=True)
    gateway = part.get("gateway")
    if isinstance(gateway, dict) and isinstance(gateway.get("script"), str):
        part["gateway"] = {**gateway, "script": []}
    env = part.get("env")
    if isinstance(env, dict):
        part["env"] = {key: value for key, value in env.items() if _MASK not in str(value)}
