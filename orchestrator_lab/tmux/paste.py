"""Typing into a pane: text from a buffer of tmux's, the carriage return on its own.

``send-keys`` loses a trailing ``;``, fails above 16 KB and is swallowed in copy mode; a pasted buffer does
none of that. A short text reaches its buffer through the control channel, a long one by a private file; no text is
ever in a command line.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from typing import TYPE_CHECKING, NoReturn

from orchestrator_lab.errors import TmuxError, TmuxTimeout
from orchestrator_lab.tmux.text import quote

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator_lab.tmux.control import ControlChannel, Reply

__all__ = ["Typist", "check_key", "check_pane_id"]

#: What tmux prints instead of pasting.
_REFUSED = "olab-refused"
_PREFIX = "olab-"
#: A text of so many bytes is quoted into the control channel, in a third of the time that a file takes; tmux's parser
#: is slow, and from some 8 000 bytes on a file is faster.
_INLINE = 4096
#: Somebody may enter or leave copy mode between a look and the paste; so often it is looked again.
_MODE_TRIES = 5
#: Option of a pane that holds the mark of the last marked paste.
MARK_OPTION = "@olab_typed"
_PANE_ID = re.compile(r"%[0-9]+")

_NAMED = (
    "Up|Down|Left|Right|BSpace|BTab|DC|Delete|End|Enter|Escape|Home|IC|Insert|NPage|PageDown|PgDn|"
    "PPage|PageUp|PgUp|Space|Tab|F[1-9]|F1[0-2]|KP[0-9]|KPEnter"
)
_KEY = re.compile(rf"(?:[CMS]-)*(?:{_NAMED}|[^\x00-\x20\x7f-\x9f])")


def check_key(key: str) -> str:
    """Return the name of a key as tmux spells it.

    Parameters
    ----------
    key : str
        A name such as ``Escape``, ``C-c``, ``Up`` or ``y``.

    Returns
    -------
    str
        The same name.

    Raises
    ------
    TmuxError
        When it names no key: tmux would type an unknown name as text.
    """
    if _KEY.fullmatch(key) is None:
        raise TmuxError(
            f"{key!r} names no key; use tmux's names, such as Escape, Enter, Up, C-c or one character",
            key=key,
        )
    return key


def check_pane_id(pane_id: str) -> str:
    """Return a pane's id.

    Parameters
    ----------
    pane_id : str
        Such as ``%3``.

    Returns
    -------
    str
        The same id.

    Raises
    ------
    TmuxError
        When it is none.
    """
    if _PANE_ID.fullmatch(pane_id) is None:
        raise TmuxError(f"{pane_id!r} is no pane id; those look like %3", executed="no")
    return pane_id


class Typist:
    """Types into the panes of one tmux server.

    Parameters
    ----------
    channel : ControlChannel
        The command channel.
    buffers : Path
        Private folder for the files, made when missing.
    raw_flag : bool
        Whether ``paste-buffer -S`` exists (tmux 3.7), without which control characters would be shown instead of
        sent.
    """

    def __init__(self, channel: ControlChannel, buffers: Path, *, raw_flag: bool) -> None:
        self._channel = channel
        self._buffers = buffers
        self._raw_flag = " -S" if raw_flag else ""
        self._count = itertools.count(1)
        self._prefix = f"{_PREFIX}{os.getpid()}"
        self._return = f"{self._prefix}-return"
        self._return_loaded = False
        buffers.mkdir(mode=0o700, parents=True, exist_ok=True)

    def paste(
        self,
        pane_id: str,
        data: bytes,
        *,
        bracketed: bool,
        keep_newlines: bool,
        mark: str | None = None,
        framed: bool = False,
        submit: bool = False,
    ) -> bool:
        """Paste bytes into a pane (see :meth:`TmuxDriver.paste`)."""
        raw = " -r" * keep_newlines
        if not bracketed:
            entered = self._paste(pane_id, data, raw, mark=mark, submit=submit)
            assert entered is not None  # noqa: S101 - for the type checker: without a condition it is made or raises
            return entered
        in_mode = False
        for _ in range(_MODE_TRIES):
            # While somebody scrolls, tmux looks for the program's wish in the wrong screen, and leaves the marks out.
            text, option = (_framed(data), "") if in_mode else (data, " -p")
            same = f"#{{==:#{{?pane_in_mode,1,0}},{int(in_mode)}}}"
            entered = self._paste(pane_id, text, f"{option}{raw}", mark=mark, condition=same, submit=submit)
            if entered is not None:
                return entered
            _, _, in_mode = self._look(pane_id)
            if in_mode and not framed:
                self._channel.run("copy-mode", "-q", "-t", pane_id)
                in_mode = False
        raise TmuxError(f"somebody opens and closes copy mode in pane {pane_id} all the time", executed="no")

    def _paste(
        self,
        pane_id: str,
        data: bytes,
        options: str,
        *,
        mark: str | None,
        condition: str | None = None,
        submit: bool = False,
    ) -> bool | None:
        """Paste bytes while a condition holds, and tell whether Enter was pressed behind them.

        None when the condition does not hold, and nothing was typed.
        """
        name = f"{self._prefix}-{next(self._count)}"
        # Each is dropped when the one before it fails: with no mark on the pane, this paste was certainly not made.
        steps = [] if mark is None else [f"set-option -p -t {pane_id} {MARK_OPTION} {quote(mark)}"]
        steps += [f"paste-buffer -d -b {name} -t {pane_id}{options}{self._raw_flag}"]
        if submit:
            self._load_return()
            steps += [f"paste-buffer -b {self._return} -t {pane_id}{self._raw_flag}"]
        typing = self._guarded(pane_id, " ; ".join(steps), condition or "1")
        # tmux reads 20 MB/s; a slow machine gets twenty times as long.
        seconds = self._channel.timeout + len(data) / 1e6
        inline = _inline(data)
        path = self._buffers / name
        try:
            if inline is None:
                _write_private(path, data)
                load = ["load-buffer", "-b", name, str(path)]
            else:
                load = ["set-buffer", "-b", name, "--", inline]
            try:
                # One write; should loading fail, there is no buffer of this name to paste.
                loaded, _, *made = self._channel.batch([load, typing], timeout=seconds, nested=True)
            except TmuxTimeout:
                self._delete(name)
                raise
        finally:
            if inline is None:
                path.unlink(missing_ok=True)
        refused = bool(made) and made[0].text == _REFUSED
        pasted = len(steps) - submit
        if not refused and sum(one.ok for one in made) >= pasted:
            return submit and len(made) == len(steps) and made[-1].ok
        self._delete(name)
        found, dead, _ = self._look(pane_id)
        if refused and loaded.ok and condition is not None and found and not dead:
            return None
        return self._complain(pane_id, loaded, *made)

    def mark(self, pane_id: str) -> str:
        """Return the mark of the last marked paste (see :meth:`TmuxDriver.paste_mark`)."""
        lines = self._channel.run("show-options", "-p", "-q", "-v", "-t", pane_id, MARK_OPTION)
        return lines[0].decode("utf-8", "replace") if lines else ""

    def enter(self, pane_id: str) -> None:
        """Send a lone carriage return (see :meth:`TmuxDriver.enter`)."""
        command = self._guarded(pane_id, f"paste-buffer -b {self._return} -t {pane_id}{self._raw_flag}")
        for _ in range(2):
            self._load_return()
            _, pasted = self._channel.batch([command], nested=True)
            if pasted.ok or "no buffer" not in pasted.text:
                break
            self._return_loaded = False  # somebody deleted it
        if not pasted.ok or pasted.text == _REFUSED:
            self._complain(pane_id, pasted)

    def _load_return(self) -> None:
        if not self._return_loaded:
            self._channel.run("set-buffer", "-b", self._return, "\r")
            self._return_loaded = True

    @staticmethod
    def _guarded(pane_id: str, command: str, condition: str = "1") -> list[str]:
        """Return the command that types only into a living pane.

        tmux 3.3a crashes, with all its panes, when it pastes into a dead one; so the server itself has to look, in the
        same breath.
        """
        check_pane_id(pane_id)
        lives = f"#{{&&:#{{==:#{{pane_id}},{pane_id}}},#{{==:#{{pane_dead}},0}}}}"
        whole = f"#{{&&:{lives},{condition}}}"
        return ["if-shell", "-F", "-t", pane_id, whole, command, f"display-message -p {_REFUSED}"]

    def press(self, pane_id: str, key: str) -> None:
        """Press a key (see :meth:`TmuxDriver.press`)."""
        check_key(key)
        command = ["send-keys", "-t", pane_id, key]
        press = " ".join(map(quote, command))
        _, pressed = self._channel.batch([self._guarded(pane_id, press, "#{==:#{pane_in_mode},0}")], nested=True)
        if pressed.text != _REFUSED and pressed.ok:
            return
        found, dead, in_mode = self._look(pane_id)
        if not found or dead or not in_mode:
            self._complain(pane_id, pressed)
        # A mode would eat the key, or open a prompt that waits for ever.
        self._channel.run("copy-mode", "-q", "-t", pane_id)
        self._channel.run(*command)

    def clean(self) -> None:
        """Remove the files and buffers of a driver that was killed while it typed."""
        for path in self._buffers.glob(f"{_PREFIX}*"):
            path.unlink(missing_ok=True)
        for line in self._channel.run("list-buffers", "-F", "#{buffer_name}"):
            name = line.decode("utf-8", "replace")
            if name.startswith(_PREFIX) and not name.startswith(f"{self._prefix}-"):
                self._delete(name)

    def close(self) -> None:
        """Remove the buffer that holds the carriage return."""
        if self._return_loaded:
            self._delete(self._return)

    def _delete(self, name: str) -> None:
        with contextlib.suppress(TmuxError):
            self._channel.batch([["delete-buffer", "-b", name]])

    def _look(self, pane_id: str) -> tuple[bool, bool, bool]:
        """Return whether a pane exists, is dead, and is in a mode."""
        format_ = "#{pane_id} #{pane_dead} #{pane_in_mode}"
        (reply,) = self._channel.batch([["display-message", "-p", "-t", pane_id, format_]])
        words = reply.text.split(" ")
        # display-message answers for another pane when its target does not exist
        if not reply.ok or words[0] != pane_id:
            return False, True, False
        return True, words[1] != "0", words[2] != "0"

    def _complain(self, pane_id: str, *replies: Reply) -> NoReturn:
        found, dead, _ = self._look(pane_id)
        if not found:
            raise TmuxError(f"there is no pane {pane_id}", pane_id=pane_id, executed="no")
        if dead:
            raise TmuxError(
                f"the program in pane {pane_id} has ended, nothing can be typed into it",
                pane_id=pane_id,
                dead=True,
                executed="no",
            )
        said = "; ".join(reply.text for reply in replies if not reply.ok)
        raise TmuxError(f"typing into pane {pane_id} failed: {said}", pane_id=pane_id, executed="no")


def _inline(data: bytes) -> str | None:
    """Return a short text as it can be quoted into a command; None for what needs a file."""
    if len(data) > _INLINE or b"\0" in data:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _framed(data: bytes) -> bytes:
    return b"\x1b[200~" + data + b"\x1b[201~"


def _write_private(path: Path, data: bytes) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "wb", buffering=0) as file:  # noqa: PTH123 - the descriptor is already open
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
    except OSError as error:
        raise TmuxError(
            f"the text to be typed cannot be written to {path}: {error.strerror}; nothing was typed",
            path=str(path),
            errno=error.errno,
            executed="no",
        ) from error
