"""What a notebook holds: a cluster, its agents and its exchanges. A client of the supervisor, no more.

Closing the notebook, restarting its kernel or killing it changes nothing: attach again with :meth:`Cluster.attach`.
"""

from __future__ import annotations

import asyncio
import contextlib
import html
import os
import shlex
import shutil
import weakref
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, overload

from orchestrator_lab import client as processes
from orchestrator_lab.acting import actor
from orchestrator_lab.client import Client
from orchestrator_lab.dialog import Dialog
from orchestrator_lab.errors import (
    AgentNotFound,
    ClusterNotFound,
    ConfigError,
    OrchestratorLabError,
    SupervisorLost,
)
from orchestrator_lab.exchange import Conversation, Exchange
from orchestrator_lab.initial.walking import CREATED_MARK
from orchestrator_lab.runtime import (
    ClusterRecord,
    cluster_dir,
    is_locked,
    list_clusters,
    read_record,
    runtime_dir,
    write_private,
)
from orchestrator_lab.schema import new_id
from orchestrator_lab.stills import Screen, Screens

if TYPE_CHECKING:
    import builtins
    import subprocess
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import libtmux
    import pandas as pd

    from orchestrator_lab.config import ClusterConfig
    from orchestrator_lab.run import Run

__all__ = ["Agent", "Cluster", "Conversation", "Dialog", "Exchange"]


class Agent:
    """One agent of a running cluster.

    Parameters
    ----------
    cluster : Cluster
        Its cluster.
    name : str
        Its name.
    """

    def __init__(self, cluster: Cluster, name: str) -> None:
        self._cluster = cluster
        self.name = name

    def send(
        self,
        text: str,
        *,
        when: str = "idle",
        in_reply_to: str | None = None,
        expires: float | None = None,
        source: str = "program",
    ) -> Exchange:
        """Write to the agent; return at once.

        Parameters
        ----------
        text : str
            What is typed into its input, whatever its length. Control characters are removed.
        when : {"idle", "now"}
            Wait for the end of its turn, or type while it works (it queues the text itself).
        in_reply_to : str, optional
            Id of a message that this one answers.
        expires : float, optional
            Seconds after which an undelivered message is given up.
        source : {"program", "human"}
            Who made the text: a notebook's code, or a person.

        Returns
        -------
        Exchange
            ``.result()`` waits for the answer.

        Raises
        ------
        MessageRefused, ClusterStopped
            When it may not, or cannot, be written to.
        """
        return self._cluster.send(
            [self.name], text, when=when, in_reply_to=in_reply_to, expires=expires, source=source
        )[0]

    def ask(self, text: str, *, timeout: float | None = None) -> Exchange:
        """Write to the agent and wait for its answer.

        Parameters
        ----------
        text : str
            What is typed into its input.
        timeout : float, optional
            Seconds to wait; the agent's ``response_timeout_s``, or without end.

        Returns
        -------
        Exchange
            Finished; its ``reply`` is the answer's text.

        Raises
        ------
        ExchangeTimeout, DeliveryFailed, DeliveryUncertain, TurnFailed
            See :meth:`Exchange.result`.
        """
        if timeout is None:
            timeout = self._cluster.config.agent(self.name).response_timeout_s
        return self._cluster._ask(self.name, text, timeout)  # noqa: SLF001 - one class in two parts

    def screen(self, *, history: int = 0) -> Screen:
        """Return a still of the pane.

        Parameters
        ----------
        history : int
            Lines above the visible part to include.
        """
        reply = self._cluster.client.get(self._path("screen"), timeout_s=10.0, escapes="1", history=history)
        return Screen(self.name, str(reply["screen"]))

    def explain(self) -> dict[str, Any]:
        """Return why it is in its state.

        Returns
        -------
        dict
            ``state``, ``source`` and ``decision`` (the fact that decides); ``votes``, one for each fact with its source
            and age; ``screen``, with the input line, the screen rules and those that fit now; ``dialog``.
        """
        return self._cluster.client.get(self._path("explain"), timeout_s=10.0)

    def interrupt(self) -> None:
        """Interrupt its turn, as a person would; the turn ends as ``interrupted``."""
        self._cluster.client.post_once(self._path("interrupt"), {}, timeout_s=None)

    def restart(self) -> None:
        """Start its program anew; its session goes on where the program can resume one."""
        self._cluster.client.post_once(self._path("restart"), {}, timeout_s=None)

    def stop(self) -> None:
        """End its program; the pane stays."""
        self._cluster.client.post(self._path("stop"))

    @property
    def facts(self) -> dict[str, Any]:
        """What the supervisor knows of it now."""
        for agent in self._cluster.status()["agents"]:
            if agent["name"] == self.name:
                return dict(agent)
        raise AgentNotFound(f"agent {self.name!r} has left cluster {self._cluster.name!r}", agent=self.name)

    @property
    def state(self) -> str:
        """Published state: starting, idle, busy, waiting, limited, exited, failed or unknown."""
        return str(self.facts["state"])

    @property
    def dialog(self) -> Dialog | None:
        """The question that its program asks its user now, None when it asks nothing."""
        return Dialog.from_facts(self._cluster.client, self.facts)

    @property
    def role(self) -> str:
        """Its role, as configured."""
        return str(self.facts["role"])

    @property
    def pane(self) -> libtmux.Pane:
        """The libtmux object of its pane."""
        import libtmux

        status = self._cluster.status()
        server = libtmux.Server(socket_path=status["tmux_socket"])
        pane_id = self.facts["pane_id"]
        return libtmux.Pane.from_pane_id(pane_id=pane_id, server=server)

    @property
    def attach_command(self) -> str:
        """The command that attaches a terminal to its pane."""
        return shlex.join(self._cluster.client.get(self._path("attach"), timeout_s=10.0)["argv"])

    def _path(self, what: str) -> str:
        return f"/agents/{self.name}/{what}"

    def __repr__(self) -> str:
        return f"Agent({self.name!r})"


class Cluster:
    """A named set of agents that runs under its supervisor.

    Made by :meth:`start` and :meth:`attach`. As a context manager it shuts the cluster down at the end of the block.

    Parameters
    ----------
    folder : Path
        Its runtime folder.
    name : str
        Its name.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.client = Client(folder, name)
        record = read_record(folder)
        self._run_dir = Path(record.run_dir) if record is not None else None
        self._run: Run | None = None
        self._config: ClusterConfig | None = None
        self._ended = False
        #: Views of it that this object made: they leave stills behind.
        self._views: weakref.WeakSet[Any] = weakref.WeakSet()

    # life ---------------------------------------------------------------------------------------

    @classmethod
    def start(
        cls,
        config: str | Path | Mapping[str, Any] | ClusterConfig | None = None,
        *,
        experiment: str | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Iterable[str] = (),
        seed: int | None = None,
        mode: str | None = None,
        run: str | Path | Run | None = None,
        level: str | None = None,
        speed: float | str | None = None,
        resume: str | Path | None = None,
        on_event: Callable[[dict[str, Any]], None] | None = None,
    ) -> Cluster:
        """Start a cluster and wait until its agents take messages.

        Parameters
        ----------
        config : path, mapping, ClusterConfig or ``template:NAME``, optional
            What to start; by default ``cluster.yaml`` of the current folder, and in a replay what the run was
            started with.
        experiment : str, optional
            Name of the experiment that the run belongs to.
        params : mapping, optional
            Conditions of the run, JSON values; a column of ``runs_df``.
        tags : iterable of str
            Labels of the run.
        seed : int, optional
            Kept with the run.
        mode : {"live", "record", "replay", "replay_strict", "auto"}, optional
            How the agents' models answer: as they are; and taken down; or from the recording of `run`, going on where
            something differs or stopping there. ``ORCHESTRATOR_LAB_MODE`` says it when this does not; without both
            it is ``replay`` when a `run` is given, and ``record`` otherwise. ``auto`` is the same but for a `run` that
            is not there (yet): it is recorded then.
        run : path-like or Run, optional
            The run that is replayed: itself, its folder or bundle, its id, or ``last``. Of no meaning in the other
            modes.
        level : {"terminal", "model"}, optional
            How it is replayed: its programs played on their terminals, which needs neither them nor a model, and gives
            the same tables; or the real programs run on the recorded answers of their models.
            ``ORCHESTRATOR_LAB_LEVEL`` says it when this does not; without both it is ``terminal``.
        speed : float or ``"max"``, optional
            How many times faster than then a terminal is played: 1.0 to watch; as fast as it can be by default.
        resume : path-like, optional
            A run that has no end, since the machine or all of the cluster's processes went down: its folder, its id,
            or ``last``. It goes on in the same folder, with the agents and conversations that it had; nothing else is
            given then. Secrets, which a run does not hold, are taken from the environment and ``.env``.
        on_event : callable, optional
            Called with each journal event during the start, for progress.

        Returns
        -------
        Cluster
            It lives on when this process ends, unless its ``lifetime`` is ``owner``.

        Raises
        ------
        ConfigError, RunNotFound, ClusterExists, TmuxMissing, ProgramNotFound, AgentFailed, ReplayDiverged
            Nothing is left behind; a run that was to be resumed is as it was.

        Examples
        --------
        >>> with Cluster.start("template:duo") as cluster:  # doctest: +SKIP
        ...     print(cluster["ada"].ask("Say hello.").reply)
        """
        from orchestrator_lab.beginning import create_run
        from orchestrator_lab.config import (
            known_secrets,
            load_config,
            notify_addresses,
            to_dict,
            to_yaml,
            without_secrets,
        )
        from orchestrator_lab.modes import choose_mode, recorded_run

        if resume is not None:
            others = (config, experiment, params, tags, seed, mode, run, level, speed)
            if any(given not in (None, ()) for given in others):
                raise ConfigError("a run that is resumed has its configuration and its tags: give resume= alone")
            return cls._resume(resume, on_event)
        mode = choose_mode(mode, run)
        recorded = recorded_run(run, level, speed) if run is not None and mode.startswith("replay") else None
        settings = recorded.config() if recorded is not None and config is None else load_config(config)
        if recorded is not None:
            settings = recorded.fit(settings)
        environ = processes.check_locale(dict(os.environ))
        if settings.alerts.enabled:
            notify_addresses(settings.alerts.notify, environ, check=True)
        processes.refuse_if_running(settings.name)
        secrets = known_secrets(settings, environ)
        made = _make_work_dirs(settings)
        run_dir = create_run(
            settings.runs_dir,
            config=without_secrets(to_dict(settings), secrets),
            name=settings.name,
            experiment=experiment,
            params=params,
            tags=tags,
            seed=seed,
            mode=mode,
            parent_run_id=None if recorded is None else recorded.run_id,
            work_dir=settings.work_dir,
            started_by=None if (who := actor()) is None else {"by": who.by, "origin": who.origin},
        )
        try:
            write_private(run_dir / "config.yaml", to_yaml(settings, secrets=secrets))
            if recorded is not None:
                recorded.give(run_dir)
            return cls._launch(settings, run_dir, environ, on_event)
        except BaseException:
            _discard(run_dir, made, filled=recorded is not None)
            raise

    @classmethod
    def _resume(cls, where: str | Path, on_event: Callable[[dict[str, Any]], None] | None) -> Cluster:
        """Start what a run without an end had, in its own folder."""
        from orchestrator_lab.resuming import prepare

        environ = processes.check_locale(dict(os.environ))
        found = prepare(where, environ)
        processes.refuse_if_running(found.config.name)
        return cls._launch(found.config, found.run_dir, environ, on_event, since=found.last_seq)

    @classmethod
    def _launch(
        cls,
        settings: ClusterConfig,
        run_dir: Path,
        environ: dict[str, str],
        on_event: Callable[[dict[str, Any]], None] | None,
        *,
        since: int = 0,
    ) -> Cluster:
        """Start the processes of a cluster, and wait for its agents; leave nothing behind when that fails."""
        folder, keeper = cluster_dir(settings.name), None
        cluster = cls(folder, settings.name)
        cluster._config, cluster._run_dir = settings, run_dir
        try:
            with processes.interrupts_held():
                keeper = processes.launch(settings, run_dir, run_dir.name, environ)
            processes.wait_for_socket(cluster.client, keeper)
            cluster.client.check_version()
            cluster._follow_start(on_event, since)
        except (ClusterNotFound, SupervisorLost) as error:
            # A supervisor that could not go on has said why before it ended.
            cause = processes.failure_of(folder, settings.name)
            cluster._abandon(keeper)
            raise cause from error
        except BaseException:
            cluster._abandon(keeper)
            raise
        return cluster

    @classmethod
    async def astart(cls, *args: Any, **kwargs: Any) -> Cluster:  # noqa: ANN401 - as start
        """Start without blocking the loop; see :meth:`start`."""
        return await asyncio.to_thread(cls.start, *args, **kwargs)

    @classmethod
    def attach(cls, name: str) -> Cluster:
        """Return a cluster that runs already, whoever started it.

        Parameters
        ----------
        name : str
            Its name.

        Raises
        ------
        ClusterNotFound
            When there is none.
        VersionMismatch
            When it is run by a version that this one does not understand.
        """
        folder = processes.find(name)
        cluster = cls(folder, name)
        processes.wake(name)
        cluster.client.check_version()
        return cluster

    @classmethod
    async def aattach(cls, name: str) -> Cluster:
        """Attach without blocking the loop; see :meth:`attach`."""
        return await asyncio.to_thread(cls.attach, name)

    @staticmethod
    def list() -> builtins.list[ClusterRecord]:
        """Return the clusters that run on this machine for this user."""
        return [one for one in list_clusters() if is_locked(runtime_dir() / one.name) or one.alive("tmux")]

    def _follow_start(self, on_event: Callable[[dict[str, Any]], None] | None, since: int) -> None:
        """Wait for the start, telling each event to whoever shows progress."""
        if on_event is None:
            self.client.get("/ready")
            return
        import threading

        stream = Client(self.client.folder, self.name)
        follower = threading.Thread(target=_tell, args=(stream, on_event, since), daemon=True)
        follower.start()
        try:
            self.client.get("/ready")
        finally:
            stream.hang_up()
            follower.join(2)

    def _abandon(self, keeper: subprocess.Popen[bytes] | None) -> None:
        """End what a failed or interrupted start has begun."""
        import signal

        if keeper is not None:
            with contextlib.suppress(ProcessLookupError):
                keeper.send_signal(signal.SIGTERM)
            with contextlib.suppress(Exception):
                keeper.wait(30)
        self.client.close()
        processes.wait_until_gone(self.client.folder)
        shutil.rmtree(self.client.folder, ignore_errors=True)

    def stop(self) -> None:
        """End the agents; the tmux session and the run stay, :meth:`restart` goes on."""
        self.client.post("/stop")

    def restart(self) -> None:
        """Start the agents anew in the same run; their sessions go on where a program can resume one."""
        self.client.post_once("/restart", {}, timeout_s=None)

    def shutdown(self, status: str = "completed") -> Path:
        """End agents, tmux session and run.

        Parameters
        ----------
        status : {"completed", "failed", "cancelled"}
            How the run ended.

        Returns
        -------
        Path
            The run's folder.
        """
        run_dir = self.run_dir
        if self._ended:
            return run_dir
        for view in list(self._views):
            view.freeze()
        # The run stays readable: what is asked of it later comes from its folder.
        _ = self.run
        with contextlib.suppress(ClusterNotFound):  # ended already, by this very call if its answer was lost
            self.client.post("/shutdown", {"status": status})
        self.client.close()
        processes.wait_until_gone(self.client.folder)
        processes.clear(self.client.folder)
        self._ended = True
        return run_dir

    async def astop(self) -> None:
        """Stop without blocking the loop; see :meth:`stop`."""
        await asyncio.to_thread(self.stop)

    async def arestart(self) -> None:
        """Restart without blocking the loop; see :meth:`restart`."""
        await asyncio.to_thread(self.restart)

    async def ashutdown(self, status: str = "completed") -> Path:
        """Shut down without blocking the loop; see :meth:`shutdown`."""
        return await asyncio.to_thread(self.shutdown, status)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.shutdown("completed" if kind is None else "failed" if issubclass(kind, Exception) else "cancelled")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        await self.ashutdown("completed" if kind is None else "failed")

    # agents -------------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> Agent:
        # A call to the supervisor only for names that the configuration does not know.
        if name not in self.config.names and name not in self.names:
            raise AgentNotFound(
                f"no agent {name!r} in cluster {self.name!r}; it has: {', '.join(self.names) or 'none'}", agent=name
            )
        return Agent(self, name)

    def __iter__(self) -> Iterator[Agent]:
        return iter([Agent(self, name) for name in self.names])

    def __len__(self) -> int:
        return len(self.names)

    @property
    def names(self) -> builtins.list[str]:
        """Names of the agents."""
        return [str(agent["name"]) for agent in self.status()["agents"]]

    @property
    def agents(self) -> builtins.list[Agent]:
        """The agents, in the order of the configuration."""
        return list(iter(self))

    @property
    def config(self) -> ClusterConfig:
        """The configuration that it was started with."""
        if self._config is None:
            from orchestrator_lab.config import ClusterConfig

            self._config = ClusterConfig.from_json((self.client.folder / "config.json").read_bytes())
        return self._config

    @overload
    def add(self, agent: Mapping[str, Any], /) -> Agent: ...

    @overload
    def add(
        self, agent: Mapping[str, Any], second: Mapping[str, Any], /, *more: Mapping[str, Any]
    ) -> builtins.list[Agent]: ...

    def add(self, *agents: Mapping[str, Any]) -> Agent | builtins.list[Agent]:
        """Start one more agent, or several side by side.

        Parameters
        ----------
        *agents : mapping
            For each the keys of an entry of ``agents:`` in ``cluster.yaml``.

        Returns
        -------
        Agent, or list of Agent
            Ready; a list when several were given.

        Raises
        ------
        ConfigError, ProgramNotFound, AgentFailed
            The cluster is as before: all of them join, or none.
        """
        from orchestrator_lab.config import add_agent

        config = self.config
        for agent in agents:
            config = add_agent(config, agent)
        new = config.agents[len(config.agents) - len(agents) :]
        listed = [one.model_dump(mode="json", by_alias=True) for one in new]
        self.client.post("/agents", {"agents": listed, "agent_ids": [new_id("agt_") for _ in new]})
        self._config = config
        added = [Agent(self, one.name) for one in new]
        return added[0] if len(added) == 1 else added

    def remove(self, name: str) -> None:
        """End an agent and take it out of the cluster."""
        self.client.delete(f"/agents/{self[name].name}")
        self._config = self.config.model_copy(
            update={"agents": [agent for agent in self.config.agents if agent.name != name]}
        )

    # messages -----------------------------------------------------------------------------------

    def send(
        self,
        to: Iterable[str],
        text: str,
        *,
        when: str = "idle",
        in_reply_to: str | None = None,
        expires: float | None = None,
        source: str = "program",
        broadcast: bool = False,
    ) -> builtins.list[Exchange]:
        """Write the same text to several agents; see :meth:`Agent.send`."""
        message = {"when": when, "in_reply_to": in_reply_to, "expires_s": expires, "source": source}
        return self._post(to, text, {**message, "broadcast": broadcast})

    def _post(
        self,
        to: Iterable[str],
        text: str,
        message: dict[str, Any],
        *,
        until: str | None = None,
        timeout: float | None = None,
    ) -> builtins.list[Exchange]:
        """Write a message; `until` waits for a rung of it in the same call."""
        if not isinstance(text, str):
            raise ConfigError(f"a message is a text, got {type(text).__name__}")
        names = [to] if isinstance(to, str) else [str(name) for name in to]
        ids = [new_id("msg_") for _ in names]
        body = {"to": names, "text": text, "message_ids": ids, **message}
        reply = self.client.post("/messages", body, timeout_s=timeout, until=until)
        return [Exchange(self, facts) for facts in reply["messages"]]

    def _ask(self, name: str, text: str, timeout: float | None) -> Exchange:
        (exchange,) = self._post([name], text, {}, until="final", timeout=timeout)
        exchange.settled(timeout)
        return exchange

    def ask(self, to: str, text: str, *, timeout: float | None = None) -> Exchange:
        """Write to one agent and wait for its answer; see :meth:`Agent.ask`."""
        return self[to].ask(text, timeout=timeout)

    def broadcast(self, text: str, *, when: str = "idle") -> builtins.list[Exchange]:
        """Write the same text to every agent; return at once."""
        return self.send(self.names, text, when=when, broadcast=True)

    def converse(self, agents: Iterable[str | Agent], opening: str, *, rounds: int = 1) -> Conversation:
        """Let agents speak in turn, each answer typed to the next, for a number of rounds.

        Parameters
        ----------
        agents : iterable of str or Agent
            Who speaks, in order; after the last comes the first.
        opening : str
            What the first one is told.
        rounds : int
            How often each speaks.

        Returns
        -------
        Conversation
            ``.wait()`` (or ``await``) returns when it is over; it needs no client meanwhile.
        """
        names = [agent.name if isinstance(agent, Agent) else str(agent) for agent in agents]
        return Conversation(
            self,
            self.client.post(
                "/conversations",
                {"agents": names, "opening": opening, "rounds": rounds, "conversation_id": new_id("cnv_")},
            ),
        )

    def wait(self, *names: str, timeout: float | None = None) -> Self:
        """Wait until agents are idle and nothing is on its way to them.

        Parameters
        ----------
        *names : str
            Agents; all by default.
        timeout : float, optional
            Seconds to wait; without end by default.

        Raises
        ------
        ExchangeTimeout
            When the time is over.
        DeliveryPaused
            When a guard holds all that is left until somebody lifts it.
        """
        self.client.get("/wait", timeout_s=timeout, agents=",".join(names))
        return self

    async def await_idle(self, *names: str, timeout: float | None = None) -> Self:  # noqa: ASYNC109 - as wait
        """Wait without blocking the loop; see :meth:`wait`."""
        await self.client.aget("/wait", timeout_s=timeout, agents=",".join(names))
        return self

    # alerts -------------------------------------------------------------------------------------

    def alerts(self, *, all: bool = False) -> pd.DataFrame:  # noqa: A002 - what is wanted
        """Return what is wrong now and somebody should know.

        Parameters
        ----------
        all : bool
            Those that are over, too: the whole table of the run.

        Returns
        -------
        pandas.DataFrame
            One row an alert, as :func:`orchestrator_lab.frames.alerts_df`.
        """
        from orchestrator_lab.frames import alerts_df
        from orchestrator_lab.schema import build_frame

        if all or self._ended:
            frame = alerts_df(self.run_dir)
            return frame if all else frame[frame["resolved_at"].isna()].reset_index(drop=True)
        # From the supervisor itself: what a full disk keeps out of the journal is not in the run.
        rows = self.client.get("/alerts", timeout_s=20.0)["alerts"]
        names = ("alert_id", "level", "agent", "rule", "message", "opened_at", "acknowledged_at")
        columns = {name: [row[name] for row in rows] for name in names}
        return build_frame("alerts", {"run_id": [self.run_id] * len(rows), **columns})

    def acknowledge(self, alert_id: str = "all", *, by: str = "human") -> builtins.list[str]:
        """Say that somebody has seen an alert: it is not told again unless it becomes graver.

        Parameters
        ----------
        alert_id : str
            The alert; all open ones by default.
        by : str
            Who has seen it.

        Returns
        -------
        list of str
            Ids of those that nobody had acknowledged before.

        Raises
        ------
        AlertNotFound
            When no open alert has this id.
        """
        return self._alert(alert_id, "acknowledge", by)

    def clear(self, alert_id: str = "all", *, by: str = "human") -> builtins.list[str]:
        """Close an alert by hand; its rule opens it again only after its cause has gone, or at a graver level.

        Parameters
        ----------
        alert_id : str
            The alert; all open ones by default.
        by : str
            Who closes it.

        Returns
        -------
        list of str
            Ids of those that are over now.

        Raises
        ------
        AlertNotFound
            When no open alert has this id.
        """
        return self._alert(alert_id, "clear", by)

    def _alert(self, alert_id: str, what: str, by: str) -> builtins.list[str]:
        reply = self.client.post(f"/alerts/{alert_id}/{what}", {"by": by})
        return [str(alert["alert_id"]) for alert in reply["alerts"]]

    def figures(self) -> dict[str, Any]:
        """Return what is counted and measured; :func:`orchestrator_lab.metrics.render` writes it for Prometheus."""
        return self.client.get("/figures", timeout_s=20.0)

    # guards -------------------------------------------------------------------------------------

    @property
    def guards(self) -> builtins.list[dict[str, Any]]:
        """What pauses delivery now, the oldest first: limits that are reached, usage limits that programs reported.

        Each has ``guard_id``, ``rule``, ``scope``, ``agent``, ``limit``, ``value``, the ``chain`` of messages and a
        ``message`` that says why; ``until`` is the instant at which it ends by itself, None when somebody has to.
        """
        return [dict(one) for one in self.client.get("/guards", timeout_s=20.0)["guards"]]

    def lift(
        self,
        guard_id: str | None = None,
        *,
        by: str = "user",
        limit: float | None = None,
        allowance: float | None = None,
    ) -> builtins.list[dict[str, Any]]:
        """Let delivery go on where a guard holds it.

        Parameters
        ----------
        guard_id : str, optional
            Which guard; all of them by default.
        by : str
            Who lifts it, for the record.
        limit : float, optional
            The figure at which it holds again.
        allowance : float, optional
            How much further it may go before it holds again; as far again as the configured limit by default.

        Returns
        -------
        list of dict
            The guards that were lifted.

        Raises
        ------
        GuardNotFound
            When there is none of this id.
        ConfigError
            When the new limit is reached already, or is for none or several.
        """
        body = {"guard_id": guard_id, "by": by, "limit": limit, "allowance": allowance}
        return [dict(one) for one in self.client.post("/guards/lift", body)["lifted"]]

    # looking ------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Return what the supervisor knows now: agents, states, counts, the attach command."""
        return self.client.get("/status", timeout_s=20.0)

    def screens(self) -> Screens:
        """Return a still of every pane."""
        return Screens([agent.screen() for agent in self])

    @property
    def dialogs(self) -> builtins.list[Dialog]:
        """The questions that agents ask their user now."""
        found = [Dialog.from_facts(self.client, agent) for agent in self.status()["agents"]]
        return [one for one in found if one is not None]

    @property
    def run_dir(self) -> Path:
        """Folder of the run that it records."""
        if self._run_dir is None:
            self._run_dir = Path(self.status()["run_dir"])
        return self._run_dir

    @property
    def run(self) -> Run:
        """The run that it records, as far as it has come."""
        if self._run is None:
            from orchestrator_lab.run import open_run

            self._run = open_run(self.run_dir)
        return self._run

    @property
    def run_id(self) -> str:
        """Identity of the run."""
        return self.run.run_id

    def events(self) -> builtins.list[Any]:
        """Return the run's events so far."""
        return self.run.events()

    @property
    def attach_command(self) -> str:
        """The command that attaches a terminal to the cluster."""
        return str(self.status()["attach"])

    def __repr__(self) -> str:
        if self._ended:
            return f"Cluster({self.name!r}, shut down)"
        try:
            names = ", ".join(self.names)
        except OrchestratorLabError:
            return f"Cluster({self.name!r}, gone)"
        return f"Cluster({self.name!r}, agents=[{names}])"

    def view(self, agents: Iterable[str] | None = None, *, controls: bool = True, theme: str = "auto") -> Any:  # noqa: ANN401 - what stands above this module has no type here
        """Return a live view for a notebook: panes, states, messages, controls.

        Parameters
        ----------
        agents : iterable of str, optional
            Whose panes; all by default.
        controls : bool
            Whether the view has controls, or only shows.
        theme : {"auto", "light", "dark"}
            Its colours; those of the page by default.

        Returns
        -------
        ClusterView
            Shown when it is the last line of a cell. ``.freeze()`` leaves a still in its place.

        Raises
        ------
        EnvironmentProblem
            When this installation lacks the browser's part.
        """
        # What stands above is looked up by name, when it is wanted.
        module = import_module("orchestrator_lab.widgets.view")
        made = module.ClusterView(self, agents=agents, controls=controls, theme=theme)
        self._views.add(made)
        return made

    def _ipython_display_(self) -> None:
        """Show itself live in a notebook, as a table elsewhere."""
        from IPython.core.getipython import get_ipython
        from IPython.display import display

        if not self._ended and hasattr(get_ipython(), "kernel"):
            with contextlib.suppress(OrchestratorLabError, ImportError):
                self.view()._ipython_display_()
                return
        display({"text/plain": repr(self), "text/html": self._repr_html_()}, raw=True)  # type: ignore[no-untyped-call]

    def _repr_html_(self) -> str:
        if self._ended:
            return f"<b>{html.escape(self.name)}</b>: shut down"
        try:
            agents = self.status()["agents"]
        except OrchestratorLabError as error:
            return f"<b>{html.escape(self.name)}</b>: {html.escape(error.message)}"
        rows = "".join(
            "<tr>"
            + "".join(f"<td style='text-align:left'>{html.escape(str(agent[key] or ''))}</td>" for key in _SHOWN)
            + "</tr>"
            for agent in agents
        )
        head = "".join(f"<th style='text-align:left'>{key}</th>" for key in _SHOWN)
        return f"<b>{html.escape(self.name)}</b><table><tr>{head}</tr>{rows}</table>"


_SHOWN = ("name", "role", "kind", "state")


def _tell(stream: Client, on_event: Callable[[dict[str, Any]], None], since: int) -> None:
    """Tell each event until the stream is hung up."""
    with contextlib.suppress(Exception):
        for event in stream.events(since):
            on_event(event)


def _make_work_dirs(config: ClusterConfig) -> list[Path]:
    """Make the work folders that the configuration asks for; return the new ones."""
    wanted = [config.work_dir] if config.create_work_dir else []
    wanted += [agent.work_dir for agent in config.agents if agent.create_work_dir and agent.work_dir is not None]
    made = []
    for folder in wanted:
        if not folder.exists():
            folder.mkdir(parents=True)
            (folder / CREATED_MARK).touch()
            made.append(folder)
    return made


def _discard(run_dir: Path, made: list[Path], *, filled: bool) -> None:
    """Take away what a start made that did not succeed: its error says what there is to know."""
    shutil.rmtree(run_dir, ignore_errors=True)
    with contextlib.suppress(OSError):
        run_dir.parent.rmdir()
    for folder in made:
        if filled:  # with what the recording has as well
            shutil.rmtree(folder, ignore_errors=True)
            continue
        with contextlib.suppress(OSError):
            (folder / CREATED_MARK).unlink()
            folder.rmdir()
