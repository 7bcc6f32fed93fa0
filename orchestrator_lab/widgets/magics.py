"""Magics: ``%load_ext orchestrator_lab`` gives ``%cluster``, ``%%ask``, ``%%send`` and ``%panes``.

A cell that is one magic that waits for agents is awaited, so that the kernel stays free and the controls of a view work
meanwhile: IPython's magics cannot say so themselves, a transformation of the cell does it for them. Anywhere else the
same magics block.
"""

from __future__ import annotations

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from IPython.core.error import UsageError
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class
from IPython.core.magic_arguments import argument, magic_arguments, parse_argstring
from IPython.display import display

from orchestrator_lab.cluster import Cluster
from orchestrator_lab.errors import ClusterNotFound, ConfigError, OrchestratorLabError

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Awaitable, Callable, Coroutine

    import pandas as pd

    from orchestrator_lab.exchange import Exchange
    from orchestrator_lab.run import Run

__all__ = ["ClusterMagics", "awaited", "load", "unload"]

T = TypeVar("T")
_ACTIONS = ("start", "attach", "list", "status", "stop", "restart", "shutdown")
#: Where the magics are, for code in a cell.
_HERE = "get_ipython().magics_manager.registry['ClusterMagics']"
#: Cells that wait for agents.
_WAITS = re.compile(r"%%ask(?:\s|$)|%cluster\s+(?:start|restart|stop|shutdown)\b[^\n]*\Z")
_ASK = re.compile(r"%%ask[ \t]*([^\n]*)\n?(.*)\Z", re.DOTALL)
_CLUSTER = re.compile(r"%cluster[ \t]+([^\n]*)\Z")


def awaited(lines: list[str]) -> list[str]:
    r"""Rewrite a cell that is one waiting magic, so that IPython awaits it.

    Parameters
    ----------
    lines : list of str
        The cell's lines, with their ends.

    Returns
    -------
    list of str
        The same for every other cell.

    Examples
    --------
    >>> (cell,) = awaited(["%%ask boss\n", "Hello.\n"])
    >>> cell.partition(".aask")[2]
    "(get_ipython().var_expand('boss'), 'Hello.\\n')\n"
    >>> awaited(["print(1)\n"])
    ['print(1)\n']
    """
    text = "".join(lines).strip("\n")
    if not _WAITS.match(text):
        return lines
    if (ask := _ASK.match(text)) is not None:
        line, body = ask.groups()
        body = body if not body or body.endswith("\n") else f"{body}\n"
        return [f"await {_HERE}.aask({_expanded(line)}, {body!r})\n"]
    cluster = _CLUSTER.match(text)
    if cluster is None:
        return lines
    return [f"await {_HERE}.acluster({_expanded(cluster.group(1))})\n"]


def _expanded(line: str) -> str:
    """Return code that gives a magic's line with its variables in place, as IPython gives it to every magic."""
    return f"get_ipython().var_expand({line!r})"


def _plainly(error: OrchestratorLabError) -> OrchestratorLabError:
    """Have IPython show an error as its sentence, without a traceback; class and details stay."""
    said = f"{type(error).__name__}: {error.message}"
    error._render_traceback_ = lambda: [said]  # type: ignore[attr-defined]
    return error


@magics_class
class ClusterMagics(Magics):
    """The magics; they remember the cluster that was started or attached last."""

    def __init__(self, shell: Any) -> None:  # noqa: ANN401 - IPython's
        super().__init__(shell)
        self._shell = shell
        self._cluster: Cluster | None = None

    # %cluster -----------------------------------------------------------------------------------

    @magic_arguments()
    @argument("action", choices=_ACTIONS, help="What to do.")
    @argument("what", nargs="?", help="start: a file or template:NAME; else: the cluster's name.")
    @argument("--name", help="start: name of the cluster, instead of the configured one.")
    @argument("--experiment", help="start: experiment that the run belongs to.")
    @argument("--param", action="append", default=[], metavar="KEY=VALUE", help="start: a condition of the run.")
    @argument("--tag", action="append", default=[], help="start: a label of the run.")
    @argument("--seed", type=int, help="start: kept with the run.")
    @argument("--mode", help="start: live, record, replay, replay_strict, or auto: replay if the run is there.")
    @argument("--run", metavar="RUN", help="start: the run that is replayed.")
    @argument("--level", help="start: how it is replayed: terminal, or model.")
    @argument("--speed", help="start: how fast a terminal is played; 1 for the pace of the recording.")
    @argument("--resume", metavar="RUN", help="start: go on with a run that has no end.")
    @argument("--as", dest="variable", default="cluster", metavar="VARIABLE", help="Where the cluster is put.")
    @line_magic
    def cluster(self, line: str) -> Any:  # noqa: ANN401 - what the action gives
        """Start, attach, look at and end clusters."""
        return _blocking(self.acluster(line))

    async def acluster(self, line: str) -> Any:  # noqa: ANN401 - what the action gives
        """Do what ``%cluster`` says without blocking the loop."""
        given = parse_argstring(self.cluster, line)
        if not str(given.variable).isidentifier():
            raise UsageError(f"--as {given.variable}: that is no name of a variable")
        if given.action == "start":
            return await _plain(self._start(given))
        if given.action == "list":
            return _listed()
        if given.action == "attach":
            return self._take(self._named(given.what), given.variable)
        cluster = self._meant(given.what)
        if given.action == "status":
            return _status(cluster)
        return await _plain(self._end(cluster, given.action))

    async def _start(self, given: Namespace) -> Cluster:
        options: dict[str, Any]
        if given.resume is not None:
            if given.what is not None or given.name is not None:
                raise UsageError("--resume goes on with what the run had: give it alone")
            source, options = None, {"resume": given.resume}
        else:
            from orchestrator_lab.config import load_config, parse_params

            source = given.what if given.name is None else load_config(given.what).renamed(given.name)
            options = {
                "experiment": given.experiment,
                "params": parse_params(given.param),
                "tags": given.tag,
                "seed": given.seed,
                "mode": given.mode,
                "run": given.run,
                "level": given.level,
                "speed": given.speed,
            }
        return self._take(await Cluster.astart(source, **options), given.variable)

    async def _end(self, cluster: Cluster, action: str) -> Run | None:
        await getattr(cluster, f"a{action}")()
        if action != "shutdown":
            return None
        if cluster is self._cluster:
            self._cluster = None
        return cluster.run

    def _take(self, cluster: Cluster, variable: str) -> Cluster:
        self._cluster = cluster
        self._shell.push({variable: cluster})
        return cluster

    # which --------------------------------------------------------------------------------------

    def _named(self, name: str | None) -> Cluster:
        """Return a cluster by its name, the only one that runs by default."""
        if name is None:
            running = [one.name for one in Cluster.list()]
            if len(running) != 1:
                listed = f"several are running ({', '.join(running)})" if running else "none is running"
                raise _plainly(ClusterNotFound(f"no cluster is named, and {listed}: %cluster attach NAME"))
            name = running[0]
        try:
            return Cluster.attach(name)
        except OrchestratorLabError as error:
            raise _plainly(error) from None

    def _meant(self, name: str | None = None) -> Cluster:
        """Return the cluster that is named; else the one in hand, the variable ``cluster``, or the only one."""
        if name is not None:
            return self._named(name)
        if self._cluster is not None and not self._cluster._ended:  # noqa: SLF001 - one package
            return self._cluster
        mine = self._shell.user_ns.get("cluster")
        return mine if isinstance(mine, Cluster) else self._named(None)

    # %%ask, %%send ------------------------------------------------------------------------------

    @magic_arguments()
    @argument("to", nargs="+", help="Names of agents, or 'all'.")
    @argument("-c", "--cluster", metavar="NAME", help="Which cluster; the last one by default.")
    @argument("--now", action="store_true", help="Type at once, even while the agent works.")
    @argument("--timeout", type=float, metavar="S", help="Seconds to wait for each answer; without end by default.")
    @cell_magic
    def ask(self, line: str, cell: str) -> Exchange | None:
        """Write the text of the cell to agents and wait for their answers; shows them as exchanges."""
        return _blocking(self.aask(line, cell))

    async def aask(self, line: str, cell: str) -> Exchange | None:
        """Do what ``%%ask`` says without blocking the loop."""
        given = parse_argstring(self.ask, line)
        if given.timeout is not None and given.timeout <= 0:
            raise UsageError(f"--timeout {given.timeout:g}: seconds to wait are more than none")
        return await _plain(self._ask(given, cell))

    async def _ask(self, given: Namespace, cell: str) -> Exchange | None:
        sent = await asyncio.to_thread(self._write, given, cell)
        failed: list[OrchestratorLabError] = []
        for one in asyncio.as_completed([_answered(exchange, given.timeout) for exchange in sent]):
            exchange, error = await one
            if error is not None:
                failed.append(error)
            elif len(sent) > 1:
                display(exchange)
        if failed:
            raise failed[0] if len(failed) == 1 else OrchestratorLabError("; ".join(one.message for one in failed))
        return sent[0] if len(sent) == 1 else None

    @magic_arguments()
    @argument("to", nargs="+", help="Names of agents, or 'all'.")
    @argument("-c", "--cluster", metavar="NAME", help="Which cluster; the last one by default.")
    @argument("--now", action="store_true", help="Type at once, even while the agent works.")
    @cell_magic
    def send(self, line: str, cell: str) -> Exchange | list[Exchange]:
        """Write the text of the cell to agents, and go on."""
        given = parse_argstring(self.send, line)
        try:
            sent = self._write(given, cell)
        except OrchestratorLabError as error:
            raise _plainly(error) from None
        return sent[0] if len(sent) == 1 else sent

    def _write(self, given: Namespace, cell: str) -> list[Exchange]:
        if not cell.strip():
            raise ConfigError("there is no message: write it below the first line of the cell")
        cluster = self._meant(given.cluster)
        everybody = given.to == ["all"]
        names = cluster.names if everybody else [cluster[name].name for name in given.to]
        when = "now" if given.now else "idle"
        return cluster.send(names, cell.rstrip("\n"), when=when, source="human", broadcast=everybody)

    # %panes -------------------------------------------------------------------------------------

    @magic_arguments()
    @argument("agents", nargs="*", help="Which agents; all by default.")
    @argument("-c", "--cluster", metavar="NAME", help="Which cluster; the last one by default.")
    @argument("--still", action="store_true", help="A picture of this moment, not a live view.")
    @line_magic
    def panes(self, line: str) -> Any:  # noqa: ANN401 - a view, or stills
        """Show the panes of agents."""
        from orchestrator_lab.stills import Screens
        from orchestrator_lab.widgets.saved import static_only

        given = parse_argstring(self.panes, line)
        cluster = self._meant(given.cluster)
        try:
            names = [cluster[name].name for name in given.agents]
            if given.still or static_only():
                return Screens([cluster[name].screen() for name in names or cluster.names])
            return cluster.view(names or None)
        except OrchestratorLabError as error:
            raise _plainly(error) from None


def _blocking(work: Coroutine[Any, Any, T]) -> T:
    """Do something asynchronous where nobody can await it, as in a cell with more than the magic."""
    with ThreadPoolExecutor(1, "orchestrator-lab-magic") as thread:
        return thread.submit(asyncio.run, work).result()


async def _plain(work: Awaitable[T]) -> T:
    """Await something; an error of the lab is shown as its sentence."""
    try:
        return await work
    except OrchestratorLabError as error:
        raise _plainly(error) from None


async def _answered(exchange: Exchange, timeout_s: float | None) -> tuple[Exchange, OrchestratorLabError | None]:
    """Wait for an answer; return what went wrong instead of raising it, so that the others are heard."""
    try:
        if timeout_s is None:
            await exchange
        else:
            await asyncio.to_thread(exchange.result, timeout_s)
    except OrchestratorLabError as error:
        return exchange, error
    return exchange, None


def _listed() -> pd.DataFrame:
    """Return the clusters that run here, one a row."""
    import pandas as pd

    rows = [(one.name, one.run_id, one.started_at) for one in Cluster.list()]
    return pd.DataFrame(rows, columns=["cluster", "run_id", "started_at"]).set_index("cluster")


def _status(cluster: Cluster) -> pd.DataFrame:
    """Return the agents of a cluster, one a row, as they are now."""
    import pandas as pd

    try:
        agents = cluster.status()["agents"]
    except OrchestratorLabError as error:
        raise _plainly(error) from None
    columns = ["role", "kind", "model", "state", "queued"]
    rows = {one["name"]: [one[column] for column in columns] for one in agents}
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    return frame.rename_axis("agent")


def load(shell: Any) -> None:  # noqa: ANN401 - IPython's
    """Register the magics in a shell; a second time changes nothing."""
    transforms = shell.input_transformers_cleanup
    if awaited not in transforms:
        transforms.append(awaited)
        shell.register_magics(ClusterMagics)


def unload(shell: Any) -> None:  # noqa: ANN401 - IPython's
    """Take the magics away."""
    transforms: list[Callable[[list[str]], list[str]]] = shell.input_transformers_cleanup
    if awaited in transforms:
        transforms.remove(awaited)
    for kind, names in {"line": ("cluster", "panes"), "cell": ("ask", "send")}.items():
        for name in names:
            shell.magics_manager.magics[kind].pop(name, None)
