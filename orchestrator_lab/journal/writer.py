"""Write a journal: append-only JSON lines that survive a crash at any instant.

Notes
-----
A line is handed to the operating system by one ``write`` and is from then on safe from the death
of this process; :meth:`JournalWriter.sync` makes it safe from the death of the machine. A line
that could be written only in part is cut off again, so that every complete line is an event.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import math
import os
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from orchestrator_lab.errors import DiskFull, JournalError, is_full
from orchestrator_lab.journal.event import Event
from orchestrator_lab.runtime import sync_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Event", "JournalWriter", "SecretMask"]

logger = logging.getLogger(__name__)

_TAIL = 1 << 16
#: Most events fit.
_LINE = 1 << 12
# macOS has no fdatasync.
_datasync: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)


class SecretMask:
    """Replace known secrets in texts by asterisks, as many as the secret has characters.

    Parameters
    ----------
    secrets : iterable of str
        Texts never to be shown; the empty one is ignored.

    Examples
    --------
    >>> SecretMask(["s3cret"])("key=s3cret;")
    'key=******;'
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets: list[str] = []
        for secret in secrets:
            self.add(secret)

    @property
    def secrets(self) -> list[str]:
        """What is masked, the longest first."""
        return list(self._secrets)

    def add(self, secret: str) -> None:
        """Mask one more secret from now on.

        Parameters
        ----------
        secret : str
            The text never to be shown.
        """
        if secret and secret not in self._secrets:
            # The longest first: a secret may contain another.
            self._secrets = sorted([*self._secrets, secret], key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """Return the text with the secrets masked, of the same length."""
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, "*" * len(secret))
        return text


class JournalWriter:
    """The one writer of a run's journal, on the supervisor's asyncio thread.

    Parameters
    ----------
    path : pathlib.Path
        The ``journal.jsonl``; made with mode 0600 when it is not there. A torn last line of an
        earlier writer is cut off (see :attr:`repaired`), and numbers and clock go on from it.
    run_id : str
        The run that is recorded.
    mask : callable, optional
        Applied to every string before it is written; see :class:`SecretMask`.
    on_event : callable, optional
        Called with each event once it is written; see :meth:`subscribe`.

    Raises
    ------
    JournalError
        When the file cannot be opened, or another process writes to it.

    Notes
    -----
    The clock of ``monotonic_s`` is the system's monotonic one, counted from the start of the run.
    ``journal.clock`` beside the journal keeps its origin and the boot that it belongs to, so that
    a later writer goes on exactly; after a reboot the wall clock bridges the gap.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> writer = JournalWriter(Path(folder.name) / "journal.jsonl", run_id="run_x")
    >>> writer.append("note", text="hello").seq
    1
    >>> writer.close()
    >>> folder.cleanup()
    """

    def __init__(
        self,
        path: Path,
        *,
        run_id: str,
        mask: Callable[[str], str] | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        self.path = Path(path)
        self.run_id = run_id
        #: Bytes of a torn last line that were cut off when the journal was opened.
        self.repaired = 0
        #: Number of the last event, 0 before the first.
        self.seq = 0
        self._mask = mask
        self._subscribers: list[Callable[[Event], None]] = []
        if on_event is not None:
            self._subscribers.append(on_event)
        self._size = 0
        self._synced = 0
        #: Why the last write, and the last flush, did not succeed.
        self._problems: dict[str, str] = {}
        self._syncing: asyncio.Task[None] | None = None
        #: Who waits for a flush that somebody else is about to make.
        self._awaited: set[asyncio.Event] = set()
        self._sync_lock = threading.Lock()
        self._last_s = 0.0
        self._fd = self._open()
        try:
            last = self._repair()
            self._start_clock(last)
        except BaseException:
            os.close(self._fd)
            self._fd = -1
            raise

    def append(
        self,
        event: str,
        /,
        *,
        agent: str | None = None,
        message_id: str | None = None,
        turn_id: str | None = None,
        source: str | None = None,
        level: str = "info",
        **attributes: Any,  # noqa: ANN401 - any JSON value
    ) -> Event:
        """Write one event to the operating system and tell the subscribers.

        Parameters
        ----------
        event : str
            Dotted name; see :data:`orchestrator_lab.schema.EVENTS`.
        agent, message_id, turn_id, source : str, optional
            What the event is about, and where the fact comes from.
        level : str
            ``debug``, ``info``, ``warning`` or ``error``.
        **attributes
            Everything else. None is left out; what JSON does not know is written as text.

        Returns
        -------
        Event
            As a reader will see it: masked, and in JSON's types.

        Raises
        ------
        DiskFull
            When there is no room; nothing of the line stays in the journal, and the next call
            tries again.
        JournalError
            When it cannot be written for another reason, or the writer is closed.
        """
        at = datetime.now(UTC).isoformat(timespec="microseconds")[:-6] + "Z"
        now = max(round(time.monotonic() - self._origin_s, 6), self._last_s)
        record = self._made(self.seq + 1, event, at, now, agent, message_id, turn_id, source, level, attributes)
        return self._put(record)

    def _made(
        self,
        seq: int,
        event: str,
        at: str,
        now_s: float,
        agent: str | None,
        message_id: str | None,
        turn_id: str | None,
        source: str | None,
        level: str,
        attributes: dict[str, Any],
    ) -> Event:
        """Return an event as it will be written, with secrets masked."""
        return Event(
            seq,
            self._text(event),
            at,
            now_s,
            None if agent is None else self._text(agent),
            None if message_id is None else self._text(message_id),
            None if turn_id is None else self._text(turn_id),
            None if source is None else self._text(source),
            level,
            {self._text(key): self._plain(value) for key, value in attributes.items() if value is not None},
        )

    def _put(self, record: Event) -> Event:
        """Write an event, and tell the subscribers; return it as a reader will see it."""
        line = record.to_json()
        if line.isascii() and "\\ud" in line:
            # Two lone surrogates side by side are one character to whoever reads the line.
            record = Event.from_json(line)
        self._write(line.encode() + b"\n")
        self.seq = record.seq
        self._last_s = record.monotonic_s
        for subscriber in tuple(self._subscribers):
            try:
                subscriber(record)
            except Exception:  # the journal outlives whoever watches it
                logger.exception("a subscriber of %s failed on event %d", self.path, record.seq)
        return record

    @property
    def size(self) -> int:
        """Bytes written so far: the next event's line begins there."""
        return self._size

    def event_at(self, place: int) -> Event:
        """Return the event whose line begins at a byte offset.

        Parameters
        ----------
        place : int
            What :attr:`size` was before it was written.

        Returns
        -------
        Event
            As it was written.

        Raises
        ------
        JournalError
            When no event begins there, or it cannot be read.
        """
        line = b""
        try:
            while not line.endswith(b"\n"):
                piece = os.pread(self._fd, _LINE, place + len(line))
                if not piece:
                    break
                line += piece[: piece.find(b"\n") + 1] or piece
            return Event.from_json(line)
        except OSError as error:
            raise self._failure(error, "cannot be read") from error
        except (ValueError, KeyError, TypeError) as error:
            raise JournalError(
                f"{self.path}: no event begins at byte {place}; the journal was changed while the run goes on",
                path=str(self.path),
            ) from error

    @property
    def now_s(self) -> float:
        """The present instant on the run's clock, which the next event would have as ``monotonic_s``."""
        return max(round(time.monotonic() - self._origin_s, 6), self._last_s)

    @property
    def problem(self) -> str | None:
        """Why nothing can be written at present; None as far as is known."""
        return next(iter(self._problems.values()), None)

    def subscribe(self, callback: Callable[[Event], None]) -> Callable[[], None]:
        """Call back with each event that is written from now on.

        Parameters
        ----------
        callback : callable
            Takes the event; what it raises is logged and goes no further.

        Returns
        -------
        callable
            Ends the subscription.
        """
        self._subscribers.append(callback)

        def unsubscribe() -> None:
            with contextlib.suppress(ValueError):
                self._subscribers.remove(callback)

        return unsubscribe

    def sync(self) -> None:
        """Return once all events written so far are on the disk; may be called on any thread.

        Raises
        ------
        DiskFull, JournalError
            When the disk refuses.
        """
        if self._synced < self._size:
            # Another thread's flush may have come further meanwhile.
            self._synced = max(self._flush(), self._synced)

    def tell_synced(self) -> None:
        """Let go of those who wait for a :meth:`sync` that was made on another thread."""
        for flushed in self._awaited:
            flushed.set()

    async def asynced(self, *, shared_within_s: float = 0.0) -> None:
        """Return once all events written so far are on the disk, without blocking the loop.

        Waiters share: while one flush runs, all that ask meanwhile get the next one together.

        Parameters
        ----------
        shared_within_s : float, default 0
            Seconds for which somebody else's :meth:`sync` is waited for (see :meth:`tell_synced`), before a flush is
            made for this alone.

        Raises
        ------
        DiskFull, JournalError
            When the disk refuses.
        """
        wanted = self._size
        if self._synced < wanted and shared_within_s > 0:
            flushed = asyncio.Event()
            self._awaited.add(flushed)
            try:
                async with asyncio.timeout(shared_within_s):
                    await flushed.wait()
            except TimeoutError:
                pass
            finally:
                self._awaited.discard(flushed)
        while self._synced < wanted:
            if self._syncing is None:
                self._syncing = asyncio.create_task(self._flush_once(), name="journal-sync")
                self._syncing.add_done_callback(_retrieve)
            # Shielded: one waiter that gives up must not take the others' flush with it.
            await asyncio.shield(self._syncing)

    def close(self) -> None:
        """Bring everything to the disk and close the file; a second call does nothing."""
        if self._fd < 0:
            return
        try:
            self.sync()
        finally:
            with self._sync_lock:
                fd, self._fd = self._fd, -1
                os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._fd < 0 else "open"
        return f"<JournalWriter {self.run_id}: {self.seq} events, {state}>"

    # -- opening ---------------------------------------------------------------------------

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        try:
            fd = os.open(self.path, flags, 0o600)
        except OSError as error:
            raise self._failure(error, "cannot be opened") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise JournalError(
                f"{self.path}: another process writes to this journal; a run has one writer, "
                "so stop the other one first",
                path=str(self.path),
            ) from None
        except OSError as error:  # a file system without locks
            logger.debug("%s: no lock on this file system (%s)", self.path, error)
        return fd

    def _repair(self) -> Event | None:
        """Cut off a torn last line; return the last event there is."""
        try:
            size = os.fstat(self._fd).st_size
            end = self._line_end(size)
            if end < size:
                os.ftruncate(self._fd, end)
                _datasync(self._fd)
                self.repaired = size - end
                logger.warning("%s: cut off a torn last line of %d bytes", self.path, size - end)
            last = self._last_event(end)
            if size == 0:
                sync_folder(self.path.parent)  # the name of a new file is to be as durable as its lines
        except OSError as error:
            raise self._failure(error, "cannot be repaired") from error
        self._size = self._synced = end
        if last is not None:
            self.seq = last.seq
            self._last_s = last.monotonic_s
        return last

    def _line_end(self, size: int) -> int:
        """Return the offset behind the last newline before ``size``."""
        stop = size
        while stop > 0:
            start = max(0, stop - _TAIL)
            found = os.pread(self._fd, stop - start, start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            stop = start
        return 0

    def _last_event(self, end: int) -> Event | None:
        """Return the last readable event before ``end``, passing over damaged lines."""
        while end > 0:
            start = self._line_end(end - 1)
            try:
                return Event.from_json(os.pread(self._fd, end - start, start))
            except (ValueError, KeyError, TypeError) as error:
                logger.warning("%s: damaged line at byte %d (%s)", self.path, start, error)
            end = start
        return None

    def _start_clock(self, last: Event | None) -> None:
        """Set the origin of ``monotonic_s``: the one kept, or the wall clock's best account."""
        kept = self.path.with_name("journal.clock")
        now, boot = time.monotonic(), _boot_id()
        self._origin_s = now
        if last is not None:
            try:
                clock = json.loads(kept.read_text())
                if clock["boot_id"] == boot and clock["run_id"] == self.run_id:
                    self._origin_s = min(float(clock["origin_s"]), now - last.monotonic_s)
                    return
            except (OSError, ValueError, KeyError, TypeError):
                logger.debug("%s: no usable clock, the wall clock bridges the gap", kept)
            gap = (datetime.now(UTC) - datetime.fromisoformat(last.at)).total_seconds()
            self._origin_s = now - last.monotonic_s - max(0.0, gap)
        facts = {"run_id": self.run_id, "boot_id": boot, "origin_s": self._origin_s}
        partial = kept.with_name(f".{kept.name}.{os.getpid()}")
        try:
            with open(partial, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                json.dump(facts, file)
            partial.replace(kept)
        except OSError as error:  # only a restart would miss it
            logger.warning("%s: the clock's origin cannot be kept (%s)", kept, error)
            partial.unlink(missing_ok=True)

    # -- writing ---------------------------------------------------------------------------

    def _write(self, line: bytes) -> None:
        if self._fd < 0:
            raise JournalError(f"{self.path}: the journal is closed", path=str(self.path))
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except BaseException as error:  # a signal's exception may come between two writes
            if len(rest) < len(line):
                try:
                    os.ftruncate(self._fd, self._size)
                except OSError as second:
                    raise self._failure(second, "cannot be cut back to its last event") from second
            if isinstance(error, OSError):
                failure = self._failure(error, "cannot be written")
                self._problems["write"] = failure.message
                raise failure from error
            raise
        self._problems.pop("write", None)
        self._size += len(line)

    def _flush(self) -> int:
        """Flush to the disk; return how many bytes are safe then."""
        with self._sync_lock:
            if self._fd < 0:
                raise JournalError(f"{self.path}: the journal is closed", path=str(self.path))
            size = self._size
            try:
                _datasync(self._fd)
            except OSError as error:
                failure = self._failure(error, "cannot be brought to the disk")
                self._problems["flush"] = failure.message
                raise failure from error
            self._problems.pop("flush", None)
            return size

    async def _flush_once(self) -> None:
        try:
            self._synced = max(self._synced, await asyncio.to_thread(self._flush))
        finally:
            self._syncing = None

    def _failure(self, error: OSError, what: str) -> JournalError:
        facts = {"path": str(self.path), "errno": error.errno}
        if is_full(error):
            return DiskFull(
                f"{self.path}: the journal {what} because the disk is full ({error.strerror}); "
                "free some space, delivery goes on by itself then",
                **facts,
            )
        return JournalError(
            f"{self.path}: the journal {what} ({error.strerror}); check the folder and its owner",
            **facts,
        )

    # -- values ----------------------------------------------------------------------------

    def _text(self, text: str) -> str:
        return text if self._mask is None else self._mask(text)

    def _plain(self, value: Any) -> Any:  # noqa: ANN401 - any value to a JSON value
        """Return a value as JSON will give it back, with secrets masked."""
        if isinstance(value, str):
            return self._text(str(value))
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int):
            return int(value)
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else None
        if isinstance(value, dict):
            return {self._text(str(key)): self._plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._plain(item) for item in value]
        if isinstance(value, bytes):
            return self._text(value.decode("utf-8", "replace"))
        if isinstance(value, datetime):
            return value.isoformat()
        return self._text(str(value))


def _retrieve(task: asyncio.Task[None]) -> None:
    """Mark a flush's error as seen even when all its waiters have gone."""
    if not task.cancelled():
        task.exception()


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        import psutil

        return str(round(psutil.boot_time()))
