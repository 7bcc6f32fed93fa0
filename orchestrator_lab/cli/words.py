"""Instants, durations and amounts as people read them."""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["ago", "amount", "bytes_", "moment", "seconds"]


def moment(text: str | None) -> str:
    """Return an ISO 8601 instant in local time.

    Examples
    --------
    >>> moment(None)
    ''
    """
    if not text:
        return ""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return text
    local = (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone()
    today = datetime.now(UTC).astimezone().date()
    return f"{local:%H:%M:%S}" if local.date() == today else f"{local:%Y-%m-%d %H:%M}"


def seconds(value: float | None) -> str:
    """Return a duration.

    Examples
    --------
    >>> seconds(0.234), seconds(12.3), seconds(75), seconds(None)
    ('0.23 s', '12.3 s', '1 min 15 s', '')
    """
    if value is None:
        return ""
    if value < 10:
        return f"{value:.2f} s"
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def ago(value: float | None) -> str:
    """Return how long something has lasted, in few characters.

    Examples
    --------
    >>> ago(0.4), ago(75), ago(4000), ago(200_000), ago(None)
    ('0s', '1m', '1h 6m', '2d 7h', '')
    """
    if value is None:
        return ""
    whole = int(value)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m"
    if whole < 86_400:
        return f"{whole // 3600}h {whole % 3600 // 60}m"
    return f"{whole // 86_400}d {whole % 86_400 // 3600}h"


def amount(value: int | None) -> str:
    """Return a count with thin groups; nothing for what is not known.

    Examples
    --------
    >>> amount(12345), amount(None)
    ('12 345', '')
    """
    return "" if value is None else f"{value:,}".replace(",", " ")


def bytes_(value: float) -> str:
    """Return a size.

    Examples
    --------
    >>> bytes_(1_500_000_000)
    '1.5 GB'
    """
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"
