"""Asking a model over HTTP: Anthropic Messages or OpenAI Chat Completions, streamed."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import http.client
    from collections.abc import Callable, Iterator

    from .settings import Settings

__all__ = ["Answer", "ApiError", "Cancel", "ask", "sse_events"]

CONNECT_TIMEOUT_S = 15.0
MAX_ATTEMPTS = 4  # the first one, and three more when the endpoint says "later"
MAX_RETRY_AFTER_S = 120.0
#: Wait before a request is repeated whose connection broke before the first word.
BROKEN_WAIT_S = 0.5
_LATER = {429, 503, 529}
#: An endpoint's words for an account whose quota is used up.
_USED_UP = {"usage_limit_reached", "insufficient_quota"}


class ApiError(Exception):
    """The endpoint did not answer as it should; the sentence is for the user.

    Parameters
    ----------
    message : str
        One sentence.
    kind : str
        ``rate_limit``, ``usage_limit``, ``authentication_failed``, ``invalid_request``, ``server_error``,
        ``connection`` or ``protocol``.
    status : int, optional
        HTTP status.
    resets_at : float, optional
        Epoch seconds at which the account's usage limit is over.
    """

    def __init__(self, message: str, *, kind: str, status: int | None = None, resets_at: float | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.status = status
        self.resets_at = resets_at


class Cancel:
    """A way to end an answer from another thread, also while it waits for the network."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()

    @property
    def requested(self) -> bool:
        """True once somebody asked for the end."""
        return self.event.is_set()

    def watch(self, sock: socket.socket | None) -> None:
        """Remember the socket that an answer comes from."""
        with self._lock:
            self._socket = sock
            if sock is not None and self.event.is_set():
                self._hang_up()

    def request(self) -> None:
        """Ask for the end."""
        with self._lock:
            self.event.set()
            self._hang_up()

    def _hang_up(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError, ValueError):
                self._socket.shutdown(socket.SHUT_RDWR)


@dataclass(slots=True)
class Answer:
    """What a model said, as far as it got.

    Parameters
    ----------
    text : list of str
        Pieces in order.
    usage : dict
        Tokens as the endpoint reported them, in Anthropic's names (``input_tokens`` without the
        cached ones).
    model : str, optional
        The model that answered, as reported.
    stop_reason : str, optional
        As reported.
    """

    text: list[str] = field(default_factory=list)
    usage: dict[str, Any] = field(default_factory=dict)
    model: str | None = None
    stop_reason: str | None = None


def ask(
    settings: Settings,
    *,
    model: str,
    system: str | None,
    messages: list[dict[str, str]],
    key: str | None,
    answer: Answer,
    cancel: Cancel,
    on_text: Callable[[str], None],
    on_note: Callable[[str], None],
) -> None:
    """Ask and fill the answer while it comes in.

    Parameters
    ----------
    settings : Settings
        Endpoint and options.
    model : str
        Model to ask.
    system : str, optional
        Role text.
    messages : list of dict
        ``{"role", "content"}``, the last one being the prompt.
    key : str, optional
        API key.
    answer : Answer
        Filled in place, so that an interrupted answer keeps what it has.
    cancel : Cancel
        Ends the call early.
    on_text, on_note : callable
        Called with each new piece of text, and with sentences about waiting.

    Raises
    ------
    ApiError
        When there is no complete answer.
    """
    openai = settings.api == "openai"
    body: dict[str, Any] = {"model": model, "stream": True}
    if openai:
        vendor = (urlsplit(settings.base_url).hostname or "").endswith("api.openai.com")
        body["max_completion_tokens" if vendor else "max_tokens"] = settings.max_tokens
        body["stream_options"] = {"include_usage": True}
        body["messages"] = ([{"role": "system", "content": system}] if system else []) + messages
    else:
        body["max_tokens"] = settings.max_tokens
        if system:
            body["system"] = system
        body["messages"] = messages
    if settings.temperature is not None:
        body["temperature"] = settings.temperature
    headers = {"Content-Type": "application/json", "Accept": "text/event-stream, application/json"}
    if openai and key:
        headers["Authorization"] = f"Bearer {key}"
    elif not openai:
        headers["anthropic-version"] = "2023-06-01"
        if key:
            headers["x-api-key"] = key
    url = settings.base_url.rstrip("/") + ("/chat/completions" if openai else "/v1/messages")
    data = json.dumps(body).encode()

    for attempt in range(1, MAX_ATTEMPTS + 1):
        wait_s = _attempt(url, headers, data, settings, answer, cancel, on_text, last=attempt == MAX_ATTEMPTS)
        if wait_s is None:
            return
        on_note(f"no answer yet; again in {wait_s:g} s ({attempt} of {MAX_ATTEMPTS - 1})")
        if cancel.event.wait(wait_s):
            return


def _attempt(
    url: str,
    headers: dict[str, str],
    data: bytes,
    settings: Settings,
    answer: Answer,
    cancel: Cancel,
    on_text: Callable[[str], None],
    *,
    last: bool,
) -> float | None:
    """Make one request; return the seconds to wait before the next one, None when it is done."""
    import http.client

    parts = urlsplit(url)
    place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    try:
        connection, target = _connect(url)
    except (OSError, http.client.HTTPException) as error:
        if cancel.requested:
            return None
        raise ApiError(
            f"no connection to {place}: {_reason(error)}; check the base URL and the server",
            kind="connection",
        ) from error
    try:
        cancel.watch(connection.sock)
        if cancel.requested:
            return None
        connection.sock.settimeout(settings.timeout_s)
        if parts.query:
            target += "?" + parts.query
        connection.request("POST", target, data, headers)
        response = connection.getresponse()
        if response.status != 200:
            return _refused(response, place, attempt_again=not last)
        if "json" in (response.headers.get_content_type() or ""):
            _whole(response.read(), settings, answer, on_text)
        else:
            _streamed(response, settings, answer, cancel, on_text)
    except ApiError:
        if not cancel.requested:
            raise
    except (OSError, ValueError, http.client.HTTPException) as error:
        if not cancel.requested and not last and not answer.text and not isinstance(error, ValueError | TimeoutError):
            # Nothing was said yet, so nothing can be said twice: an endpoint that restarts costs a moment, no turn.
            return BROKEN_WAIT_S
        if not cancel.requested:
            raise ApiError(
                f"the connection to {place} broke in the middle of the answer: {_reason(error)}",
                kind="connection",
            ) from error
    finally:
        cancel.watch(None)
        with contextlib.suppress(OSError):
            connection.close()
    return None


def _connect(url: str) -> tuple[http.client.HTTPConnection, str]:
    """Open a connection, through the environment's proxy if any; return it and the target."""
    import http.client
    import os

    parts = urlsplit(url)
    host, secure = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    proxy = None
    if host not in {"127.0.0.1", "localhost", "::1"} and any(name.lower().endswith("_proxy") for name in os.environ):
        import urllib.request

        if not urllib.request.proxy_bypass(host):
            proxy = urllib.request.getproxies().get(parts.scheme)
    connection: http.client.HTTPConnection
    through = urlsplit(proxy if proxy and "://" in proxy else f"http://{proxy}") if proxy else None
    to, to_port = (through.hostname or "", through.port or 80) if through else (host, port)
    if secure:
        import ssl

        connection = http.client.HTTPSConnection(
            to, to_port, timeout=CONNECT_TIMEOUT_S, context=ssl.create_default_context()
        )
        if through:
            connection.set_tunnel(host, port)
    else:
        connection = http.client.HTTPConnection(to, to_port, timeout=CONNECT_TIMEOUT_S)
    connection.connect()
    target = url if through and not secure else (parts.path or "/")
    return connection, target


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text[:1].lower() + text[1:]


def _refused(response: http.client.HTTPResponse, place: str, *, attempt_again: bool) -> float | None:
    status = response.status
    raw = response.read(65536)
    used_up, resets_at = _usage_limit(response, raw)
    if status in _LATER and attempt_again and not used_up:
        after = response.headers.get("Retry-After")
        if after is not None or status == 429:
            try:
                wait_s = float(after) if after is not None else 2.0
            except ValueError:
                wait_s = 5.0  # a date: rare, and a short wait does no harm
            if 0 <= wait_s <= MAX_RETRY_AFTER_S:
                return wait_s
    said = raw.decode("utf-8", "replace").strip()
    with contextlib.suppress(ValueError, AttributeError, TypeError):
        error = json.loads(said).get("error")
        said = error.get("message", said) if isinstance(error, dict) else str(error or said)
    said = said[:500] or response.reason or "no explanation"
    if 300 <= status < 400:
        said = f"it redirects (to {response.headers.get('Location')}), which is not followed"
    kinds = {401: "authentication_failed", 403: "authentication_failed", 429: "rate_limit"}
    kind = "usage_limit" if used_up else kinds.get(status, "server_error" if status >= 500 else "invalid_request")
    raise ApiError(f"{place} answered HTTP {status}: {said}", kind=kind, status=status, resets_at=resets_at)


def _usage_limit(response: http.client.HTTPResponse, raw: bytes) -> tuple[bool, float | None]:
    """Tell whether the account's quota is used up, which no later try of the next minutes changes, and its reset."""
    if response.status != 429:
        return False, None
    error: Any = None
    with contextlib.suppress(ValueError, AttributeError):
        error = json.loads(raw).get("error")
    facts = error if isinstance(error, dict) else {}
    stated = response.headers.get("anthropic-ratelimit-unified-reset") or facts.get("resets_at")
    resets_at = None
    with contextlib.suppress(ValueError, TypeError):
        resets_at = float(stated) if stated is not None else None
    known = {str(facts.get("type")), str(facts.get("code"))} & _USED_UP
    return resets_at is not None or bool(known), resets_at


def sse_events(chunks: Iterator[bytes]) -> Iterator[tuple[str, str]]:
    """Split a byte stream into server-sent events.

    Parameters
    ----------
    chunks : iterator of bytes
        The body in any pieces.

    Yields
    ------
    tuple of (str, str)
        Event name (``message`` when unnamed) and data.

    Examples
    --------
    >>> list(sse_events(iter([b"data: 1", bytes([10, 10])])))
    [('message', '1')]
    """
    held = b""
    name = "message"
    data: list[str] = []
    for chunk in chunks:
        *lines, held = (held + chunk).split(b"\n") if held else chunk.split(b"\n")
        for raw in lines:
            line = raw.removesuffix(b"\r").decode("utf-8", "replace")
            if not line:
                if data:
                    yield name, "\n".join(data)
                name, data = "message", []
                continue
            key, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if key == "event":
                name = value
            elif key == "data":
                data.append(value)
    if data:
        yield name, "\n".join(data)


def _chunks(response: http.client.HTTPResponse, cancel: Cancel) -> Iterator[bytes]:
    while not cancel.requested:
        chunk = response.read1(65536)
        if not chunk:
            return
        yield chunk


def _streamed(
    response: http.client.HTTPResponse,
    settings: Settings,
    answer: Answer,
    cancel: Cancel,
    on_text: Callable[[str], None],
) -> None:
    take = _take_openai if settings.api == "openai" else _take_anthropic
    for name, data in sse_events(_chunks(response, cancel)):
        if data == "[DONE]":
            return
        try:
            event = json.loads(data)
        except ValueError as error:
            raise ApiError(f"the endpoint sent an event that is not JSON: {data[:200]}", kind="protocol") from error
        if not isinstance(event, dict):
            continue
        if name == "error" or event.get("type") == "error" or "error" in event:
            problem = event.get("error")
            said = problem.get("message") if isinstance(problem, dict) else problem
            raise ApiError(f"the endpoint broke off: {said or data[:200]}", kind="server_error")
        done = take(event, answer, on_text)
        if done:
            return
    if not cancel.requested and answer.stop_reason is None:
        raise ApiError("the endpoint ended the stream before the answer was complete", kind="protocol")


def _take_anthropic(event: dict[str, Any], answer: Answer, on_text: Callable[[str], None]) -> bool:
    kind = event.get("type")
    if kind == "content_block_delta":
        delta = event.get("delta") or {}
        if delta.get("type") == "text_delta" and delta.get("text"):
            answer.text.append(delta["text"])
            on_text(delta["text"])
    elif kind == "content_block_start":
        block = event.get("content_block") or {}
        if block.get("type") == "text" and block.get("text"):
            answer.text.append(block["text"])
            on_text(block["text"])
    elif kind == "message_start":
        message = event.get("message") or {}
        answer.model = message.get("model") or answer.model
        _merge_usage(answer, message.get("usage"))
    elif kind == "message_delta":
        answer.stop_reason = (event.get("delta") or {}).get("stop_reason") or answer.stop_reason
        _merge_usage(answer, event.get("usage"))
    elif kind == "message_stop":
        answer.stop_reason = answer.stop_reason or "end_turn"
        return True
    return False


def _take_openai(event: dict[str, Any], answer: Answer, on_text: Callable[[str], None]) -> bool:
    answer.model = event.get("model") or answer.model
    for choice in event.get("choices") or []:
        text = (choice.get("delta") or {}).get("content")
        if text:
            answer.text.append(text)
            on_text(text)
        answer.stop_reason = choice.get("finish_reason") or answer.stop_reason
    _merge_usage(answer, _openai_usage(event.get("usage")))
    return False  # the usage comes after the last choice; the end is [DONE]


def _whole(body: bytes, settings: Settings, answer: Answer, on_text: Callable[[str], None]) -> None:
    """Take an answer from a server that does not stream."""
    try:
        message = json.loads(body)
        if settings.api == "openai":
            text = message["choices"][0]["message"].get("content") or ""
            answer.stop_reason = message["choices"][0].get("finish_reason")
            _merge_usage(answer, _openai_usage(message.get("usage")))
        else:
            text = "".join(block.get("text", "") for block in message["content"])
            answer.stop_reason = message.get("stop_reason")
            _merge_usage(answer, message.get("usage"))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        said = body[:200].decode("utf-8", "replace")
        raise ApiError(f"the endpoint's answer has another form than expected: {said}", kind="protocol") from error
    answer.model = message.get("model") or answer.model
    if text:
        answer.text.append(text)
        on_text(text)


def _merge_usage(answer: Answer, usage: object) -> None:
    if isinstance(usage, dict):
        answer.usage |= {
            key: value
            for key, value in usage.items()
            if key.endswith("_tokens") and isinstance(value, int) and not isinstance(value, bool)
        }


def _openai_usage(usage: object) -> dict[str, int] | None:
    """Return OpenAI's counts in Anthropic's names, where the cached tokens are counted apart."""
    if not isinstance(usage, dict):
        return None
    counts: dict[str, int] = {}
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
    if isinstance(usage.get("prompt_tokens"), int):
        counts["input_tokens"] = usage["prompt_tokens"] - (cached or 0)
    if isinstance(usage.get("completion_tokens"), int):
        counts["output_tokens"] = usage["completion_tokens"]
    if isinstance(cached, int):
        counts["cache_read_input_tokens"] = cached
    return counts
