"""Programs that say something and end: tmux drops what the kernel still holds when a program exits."""

from __future__ import annotations

#: Waits until tmux has read all that was written: it answers then where the cursor is. For sh, in a terminal.
READ = r"stty raw -echo; printf '\033[6n'; dd bs=1 count=1 >/dev/null 2>&1"


def last_words(words: str, end: str) -> str:
    """Return what sh does to say this and then to end so.

    Examples
    --------
    >>> last_words("oh no", "exit 1").partition(";")[0]
    'echo oh no'
    """
    return f"echo {words}; {READ}; {end}"
