"""The panes of one tmux server: made, started anew, closed, listed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator_lab.errors import TmuxError
from orchestrator_lab.tmux.binary import run_tmux
from orchestrator_lab.tmux.control import THEN, ControlChannel
from orchestrator_lab.tmux.panes import (
    FIXED,
    LOBBY_OPTION,
    NOTICE_WINDOW,
    OURS,
    PULSE,
    STATE,
    TAGS_OPTION,
    TERMINAL_OPTION,
    FixedFacts,
    PaneInfo,
    Pulse,
    dump_tags,
    join_state,
    parse_fixed,
    parse_pulse,
    split_state,
)
from orchestrator_lab.tmux.process import process_started
from orchestrator_lab.tmux.server import CLIENTS_OPTION, ServerFacts, lobby_command
from orchestrator_lab.tmux.text import escape_format, shell_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator_lab.tmux.binary import TmuxBinary
    from orchestrator_lab.tmux.exits import ExitWatcher

__all__ = ["PaneHouse"]

_TILES = "agents"


class PaneHouse:
    """What :class:`TmuxDriver` knows of panes as things that come and go; use that class.

    Parameters
    ----------
    binary : TmuxBinary
        The tmux program.
    socket : Path
        The server's socket.
    facts : ServerFacts
        The server.
    timeout : float, default 10.0
        Seconds that a single command may take.
    """

    def __init__(self, binary: TmuxBinary, socket: Path, facts: ServerFacts, *, timeout: float = 10.0) -> None:
        self.binary = binary
        self.socket = socket
        self._facts = facts
        self._channel = ControlChannel(binary, socket, facts.session, timeout=timeout, on_open=_record_client)
        self._fixed: dict[str, FixedFacts] = {}
        self._seen: dict[bytes, PaneInfo] = {}
        self._watcher: ExitWatcher | None = None

    @property
    def session(self) -> str:
        """Name of the server's one session."""
        return self._facts.session

    @property
    def alive(self) -> bool:
        """Whether the tmux server's process lives (without asking tmux)."""
        return process_started(self._facts.pid) == self._facts.started

    # -- commands

    def run(self, *args: str, timeout: float | None = None) -> list[str]:
        """Run one tmux command on the control channel.

        Parameters
        ----------
        *args : str
            The command and its arguments; no quoting is needed.
        timeout : float, optional
            Seconds; the driver's own when omitted.

        Returns
        -------
        list of str
            The lines it printed.

        Raises
        ------
        TmuxError, TmuxTimeout
            When it fails, or does not answer.
        """
        lines = self._channel.run(*args, timeout=timeout)
        return [line.decode("utf-8", "replace") for line in lines]

    def batch(self, commands: Sequence[Sequence[str]]) -> list[list[str] | TmuxError]:
        """Run many tmux commands in one write (some 20 µs each).

        Parameters
        ----------
        commands : sequence of sequence of str
            Commands and their arguments.

        Returns
        -------
        list of (list of str or TmuxError)
            The lines that each printed, or its error.
        """
        return [
            [line.decode("utf-8", "replace") for line in reply.lines]
            if reply.ok
            else TmuxError(f"tmux '{command[0]}' failed: {reply.text}", said=reply.text)
            for command, reply in zip(commands, self._channel.batch(commands), strict=True)
        ]

    # -- panes

    def create_pane(
        self,
        name: str,
        argv: Sequence[str],
        *,
        cwd: Path | str,
        cols: int | None = None,
        rows: int | None = None,
        tags: Mapping[str, str] | None = None,
        pipe: Sequence[str] | None = None,
    ) -> PaneInfo:
        """Start a program in a new pane.

        Parameters
        ----------
        name : str
            Name of its window, and the pane's first title.
        argv : sequence of str
            Program and arguments, executed without a shell. Everybody can read them: no secrets.
        cwd : Path or str
            Folder to start it in.
        cols, rows : int, optional
            Size of its window when it differs from the server's; without effect in a tiled layout.
        tags : mapping of str to str, optional
            Facts that the pane keeps for whoever adopts it.
        pipe : sequence of str, optional
            Program and arguments that get the pane's output on their standard input, from its first byte on.

        Returns
        -------
        PaneInfo
            The pane.

        Raises
        ------
        TmuxError
            When the folder is missing, or there is no room for another tile.
        """
        folder = _folder(cwd)
        tail = ["-P", "-F", "#{pane_id}", "-c", escape_format(folder), *_command(argv)]
        size = (cols or self._facts.cols, rows or self._facts.rows)
        made = self._split(tail, pipe) if self._facts.layout == "tiled" else self._window(name, tail, size, pipe)
        if not isinstance(made, str):
            raise made
        self.run("set-option", "-p", "-t", made, TAGS_OPTION, dump_tags(dict(tags or {})))
        self.run("select-pane", "-t", made, "-T", escape_format(name))
        info = self._told(made)
        self._close_lobby(info)
        if self._watcher is not None:
            self._watcher.add(info.pane_id, info.pid)
        return info

    def _made(self, commands: list[list[str]], number: int, target: str, pipe: Sequence[str] | None) -> str | TmuxError:
        """Run commands of which one makes a pane, the last at a target; connect its output before it can write."""
        if pipe is not None:
            commands[number] += [THEN, *pipe_command(target, pipe)]
        made, *then = self._channel.batch(commands, nested=True)[number:]
        for reply, name in [(made, commands[number][0]), *([(then[0], "pipe-pane")] if then and pipe else [])]:
            if not reply.ok:
                return TmuxError(f"tmux '{name}' failed: {reply.text}", said=reply.text)
        return made.text

    def _window(self, name: str, tail: list[str], size: tuple[int, int], pipe: Sequence[str] | None) -> str | TmuxError:
        target = f"={self.session}:"
        self._ensure_session()
        new = ["new-window", "-d", "-a", "-t", f"{target}$", "-n", escape_format(name), *tail]
        normal = (self._facts.cols, self._facts.rows)
        if size == normal:
            made = self._made([new], 0, f"{target}$", pipe)
        else:
            # The program must not start at one size and be resized: it would draw itself twice.
            option = ["set-option", "-t", target, "default-size"]
            commands = [[*option, "{}x{}".format(*size)], new, [*option, "{}x{}".format(*normal)]]
            made = self._made(commands, 1, f"{target}$", pipe)
        if isinstance(made, str):  # this also sets window-size to manual
            self.run("resize-window", "-t", made, "-x", str(size[0]), "-y", str(size[1]))
        return made

    def _split(self, tail: list[str], pipe: Sequence[str] | None) -> str | TmuxError:
        self._ensure_session()
        tiles = f"={self.session}:={_TILES}"
        listing = ["list-panes", "-s", "-t", f"={self.session}:", "-F", "#{pane_id} #{window_name}"]
        there = [line.split(" ", 1)[0] for line in self.run(*listing) if line.endswith(f" {_TILES}")]
        if not there:
            new = ["new-window", "-d", "-a", "-t", f"={self.session}:$", "-n", _TILES, *tail]
            made = self._made([new], 0, tiles, pipe)
            border = ["set-option", "-w", "-t", tiles]
            whole = ["-x", str(self._facts.cols), "-y", str(self._facts.rows)]
            self.batch(
                [
                    ["resize-window", "-t", tiles, *whole],
                    [*border, "pane-border-status", "top"],
                    [*border, "pane-border-format", " #{pane_index}: #{pane_title} "],
                ]
            )
            return made
        made = self._made(
            [
                # Splitting halves one pane; only re-tiled is there room for the next.
                ["select-layout", "-t", tiles, "tiled"],
                ["split-window", "-d", "-t", there[-1], *tail],
                ["select-layout", "-t", tiles, "tiled"],
            ],
            1,
            f"{tiles}.{len(there)}",
            pipe,
        )
        if isinstance(made, TmuxError) and "no space" in made.message:
            size = f"{self._facts.cols} x {self._facts.rows}"
            return TmuxError(
                f"there is no room for another pane in the tiled window of {size} characters; "
                "use 'layout: windows', or a larger size"
            )
        return made

    def respawn(
        self, pane_id: str, argv: Sequence[str], *, cwd: Path | str, pipe: Sequence[str] | None = None
    ) -> PaneInfo:
        """Start a program anew in a pane, in place of the one that is or was there.

        Parameters
        ----------
        pane_id : str
            The pane; it keeps its id and its tags.
        argv : sequence of str
            Program and arguments.
        cwd : Path or str
            Folder to start it in.
        pipe : sequence of str, optional
            As for :meth:`create_pane`.

        Returns
        -------
        PaneInfo
            The pane with its new process. The end of the old one is not told to the watcher.

        Raises
        ------
        TmuxError
            When there is no such pane or folder.
        """
        folder = _folder(cwd)
        before = self._told(pane_id)
        if self._watcher is not None:
            self._watcher.forget(pane_id)
        command = ["respawn-pane", "-k", "-t", pane_id, "-c", escape_format(folder), *_command(argv)]
        made = self._made([command], 0, pane_id, pipe)
        if isinstance(made, TmuxError):
            if self._watcher is not None and not before.dead:
                self._watcher.add(pane_id, before.pid)
            raise made
        info = self._told(pane_id)
        if self._watcher is not None:
            self._watcher.add(pane_id, info.pid)
        return info

    def kill_pane(self, pane_id: str) -> None:
        """Close a pane and end its program (SIGHUP). Its exit is not told to the watcher.

        Parameters
        ----------
        pane_id : str
            The pane; nothing happens when it is gone already.
        """
        panes = self.panes()
        if pane_id not in {pane.pane_id for pane in panes}:
            return
        if len(panes) == 1:  # a session cannot be empty
            self._open_lobby()
        if self._watcher is not None:
            self._watcher.forget(pane_id)
        self._fixed.pop(pane_id, None)
        self._seen = {}
        self.batch([*self._leave_tile(pane_id), ["kill-pane", "-t", pane_id]])
        if self._facts.layout == "tiled":
            self.batch([["select-layout", "-t", f"={self.session}:={_TILES}", "tiled"]])

    def _leave_tile(self, pane_id: str) -> list[list[str]]:
        """Return the commands that have the terminals at a tile show that it is gone, and not the next tile."""
        if self._facts.layout != "tiled":
            return []
        there = self.run("list-sessions", "-F", f"#{{session_id}} #{{{TERMINAL_OPTION}}}")
        at = [session for session, _, pane in (line.partition(" ") for line in there) if pane == pane_id]
        return [["select-window", "-t", f"{session}:={NOTICE_WINDOW}"] for session in at]

    def resize(self, pane_id: str, cols: int, rows: int) -> None:
        """Change the size of a pane's window.

        Parameters
        ----------
        pane_id : str
            The pane.
        cols, rows : int
            New size in characters; in a tiled layout that of the whole window.
        """
        self._known(pane_id)
        self.run("resize-window", "-t", pane_id, "-x", str(cols), "-y", str(rows))
        if self._facts.layout == "tiled":
            self.run("select-layout", "-t", pane_id, "tiled")

    def tag_pane(self, pane_id: str, **tags: str) -> None:
        """Add tags to a pane's, or replace them.

        Parameters
        ----------
        pane_id : str
            The pane.
        **tags : str
            The tags.
        """
        known = self._told(pane_id).tags
        self.run("set-option", "-p", "-t", pane_id, TAGS_OPTION, dump_tags({**known, **tags}))
        self._fixed.pop(pane_id, None)
        self._seen = {}

    def panes(self) -> list[PaneInfo]:
        """Return the state of every pane.

        Returns
        -------
        list of PaneInfo
            The panes, in the order of windows and tiles. Window and tags are those of the last look at a pane with
            this process: :meth:`tag_pane` is seen at once, what others change in them after :meth:`adopt`.

        Raises
        ------
        TmuxError
            When the server does not answer.
        """
        lines = self._list(STATE)
        # Of most panes the line says the same as last time: the value made of it then is still right.
        known = self._seen
        if any(line not in known for line in lines):
            rows = {line: split_state(line) for line in lines if line not in known}
            fixed = self._fixed
            if any(row[0] not in fixed or fixed[row[0]].pid != int(row[1]) for row in rows.values()):
                self._read_fixed()  # a new pane, or a new process in one
                rows = {line: split_state(line) for line in lines}
                known, fixed = {}, self._fixed
            fresh = {
                line: join_state(row, fixed[row[0]])
                for line, row in rows.items()
                if row[0] in fixed and not fixed[row[0]].lobby
            }
            self._seen = known = {line: known[line] for line in lines if line in known} | fresh
        return [known[line] for line in lines if line in known]

    def pulses(self) -> dict[str, Pulse]:
        """Return whether each pane's process lives, and how it ended; the cheapest question of all.

        Returns
        -------
        dict of str to Pulse
            By pane id.
        """
        return {pulse.pane_id: pulse for pulse in map(parse_pulse, self._list(PULSE))}

    def _list(self, format_: str) -> list[bytes]:
        # A terminal at a pane has a session of its own: in it stand the pane once more, and no agent's.
        return list(dict.fromkeys(self._channel.run("list-panes", "-a", "-f", OURS, "-F", format_)))

    def _read_fixed(self) -> None:
        self._fixed = dict(map(parse_fixed, self._list(FIXED)))
        self._seen = {}

    def _told(self, pane_id: str) -> PaneInfo:
        """Return one pane, as tmux says now."""
        # display-message would answer for another pane when this one is gone
        lines = self._channel.batch(
            [
                ["display-message", "-p", "-t", pane_id, STATE],
                ["display-message", "-p", "-t", pane_id, FIXED],
            ]
        )
        if not (lines[0].ok and lines[1].ok and lines[0].lines and lines[1].lines):
            raise TmuxError(f"there is no pane {pane_id}", pane_id=pane_id)
        if not lines[1].lines[0].startswith(f"{pane_id} ".encode()):
            raise TmuxError(f"there is no pane {pane_id}", pane_id=pane_id)
        _, fixed = parse_fixed(lines[1].lines[0])
        if self._fixed.get(pane_id) != fixed:
            self._fixed[pane_id] = fixed
            self._seen = {}
        return join_state(split_state(lines[0].lines[0]), fixed)

    def _known(self, pane_id: str) -> FixedFacts:
        fixed = self._fixed.get(pane_id)
        if fixed is None:
            self._told(pane_id)
            fixed = self._fixed[pane_id]
        return fixed

    # -- the lobby: the window of a session without agents

    def _ensure_session(self) -> None:
        """Make the session again when somebody closed it with its last window."""
        if self._channel.is_open:
            return
        there = run_tmux(self.binary, self.socket, ["has-session", "-t", f"={self.session}"], check=False)
        if there.returncode and self.alive:
            lobby = lobby_command(self.session, self._facts.cols, self._facts.rows)
            mark = ["set-option", "-p", "-t", f"={self.session}:", LOBBY_OPTION, "1"]
            run_tmux(self.binary, self.socket, [*lobby, ";", *mark])

    def _open_lobby(self) -> None:
        lobby = lobby_command(self.session, self._facts.cols, self._facts.rows)
        command = ["new-window", "-d", "-t", f"={self.session}:", "-n", "lobby", "-c", "/"]
        (pane_id,) = self.run(*command, "-P", "-F", "#{pane_id}", lobby[-1])
        self.run("set-option", "-p", "-t", pane_id, LOBBY_OPTION, "1")
        self._read_fixed()

    def _close_lobby(self, info: PaneInfo) -> None:
        if not any(fixed.lobby for fixed in self._fixed.values()):
            self._read_fixed()
        for pane_id, fixed in list(self._fixed.items()):
            if fixed.lobby:
                # Named by the session: by the pane alone it might be the window of somebody's terminal that moves.
                ours = f"={self.session}:.{info.pane_id}"
                self.batch([["select-window", "-t", ours], ["kill-pane", "-t", pane_id]])
                del self._fixed[pane_id]
                self._seen = {}


def _record_client(channel: ControlChannel, pid: int, started: str) -> None:
    """Leave word for whoever adopts the server: a client that outlives us can freeze panes."""
    channel.run("set-option", "-s", CLIENTS_OPTION, f"{pid}:{started}")


def pipe_command(target: str, argv: Sequence[str] | None) -> list[str]:
    """Return the command that sends a pane's output to a program; None ends the pipe."""
    command = ["pipe-pane", "-t", target]
    return command if argv is None else [*command, escape_format(shell_line(argv), time=True)]


def _folder(cwd: Path | str) -> str:
    folder = Path(cwd).absolute()
    if not folder.is_dir():  # tmux would start in the home folder instead
        raise TmuxError(f"the work folder {folder} does not exist", path=str(folder))
    return str(folder)


def _command(argv: Sequence[str]) -> list[str]:
    if not argv:
        raise TmuxError("a pane needs a program to run; its command is empty")
    # tmux executes several words as they are, but hands a single one to the shell.
    return list(argv) if len(argv) > 1 else [shell_line(argv)]
