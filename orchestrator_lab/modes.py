"""How a run's models answer: the switch, and what a replay needs of the run that it replays."""

from __future__ import annotations

import json
import os
import shutil
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator_lab.beginning import MODES
from orchestrator_lab.bundle import is_bundle
from orchestrator_lab.cassette import CASSETTES, SUFFIX
from orchestrator_lab.errors import ConfigError, EnvironmentProblem, RunNotFound
from orchestrator_lab.initial.places import give_state, place_folders
from orchestrator_lab.journal.playable import unplayable
from orchestrator_lab.journal.reader import read_events
from orchestrator_lab.mirrors import present
from orchestrator_lab.reading.entries import events_with
from orchestrator_lab.resuming import default_runs_dir, find_run
from orchestrator_lab.runtime import private_dir, runtime_dir, write_private
from orchestrator_lab.tables import JOURNAL, RunTables

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator_lab.config import ClusterConfig
    from orchestrator_lab.journal.event import Event
    from orchestrator_lab.run import Run

__all__ = ["AUTO", "LEVELS", "Recorded", "choose_level", "choose_mode", "recorded_run"]

#: Replays a run if it is there; a run's own mode is what became of it.
AUTO = "auto"
#: How a run is replayed: its programs played on their terminals, or run for real on recorded answers of their models.
LEVELS = ("terminal", "model")
#: Columns or rows of the largest pane.
_LARGEST = 1000
#: Folder of a replay with what it plays; the supervisor's name for it.
_REPLAYED = "replayed"
#: What stands in a run's record in place of a secret.
_MASK = "***"
#: Files and folders of an agent's that nothing is looked up in on the terminal.
_NOT_PLAYED = ("work_dir", "create_work_dir", "instructions_file", "screens")


def choose_mode(mode: str | None, run: str | os.PathLike[str] | Run | None) -> str:
    """Return the mode of a run that is about to start.

    Parameters
    ----------
    mode : str or None
        What the caller said; None and ``auto`` leave it to ``ORCHESTRATOR_LAB_MODE``, in the environment or in
        ``.env``.
    run : path-like, Run or None
        The run that was named to be replayed.

    Returns
    -------
    str
        When nobody says more: with ``auto``, ``replay`` if there is such a run, else ``record``; without it,
        ``replay`` if one was named, else ``record``.

    Raises
    ------
    ConfigError
        When there is no such mode, or a replay has no run.

    Examples
    --------
    >>> choose_mode("replay_strict", "night.olab.zip")
    'replay_strict'
    >>> choose_mode("auto", "/nonexistent.olab.zip")
    'record'
    """
    from orchestrator_lab.config import load_settings

    said = load_settings().mode
    chosen = said or mode or ("replay" if run is not None else "record") if mode in {None, AUTO} else mode
    if chosen == AUTO:
        chosen = "replay" if run is not None and _is_there(run) else "record"
    if chosen not in MODES:
        raise ConfigError(f"there is no mode {chosen!r}; the modes are: {', '.join([*MODES, AUTO])}")
    if chosen.startswith("replay") and run is None:
        raise ConfigError(f"mode {chosen} needs the run that is to be replayed: give run= (--run on the command line)")
    return chosen


def choose_level(level: str | None) -> str:
    """Return the level at which a run is replayed.

    Parameters
    ----------
    level : str or None
        What the caller said; None leaves it to ``ORCHESTRATOR_LAB_LEVEL``, in the environment or in ``.env``.

    Returns
    -------
    str
        ``terminal`` when nobody says anything.

    Raises
    ------
    ConfigError
        When there is no such level.

    Examples
    --------
    >>> choose_level("model")
    'model'
    """
    from orchestrator_lab.config import load_settings

    chosen = level or load_settings().level or LEVELS[0]
    if chosen not in LEVELS:
        raise ConfigError(f"there is no level {chosen!r} of replay; the levels are: {', '.join(LEVELS)}")
    return chosen


class Recorded:
    """A run that is to be replayed.

    Parameters
    ----------
    path : Path
        Its folder.
    level : {"terminal", "model"}
        How.
    speed : float or None
        How many times faster than then it is played on the terminal; None for as fast as it can be.

    Raises
    ------
    ConfigError
        When it cannot be replayed at this level.
    """

    def __init__(self, path: Path, level: str = "terminal", speed: float | None = None) -> None:
        self.path, self.level, self.speed = path, level, speed
        self.cassettes = sorted((path / CASSETTES).glob(f"*{SUFFIX}"))
        if level == "terminal":
            why = unplayable(path)
            if why is not None:
                raise ConfigError(
                    f"run {path.name} cannot be replayed on the terminal: {why}; look at it as data with open_run, or "
                    "run its programs on the recorded answers of their models (level: model)"
                )
        elif not self.cassettes:
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

        Secrets, which a run does not hold, are left out, and so are scripts, since no model is asked. Work folders
        that the run has kept are new ones in the current folder, to be made as they were; of the others, those that
        are not here are made there too, empty. Runs go where they go from here.
        """
        import yaml

        from orchestrator_lab.config import load_config

        place = self.path / "config.yaml"
        try:
            data: dict[str, Any] = yaml.safe_load(place.read_text(encoding="utf-8"))
            cluster, agents = _parts(data)
        except (OSError, yaml.YAMLError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{place} cannot be read ({error}): say what to start, with a configuration of your own"
            ) from error
        cluster["runs_dir"] = str(default_runs_dir().absolute())
        folder = Path.cwd() / f"{cluster['name']}-replay"
        for one in [cluster, *agents]:
            _fit(one, folder)
        if self.level == "model":
            place_folders(data, self.path, folder)
        for agent in agents:
            if self.level == "terminal":
                agent.pop("screens", None)  # no screen is read by them
            # The run has a copy of what each agent was told.
            kept = present(self.path / "instructions" / f"{agent['name']}.md")
            if agent.pop("instructions_file", None) and kept.is_file():
                agent["instructions_file"] = str(kept.absolute())
        return load_config(data, base_dir=Path.cwd())

    def fit(self, config: ClusterConfig) -> ClusterConfig:
        """Return a configuration as it is replayed.

        On the terminal no program works anywhere or asks anything: folders, gateways, tools and watches are not needed,
        and panes have the size that they had.
        """
        if self.level == "model":
            return config
        here = runtime_dir()
        agents = []
        for agent in config.agents:
            update: dict[str, Any] = {"work_dir": None, "create_work_dir": False}
            update |= _size(self._added.get(agent.name, {}))
            if "mcp" in type(agent).model_fields:
                update["mcp"] = False
            agents.append(agent.model_copy(update=update))
        return config.model_copy(
            update={
                "agents": agents,
                "work_dir": here,
                "create_work_dir": False,
                "record_changes": False,
                "alerts": config.alerts.model_copy(update={"enabled": False}),
            }
        )

    @cached_property
    def _added(self) -> dict[str, dict[str, Any]]:
        """What is told of each agent as it was added first."""
        found: dict[str, dict[str, Any]] = {}
        for one in events_with(RunTables(self.path), [b'"agent.added"']):
            if one.event == "agent.added":
                found.setdefault(str(one.agent), one.attributes)
        return found

    def joined(self, added: Event) -> dict[str, Any]:
        """Return the configuration of an agent that joined in the middle, as it is replayed on the terminal.

        Parameters
        ----------
        added : Event
            Its ``agent.added``.

        Raises
        ------
        ConfigError
            When the run does not say what it was.
        """
        name, facts = str(added.agent), added.attributes
        place = present(self.path / "sessions" / f"{name}.json")
        try:
            agent = _kept_config(place, name, facts.get("kind"))
            _fit(agent, Path.cwd())
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{place} cannot be read ({error}), which says what agent {name!r} was that joined in the middle: "
                "start the replay with start --run, and add it yourself"
            ) from error
        for key in _NOT_PLAYED:
            agent.pop(key, None)
        if "mcp" in agent:
            agent["mcp"] = False
        return {**agent, "role": facts.get("role"), **_size(facts)}

    def give(self, run_dir: Path) -> None:
        """Copy what was recorded into the run that replays it."""
        if self.level == "model":
            self._copy(self.cassettes, private_dir(run_dir / CASSETTES))
            give_state(self.path, run_dir)
            return
        folder = private_dir(run_dir / _REPLAYED)
        self._copy([self.path / JOURNAL], folder)
        self._copy(sorted((self.path / "panes").glob("*.cast.zst")), private_dir(folder / "panes"))
        write_private(folder / "how.json", json.dumps({"speed": self.speed}))
        for patch in sorted((self.path / "changes").rglob("*.patch")):
            self._copy([patch], private_dir(private_dir(run_dir / "changes") / patch.parent.name))

    @staticmethod
    def _copy(files: list[Path], folder: Path) -> None:
        for file in files:
            try:
                shutil.copyfile(file, folder / file.name)
                (folder / file.name).chmod(0o600)
            except OSError as error:
                raise EnvironmentProblem(
                    f"{file} cannot be copied into the new run ({error.strerror}); check its owner and the space left",
                    path=str(file),
                ) from error

    def events(self) -> list[Event]:
        """Return all events of the run."""
        return read_events(present(self.path / JOURNAL))[0]


def recorded_run(
    run: str | os.PathLike[str] | Run, level: str | None = None, speed: float | str | None = None
) -> Recorded:
    """Return the run that is to be replayed.

    Parameters
    ----------
    run : path-like or Run
        A run; its folder, its bundle, its id, or ``last``.
    level : str, optional
        How; see :func:`choose_level`.
    speed : float or ``"max"``, optional
        How many times faster than then, on the terminal.

    Raises
    ------
    RunNotFound
        When there is no such run.
    ConfigError
        When no model was recorded in it.
    """
    level, pace = choose_level(level), _pace(speed)
    path = Path(getattr(run, "path", None) or os.fspath(run)).expanduser()  # type: ignore[arg-type]
    if is_bundle(path):
        from orchestrator_lab.bundle.opening import open_bundle

        return Recorded(open_bundle(path).all(), level, pace)
    return Recorded(path if hasattr(run, "path") else find_run(run), level, pace)


def _parts(data: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:  # noqa: ANN401 - whatever YAML holds
    """Return the cluster and the agents of a recorded configuration; raise for what is none."""
    cluster, agents = data["cluster"], data["agents"]
    if not all(isinstance(one["name"], str) for one in [cluster, *agents]):
        raise TypeError("a name is no text")
    return cluster, agents


def _pace(speed: float | str | None) -> float | None:
    if speed in {None, "max"}:
        return None
    try:
        pace = float(speed)
    except (TypeError, ValueError):
        pace = 0.0
    if not 0 < pace < float("inf"):
        raise ConfigError(f"speed={speed!r} is no speed of a replay; give 'max', 1.0 for that of the recording, or 2.0")
    return pace


def _is_there(run: str | os.PathLike[str] | Run) -> bool:
    if hasattr(run, "path") or Path(run).expanduser().exists():
        return True
    try:
        find_run(run)
    except RunNotFound:
        return False
    return True


def _kept_config(place: Path, name: str, kind: object) -> dict[str, Any]:
    """Return what a run has kept of an agent's configuration, or raise what JSON and a missing key would."""
    from orchestrator_lab.config import AGENT_NAME

    if not AGENT_NAME.fullmatch(name):  # the journal of somebody else's run might name a file anywhere
        raise ValueError(f"{name!r} is no name")
    agent = json.loads(place.read_text(encoding="utf-8"))["config"]
    if (agent["name"], agent["kind"]) != (name, kind):
        raise ValueError(f"it tells of a {agent['kind']} agent {agent['name']!r}")
    return dict(agent)


def _size(added: Mapping[str, Any]) -> dict[str, int]:
    """Return the size that an agent's pane had."""
    sizes = {key: added.get(key) for key in ("cols", "rows")}
    return {key: size for key, size in sizes.items() if isinstance(size, int) and 1 <= size <= _LARGEST}


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
