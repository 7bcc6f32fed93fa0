"""libtmux's objects on the control channel.

Imported only when somebody asks for an object: the supervisor starts without libtmux.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import libtmux
from libtmux.common import tmux_cmd

from orchestrator_lab.tmux.binary import run_tmux
from orchestrator_lab.tmux.control import ONE_BLOCK

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator_lab.tmux.binary import TmuxBinary
    from orchestrator_lab.tmux.control import ControlChannel

__all__ = ["LabServer"]


class _ChannelResult(tmux_cmd):
    """What libtmux expects of a command: its output and errors as lines."""

    def __init__(self, cmd: list[str], out: list[str], err: list[str], code: int) -> None:
        self.cmd = cmd
        self.stdout = out
        self.stderr = err
        self.returncode = code


class LabServer(libtmux.Server):
    """A libtmux server whose commands go through the control channel.

    Parameters
    ----------
    binary : TmuxBinary
        The tmux program.
    socket : Path
        The server's socket.
    channel : ControlChannel
        The command channel.

    Notes
    -----
    Listings (``server.panes``, ``refresh()``) are made by libtmux itself with a process of their own.
    """

    def __init__(self, binary: TmuxBinary, socket: Path, channel: ControlChannel) -> None:
        super().__init__(socket_path=str(socket), tmux_bin=binary.path)
        self._binary = binary
        self._socket = socket
        self._channel = channel

    def cmd(
        self,
        cmd: str,
        *args: Any,  # noqa: ANN401 - libtmux's own signature
        target: str | int | None = None,
    ) -> tmux_cmd:
        """Run a tmux command.

        Parameters
        ----------
        cmd : str
            The command.
        *args
            Its arguments.
        target : str or int, optional
            Its ``-t``.

        Returns
        -------
        libtmux.common.tmux_cmd
            Its output, errors and status.
        """
        words = [cmd, *(["-t", str(target)] if target is not None else []), *map(str, args)]
        if cmd in ONE_BLOCK and not {"-", ";"} & set(words):
            (reply,) = self._channel.batch([words])
            lines = [line.decode("utf-8", "backslashreplace") for line in reply.lines]
            out, err, code = (lines, [], 0) if reply.ok else ([], lines, 1)
        else:
            done = run_tmux(self._binary, self._socket, words, check=False)
            out, err, code = done.stdout.split("\n"), done.stderr.split("\n"), done.returncode
        while out and not out[-1]:
            out.pop()
        err = [line for line in err if line]
        if cmd == "has-session" and err and not out:  # as libtmux does it
            out = [err[0]]
        return _ChannelResult([self._binary.path, *words], out, err, code)
