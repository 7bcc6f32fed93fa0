"""What a model is asked and what it answers, whatever the wire format.

The wire modules (:mod:`~orchestrator_lab.gateway.anthropic`,
:mod:`~orchestrator_lab.gateway.openai`) translate to and from these values, so that a script is
written once and serves every program.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ApiError", "Reply", "Request", "ToolCall", "ToolResult", "Usage", "count_tokens", "input_tokens"]

Api = Literal["anthropic", "openai"]


def count_tokens(value: object) -> int:
    """Return the size that script mode reports for a text or a JSON value, in tokens.

    No tokenizer of the real models is public, so script mode counts what it can count exactly: the
    UTF-8 bytes, divided by four and rounded up. It is a measure of size, equal on every machine,
    and no estimate of what a provider would bill; replies carry the model name ``script`` so that
    nobody takes it for one.

    Parameters
    ----------
    value : object
        A string, or any JSON value (counted as compact JSON).

    Returns
    -------
    int
        Tokens; 0 for an empty string or None.

    Examples
    --------
    >>> count_tokens("four")
    1
    >>> count_tokens("日本")
    2
    """
    if value is None or value == "":
        return 0
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return -(-len(text.encode("utf-8", "surrogatepass")) // 4)


# The parts of a question that count, in all formats: Messages and chat completions, then Responses.
_QUESTION = ("system", "messages", "tools", "instructions", "input")


def input_tokens(body: Mapping[str, Any]) -> int:
    """Return the size of a request, as :func:`count_tokens` counts it.

    Parameters
    ----------
    body : dict
        The request.

    Returns
    -------
    int
        Tokens of system prompt, messages and tools.

    Examples
    --------
    >>> input_tokens({"system": "four", "messages": []})
    2
    """
    return sum(count_tokens(body.get(part)) for part in _QUESTION)


@dataclass(frozen=True, slots=True)
class ToolResult:
    """One result of a tool that the program sends back to the model.

    Parameters
    ----------
    tool_use_id : str
        The id of the call that it answers.
    name : str
        The tool's name, found in the conversation; "" when the call is not in it.
    text : str
        The result's text.
    is_error : bool
        Whether the program says that the tool failed.
    """

    tool_use_id: str
    name: str
    text: str
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """What a program asks of the model, as a script sees it.

    Parameters
    ----------
    agent : str
        The name of the agent whose address was used.
    api : {"anthropic", "openai"}
        The wire format.
    text : str
        The last text of the user, without the blocks that the program itself adds (system
        reminders, output of local commands) and without the header line of the lab.
    prompt : str
        The same with the lab's header line.
    model : str
        The model asked for.
    turn : int
        How many texts of the user the conversation holds, this one included (from 1).
    tool_results : tuple of ToolResult
        The tool results at the end of the conversation; empty when it ends with a text of the user.
    purpose : str
        ``main`` for the conversation itself; else what the program asks on the side: ``title``,
                            ``probe``,
        ``suggestion``, ``compact``, ``web_search``, ``side``.
    stream : bool
        Whether the answer is to be streamed.
    tools : tuple of str
        The names of the tools offered.
    fields : dict
        What the lab's header line says (``sender``, ``message_id``, …).
    body : dict
        The whole request as it came.
    input_tokens : int
        Size of the question (system prompt, messages and tools), as :func:`count_tokens` counts it.
    """

    agent: str
    api: Api
    text: str
    prompt: str = ""
    model: str = ""
    turn: int = 1
    tool_results: tuple[ToolResult, ...] = ()
    purpose: str = "main"
    stream: bool = False
    tools: tuple[str, ...] = ()
    fields: dict[str, str] = field(default_factory=dict)
    body: dict[str, Any] = field(default_factory=dict)
    input_tokens: int = 0


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool that the model wants to use.

    Parameters
    ----------
    name : str
        The tool's name as the program knows it, e.g. ``mcp__orchestrator-lab__send_message``.
    input : dict
        Its arguments.
    id : str
        The call's id; made by the gateway when empty.
    """

    name: str
    input: dict[str, Any] = field(default_factory=dict)
    id: str = ""


@dataclass(frozen=True, slots=True)
class ApiError:
    """An error that the model endpoint answers with.

    Parameters
    ----------
    status : int
        HTTP status.
    type : str
        The API's own word for it, e.g. ``overloaded_error``.
    message : str
        The sentence.
    retry : bool or None
        False tells the client not to try again, True to try again, None leaves it to the client.
    retry_after_s : float or None
        How long the client shall wait before it tries again, in seconds.
    more_headers : dict
        Further HTTP headers, such as those that tell of an account's limits.
    fields : dict
        Further keys of the API's error object, such as ``resets_at``.
    """

    status: int
    type: str
    message: str
    retry: bool | None = None
    retry_after_s: float | None = None
    more_headers: dict[str, str] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)

    def headers(self) -> list[tuple[str, str]]:
        """Return the HTTP headers that tell the client about trying again, and the further ones."""
        found = list(self.more_headers.items())
        if self.retry is not None:
            found.append(("x-should-retry", "true" if self.retry else "false"))
        if self.retry_after_s is not None:
            found.append(("retry-after", f"{self.retry_after_s:g}"))
        return found


@dataclass(frozen=True, slots=True)
class Reply:
    """What the script answers.

    Parameters
    ----------
    text : str
        The text; may be empty when there are tool calls.
    tools : tuple of ToolCall
        Tools to use after the text.
    delay_s : float
        Wait before the first byte, in seconds.
    chunk : int or None
        Characters in one streamed piece; None streams the text in one piece, or in pieces of a
        token when `tokens_per_s` is given.
    tokens_per_s : float or None
        Pace of the stream, in tokens (4 UTF-8 bytes) a second; None streams at once.
    error : ApiError or None
        Answer with this error instead.
    rule : str
        Which rule answered, for the journal.

    Examples
    --------
    >>> Reply("Hello.").output_tokens
    2
    """

    text: str = ""
    tools: tuple[ToolCall, ...] = ()
    delay_s: float = 0.0
    chunk: int | None = None
    tokens_per_s: float | None = None
    error: ApiError | None = None
    rule: str = ""

    @property
    def output_tokens(self) -> int:
        """Size of the answer, as :func:`count_tokens` counts it."""
        return count_tokens(self.text) + sum(count_tokens(t.name) + count_tokens(t.input) for t in self.tools)

    def pieces(self) -> list[str]:
        """Return the text in the pieces in which it is streamed."""
        size = self.chunk or (4 if self.tokens_per_s else len(self.text))
        return [self.text[i : i + size] for i in range(0, len(self.text), size)] if size else []


@dataclass(slots=True)
class Usage:
    """What a provider reports about one answer; None is unknown.

    Parameters
    ----------
    model : str or None
        The model that answered.
    input_tokens, output_tokens : int or None
        Tokens, as the provider counts them.
    cache_read_input_tokens, cache_creation_input_tokens : int or None
        Tokens read from and written to the provider's cache.
    reply_id : str or None
        The provider's id of the answer.
    """

    model: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    reply_id: str | None = None

    def attributes(self) -> dict[str, Any]:
        """Return what is known, as attributes of a journal event."""
        pairs = ((name, getattr(self, name)) for name in self.__slots__)
        return {name: value for name, value in pairs if value is not None}
