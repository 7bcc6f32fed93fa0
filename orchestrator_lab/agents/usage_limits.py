"""What programs say of an account's usage limit, and when it is over.

Measured with Claude Code 2.1.197 and Codex 0.169.0 against an endpoint that answers with HTTP 429:

- Claude Code writes an ``assistant`` record with ``isApiErrorMessage``, ``error: rate_limit`` and ``apiErrorStatus:
  429``, and fires ``StopFailure`` with the same word and text. With a subscription's login the text tells the reset by
  the minute (``You've hit your session limit · resets 2:54pm (UTC)``, from ``anthropic-ratelimit-unified-reset``), and
  a menu then stands where the input line was. With an API key it is ``API Error: Request rejected (429) · …``, without
  a reset; older endpoints wrote ``Claude AI usage limit reached|EPOCH``. An empty account is ``error: billing_error``.
- Codex closes the turn in its rollout with ``codex_error_info: usage_limit_exceeded``; the record ``token_count``
  before it holds ``rate_limits`` with ``resets_at`` of each window, where the endpoint's headers told them; the
  sentence ends in ``try again at 2:49 PM`` (the reset, in local time) or ``try again later``. A 429 of another kind,
  tried again in vain, is ``response_too_many_failed_attempts`` with ``http_status_code: 429``. The menu that may follow
  offers another model.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from orchestrator_lab.agents.base import Limited
from orchestrator_lab.records import is_claude_limit, is_codex_limit

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["WAIT_LABELS", "claude_limit", "codex_limit", "stated_reset"]

#: Options of the questions that programs ask about a limit, of those that only wait.
WAIT_LABELS = ("Stop and wait for limit to reset", "Keep current model")

_EPOCH = re.compile(r"limit reached\|(\d{10})\b")
_STATED = re.compile(
    r"(?:resets|try again at)\s+(?:(?P<month>[A-Z][a-z]{2})[a-z]*\.?\s+(?P<day>\d{1,2})(?:st|nd|rd|th)?,?\s+"
    r"(?:(?P<year>\d{4}),?\s+)?(?:at\s+)?)?"
    r"(?P<hour>\d{1,2})(?::(?P<minute>\d{2}))?\s*(?P<half>[ap]\.?m\.?)(?:\s*\((?P<zone>[\w/+-]+)\))?",
    re.IGNORECASE,
)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
#: A stated minute is over at its end: its seconds are cut off.
_MINUTE_S = 60.0


def stated_reset(text: str, now: float) -> float | None:
    """Return the reset that a sentence states, in epoch seconds: the end of the minute that it names.

    Parameters
    ----------
    text : str
        What the program said.
    now : float
        Epoch seconds at which it said so. A time without a day is the next one.

    Returns
    -------
    float or None
        None when the sentence names none.

    Examples
    --------
    >>> stated_reset("You've hit your session limit · resets 2:54pm (UTC)", 1795528461.0)
    1795532100.0
    >>> stated_reset("Claude AI usage limit reached|1795531762", 0.0)
    1795531762.0
    >>> stated_reset("try again later", 0.0) is None
    True
    """
    epoch = _EPOCH.search(text)
    if epoch is not None:
        return float(epoch[1])
    found = _STATED.search(text)
    if found is None:
        return None
    try:
        zone: tzinfo | None = ZoneInfo(found["zone"]) if found["zone"] else None
        here = datetime.fromtimestamp(now, UTC).astimezone(zone)
        hour = int(found["hour"])
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if found["half"].lower().startswith("p") else 0)
        instant = here.replace(hour=hour, minute=int(found["minute"] or 0), second=0, microsecond=0)
        if found["month"]:
            month = _MONTHS.index(found["month"].lower()) + 1
            instant = instant.replace(year=int(found["year"] or here.year), month=month, day=int(found["day"]))
            if found["year"] is None and instant < here - timedelta(days=2):
                instant = instant.replace(year=here.year + 1)
        elif instant.timestamp() + _MINUTE_S <= now:
            instant += timedelta(days=1)
        return instant.timestamp() + _MINUTE_S
    except (ValueError, OSError, OverflowError, KeyError):
        return None  # an hour or a zone that does not exist: what is not known is not guessed


def claude_limit(source: str, text: str, error: object, status: object, now: float) -> Limited | None:
    """Return the limit that an API error of Claude Code tells of, None when it tells of something else.

    Parameters
    ----------
    source : str
        Where the error was read.
    text : str
        Its text.
    error : str or None
        Claude Code's word for it.
    status : int or None
        HTTP status.
    now : float
        Epoch seconds at which it was told.

    Examples
    --------
    >>> claude_limit("hook", "Overloaded", "server_error", 529, 0.0) is None
    True
    >>> claude_limit("hook", "Credit balance is too low", "billing_error", 400, 0.0).reason
    'Credit balance is too low'
    """
    if not is_claude_limit(error, status, text):
        return None
    return Limited(source, stated_reset(text, now), _EPOCH.sub("limit reached", text))


def codex_limit(
    source: str, message: str, info: object, rate_limits: Mapping[str, Any] | None, now: float
) -> Limited | None:
    """Return the limit that an error in Codex's rollout tells of, None when it tells of something else.

    Parameters
    ----------
    source : str
        Where the error was read.
    message : str
        Its sentence.
    info : object
        Its ``codex_error_info``.
    rate_limits : mapping, optional
        The account's windows as they were told last.
    now : float
        Epoch seconds of the record.

    Examples
    --------
    >>> windows = {"primary": {"used_percent": 100.0, "resets_at": 1795531762}, "secondary": None}
    >>> codex_limit("transcript", "Too much.", "usage_limit_exceeded", windows, 0.0).resets_at
    1795531762.0
    """
    if not is_codex_limit(info):
        return None
    resets = [
        float(window["resets_at"])
        for window in (rate_limits or {}).values()
        if isinstance(window, dict)
        and isinstance(window.get("resets_at"), int | float)
        and isinstance(window.get("used_percent"), int | float)
        and window["used_percent"] >= 100
    ]
    return Limited(source, max(resets) if resets else stated_reset(message, now), message)
