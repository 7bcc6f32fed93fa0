"""Runs: the recorded life of a cluster, in a folder of its own."""

from __future__ import annotations

import html
import os
import tempfile
from collections import Counter
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator_lab.beginning import package_version
from orchestrator_lab.bundle import is_bundle
from orchestrator_lab.cassette import CASSETTES, SUFFIX, read_cassette
from orchestrator_lab.errors import ConfigError
from orchestrator_lab.journal.playable import unplayable
from orchestrator_lab.journal.reader import read_events
from orchestrator_lab.mirrors import present
from orchestrator_lab.schema import TABLES
from orchestrator_lab.sealing import journal_digest, made_here, open_seal, unseal, write_seal
from orchestrator_lab.tables import JOURNAL, MANIFEST, RunTables, find_runs, touched_tables

if TYPE_CHECKING:
    import re
    from collections.abc import Iterable, Mapping

    import pandas as pd

    from orchestrator_lab.bundle.exporting import Changes, Export
    from orchestrator_lab.comparing.difference import RunDiff
    from orchestrator_lab.initial.state import InitialState
    from orchestrator_lab.journal.event import Event
    from orchestrator_lab.reading.conversation import Conversation
    from orchestrator_lab.reading.story import Story
    from orchestrator_lab.sealing import Seal
    from orchestrator_lab.stills import Screen

__all__ = ["Run", "list_runs", "open_run"]


class Run:
    """A run folder, and its tables as far as the journal has come.

    A run that is still being recorded may be open as well: each look at a table reads what is new.

    Parameters
    ----------
    path : path-like
        The run's folder; see :func:`open_run`.

    Raises
    ------
    RunNotFound
        When the folder is no run.

    Examples
    --------
    >>> run = open_run("runs/run_x")  # doctest: +SKIP
    >>> run.messages[["sender", "recipient", "content", "status"]]  # doctest: +SKIP
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        #: The run's tables; :mod:`orchestrator_lab.frames` reads a run through them.
        self.tables = RunTables(path)
        #: The run's folder, or its bundle.
        self.path = Path(path)

    @property
    def files(self) -> Path:
        """The folder in which the run's files are read: its own; of a bundle a private one, filled as they are used."""
        return self.path if self.tables.path is None else self.tables.path

    @property
    def run_id(self) -> str:
        """The run's unique id; sorts by time."""
        return self.tables.run_id

    @property
    def manifest(self) -> dict[str, Any]:
        """What was known when the run began: config, versions, git state, platform."""
        return self.tables.manifest

    @property
    def status(self) -> str | None:
        """``running``, ``completed``, ``failed`` or ``cancelled``; None when that is not known."""
        self.tables.refresh()
        return self.tables.status()

    def replayable(self) -> dict[str, tuple[str, ...]]:
        """Return at which levels each agent's part of the run can be replayed.

        Returns
        -------
        dict
            By agent: ``data`` (tables, screens and playback, from what was recorded) is always there; ``terminal``
            when its program can be played in a pane (``Cluster.start(mode="replay", run=…)``), unless the run was
            broken in the middle; ``model`` when its model was recorded too, so that the real program can be run on
            the recorded answers (``level="model"``). An agent that talks to its model itself, not through the gateway,
            has no such recording.

        Raises
        ------
        CassetteDamaged
            When a recording of a model cannot be read.

        Examples
        --------
        >>> open_run("runs/run_x").replayable()  # doctest: +SKIP
        {'ada': ('data', 'terminal', 'model'), 'bob': ('data', 'terminal')}
        """
        found: dict[str, tuple[str, ...]] = {}
        played = unplayable(self.files) is None
        for name in self.agents["name"]:
            cassette = present(self.files / CASSETTES / f"{name}{SUFFIX}")
            pane = present(self.files / "panes" / f"{name}.cast.zst")
            levels = {
                "data": True,
                "terminal": played and pane.is_file(),
                "model": cassette.is_file() and any(True for _ in read_cassette(cassette)[1]),
            }
            found[str(name)] = tuple(level for level, there in levels.items() if there)
        return found

    def initial_state(self) -> InitialState | None:
        """Return the agents' work folders as they were before any agent started.

        Returns
        -------
        InitialState or None
            Printed as a list: files, what was left out and why. ``state.folders[0]["src/main.py"]`` is the path of a
            file that can be read. None when the run has kept nothing.

        Raises
        ------
        ConfigError
            When it cannot be read.
        BundleError
            When the run is a bundle that is damaged there.

        Examples
        --------
        >>> state = open_run("runs/run_x").initial_state()  # doctest: +SKIP
        >>> state.folders[0]["notes.txt"].read_text()  # doctest: +SKIP
        'as it was'
        """
        from orchestrator_lab.initial.state import INITIAL, read_state

        if is_bundle(self.path):
            from orchestrator_lab.bundle.opening import open_bundle

            open_bundle(self.path).bring_all(INITIAL)
        return read_state(self.files)

    def events(self) -> list[Event]:
        """Return all events of the run.

        Returns
        -------
        list of Event
            In the order of the journal; read from the file each time.

        Raises
        ------
        JournalError
            When the journal cannot be read.
        """
        journal = present(self.files / JOURNAL)
        return read_events(journal)[0] if journal.exists() else []

    @property
    def runs(self) -> pd.DataFrame:
        """The run's own row of the runs table."""
        return self.tables.frame("runs")

    @property
    def agents(self) -> pd.DataFrame:
        """The agents table; see :func:`orchestrator_lab.frames.agents_df`."""
        return self.tables.frame("agents")

    @property
    def messages(self) -> pd.DataFrame:
        """The messages table; see :func:`orchestrator_lab.frames.messages_df`."""
        return self.tables.frame("messages")

    @property
    def turns(self) -> pd.DataFrame:
        """The turns table; see :func:`orchestrator_lab.frames.turns_df`."""
        return self.tables.frame("turns")

    @property
    def tool_calls(self) -> pd.DataFrame:
        """The tool_calls table; see :func:`orchestrator_lab.frames.tool_calls_df`."""
        return self.tables.frame("tool_calls")

    @property
    def dialogs(self) -> pd.DataFrame:
        """The dialogs table; see :func:`orchestrator_lab.frames.dialogs_df`."""
        return self.tables.frame("dialogs")

    @property
    def states(self) -> pd.DataFrame:
        """The states table; see :func:`orchestrator_lab.frames.states_df`."""
        return self.tables.frame("states")

    @property
    def alerts(self) -> pd.DataFrame:
        """The alerts table; see :func:`orchestrator_lab.frames.alerts_df`."""
        return self.tables.frame("alerts")

    @property
    def processes(self) -> pd.DataFrame:
        """The processes table; see :func:`orchestrator_lab.frames.processes_df`."""
        return self.tables.frame("processes")

    @property
    def events_df(self) -> pd.DataFrame:
        """The events table; see :func:`orchestrator_lab.frames.events_df`."""
        return self.tables.frame("events")

    def seal(self) -> Seal:
        """Keep the tables as Parquet files beside the journal: they load at once, and by the column.

        Made in one step and read back before it counts. The journal stays, and stays the truth: when it grows, as in a
        run that is resumed, the files are passed over until the run is sealed again.

        Returns
        -------
        Seal
            Rows and digest of each table.

        Raises
        ------
        ConfigError
            When the run is being recorded.
        EnvironmentProblem, DiskFull
            When they cannot be written; what was there before stays.

        Examples
        --------
        >>> run.seal().rows["messages"]  # doctest: +SKIP
        1042
        """
        self._no_bundle("seal")
        return self._seal({})

    def seal_copy(self, copy: Path, changes: Changes) -> Seal:
        """Make the tables of a copy of this run; those in which nothing is another are taken from this one.

        Parameters
        ----------
        copy : pathlib.Path
            A folder with the manifest and the journal of this run, as they leave the machine.
        changes : Changes
            What is another in them.

        Returns
        -------
        Seal
            Of the copy: the same files as if all were made anew.
        """
        kept: dict[str, Path] = {}
        # What others packed is not taken for what this process would make of the same journal.
        found = None if is_bundle(self.path) else open_seal(self.path)
        known = found is not None and found.journal_sha256 == journal_digest(self.path, found.journal_bytes)
        if found is not None and known and self.manifest.get("run_id") == self.run_id:
            touched = touched_tables(changes.events) | ({"runs"} if changes.manifest else set())
            made = {name: made_here(found, name, package_version()) for name in TABLES if name not in touched}
            kept = {name: path for name, path in made.items() if path is not None}
        other = Run(copy)
        return other._seal(kept if other.run_id == self.run_id else {})

    def _seal(self, kept: dict[str, Path]) -> Seal:
        tables = RunTables(self.path)
        journal = self.path / JOURNAL
        size = journal.stat().st_size if journal.exists() else 0
        tables.refresh()
        if tables.status() == "running":
            raise ConfigError(f"run {self.run_id} is being recorded: shut its cluster down, then seal it")
        return write_seal(
            self.path,
            {name: partial(tables.pieces, name) for name in TABLES},
            journal_bytes=size,
            package_version=package_version(),
            kept=kept,
        )

    def unseal(self) -> bool:
        """Take the Parquet files away; the journal stays.

        Returns
        -------
        bool
            False when there were none.

        Raises
        ------
        EnvironmentProblem
            When they cannot be taken away.
        """
        self._no_bundle("unseal")
        return unseal(self.path)

    def conversation(self, agent: str | Iterable[str] | None = None, *, limit: int | None = 200) -> Conversation:
        """Return who said what to whom: a chat in a notebook, a page, Markdown, or text.

        Parameters
        ----------
        agent : str or iterable of str, optional
            Only what these said, were told and did.
        limit : int or None
            How many entries a notebook shows, the latest ones; None shows all.

        Returns
        -------
        Conversation
            With ``to_html()`` and ``to_markdown()``, which have all of it.

        Raises
        ------
        AgentNotFound
            When nobody of this name is in the run.

        Examples
        --------
        >>> run.conversation("boss")  # doctest: +SKIP
        """
        from orchestrator_lab.reading.conversation import Conversation

        return Conversation(self.tables, agent, limit=limit)

    def search(
        self,
        what: str | re.Pattern[str],
        *,
        agent: str | Iterable[str] | None = None,
        kind: str | Iterable[str] | None = None,
        regex: bool = False,
        case: bool = False,
        timeout_s: float = 10.0,
    ) -> pd.DataFrame:
        r"""Return where a text stands: in messages, replies, tool calls and dialogs.

        Parameters
        ----------
        what : str or re.Pattern
            Plain text; a regular expression when it is compiled, or with ``regex``.
        agent : str or iterable of str, optional
            Only what these said and did, and the messages that they were sent.
        kind : str or iterable of str, optional
            Only these tables: ``messages``, ``turns``, ``tool_calls``, ``dialogs``.
        regex : bool
            Whether a text is a regular expression.
        case : bool
            Whether upper and lower case of a text are told apart; a compiled expression says that itself.
        timeout_s : float
            Seconds after which a regular expression is given up; it runs in a process of its own, which is ended.

        Returns
        -------
        pandas.DataFrame
            One row a text that matches, in order of time: ``table``, ``field``, ``id``, ``agent``, ``recipient``,
            ``turn_id``, ``at``, ``excerpt``, ``match``, ``count``.

        Raises
        ------
        ConfigError
            When there is no such kind, it is no expression, or it took too long.
        AgentNotFound
            When nobody of this name is in the run.

        Examples
        --------
        >>> run.search("deadline", agent="boss")[["table", "id", "excerpt"]]  # doctest: +SKIP
        >>> run.search(r"\berror \d+", regex=True, kind="tool_calls")  # doctest: +SKIP
        """
        from orchestrator_lab.reading.search import search

        return search(self.tables, what, agent=agent, kind=kind, regex=regex, case=case, timeout_s=timeout_s)

    def story(self, message_id: str, *, settle_s: float = 0.2) -> Story:
        """Return the whole story of one message: rungs with their evidence, turn, tool calls, dialogs, screens.

        Parameters
        ----------
        message_id : str
            Its id.
        settle_s : float
            How long after an event the screen of it is taken: a program draws a little after what it reports.

        Returns
        -------
        Story
            Shown as HTML in a notebook, as text by ``print``; its parts are attributes.

        Raises
        ------
        ConfigError
            When the run has no such message.

        Examples
        --------
        >>> run.story(run.messages["message_id"][0])  # doctest: +SKIP
        """
        from orchestrator_lab.reading.story import Story

        return Story(self.tables, message_id, settle_s=settle_s)

    def diff(self, other: Run | str | os.PathLike[str], *, exact: bool = False) -> RunDiff:
        """Compare this run with another: what is not the same in the second.

        Messages are aligned by conversation and order, turns by the messages that they answer, tool calls and dialogs
        by turn, agents by name, the configuration by key path. Ids in texts, and the path of the work folder, count as
        the same whatever they are.

        Parameters
        ----------
        other : Run or path-like
            The second run, or anything that :func:`open_run` takes.
        exact : bool
            Compare what is expected to differ as well: ids, instants, durations, process ids, pane ids.

        Returns
        -------
        RunDiff
            Text by ``print``, HTML in a notebook; ``equal``, ``frame`` and ``to_frames()`` for programs.

        Raises
        ------
        RunNotFound
            When there is no run there, or more than one.
        ConfigError
            When it is neither a run nor a path.

        Examples
        --------
        >>> run.diff("runs/run_y")  # doctest: +SKIP
        >>> run.diff("runs/run_y").messages.rows[0].changes  # doctest: +SKIP
        """
        from orchestrator_lab.comparing.difference import compare

        if not isinstance(other, Run | str | os.PathLike):
            raise ConfigError(f"cannot compare with {type(other).__name__}; expected a run, or what open_run takes")
        second = other if isinstance(other, Run) else open_run(other)
        return compare(self.tables, second.tables, exact=exact)

    def screen(self, agent: str, at: object = None) -> Screen:
        """Return what an agent's pane showed at an instant, from its recording: without tmux, on any machine.

        Parameters
        ----------
        agent : str
            Whose pane.
        at : float, datetime, str or None
            Seconds on the run's clock, an instant (a text in ISO 8601 is one), or the id of a message (when it was
            answered, or came in), turn (its end), tool call or dialog; the last instant that was recorded when omitted.

        Returns
        -------
        Screen
            Text by ``print``, HTML in a notebook, and ``svg()`` for a paper.

        Raises
        ------
        AgentNotFound
            When nobody of this name is in the run.
        ConfigError
            When the pane was not recorded (then), or there is no such id.

        Examples
        --------
        >>> run.screen("boss", run.turns["turn_id"][0])  # doctest: +SKIP
        """
        from orchestrator_lab.reading.moment import screen_at

        return screen_at(self.tables, agent, at)

    def play(self, agent: str | Iterable[str] | None = None, at: object = None, *, theme: str = "auto") -> Any:  # noqa: ANN401 - what stands above this module has no type here
        """Return a player for a notebook: the recorded panes on one clock, with the conversation beside them.

        Parameters
        ----------
        agent : str or iterable of str, optional
            Whose panes; all that were recorded by default.
        at : float, datetime, str or None
            Where it begins: seconds on the run's clock, an instant (a text in ISO 8601 is one), or the id of a message
            (as it came in), turn (its end), tool call (its end) or dialog (as it opened); the end when omitted.
        theme : {"auto", "light", "dark"}
            Its colours; those of the page by default.

        Returns
        -------
        RunPlayer
            Shown when it is the last line of a cell. Neither a cluster nor tmux is needed.

        Raises
        ------
        AgentNotFound
            When nobody of this name is in the run.
        ConfigError
            When no pane was recorded, or there is no such instant or id.
        EnvironmentProblem
            When this installation lacks the browser's part.

        Examples
        --------
        >>> run.play()  # doctest: +SKIP
        >>> run.play(["boss", "worker"], at=run.search("deadline")["id"].iloc[0])  # doctest: +SKIP
        """
        # What stands above is looked up by name, when it is wanted.
        module = import_module("orchestrator_lab.widgets.player")
        return module.RunPlayer(self.tables, agent, at, theme=theme)

    def annotate(
        self,
        message_id: str | Iterable[str],
        *,
        label: str | None = None,
        note: str | None = None,
        by: str | None = None,
    ) -> None:
        """Say something of messages: an analyst's own columns, kept beside the journal, which is not touched.

        Parameters
        ----------
        message_id : str or iterable of str
            The message, or several.
        label : str, optional
            A word for it; the last one counts, an empty text takes it away.
        note : str, optional
            A remark on it; likewise.
        by : str, optional
            Who says so.

        Raises
        ------
        ConfigError
            When the run has no such message, or nothing is said.
        EnvironmentProblem
            When the run's folder cannot be written to.
        DiskFull
            When there is no room.

        Examples
        --------
        >>> run.annotate(run.search("sorry")["id"], label="apology", by="ada")  # doctest: +SKIP
        >>> messages_df(run, annotations=True)["label"].value_counts()  # doctest: +SKIP
        """
        from orchestrator_lab.annotations import append_annotations
        from orchestrator_lab.reading.entries import lists_of

        self._no_bundle("annotate")
        wanted = [message_id] if isinstance(message_id, str) else list(dict.fromkeys(message_id))
        ids = lists_of(self.tables, "messages", ["message_id"])["message_id"]
        known = set(ids)
        for one in wanted:
            if one not in known:
                raise ConfigError(
                    f"annotate({one!r}): run {self.run_id} has no such message among its {len(ids)}; nothing was kept",
                    message_id=str(one),
                )
        append_annotations(self.path, wanted, label=label, note=note, by=by)

    @property
    def annotations(self) -> pd.DataFrame:
        """All that :meth:`annotate` was told, in order; ``messages_df(run, annotations=True)`` joins the last of it."""
        from orchestrator_lab.annotations import annotations_frame

        return annotations_frame(self.files, self.run_id)

    def export_as(
        self,
        to: str,
        output: str | os.PathLike[str],
        *,
        table: str | Iterable[str] | None = None,
        agent: str | Iterable[str] | None = None,
        exact: bool = False,
        overwrite: bool = False,
    ) -> list[Path]:
        """Write the run, or a part of it, in a format of other tools.

        Parameters
        ----------
        to : str
            ``csv``, ``parquet`` or ``jsonl`` for tables; ``html`` or ``markdown`` for the conversation; ``cast`` for
            the recordings; ``inspect`` for a log of Inspect AI.
        output : path-like
            A folder for tables and recordings; a file for the others, and for one table or one recording too when it is
            named like one (``messages.csv``).
        table : str or iterable of str, optional
            Only these tables; all of them, and the annotations when there are any, otherwise.
        agent : str or iterable of str, optional
            Only what concerns these.
        exact : bool
            Leave texts in CSV as they are. Otherwise an apostrophe stands before those that a spreadsheet would take
            for a formula.
        overwrite : bool
            Replace what is there.

        Returns
        -------
        list of pathlib.Path
            The files written.

        Raises
        ------
        ConfigError
            When there is no such format or table, or something is in the way.
        AgentNotFound
            When nobody of this name is in the run.
        EnvironmentProblem, DiskFull
            When it cannot be written, or Inspect AI is not installed.

        Examples
        --------
        >>> run.export_as("parquet", "tables")  # doctest: +SKIP
        >>> run.export_as("csv", "messages.csv", table="messages")  # doctest: +SKIP
        """
        from orchestrator_lab.reading.export import export_as

        return export_as(self.tables, to, output, table=table, agent=agent, exact=exact, overwrite=overwrite)

    def export(
        self,
        output: str | os.PathLike[str] | None = None,
        *,
        notebook: str | os.PathLike[str] | None = None,
        leave_out: Iterable[str] = (),
        initial_limit: int | None = None,
        mask: bool = True,
        privacy: Mapping[str, Any] | None = None,
        review: bool = False,
        overwrite: bool = False,
    ) -> Export:
        """Write the run as one file that others open: everything in it, what is private masked.

        Home paths, user and host names, e-mail addresses, known forms of keys, and what the configuration says under
        ``privacy`` get a substitute of the same width, the same one in all files. The tables are made of the masked
        journal.

        Parameters
        ----------
        output : path-like, optional
            The file, such as ``night.olab.zip``; the run's id in the current folder when omitted.
        notebook : path-like, optional
            A notebook to go with the run.
        leave_out : iterable of str
            Parts that stay here: ``annotations.jsonl``, ``cassettes``, ``changes``, ``config.yaml``, ``initial``,
            ``instructions``, ``panes``, ``sessions``, ``transcripts``.
        initial_limit : int, optional
            Bytes beyond which the work folder's initial state stays here; 50 MB when omitted.
        mask : bool
            Whether private texts are masked. Secrets that the lab knew were masked when the run was recorded.
        privacy : mapping, optional
            Beside the configuration's: ``words``, ``patterns`` (regular expressions by name), ``keep``.
        review : bool
            Write nothing; tell what would be in the bundle, and what would be masked.
        overwrite : bool
            Replace what is there.

        Returns
        -------
        Export
            Files, sizes, and what was masked in each; printed as a list.

        Raises
        ------
        ConfigError
            When the run is being recorded, a part or the notebook does not exist, or something is in the way.
        BundleError
            When two files would have one name, or a bundle that is exported again is damaged.
        EnvironmentProblem, DiskFull
            When it cannot be written.

        Examples
        --------
        >>> print(run.export("night.olab.zip", review=True))  # doctest: +SKIP
        >>> run.export("night.olab.zip", notebook="night.ipynb").size  # doctest: +SKIP
        1048576
        """
        from orchestrator_lab.bundle import SUFFIX
        from orchestrator_lab.bundle.exporting import INITIAL_LIMIT, export_bundle
        from orchestrator_lab.reading.staging import staged_file, told_of

        if self.status == "running":
            raise ConfigError(f"run {self.run_id} is being recorded: shut its cluster down, then export it")
        place = Path(output if output is not None else f"{self.run_id}{SUFFIX}").expanduser()
        if place.suffix.lower() != ".zip":
            raise ConfigError(f"{place}: a bundle is opened by its name, which ends in .zip: give {place.name}{SUFFIX}")
        folder = self.files
        if is_bundle(self.path):
            from orchestrator_lab.bundle.opening import open_bundle

            folder = open_bundle(self.path).all()
        made = partial(
            export_bundle,
            folder,
            seal=self.seal_copy,
            manifest=self.manifest,
            shown_as=place,
            notebook=None if notebook is None else Path(notebook).expanduser(),
            leave_out=[leave_out] if isinstance(leave_out, str) else leave_out,
            initial_limit=INITIAL_LIMIT if initial_limit is None else initial_limit,
            mask=mask,
            privacy=privacy,
        )
        if review:
            with told_of(Path(tempfile.gettempdir())):
                return made(None)
        with staged_file(place, overwrite=overwrite) as file:
            return made(file)

    def _no_bundle(self, what: str) -> None:
        if is_bundle(self.path):
            raise ConfigError(
                f"{self.path} is a bundle, which is not changed: unpack it with `orchestrator-lab runs import`, "
                f"then {what} the run that it gives"
            )

    def __repr__(self) -> str:
        lines = [f"Run {self._title()}"]
        lines += [f"  {name}: {text}" for name, text in self._summary()]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = "".join(
            "<tr>"
            f'<th scope="row" style="text-align:left">{html.escape(name)}</th>'
            f'<td style="text-align:left">{html.escape(text)}</td></tr>'
            for name, text in self._summary()
        )
        return (
            '<table class="orchestrator-lab-run"><caption style="text-align:left">'
            f"<strong>Run {html.escape(self._title())}</strong></caption>"
            f"<tbody>{rows}</tbody></table>"
        )

    def _title(self) -> str:
        name = str(self.manifest.get("name") or "without a name")
        return f"{name}: {self.status or 'no end recorded'}"

    def _summary(self) -> list[tuple[str, str]]:
        """Return what stays true in a re-execution: no ids, times or paths."""
        tables, manifest = self.tables, self.manifest
        agents = tables.fold("agents").columns()
        messages = tables.fold("messages").columns()
        turns = tables.fold("turns").columns()
        summary: list[tuple[str, str]] = []
        if manifest.get("experiment"):
            summary.append(("experiment", str(manifest["experiment"])))
        if manifest.get("params"):
            params = manifest["params"].items()
            summary.append(("params", ", ".join(f"{name}={value!r}" for name, value in params)))
        if manifest.get("tags"):
            summary.append(("tags", ", ".join(map(str, manifest["tags"]))))
        if manifest.get("seed") is not None:
            summary.append(("seed", str(manifest["seed"])))
        pairs = zip(agents["name"], agents["kind"], strict=True)
        names = list(dict.fromkeys(f"{name} ({kind})" if kind else name for name, kind in pairs))
        summary.append(("agents", ", ".join(names) if names else "none"))
        counts = Counter(status or "unknown" for status in messages["status"])
        detail = ", ".join(f"{count} {status}" for status, count in counts.most_common())
        summary.append(("messages", f"{len(messages['status'])} ({detail})" if counts else "none"))
        summary.append(("turns", str(len(turns["turn_id"])) if turns["turn_id"] else "none"))
        tokens = [
            (label, sum(count for count in turns[name] if count is not None))
            for label, name in (("input", "input_tokens"), ("output", "output_tokens"))
            if any(count is not None for count in turns[name])
        ]
        if tokens:
            said = ", ".join(f"{count:,} {label}".replace(",", " ") for label, count in tokens)
            summary.append(("tokens", said))
        return summary


def open_run(path: str | os.PathLike[str]) -> Run:
    """Open the run in a folder.

    Parameters
    ----------
    path : path-like
        The run's folder, or its journal or manifest; a bundle (``*.olab.zip``); a folder of runs with one run in it.

    Returns
    -------
    Run
        Also while it is being recorded.

    Raises
    ------
    RunNotFound
        When there is no run there, or more than one.

    Examples
    --------
    >>> open_run("/nonexistent")
    Traceback (most recent call last):
    ...
    orchestrator_lab.errors.RunNotFound: there is no run at /nonexistent: expected a run folder, ...
    """
    from orchestrator_lab.errors import RunNotFound

    found = find_runs(path)
    if len(found) != 1:
        raise RunNotFound(
            f"{path} holds {len(found)} runs, not one: expected a folder with {MANIFEST} or "
            f"{JOURNAL}; list_runs() gives all runs of a folder",
            path=str(path),
            runs=[run.name for run in found],
        )
    return Run(found[0])


def list_runs(folder: str | os.PathLike[str]) -> list[Run]:
    """Open all runs of a folder.

    Parameters
    ----------
    folder : path-like
        A folder of runs, or a glob.

    Returns
    -------
    list of Run
        The oldest first.

    Raises
    ------
    RunNotFound
        When there is no such folder.
    """
    return [Run(path) for path in find_runs(folder)]
