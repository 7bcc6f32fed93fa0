"""Commands that write to agents, from a shell or from inside an agent's pane."""

from __future__ import annotations

import json
import os
import time
import warnings
from typing import TYPE_CHECKING, Any

import typer

from orchestrator_lab.cli import common
from orchestrator_lab.cli.common import ClusterOption, JsonOption
from orchestrator_lab.errors import ReplayWarning
from orchestrator_lab.schema import new_id

if TYPE_CHECKING:
    from orchestrator_lab.cluster import Cluster, Exchange

__all__ = ["agents", "ask", "messages", "register", "send"]

_URL, _TOKEN, _AGENT = "ORCHESTRATOR_LAB_AGENT_URL", "ORCHESTRATOR_LAB_AGENT_TOKEN", "ORCHESTRATOR_LAB_AGENT"
_ALL = "all"
#: Seconds for which a call is repeated while a supervisor is replaced.
_HEAL_S = 20.0


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    panel = "Messages"
    app.command(rich_help_panel=panel)(ask)
    app.command(rich_help_panel=panel)(send)
    app.command(rich_help_panel=panel)(messages)
    app.command(rich_help_panel=panel)(agents)


def in_pane() -> bool:
    """Tell whether this command was called by an agent, in its pane."""
    return all(os.environ.get(name) for name in (_URL, _TOKEN, _AGENT))


def send(
    words: list[str] = typer.Argument(
        ..., metavar="[AGENT|all] TEXT", help="Whom to write to, and what; - reads stdin."
    ),
    to: str | None = typer.Option(None, "--to", metavar="AGENT|all", help="Whom to write to."),
    in_reply_to: str | None = typer.Option(None, "--in-reply-to", metavar="ID", help="Message that this answers."),
    now: bool = typer.Option(False, "--now", help="Type it while the agent works, instead of after its turn."),
    expires: float | None = typer.Option(None, "--expires", metavar="S", help="Give up after so many seconds."),
    cluster: str | None = ClusterOption,
    as_json: bool = JsonOption,
) -> None:
    """Write to an agent and return at once; inside a pane, in that agent's name."""
    recipient, text = _address(words, to)
    text = common.read_text(text)
    if in_pane() and cluster is None:
        recipient = recipient or _only_other()
        body = {"to": recipient, "text": text, "in_reply_to": in_reply_to}
        # With an id of its own the call may be repeated when a supervisor dies over it.
        body["message_id"] = None if recipient == _ALL else new_id("msg_")
        sent = _call("POST", "/agent/messages", body)["messages"]
    else:
        found = common.pick(cluster)
        names = found.names
        recipient = recipient or _only(names, found.name)
        exchanges = found.send(
            names if recipient == _ALL else [recipient],
            text,
            when="now" if now else "idle",
            in_reply_to=in_reply_to,
            expires=expires,
            source="human",
            broadcast=recipient == _ALL,
        )
        sent = [facts_of(one) for one in exchanges]
    if as_json:
        common.print_json(sent)
    else:
        for one in sent:
            if one["status"] != "refused":
                typer.echo(f"{one['message_id']} → {one['recipient']} ({one['status']})")
    _raise_refused(sent)


def facts_of(exchange: Exchange) -> dict[str, Any]:
    """Return what is known of an exchange, without asking again."""
    return dict(exchange._facts)  # noqa: SLF001 - the same package's own value


def _raise_refused(sent: list[dict[str, Any]]) -> None:
    from orchestrator_lab.errors import MessageRefused

    for one in sent:
        if one["status"] == "refused":
            raise MessageRefused(
                f"message to {one['recipient']} refused: {one['error_message'] or 'no reason is known'}"
            )


def _address(words: list[str], to: str | None) -> tuple[str | None, str]:
    """Return recipient and text of ``[TO] TEXT``.

    Examples
    --------
    >>> _address(["ada", "hello"], None), _address(["hello"], "ada"), _address(["hello"], None)
    (('ada', 'hello'), ('ada', 'hello'), (None, 'hello'))
    """
    if to is not None:
        return to, " ".join(words)
    if len(words) == 1:
        return None, words[0]
    return words[0], " ".join(words[1:])


def _only(names: list[str], cluster: str) -> str:
    from orchestrator_lab.errors import ConfigError

    if len(names) == 1:
        return names[0]
    raise ConfigError(f"say whom to write to: --to {'|'.join([*names, _ALL])} (the agents of cluster {cluster!r})")


def _only_other() -> str:
    found = _call("GET", "/agent/agents")
    return _only([one["name"] for one in found["agents"] if one["name"] != found["you"]], "this cluster")


def ask(
    agent: str = typer.Argument(..., help="Whom to ask."),
    text: list[str] = typer.Argument(..., help="What is typed into its input; - reads stdin."),
    timeout: float | None = typer.Option(
        None, "--timeout", "-t", metavar="S", help="Seconds to wait; response_timeout_s of the agent, or without end."
    ),
    cluster: str | None = ClusterOption,
    as_json: bool = JsonOption,
) -> None:
    """Write to an agent, wait for the end of its turn, print its reply."""
    said = common.read_text(" ".join(text))
    found = common.pick(cluster)
    if timeout is None:
        timeout = _configured_timeout(found, agent)
    exchange = found.send([agent], said, source="human")[0]
    try:
        with common.busy(f"{agent} is at work"), warnings.catch_warnings():
            warnings.simplefilter("ignore", ReplayWarning)
            reply = exchange.result(timeout)
    except KeyboardInterrupt:
        common.say_note(f"no longer waiting; the message ({exchange.message_id}) and {agent}'s turn go on")
        raise
    except Exception:
        if as_json:
            common.print_json(_whole(found, exchange))
        raise
    finally:
        if exchange.divergence is not None:
            common.say_note(exchange.divergence)
    if as_json:
        common.print_json(_whole(found, exchange))
    else:
        typer.echo(reply)


def _configured_timeout(cluster: Cluster, agent: str) -> float | None:
    """Return the agent's ``response_timeout_s`` from the private copy of the configuration, unchecked."""
    try:
        config = json.loads((cluster.client.folder / "config.json").read_bytes())
        wanted = [one.get("response_timeout_s") for one in config["agents"] if one["name"] == agent]
    except (OSError, ValueError, KeyError):
        return None
    return float(wanted[0]) if wanted and wanted[0] is not None else None


def _whole(cluster: Cluster, exchange: Exchange) -> dict[str, Any]:
    """Return an exchange with its rows of messages_df and turns_df."""
    facts = facts_of(exchange)
    rows = cluster.run.tables.fold("messages").rows()
    message = next((row for row in rows if row["message_id"] == exchange.message_id), None)
    turn_id = (message or {}).get("turn_id") or facts.get("turn_id")
    turn = None
    if turn_id:
        turn = next((row for row in cluster.run.tables.fold("turns").rows() if row["turn_id"] == turn_id), None)
    keys = ("queue_s", "delivery_s", "response_s")
    timings = {key: (message or {}).get(key) for key in keys}
    return {
        "reply": facts.get("reply"),
        "status": facts["status"],
        "timings": timings,
        "message": message,
        "turn": turn,
    }


def messages(
    where: str | None = typer.Argument(None, metavar="[NAME|RUN]", help="A running cluster, or a run's folder."),
    since: str | None = typer.Option(None, "--since", metavar="ID", help="Only what came after this message."),
    as_json: bool = JsonOption,
) -> None:
    """Show the messages so far; inside a pane, those of that agent."""
    if in_pane() and where is None:
        path = "/agent/messages" + (f"?since={since}" if since else "")
        rows = _call("GET", path)["messages"]
    else:
        from orchestrator_lab.cli.records import find_run

        rows = find_run(where).tables.fold("messages").rows()
        ids = [row["message_id"] for row in rows]
        rows = rows[ids.index(since) + 1 :] if since in ids else rows
    if as_json:
        common.print_json(rows)
        return
    if in_pane() and where is None:  # an agent reads this: whole texts, and the ids to answer by
        for row in rows:
            typer.echo(
                f"{row['message_id']} {row['sender']} → {row['recipient']} ({row['status']})\n{row['content']}\n"
            )
        return
    from orchestrator_lab.cli.records import messages_table

    common.out().print(messages_table(rows))


def agents(cluster: str | None = ClusterOption, as_json: bool = JsonOption) -> None:
    """Show who is in the cluster, one line each."""
    if in_pane() and cluster is None:
        found = _call("GET", "/agent/agents")
        rows, you = found["agents"], found["you"]
    else:
        known = common.pick(cluster).status()["agents"]
        rows, you = [{key: one[key] for key in ("name", "role", "state")} for one in known], None
    if as_json:
        common.print_json({"agents": rows, **({"you": you} if you else {})})
        return
    for one in rows:
        role = f": {one['role']}" if one["role"] else ""
        mark = ", you" if one["name"] == you else ""
        typer.echo(f"{one['name']} ({one['state']}{mark}){role}")


def _call(method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Call the loopback application in the name of the agent whose pane this is."""
    import urllib.error
    import urllib.request

    from orchestrator_lab.errors import OrchestratorLabError, SupervisorLost, from_payload

    request = urllib.request.Request(  # noqa: S310 - the address is the supervisor's own, http on loopback
        os.environ[_URL].rstrip("/") + path,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {os.environ[_TOKEN]}", "Content-Type": "application/json"},
        method=method,
    )
    # The pane may carry the user's proxy settings: loopback is never reached through a proxy.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    again = body is None or body.get("message_id") is not None
    give_up = time.monotonic() + _HEAL_S
    while True:
        try:
            with opener.open(request, timeout=60) as response:
                return dict(json.loads(response.read()))
        except urllib.error.HTTPError as error:
            try:
                said = json.loads(error.read())["error"]
            except (ValueError, KeyError, TypeError):
                said = f"status {error.code}"
            if isinstance(said, dict):
                raise from_payload(said) from None
            raise OrchestratorLabError(f"the supervisor refused: {said}") from None
        except OSError as error:
            reason = getattr(error, "reason", error)
            # Nobody listens when the cluster is gone; a connection that breaks off is a supervisor that is replaced.
            if again and isinstance(reason, ConnectionResetError) and time.monotonic() < give_up:
                time.sleep(0.1)
                continue
            raise SupervisorLost(f"the supervisor does not answer at {os.environ[_URL]} ({reason})") from None
