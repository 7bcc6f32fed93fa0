"""Keep known secrets out of recordings."""

from __future__ import annotations

__all__ = ["Mask"]

#: Shorter strings are no secrets, and masking them would eat ordinary output.
SHORTEST = 8


class Mask:
    r"""Replace secrets by as many asterisks, also where one is split between two reads.

    Parameters
    ----------
    secrets : iterable of str
        What must not be recorded; strings of fewer than eight characters are passed over.

    Examples
    --------
    >>> mask = Mask(["hunter2hunter2"])
    >>> mask.feed(b"TOKEN=hunter2hun"), mask.feed(b"ter2\r\n")
    (b'TOKEN=', b'**************\r\n')
    """

    __slots__ = ("_carry", "_secrets")

    def __init__(self, secrets: list[str]) -> None:
        encoded = {secret.encode() for secret in secrets if len(secret) >= SHORTEST}
        self._secrets = sorted(encoded, key=len, reverse=True)
        self._carry = b""

    def feed(self, data: bytes) -> bytes:
        """Return what may be recorded now; an end that may begin a secret waits for the next call."""
        data, self._carry = self._carry + data, b""
        longest = 0
        for secret in self._secrets:
            if secret in data:
                data = data.replace(secret, b"*" * len(secret))
        for secret in self._secrets:
            # Only where its first byte stands near the end can an unfinished one begin.
            start = data.find(secret[:1], max(0, len(data) - len(secret) + 1))
            while start >= 0:
                if secret.startswith(data[start:]):
                    longest = max(longest, len(data) - start)
                    break
                start = data.find(secret[:1], start + 1)
        if longest:
            self._carry = data[-longest:]
            return data[:-longest]
        return data

    def rest(self) -> bytes:
        """Return what was held back: nothing came that would have completed a secret."""
        data, self._carry = self._carry, b""
        return data
