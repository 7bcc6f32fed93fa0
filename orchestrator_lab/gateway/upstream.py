"""Passing requests on to a provider, and answers back, byte by byte."""

from __future__ import annotations

import ipaddress
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from orchestrator_lab.errors import GatewayError
from orchestrator_lab.gateway.http import start
from orchestrator_lab.gateway.usage import UsageReader

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx
    from starlette.types import Scope, Send

    from orchestrator_lab.gateway.traffic import Api, ApiError, Usage

__all__ = ["SECRET_HEADER", "Target", "Upstream", "UpstreamError", "target_url"]

logger = logging.getLogger(__name__)

_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
#: Header in which a program sends the secret of its gateway address; no provider gets it.
SECRET_HEADER = "x-orchestrator-lab-gateway"  # noqa: S105 - its name, not its value
_KEY_HEADERS = frozenset({b"authorization", b"x-api-key", b"api-key"})

# Long thoughts: the first byte of an answer may take minutes, so only silence this long counts as a failure.
_READ_TIMEOUT_S = 900.0
_CONNECT_TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go.

    Parameters
    ----------
    base_url : str
        The provider, with or without a final ``/v1``.
    key : str or None
        The key to present; None passes the client's own credentials on untouched.
    api : {"anthropic", "openai"}
        How the key is presented.
    explain : callable or None
        Turns an error answer (status, plain body) into the error that the client gets; None passes
        the provider's own on untouched.
    """

    base_url: str
    key: str | None = None
    api: Api = "anthropic"
    explain: Callable[[int, bytes], ApiError] | None = None


class UpstreamError(Exception):
    """Carries the explained error of an answer.

    Parameters
    ----------
    error : ApiError
        What the client gets.
    """

    def __init__(self, error: ApiError) -> None:
        super().__init__(error.message)
        self.error = error


class Passage(Protocol):
    """The parts of a call that passing it on fills."""

    status: int | None
    usage: Usage
    error: str | None

    def first_byte(self) -> None:
        """Note when the first byte came."""


def target_url(base_url: str, rest: str) -> str:
    """Return where a request goes.

    Parameters
    ----------
    base_url : str
        The provider's base, with or without a final ``/v1``.
    rest : str
        The client's path and query behind the gateway's address.

    Returns
    -------
    str
        The URL.

    Examples
    --------
    >>> target_url("https://api.openai.com/v1", "/v1/chat/completions?a=b")
    'https://api.openai.com/v1/chat/completions?a=b'
    >>> target_url("https://api.anthropic.com/", "/v1/messages")
    'https://api.anthropic.com/v1/messages'
    """
    base = base_url.rstrip("/")
    if base.endswith("/v1") and (rest == "/v1" or rest.startswith(("/v1/", "/v1?"))):
        rest = rest[3:]
    return base + rest


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Upstream:
    """Connections to providers, shared by all agents of a cluster."""

    def __init__(self) -> None:
        self._clients: dict[bool, httpx.AsyncClient] = {}

    def _client(self, url: str) -> httpx.AsyncClient:
        import httpx

        # The owner's proxy settings hold for the world outside, never for this machine itself.
        loopback = _is_loopback(url)
        if loopback not in self._clients:
            self._clients[loopback] = httpx.AsyncClient(
                follow_redirects=False,
                trust_env=not loopback,
                timeout=httpx.Timeout(_READ_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S, pool=_CONNECT_TIMEOUT_S),
                # A server may close a kept connection just as the next request goes out on it, which would be lost.
                # On this machine a new one costs nothing; to the world outside it costs a handshake.
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=0 if loopback else 20),
            )
        return self._clients[loopback]

    async def aclose(self) -> None:
        """Close all connections."""
        clients = list(self._clients.values())
        self._clients.clear()
        for client in clients:
            await client.aclose()

    async def forward(self, call: Passage, scope: Scope, send: Send, *, rest: str, body: bytes, target: Target) -> None:
        """Pass one request on and its answer back.

        Parameters
        ----------
        call : Passage
            What the journal will say; status, usage and error are filled in.
        scope : dict
            The request's ASGI scope.
        rest : str
            Path and query behind the gateway's address.
        body : bytes
            The request's body as it came.
        send : callable
            ASGI's.
        target : Target
            The provider.

        Raises
        ------
        UpstreamError
            When the provider answered with an error that `target` explains.
        GatewayError
            When the provider cannot be reached or sends the client elsewhere; names the URL.
        """
        import httpx

        url = target_url(target.base_url, rest)
        shown = url.split("?", 1)[0]
        try:
            request = httpx.Request(
                scope["method"], url, headers=_onward(scope["headers"], target), content=body or None
            )
            response = await self._client(url).send(request, stream=True)
        except httpx.TimeoutException as problem:
            msg = f"the model endpoint {shown} did not answer in time ({type(problem).__name__})"
            raise GatewayError(msg, url=shown, status=504) from problem
        except (httpx.HTTPError, httpx.InvalidURL) as problem:
            reason = str(problem) or type(problem).__name__
            msg = f"the model endpoint {shown} cannot be reached: {reason}; check gateway.base_url"
            raise GatewayError(msg, url=shown, status=502) from problem
        try:
            if target.explain is not None and response.is_error:
                raise UpstreamError(target.explain(response.status_code, await response.aread()))
            await _answer(call, response, send, shown)
        finally:
            await response.aclose()


async def _answer(call: Passage, response: httpx.Response, send: Send, shown: str) -> None:
    import httpx

    if response.is_redirect:
        place = response.headers.get("location", "").split("?", 1)[0]
        msg = (
            f"the model endpoint {shown} answered with a redirect to {place}, which is not followed "
            "(it would carry the key along); set gateway.base_url to the final address"
        )
        raise GatewayError(msg, url=shown, status=502)
    headers = response.headers
    reader = UsageReader(headers.get("content-type", ""), headers.get("content-encoding", ""))
    # Date and server are written by the web server that the gateway runs in.
    dropped = _HOP_BY_HOP | _named_by_connection(response.headers.raw) | {b"date", b"server"}
    call.status = response.status_code
    await start(
        send,
        response.status_code,
        [(k.lower(), v) for k, v in response.headers.raw if k.lower() not in dropped],
    )
    if response.status_code >= 400:
        call.error = f"the model endpoint {shown} answered with status {response.status_code}"
    try:
        async for piece in response.aiter_raw():
            call.first_byte()
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            reader.feed(piece)
    except httpx.HTTPError as problem:
        # The answer has begun. Returning without its end makes the web server cut the connection:
        # the only honest way to tell the client that it is not whole.
        reason = str(problem) or type(problem).__name__
        call.error = f"the model endpoint {shown} broke off in the middle of its answer: {reason}"
        logger.warning("%s", call.error)
        return
    finally:
        call.usage = reader.finish()
    await send({"type": "http.response.body", "body": b""})


def _named_by_connection(headers: list[Any]) -> frozenset[bytes]:
    values = [v for k, v in headers if k.lower() == b"connection"]
    return frozenset(name.strip().lower() for v in values for name in v.split(b","))


def _onward(headers: list[tuple[bytes, bytes]], target: Target) -> list[tuple[bytes, bytes]]:
    """Return the headers for the provider."""
    key = target.key
    # The length is httpx's to write; the host is the provider's.
    dropped = _HOP_BY_HOP | _named_by_connection(headers) | {b"host", b"content-length", SECRET_HEADER.encode()}
    if key is not None:
        dropped |= _KEY_HEADERS
    kept = []
    for name, value in headers:
        if name.lower() in dropped:
            continue
        if name.lower() == b"accept-encoding":
            # No decoder for brotli is at hand, and usage is to be read: the other codings do as well.
            codings = [c.strip() for c in value.split(b",")]
            kept.append((name, b", ".join(c for c in codings if not c.startswith(b"br")) or b"identity"))
        else:
            kept.append((name, value))
    if key is not None and target.api == "openai":
        kept.append((b"authorization", f"Bearer {key}".encode()))
    elif key is not None:
        kept.append((b"x-api-key", key.encode()))
    return kept
