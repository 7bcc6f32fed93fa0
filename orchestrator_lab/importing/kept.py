"""Conversations that were read before: what has not changed is not read again, what has grown only where it grew."""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, Self, TypeVar

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Hashable, Iterator
    from pathlib import Path

__all__ = ["Keep", "Signature", "Stamp"]

#: Bytes of files whose events are kept at most: in memory they take some two to three times as much.
LIMIT_BYTES = 128 << 20


@dataclass(frozen=True, slots=True)
class Stamp:
    """What a file is known by.

    Parameters
    ----------
    device, inode, size, changed_ns : int
        As the system tells them; all zero for a file that is not there.
    """

    device: int = 0
    inode: int = 0
    size: int = 0
    changed_ns: int = 0

    @classmethod
    def of(cls, found: os.stat_result) -> Self:
        """Return the stamp of a file that was looked at."""
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)

    @classmethod
    def of_any(cls, path: Path) -> Self:
        """Return the stamp of a file that need not be there."""
        try:
            return cls.of(path.stat())
        except OSError:
            return cls()

    def may_go_on(self, later: Stamp) -> bool:
        """Tell whether the file may have grown at its end, and nothing else."""
        same = (self.device, self.inode) == (later.device, later.inode)
        return same and (self == later or later.size > self.size)


@dataclass(frozen=True, slots=True)
class Signature:
    """What a conversation's files are known by.

    Parameters
    ----------
    own : tuple of Stamp
        Those that it is told from; they may grow.
    beside : tuple of Stamp
        Those that are looked at as well.
    """

    own: tuple[Stamp, ...]
    beside: tuple[Stamp, ...]

    @property
    def size(self) -> int:
        """Bytes of its own files."""
        return sum(stamp.size for stamp in self.own)

    def may_go_on(self, later: Signature) -> bool:
        """Tell whether its own files may have grown at their ends, and nothing else."""
        return (
            self.beside == later.beside
            and len(self.own) == len(later.own)
            and all(before.may_go_on(now) for before, now in zip(self.own, later.own, strict=True))
        )


class _Kept(Protocol):
    def advance(self) -> bool: ...


_T = TypeVar("_T", bound=_Kept)


class Keep(Generic[_T]):
    """Keeps what was made of files as long as they only grow; the longest unused goes first.

    Parameters
    ----------
    limit : int
        Bytes of all files together; what is larger alone is made anew each time.
    """

    def __init__(self, limit: int = LIMIT_BYTES) -> None:
        self.limit = limit
        self._kept: OrderedDict[Hashable, tuple[Signature, _T]] = OrderedDict()
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._kept)

    @contextmanager
    def following(self, key: Hashable, look: Callable[[], Signature], make: Callable[[], _T]) -> Iterator[_T]:
        """Hold what is made of some files, up to date.

        Parameters
        ----------
        key : hashable
            Which files, and how.
        look : callable
            Returns their signature.
        make : callable
            Makes it anew; :meth:`advance` reads then, and returns False when it cannot go on from where it was.

        Yields
        ------
        object
            Nobody else gets it meanwhile.
        """
        with self._lock:
            # Looked at first: what is added while it is read makes another signature next time.
            now = look()
            before, known = self._kept.pop(key, (None, None))
            usable = before is not None and known is not None and before.may_go_on(now)
            if known is None or not usable or (before != now and not known.advance()):
                known = make()
                known.advance()
            if now.size <= self.limit:
                self._kept[key] = now, known
                while sum(one.size for one, _ in self._kept.values()) > self.limit:
                    self._kept.popitem(last=False)
            yield known

    def clear(self) -> None:
        """Keep nothing."""
        with self._lock:
            self._kept.clear()
