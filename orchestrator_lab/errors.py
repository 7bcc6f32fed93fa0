"""Every error of the lab: one base, one small class per cause.

A message is one sentence that names the thing, the place and what to do about it. The same classes travel over the
supervisor's API as ``{"type", "message", "details"}`` and are raised again in the client by :func:`from_payload`.
"""

from __future__ import annotations

import errno
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "AgentFailed",
    "AgentNotFound",
    "AlertNotFound",
    "BackupError",
    "BundleError",
    "CassetteDamaged",
    "ClusterExists",
    "ClusterNotFound",
    "ClusterStopped",
    "ConfigError",
    "DeliveryFailed",
    "DeliveryPaused",
    "DeliveryUncertain",
    "DialogNotAnswered",
    "DiskFull",
    "EnvironmentProblem",
    "ExchangeTimeout",
    "GatewayError",
    "GuardNotFound",
    "JournalError",
    "MessageExpired",
    "MessageRefused",
    "ModelNotAvailable",
    "NotebookError",
    "OrchestratorLabError",
    "ProgramNotFound",
    "ReplayDiverged",
    "ReplayWarning",
    "RunNotFound",
    "SupervisorLost",
    "TmuxError",
    "TmuxMissing",
    "TmuxTimeout",
    "TmuxTooOld",
    "TurnFailed",
    "VersionMismatch",
    "addressed",
    "disk_error",
    "disk_errors_as_they_are",
    "from_payload",
    "is_full",
    "to_payload",
]


class OrchestratorLabError(Exception):
    """Base of every error that the lab raises on purpose.

    Parameters
    ----------
    message : str
        One sentence for the user.
    **details
        Facts that a program may read back, kept in :attr:`details`.

    Examples
    --------
    >>> error = AgentNotFound("no agent 'bos' in cluster 'duo'; it has: boss, worker", agent="bos")
    >>> error.details["agent"]
    'bos'
    """

    #: Exit status of the command line when this error ends it.
    exit_code = 2

    def __init__(self, message: str, **details: Any) -> None:  # noqa: ANN401 - facts of any JSON type
        super().__init__(message)
        self.message = message
        self.details = details

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle with the details (exceptions forget keyword arguments otherwise)."""
        return (_rebuild, (type(self).__name__, self.message, self.details))


class ConfigError(OrchestratorLabError):
    """A configuration file, an override or an argument is wrong."""


class EnvironmentProblem(OrchestratorLabError):
    """The machine lacks something: a UTF-8 locale, a short enough path, a free folder."""


class TmuxError(OrchestratorLabError):
    """A tmux command failed."""


class TmuxMissing(TmuxError):
    """There is no tmux on the PATH."""


class TmuxTooOld(TmuxError):
    """The tmux found is older than the oldest one supported."""


class TmuxTimeout(TmuxError):
    """A tmux command missed its deadline."""


class ClusterExists(OrchestratorLabError):
    """A cluster of this name is running already."""


class ClusterNotFound(OrchestratorLabError):
    """No running cluster has this name."""


class ClusterStopped(OrchestratorLabError):
    """The cluster, or the agent, is stopped and takes no messages."""


class SupervisorLost(OrchestratorLabError):
    """The supervisor did not answer and could not be brought back."""


class VersionMismatch(OrchestratorLabError):
    """Client and supervisor are of versions that do not understand each other."""


class AgentNotFound(OrchestratorLabError):
    """The cluster has no agent of this name."""


class AlertNotFound(OrchestratorLabError):
    """The cluster has no open alert of this id."""


class AgentFailed(OrchestratorLabError):
    """An agent's program ended before it was ready, or never became ready."""


class ProgramNotFound(OrchestratorLabError):
    """An agent's program is not installed."""


class MessageRefused(OrchestratorLabError):
    """The topology, or the recipient's state, forbids this message."""


class MessageExpired(OrchestratorLabError):
    """A message was not delivered before its deadline; nothing was typed."""


class DeliveryFailed(OrchestratorLabError):
    """A message certainly did not reach its recipient."""


class DeliveryPaused(OrchestratorLabError):
    """A guard holds the messages that are waited for, until somebody lifts it."""


class DeliveryUncertain(OrchestratorLabError):
    """Bytes may have reached the pane, but no evidence says what became of them."""


class DialogNotAnswered(OrchestratorLabError):
    """A dialog is gone, is being answered by somebody else, or did not take its answer."""


class TurnFailed(OrchestratorLabError):
    """The recipient took the message, but its turn ended without an answer."""


class ExchangeTimeout(OrchestratorLabError, TimeoutError):
    """No answer within the time the caller was ready to wait; the exchange goes on."""


class GuardNotFound(OrchestratorLabError):
    """No guard of this id holds in the cluster."""


class JournalError(OrchestratorLabError):
    """The journal cannot be written or read."""


class DiskFull(JournalError):
    """The journal cannot be written because the disk is full; delivery has stopped."""


class RunNotFound(OrchestratorLabError):
    """There is no run at this place."""


class BackupError(OrchestratorLabError):
    """A backup is damaged, is none, or would be restored over what is there."""


class BundleError(OrchestratorLabError):
    """A bundle is damaged, is no bundle, or holds what must not be unpacked."""


class GatewayError(OrchestratorLabError):
    """A model endpoint could not be reached or is set up wrongly."""


class ModelNotAvailable(OrchestratorLabError):
    """A local model is not on this machine or failed its checksum."""


class NotebookError(OrchestratorLabError):
    """A notebook cannot be read, or does not run to its end."""


class CassetteDamaged(OrchestratorLabError):
    """A cassette cannot be read, or is none."""


class ReplayDiverged(OrchestratorLabError):
    """A strict replay came to something that its recording does not hold; it has stopped there."""


class ReplayWarning(UserWarning):
    """A replay that is not strict came to a difference while it answered a message, and has gone on."""


_BY_NAME = {
    name: value
    for name, value in list(globals().items())
    if isinstance(value, type) and issubclass(value, OrchestratorLabError)
}


def _rebuild(name: str, message: str, details: dict[str, Any]) -> OrchestratorLabError:
    return _BY_NAME.get(name, OrchestratorLabError)(message, **details)


def addressed(error: OrchestratorLabError, *, cluster: str | None, agent: str | None = None) -> OrchestratorLabError:
    """Return an error that says which cluster and agent it is about, where a view shows several.

    Parameters
    ----------
    error : OrchestratorLabError
        What happened.
    cluster, agent : str or None
        Whom it is about.

    Returns
    -------
    OrchestratorLabError
        One of the same class. Its sentence begins with those names that were not in it; its details hold both.

    Examples
    --------
    >>> stopped = ClusterStopped("agent 'ada' has just ended; there is nothing to interrupt")
    >>> addressed(stopped, cluster="duo", agent="ada").message
    "cluster 'duo': agent 'ada' has just ended; there is nothing to interrupt"
    >>> addressed(TmuxError("there is no pane %3"), cluster="duo", agent="ada").message
    "cluster 'duo', agent 'ada': there is no pane %3"
    """
    about = {kind: name for kind, name in (("cluster", cluster), ("agent", agent)) if name}
    missing = ", ".join(f"{kind} {name!r}" for kind, name in about.items() if not _names(error.message, name))
    message = f"{missing}: {error.message}" if missing else error.message
    return _rebuild(type(error).__name__, message, {**about, **error.details})


def _names(sentence: str, name: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", sentence) is not None


def to_payload(error: OrchestratorLabError) -> dict[str, Any]:
    """Return an error as the JSON object that the supervisor's API sends.

    Parameters
    ----------
    error : OrchestratorLabError
        The error to send.

    Returns
    -------
    dict
        ``{"type": class name, "message": sentence, "details": {...}}``.

    Examples
    --------
    >>> to_payload(ConfigError("cluster.yaml: unknown key 'agent'"))["type"]
    'ConfigError'
    """
    return {"type": type(error).__name__, "message": error.message, "details": error.details}


def is_full(error: OSError) -> bool:
    """Tell whether there was no room: on the disk, in a quota, or below the longest file.

    Examples
    --------
    >>> is_full(OSError(errno.ENOSPC, "No space left on device")), is_full(OSError(errno.EACCES, "Permission denied"))
    (True, False)
    """
    return error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def disk_error(sentence: str, error: OSError, *, path: object) -> DiskFull | EnvironmentProblem:
    """Return what is told when something cannot be written: that there is no room, or what else is the matter.

    Parameters
    ----------
    sentence : str
        What was to be written, where, why it could not be, and what to do.
    error : OSError
        The system's own.
    path : object
        Where it was to be written, for :attr:`OrchestratorLabError.details`.

    Returns
    -------
    DiskFull or EnvironmentProblem
        To be raised from the system's error.

    Examples
    --------
    >>> disk_error("x cannot be written", OSError(errno.ENOSPC, "No space left on device"), path="x")
    DiskFull('x cannot be written')
    """
    return (DiskFull if is_full(error) else EnvironmentProblem)(sentence, path=str(path))


@contextmanager
def disk_errors_as_they_are() -> Iterator[None]:
    """Raise the system's own error where :func:`disk_error` told of it: whoever asked for the whole tells it better.

    Examples
    --------
    >>> with disk_errors_as_they_are():
    ...     raise disk_error("a part cannot be written", OSError(28, "full"), path="part") from OSError(28, "full")
    Traceback (most recent call last):
    OSError: [Errno 28] full
    """
    try:
        yield
    except (DiskFull, EnvironmentProblem) as error:
        if isinstance(error.__cause__, OSError):
            raise error.__cause__ from None
        raise


def from_payload(payload: dict[str, Any]) -> OrchestratorLabError:
    """Return the error that :func:`to_payload` described.

    Parameters
    ----------
    payload : dict
        What the API sent.

    Returns
    -------
    OrchestratorLabError
        An instance of the named class; the base class when this version does not know the name.

    Examples
    --------
    >>> from_payload({"type": "AgentNotFound", "message": "no agent 'x'", "details": {}})
    AgentNotFound("no agent 'x'")
    """
    details = payload.get("details")
    return _rebuild(
        str(payload.get("type", "")),
        str(payload.get("message", "the supervisor reported an error without a sentence")),
        details if isinstance(details, dict) else {},
    )
