"""The tmux driver: one private server, its panes, what is typed and what is seen."""

from __future__ import annotations

import logging
import os
import shlex
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from orchestrator_lab.errors import TmuxError
from orchestrator_lab.tmux.binary import find_tmux, run_tmux
from orchestrator_lab.tmux.exits import ExitWatcher, PaneExit
from orchestrator_lab.tmux.house import PaneHouse, pipe_command
from orchestrator_lab.tmux.panes import (
    NOTICE_WINDOW,
    PULSE,
    SERVER_TAGS_OPTION,
    TERMINAL_OPTION,
    Pulse,
    dump_tags,
    load_tags,
    parse_pulse,
)
from orchestrator_lab.tmux.paste import Typist
from orchestrator_lab.tmux.process import process_started
from orchestrator_lab.tmux.repaint import Picture, picture
from orchestrator_lab.tmux.server import ServerFacts, find_server, kill_server, make_way, start_server
from orchestrator_lab.tmux.terminal import TerminalModes, read_modes, unread_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    import libtmux

    from orchestrator_lab.tmux.binary import TmuxBinary
    from orchestrator_lab.tmux.objects import LabServer

__all__ = ["TmuxDriver", "attach_argv"]

logger = logging.getLogger(__name__)

Layout = Literal["windows", "tiled"]


class TmuxDriver(PaneHouse):
    """One private tmux server, driven over a control channel.

    Made by :meth:`start` or :meth:`adopt`. Call it from one permanent thread: its control client dies with the
    thread that opened it. Every pane is addressed by its id (``%3``).

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> driver = TmuxDriver.start(folder / "tmux.sock", session="demo", cols=80, rows=24)
    >>> pane = driver.create_pane("one", ["cat"], cwd=folder)
    >>> driver.panes()[0].pane_id == pane.pane_id
    True
    >>> driver.kill()
    """

    def __init__(self, binary: TmuxBinary, socket: Path, facts: ServerFacts, *, timeout: float = 10.0) -> None:
        super().__init__(binary, socket, facts, timeout=timeout)
        self._typist = Typist(self._channel, socket.parent / "buffers", raw_flag=binary.number >= (3, 7, 0))
        self._server: LabServer | None = None

    # -- life of the server

    @classmethod
    def start(
        cls,
        socket: Path | str,
        *,
        session: str,
        cols: int = 200,
        rows: int = 50,
        layout: Layout = "windows",
        tags: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        tmux: str | Path | None = None,
        timeout: float = 10.0,
    ) -> Self:
        """Start a private server and connect to it.

        Parameters
        ----------
        socket : Path or str
            Its socket, in an existing folder that only the user may enter; paste files are kept in
            ``buffers/`` beside it.
        session : str
            Name of its one session.
        cols, rows : int
            Size of each window in characters, whatever the size of a terminal that attaches.
        layout : {"windows", "tiled"}
            One window for each pane, or all panes tiled in one window of that size.
        tags : mapping of str to str, optional
            Facts that the server keeps for whoever adopts it.
        env : mapping of str to str, optional
            Environment of the server and of every pane, beside ``PATH``, ``HOME``, ``LANG`` and ``LC_*``.
            Nothing else of this process's environment gets in.
        tmux : str or Path, optional
            The tmux program; the one on the PATH when omitted.
        timeout : float, default 10.0
            Seconds that a single command may take.

        Returns
        -------
        TmuxDriver
            Connected; the server goes on when this process ends.

        Raises
        ------
        TmuxMissing, TmuxTooOld
            When there is no usable tmux.
        EnvironmentProblem
            When the socket's path is too long.
        TmuxError
            When a server runs on this socket already, or it does not start.
        """
        binary = find_tmux(tmux)
        socket = Path(socket).absolute()
        facts = start_server(binary, socket, session=session, cols=cols, rows=rows, layout=layout, env=env or {})
        driver = cls(binary, socket, facts, timeout=timeout)
        driver.set_tags(**(tags or {}))
        return driver

    @classmethod
    def absent(
        cls, socket: Path | str, *, session: str, cols: int, rows: int, layout: Layout, tmux: str | Path | None = None
    ) -> Self:
        """Return the driver of a server that has ended: it knows its place, and every command fails.

        Parameters
        ----------
        socket, session, cols, rows, layout, tmux
            As for :meth:`start`.

        Returns
        -------
        TmuxDriver
            Of use until a new server is there.

        Examples
        --------
        >>> import tempfile
        >>> socket = Path(tempfile.mkdtemp()) / "tmux.sock"
        >>> TmuxDriver.absent(socket, session="x", cols=80, rows=24, layout="windows").alive
        False
        """
        facts = ServerFacts(0, "", session, layout, cols, rows)
        return cls(find_tmux(tmux), Path(socket).absolute(), facts)

    @classmethod
    def take_over(cls, socket: Path | str, *, session: str, tmux: str | Path | None = None, **start: Any) -> Self:  # noqa: ANN401
        """Start a server where another one has ended, or go on with a start that was cut off.

        Parameters
        ----------
        socket : Path or str
            Its socket.
        session : str
            Name of its one session.
        tmux : str or Path, optional
            The tmux program; the one on the PATH when omitted.
        **start
            As for :meth:`start`.

        Returns
        -------
        TmuxDriver
            Connected.

        Raises
        ------
        TmuxError
            As :meth:`start`.
        """
        socket = Path(socket).absolute()
        if make_way(find_tmux(tmux), socket):
            driver = cls.adopt(socket, tmux=tmux)
            driver.set_tags(**start.get("tags") or {})
            return driver
        return cls.start(socket, session=session, tmux=tmux, **start)

    @classmethod
    def adopt(cls, socket: Path | str, *, tmux: str | Path | None = None, timeout: float = 10.0) -> Self:
        """Connect to a server that an earlier driver started.

        Control clients that the earlier driver left are killed first: they can freeze panes. The panes with their
        programs and tags are as they were.

        Parameters
        ----------
        socket : Path or str
            The server's socket.
        tmux : str or Path, optional
            The tmux program; the one on the PATH when omitted.
        timeout : float, default 10.0
            Seconds that a single command may take.

        Returns
        -------
        TmuxDriver
            Connected.

        Raises
        ------
        TmuxError
            When the server is gone, or is not one of ours.
        """
        binary = find_tmux(tmux)
        socket = Path(socket).absolute()
        facts = find_server(binary, socket)
        driver = cls(binary, socket, facts, timeout=timeout)
        driver._ensure_session()
        driver._read_fixed()
        driver._typist.clean()
        return driver

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Process id of the tmux server."""
        return self._facts.pid

    @property
    def version(self) -> str:
        """Version of the tmux program, for example ``"3.3a"``."""
        return self.binary.version

    @property
    def server(self) -> libtmux.Server:
        """The server as a libtmux object, whose ``cmd()`` goes through the control channel."""
        if self._server is None:
            from orchestrator_lab.tmux.objects import LabServer

            self._server = LabServer(self.binary, self.socket, self._channel)
        return self._server

    def pane(self, pane_id: str) -> libtmux.Pane:
        """Return a pane as a libtmux object.

        Parameters
        ----------
        pane_id : str
            Its id.

        Returns
        -------
        libtmux.Pane
            The pane.

        Raises
        ------
        TmuxError
            When there is no such pane.
        """
        from libtmux import Pane, exc

        try:
            return Pane.from_pane_id(self.server, pane_id)
        except exc.LibTmuxException as error:
            raise TmuxError(f"there is no pane {pane_id}", pane_id=pane_id) from error

    def tags(self) -> dict[str, str]:
        """Return the server's tags.

        Returns
        -------
        dict of str to str
            What :meth:`start` and :meth:`set_tags` stored.
        """
        return load_tags("".join(self.run("show-options", "-sqv", SERVER_TAGS_OPTION)))

    def set_tags(self, **tags: str) -> None:
        """Add tags to the server's, or replace them.

        Parameters
        ----------
        **tags : str
            The tags.
        """
        self.run("set-option", "-s", SERVER_TAGS_OPTION, dump_tags({**self.tags(), **tags}))

    def close(self) -> None:
        """Disconnect; the server and its panes go on."""
        if self._watcher is not None:
            self._watcher.close()
            self._watcher = None
        if self._channel.is_open:
            self._typist.close()
        self._channel.close()

    def kill(self) -> None:
        """End the server and every program in it, wait until they are gone, and remove the socket.

        Nothing is raised when the server is gone already.
        """
        panes: dict[int, str] = {}
        try:
            live = [pulse.pid for pulse in self.pulses().values() if not pulse.dead]
            panes = {pid: started for pid in live if (started := process_started(pid)) is not None}
        except TmuxError:
            logger.debug("the tmux server did not list its panes before its end", exc_info=True)
        self.close()
        kill_server(self.binary, self.socket, self._facts, panes)

    # -- typing and reading

    def paste(
        self,
        pane_id: str,
        text: str | bytes,
        *,
        bracketed: bool = True,
        keep_newlines: bool = False,
        mark: str | None = None,
        framed: bool = False,
        submit: bool = False,
    ) -> bool:
        r"""Type a text into a pane, whatever its length, also while somebody scrolls in it.

        Parameters
        ----------
        pane_id : str
            The pane.
        text : str or bytes
            The text, sent as it is: see :func:`sanitize` for what should not be in it.
        bracketed : bool, default True
            Put it between the marks of a paste when the program asked for them.
        keep_newlines : bool, default False
            Send ``\n`` as it is; by default it becomes ``\r``, as in a terminal.
        mark : str, optional
            A word that the pane keeps from just before the text is typed: see :meth:`paste_mark`.
        framed : bool, default False
            The program is known to have asked for the marks. tmux does not see that while somebody scrolls in the pane:
            with this they are sent all the same; without, whoever scrolls is put back to the end first.
        submit : bool, default False
            Press Enter behind the text, in the same breath.

        Returns
        -------
        bool
            Whether Enter was pressed. The text was typed in any case.

        Raises
        ------
        TmuxError
            When the pane is gone or its program has ended; nothing was typed then
            (``details["executed"] == "no"``), unless the control client was lost meanwhile (``"unknown"``).
        TmuxTimeout
            When tmux did not answer: the text may have been typed or not.
        """
        data = text.encode("utf-8", "replace") if isinstance(text, str) else text
        if not data:
            return False
        return self._typist.paste(
            pane_id,
            data,
            bracketed=bracketed,
            keep_newlines=keep_newlines,
            mark=mark,
            framed=framed,
            submit=submit,
        )

    def paste_mark(self, pane_id: str) -> str:
        """Return the mark of the last marked paste into a pane, whoever made it.

        Parameters
        ----------
        pane_id : str
            The pane.

        Returns
        -------
        str
            A paste whose mark is not here was not made, and will not be once its driver is dead and this one
            connected. Empty when there was none.
        """
        return self._typist.mark(pane_id)

    def enter(self, pane_id: str) -> None:
        """Send a lone carriage return, also while somebody scrolls in the pane.

        Parameters
        ----------
        pane_id : str
            The pane.

        Raises
        ------
        TmuxError, TmuxTimeout
            As :meth:`paste`.
        """
        self._typist.enter(pane_id)

    def press(self, pane_id: str, key: str) -> None:
        """Press a key; whoever scrolls in the pane is put back to its end first.

        Parameters
        ----------
        pane_id : str
            The pane.
        key : str
            tmux's name of the key: ``Escape``, ``C-c``, ``Up``, ``y``, ...

        Raises
        ------
        TmuxError
            When the key or the pane does not exist.
        """
        self._typist.press(pane_id, key)

    def capture(self, pane_id: str, *, escapes: bool = False, join: bool = True, history: int = 0) -> str:
        """Return what a pane shows.

        Parameters
        ----------
        pane_id : str
            The pane.
        escapes : bool, default False
            With colours and attributes, as escape sequences.
        join : bool, default True
            Lines that the terminal wrapped are put together again.
        history : int, default 0
            Lines above the screen to include.

        Returns
        -------
        str
            The lines of the whole screen, also empty ones; trailing spaces are removed.

        Raises
        ------
        TmuxError
            When there is no such pane.
        """
        command = _capture_command(pane_id, escapes=escapes, join=join, history=history)
        return _screen(self._channel.run(*command), escapes=escapes)

    def captures(
        self,
        pane_ids: Sequence[str],
        *,
        escapes: bool = False,
        join: bool = True,
        history: int = 0,
    ) -> dict[str, str]:
        """Return what many panes show, in one exchange with tmux.

        Parameters
        ----------
        pane_ids : sequence of str
            The panes; those that are gone are left out of the result.
        escapes, join, history
            As for :meth:`capture`.

        Returns
        -------
        dict of str to str
            Screens by pane id.
        """
        commands = [_capture_command(pane_id, escapes=escapes, join=join, history=history) for pane_id in pane_ids]
        return {
            pane_id: _screen(reply.lines, escapes=escapes)
            for pane_id, reply in zip(pane_ids, self._channel.batch(commands), strict=True)
            if reply.ok
        }

    def picture(self, pane_id: str, *, bracketed_paste: bool = False) -> Picture:
        """Return what a pane shows as bytes that make another terminal show it: cells, cursor and modes.

        Parameters
        ----------
        pane_id : str
            The pane.
        bracketed_paste : bool, default False
            Whether its program wants pastes to be marked, which tmux does not tell.

        Returns
        -------
        Picture
            The bytes, and the size that the terminal must have.

        Raises
        ------
        TmuxError
            When there is no such pane.
        """
        return picture(self._channel, pane_id, bracketed_paste=bracketed_paste)

    def pipe(self, pane_id: str, argv: Sequence[str] | None) -> None:
        """Send a pane's output to the standard input of a program.

        Parameters
        ----------
        pane_id : str
            The pane.
        argv : sequence of str or None
            Program and arguments; None ends the pipe.

        Raises
        ------
        TmuxError
            When there is no such pane.
        """
        self.run(*pipe_command(pane_id, argv))

    def unread_input(self, pane_id: str) -> int:
        """Return how many typed bytes the program has not read yet, without asking tmux.

        Parameters
        ----------
        pane_id : str
            The pane.

        Returns
        -------
        int
            Bytes in the terminal's input queue.

        Raises
        ------
        TmuxError
            When the pane or its terminal is gone.
        """
        return unread_bytes(self._known(pane_id).tty)

    def terminal_modes(self, pane_id: str) -> TerminalModes:
        """Return how the kernel treats what is typed into a pane.

        Parameters
        ----------
        pane_id : str
            The pane.

        Returns
        -------
        TerminalModes
            Canonical until a program takes the terminal over.

        Raises
        ------
        TmuxError
            When the pane or its terminal is gone.
        """
        return read_modes(self._known(pane_id).tty)

    # -- exits

    def watch_exits(self, callback: Callable[[PaneExit], None], gone: Callable[[], None] | None = None) -> None:
        """Have the end of every program in a pane told, from now on.

        Programs that have ended before are told as well; those that :meth:`kill_pane` and :meth:`respawn` end are
        not.

        Parameters
        ----------
        callback : callable
            Called with a :class:`PaneExit` on a thread of its own.
        gone : callable, optional
            Called once, on that thread, when the tmux server itself has ended. What ended with it is then not told
            pane by pane; without it each is, with neither status nor signal.
        """
        if self._watcher is not None:
            self._watcher.close()
        self._watcher = ExitWatcher(self._watcher_pulses, self._poke, callback, server=self._facts.pid, gone=gone)
        for pane in self.panes():
            self._watcher.add(pane.pane_id, pane.pid)

    def _watcher_pulses(self, pane_ids: list[str] | None) -> dict[str, Pulse]:
        if not self._channel.is_open:
            # The watcher opens no control client: it would die with the watcher's thread.
            listed = run_tmux(self.binary, self.socket, ["list-panes", "-a", "-F", PULSE]).stdout
            pulses = map(parse_pulse, dict.fromkeys(listed.encode().splitlines()))
            return {pulse.pane_id: pulse for pulse in pulses}
        if pane_ids is None:
            return self.pulses()
        replies = self._channel.batch([["display-message", "-p", "-t", pane_id, PULSE] for pane_id in pane_ids])
        return {
            pane_id: parse_pulse(reply.lines[0])
            for pane_id, reply in zip(pane_ids, replies, strict=True)
            if reply.ok and reply.lines and reply.lines[0].startswith(f"{pane_id} ".encode())
        }

    def _poke(self) -> bool:
        if not self.alive:
            return False
        try:
            os.kill(self._facts.pid, signal.SIGCHLD)
        except ProcessLookupError:
            return False
        return True


def _capture_command(pane_id: str, *, escapes: bool, join: bool, history: int) -> list[str]:
    command = ["capture-pane", "-p", "-t", pane_id]
    command += ["-e"] * escapes + ["-J"] * join
    return [*command, "-S", str(-history)] if history > 0 else command


def _screen(lines: list[bytes], *, escapes: bool) -> str:
    text = b"\n".join(lines).decode("utf-8", "replace")
    if escapes or " \n" not in text + "\n":
        return text
    return "\n".join([line.rstrip(" ") for line in text.split("\n")])


def _told_for_good(format_: str, *words: str) -> str:
    """Return the shell command that prints and ends once tmux has read it: what a program leaves unread can be lost."""
    printed = shlex.join(["printf", rf"{format_}\033[6n", *words])
    # tmux answers the question for the cursor's place after all that stands before it.
    return f"stty -icanon -echo; {printed}; exec dd of=/dev/null bs=1 count=1 2>/dev/null"


def attach_argv(
    socket: Path | str,
    session: str,
    pane: str | None = None,
    read_only: bool = False,
    *,
    agent: str = "",
    tmux: str | Path | None = None,
) -> list[str]:
    """Return the command that attaches a terminal to a cluster's session, or to one pane.

    A terminal at a pane gets a session of its own, which ends with it. It holds the pane's window and nothing of other
    agents: when that window is closed it shows a notice, where keys reach nobody, and not the next agent.

    Parameters
    ----------
    socket : Path or str
        The server's socket.
    session : str
        Its session.
    pane : str, optional
        Pane to show; where it is gone tmux says so and attaches to nothing.
    read_only : bool, default False
        Whether the terminal may only watch.
    agent : str, optional
        Whose pane it is, for the notice.
    tmux : str or Path, optional
        The tmux program; ``tmux`` when omitted.

    Returns
    -------
    list of str
        Program and arguments; ``shlex.join`` makes a line for a shell of it.

    Examples
    --------
    >>> attach_argv("/tmp/d/tmux.sock", "duo")
    ['tmux', '-u', '-S', '/tmp/d/tmux.sock', 'attach-session', '-E', '-f', 'ignore-size', '-t', '=duo']
    """
    argv = [str(tmux or "tmux"), "-u", "-S", str(socket)]
    flags = "read-only,ignore-size" if read_only else "ignore-size"
    if pane is None:
        return [*argv, "attach-session", "-E", "-f", flags, "-t", f"={session}"]
    whose = f"agent {agent}" if agent else f"pane {pane}"
    notice = [f"{whose} is gone: its pane was closed.", "Nothing that is typed here reaches anybody."]
    # By a pane's id alone tmux takes whichever session was used last: only 'run-shell -C' can name the new one. The
    # flag active-pane keeps the choice of a tile to this terminal.
    here = "-t '#{session_id}:"
    own = " ; ".join(
        [
            f"set-option {here}' destroy-unattached on",
            f"set-option {here}' {TERMINAL_OPTION} {pane}",
            f"link-window -a -s {pane} {here}'",
            f"select-window {here}.{pane}'",
            f"select-pane {here}.{pane}'",
            # The line at the bottom names who is shown, and the notice once there is nothing else.
            f"set-option {here}' status-left '[{agent or session}] '",
            f"set-option -w {here}={NOTICE_WINDOW}' window-status-format ''",
        ]
    )
    # At the bottom, where tmux says that the pane is dead: a window that shrinks then loses its top.
    told = _told_for_good(r"\033[999B%s\n%s\n", *notice)
    new = ["new-session", "-E", "-f", f"{flags},active-pane", "-n", NOTICE_WINDOW, "-c", "/", told]
    return [*argv, "has-session", "-t", pane, ";", *new, ";", "run-shell", "-C", own]
