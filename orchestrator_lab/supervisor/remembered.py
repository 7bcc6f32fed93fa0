"""The last things that were seen: a memory that does not grow."""

from __future__ import annotations

__all__ = ["Remembered"]


class Remembered:
    """A set that forgets the oldest when it has too many.

    Parameters
    ----------
    most : int
        How many it holds.

    Examples
    --------
    >>> seen = Remembered(2)
    >>> [seen.add(word) for word in ("a", "b", "a", "c", "a")]
    [True, True, False, True, True]
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._keys: dict[str, None] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def add(self, key: str) -> bool:
        """Remember one more; False when it was known already."""
        if key in self._keys:
            return False
        self._keys[key] = None
        if len(self._keys) > self._most:
            del self._keys[next(iter(self._keys))]
        return True
