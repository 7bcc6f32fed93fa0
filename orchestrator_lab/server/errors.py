"""How errors leave the web API: one shape, and a status for each class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator_lab import errors
from orchestrator_lab.errors import ConfigError, OrchestratorLabError

if TYPE_CHECKING:
    from pydantic import ValidationError

__all__ = ["STATUSES", "http_problem", "status_of", "wrong_request"]

_BY_CLASS: tuple[tuple[type[OrchestratorLabError], int], ...] = (
    (errors.ClusterNotFound, 404),
    (errors.AgentNotFound, 404),
    (errors.AlertNotFound, 404),
    (errors.GuardNotFound, 404),
    (errors.RunNotFound, 404),
    (errors.ConfigError, 400),
    (errors.DiskFull, 507),
    (errors.SupervisorLost, 503),
)
#: Everything else is a conflict with the state of things: what is asked is understood, and cannot be done now.
_CONFLICT = 409

#: Statuses that an error may have.
STATUSES = (400, 403, 404, 405, 409, 413, 503, 507)

_TYPES = {
    400: "BadRequest",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    413: "BodyTooLarge",
}
_SENTENCES = {
    403: "this needs a login: send the server's token, or log in, and send the _xsrf value with what changes something",
    404: "there is nothing at this address; openapi.json lists what there is",
    405: "this address does not take this method; openapi.json lists what it takes",
    500: "the server failed over this request; its log says more",
}


def status_of(error: OrchestratorLabError) -> int:
    """Return the HTTP status of an error.

    Examples
    --------
    >>> status_of(errors.AgentNotFound("no agent 'bos'")), status_of(errors.ClusterStopped("it is stopped"))
    (404, 409)
    """
    for kind, status in _BY_CLASS:
        if isinstance(error, kind):
            return status
    return _CONFLICT


def http_problem(status: int, message: str | None) -> dict[str, Any]:
    """Return the payload of an error that has no class of ours.

    Examples
    --------
    >>> http_problem(404, None)["type"]
    'NotFound'
    """
    kind = _TYPES.get(status, "ServerFailure" if status >= 500 else "BadRequest")
    return {"type": kind, "message": message or _SENTENCES.get(status, "the request is wrong"), "details": {}}


def wrong_request(error: ValidationError, what: str) -> ConfigError:
    """Return what a model says of a request as one sentence.

    Parameters
    ----------
    error : pydantic.ValidationError
        All that is wrong.
    what : str
        The part of the request: ``body``, ``query`` or ``path``.

    Returns
    -------
    ConfigError
        The first thing that is wrong, and how many more there are.
    """
    found = error.errors(include_url=False, include_context=False, include_input=False)
    first = found[0]
    place = ".".join(str(part) for part in first["loc"])[:100]
    said = first["msg"].removeprefix("Value error, ")[:300]
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    where = f"'{place}' in the request's {what}" if place else f"the request's {what}"
    return ConfigError(f"{where}: {said}{more}; openapi.json says what it takes", place=place)
