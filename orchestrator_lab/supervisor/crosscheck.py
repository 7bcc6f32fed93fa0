"""Two accounts of one turn: what the program's own record tells, and what the gateway saw pass by.

They come by different ways, so where they agree both may be believed, and where they do not somebody should know.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from orchestrator_lab.agents.base import Usage

__all__ = ["Account", "Answer", "CrossCheck", "account_of", "differences"]

#: Answers kept for each agent: more than any turn that is still to be compared.
_KEPT = 2000
_TOKENS = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")


@dataclass(frozen=True, slots=True)
class Account:
    """One account of a turn; what is None is not known, and not compared.

    Parameters
    ----------
    requests : int or None
        Requests to the model that were answered.
    models : frozenset of str or None
        Models that answered.
    input_tokens, output_tokens, cache_read_input_tokens, cache_creation_input_tokens : int or None
        Tokens; input counts those of the cache too.
    """

    requests: int | None = None
    models: frozenset[str] | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer that the gateway passed on.

    Parameters
    ----------
    request_id : str
        The gateway's id of the request.
    purpose : str or None
        What it was asked for.
    apart : bool
        Whether its provider counts the tokens of the cache apart from the input.
    asked : str or None
        The model that was asked for.
    reply_id : str or None
        The provider's id of the answer.
    account : Account or None
        Its tokens; without a request while it has not come, None when it failed.
    cut : bool
        Whether a supervisor died over it: nobody knows how much of it the program got.
    """

    request_id: str
    purpose: str | None = None
    apart: bool = False
    asked: str | None = None
    reply_id: str | None = None
    account: Account | None = None
    cut: bool = False


def differences(transcript: Account, gateway: Account) -> dict[str, dict[str, Any]]:
    """Return what two accounts of one turn disagree about.

    Parameters
    ----------
    transcript, gateway : Account
        The two.

    Returns
    -------
    dict of str to dict
        By what is counted, both figures. Empty when all that both know is the same.

    Examples
    --------
    >>> differences(Account(requests=2, input_tokens=5), Account(requests=3, output_tokens=1))
    {'requests': {'transcript': 2, 'gateway': 3}}
    """
    found: dict[str, dict[str, Any]] = {}
    for name in ("requests", "models", *_TOKENS):
        told, seen = getattr(transcript, name), getattr(gateway, name)
        if told is None or seen is None or told == seen:
            continue
        if name == "models":
            told, seen = sorted(told), sorted(seen)
        found[name] = {"transcript": told, "gateway": seen}
    return found


def account_of(accounts: Iterable[Account]) -> Account:
    """Return several answers as one account; a figure that one of them lacks is not known of all.

    Parameters
    ----------
    accounts : iterable of Account
        One an answer.

    Returns
    -------
    Account
        Their sum.
    """
    known = list(accounts)
    sums: dict[str, int | None] = {}
    for name in ("requests", *_TOKENS):
        figures = [getattr(one, name) for one in known]
        sums[name] = None if None in figures else sum(figures)
    models = [one.models for one in known]
    named = None if None in models else frozenset(model for one in models if one for model in one)
    return Account(**sums, models=named or None)


class CrossCheck:
    """Remembers what the gateway passed on, and compares each turn that is over, once.

    Parameters
    ----------
    disagrees : callable
        Takes agent, turn and differences, when there are any.
    """

    def __init__(self, disagrees: Callable[[str, str, dict[str, dict[str, Any]]], None]) -> None:
        self._disagrees = disagrees
        #: Turns that began before (epoch seconds) had answers that are not known here.
        self.since = 0.0
        self._answers: dict[str, deque[Answer]] = {}
        #: Turns whose answers have not all come yet: agent, turn, usage.
        self._waiting: dict[str, tuple[str, Usage]] = {}
        #: First request of each agent's that no turn has been compared with.
        self._mark: dict[str, int] = {}
        self._count: dict[str, int] = {}

    def restore(self, since: float) -> None:
        """Go on from what an earlier supervisor saw, which was taken by :meth:`saw` and :meth:`passed`.

        Parameters
        ----------
        since : float
            Epoch seconds from which on all of it is known.
        """
        self.since = since
        for answers in self._answers.values():
            for place, one in enumerate(answers):
                if _is_open(one):
                    answers[place] = replace(one, account=None, cut=True)

    def passed(self, agent: str) -> None:
        """Take note that what an agent was answered so far belongs to turns that are done with.

        Parameters
        ----------
        agent : str
            Whose.
        """
        if agent in self._count:
            self._mark[agent] = self._count[agent]

    def saw(self, event: str, facts: Mapping[str, Any]) -> None:
        """Take an event of the gateway.

        Parameters
        ----------
        event : str
            ``gateway.request`` or ``gateway.response``.
        facts : mapping
            Its attributes, with the agent.
        """
        agent, request = str(facts.get("agent")), str(facts.get("request_id"))
        answers = self._answers.setdefault(agent, deque(maxlen=_KEPT))
        if event == "gateway.request":
            self._count[agent] = self._count.get(agent, 0) + 1
            apart = "/messages" in str(facts.get("path"))
            answers.append(Answer(request, facts.get("purpose"), apart, facts.get("model"), None, Account(requests=0)))
            return
        for place in range(len(answers) - 1, -1, -1):
            if answers[place].request_id == request:
                answers[place] = _answered(answers[place], facts)
                break
        if agent in self._waiting:
            turn_id, usage = self._waiting.pop(agent)
            self._compare(agent, turn_id, usage)

    def turn_over(self, agent: str, turn_id: str, usage: Usage, *, completed: bool) -> None:
        """Compare a turn of which the program's record tells the last word.

        Parameters
        ----------
        agent, turn_id : str
            Whose.
        usage : Usage
            Its tokens by the record.
        completed : bool
            Whether it came to its own end; what an answer that was cut off cost is told by nobody alike.
        """
        if agent not in self._answers:
            return
        if completed and usage.model is not None:
            self._compare(agent, turn_id, usage)
        else:
            self.passed(agent)

    def _compare(self, agent: str, turn_id: str, usage: Usage) -> None:
        answers = list(self._answers[agent])
        first = len(answers) - (self._count[agent] - self._mark.get(agent, 0))
        since = [one for one in answers[max(first, 0) :] if one.purpose in {None, "main"}]
        if usage.message_ids:
            seen = [one for one in answers if one.reply_id in usage.message_ids]
            whole, coming = len(seen) == len(usage.message_ids), answers
        else:
            seen, whole, coming = since, False, since
        if not whole and any(_is_open(one) for one in coming):
            self._waiting[agent] = turn_id, usage
            return
        self.passed(agent)
        if not whole and any(one.cut for one in since):
            return
        # Codex records whom it asked, Claude Code who answered.
        as_asked = not usage.message_ids and all(one.asked == usage.model for one in seen)
        told = Account(
            len(usage.message_ids) or None,
            frozenset({usage.model}) if usage.whole and usage.model is not None and not as_asked else None,
            usage.input_tokens,
            usage.output_tokens,
            usage.cache_read_input_tokens,
            usage.cache_creation_input_tokens,
        )
        found = differences(told, account_of(one.account for one in seen if one.account is not None))
        if found:
            self._disagrees(agent, turn_id, found)


def _is_open(answer: Answer) -> bool:
    return answer.account is not None and answer.account.requests == 0


def _answered(answer: Answer, facts: Mapping[str, Any]) -> Answer:
    """Return an answer with what its response tells; one that failed counts for nothing."""
    if facts.get("status") != 200 or facts.get("error") is not None:
        return replace(answer, account=None)
    tokens = {name: facts.get(name) for name in _TOKENS}
    if answer.apart and tokens["input_tokens"] is not None:
        cached = (tokens["cache_read_input_tokens"] or 0) + (tokens["cache_creation_input_tokens"] or 0)
        tokens["input_tokens"] += cached
    model = facts.get("model")
    account = Account(1, frozenset({model}) if isinstance(model, str) else None, **tokens)
    return replace(answer, reply_id=facts.get("reply_id"), account=account)
