"""What the web API does to clusters. Each call is journalled, with who and from where, before it acts.

Functions make blocking calls in a thread; those that wait for an answer of an agent are coroutines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator_lab.cluster import Cluster
from orchestrator_lab.config import load_config
from orchestrator_lab.errors import ConfigError, ExchangeTimeout
from orchestrator_lab.schema import new_id
from orchestrator_lab.server import models

if TYPE_CHECKING:
    from orchestrator_lab.config import ClusterConfig
    from orchestrator_lab.server.asked import Asked

__all__ = [
    "acknowledge_alert",
    "answer",
    "ask",
    "clear_alerts",
    "interrupt",
    "keys",
    "lift",
    "resolve_alert",
    "restart",
    "restart_agent",
    "send",
    "shutdown",
    "start",
    "start_again",
    "start_monitoring",
    "stop",
    "stop_agent",
    "stop_monitoring",
]

#: Seconds in which programs start or end: some ask a model or a registry first.
_PROGRAMS_S = 300.0


def start(asked: Asked) -> dict[str, Any]:
    """Start a cluster; answered once its agents take messages."""
    body = asked.body_as(models.StartRequest)
    config = _configuration(asked, body)
    cluster = Cluster.start(config, experiment=body.experiment, params=body.params, tags=body.tags, seed=body.seed)
    return {
        "name": cluster.name,
        "run_id": cluster.run_id,
        "run_dir": str(cluster.run_dir),
        "notes": [str(note) for note in config.notes],
    }


def _configuration(asked: Asked, body: models.StartRequest) -> ClusterConfig:
    if body.template is not None:
        config = load_config(f"template:{body.template}", base_dir=asked.root)
    elif body.file is not None:
        place = (asked.root / body.file).resolve()
        if not place.is_relative_to(asked.root.resolve()):
            raise ConfigError(f"{body.file[:100]!r} is not below the server's root folder: give a path inside it")
        config = load_config(place)
    else:
        config = load_config(body.config, base_dir=asked.root)
    return config if body.name is None else config.renamed(body.name)


def stop(asked: Asked) -> dict[str, Any]:
    """End the agents; the run stays."""
    return asked.cluster.client.post("/stop", timeout_s=_PROGRAMS_S)


def start_again(asked: Asked) -> dict[str, Any]:
    """Start the agents of a cluster that was stopped; one that runs is left as it is."""
    status = asked.cluster.status()
    return restart(asked) if status["status"] == "stopped" else status


def restart(asked: Asked) -> dict[str, Any]:
    """Start the agents anew."""
    return asked.cluster.client.post_once("/restart", {}, timeout_s=_PROGRAMS_S)


def shutdown(asked: Asked) -> dict[str, Any]:
    """End agents, session and run."""
    # A client of its own: the kept one is let go of, whoever uses it.
    cluster = asked.clusters.attach(asked.cluster.name)
    cluster.client.patience_s = _PROGRAMS_S
    try:
        return {"run_dir": str(cluster.shutdown(asked.body_as(models.ShutdownRequest).status))}
    finally:
        asked.clusters.forget(cluster.name)


def send(asked: Asked) -> dict[str, Any]:
    """Write to agents."""
    body = asked.body_as(models.SendRequest)
    return _post(asked, body.to, body.text, when=body.when, in_reply_to=body.in_reply_to, expires_s=body.expires_s)


def _post(asked: Asked, to: str | list[str], text: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON values
    cluster = asked.cluster
    everybody = to == "all"
    names = cluster.names if everybody else [to] if isinstance(to, str) else to
    if len(set(names)) != len(names):
        raise ConfigError("'to' names an agent twice: name each once")
    return cluster.client.post(
        "/messages",
        {
            "to": names,
            "text": text,
            "message_ids": [new_id("msg_") for _ in names],
            "source": "human",
            "broadcast": everybody,
            **more,
        },
    )


async def ask(asked: Asked) -> dict[str, Any]:
    """Write to an agent and wait for its answer."""
    body = asked.body_as(models.AskRequest)
    if body.to == "all":
        raise ConfigError("a question goes to one agent: send it to all, and read the messages")
    sent = await asked.clusters.call(asked.name, lambda: _post(asked, body.to, body.text, when=body.when))
    (message,) = sent["messages"]
    cluster = await asked.attached()
    timed_out = False
    try:
        message = await cluster.client.aget(
            f"/messages/{message['message_id']}", timeout_s=body.timeout_s, until="final"
        )
    except ExchangeTimeout:
        timed_out = True
    timed_out = timed_out or message["status"] in {"queued", "claimed", "written", "accepted", "started"}
    return {"message": message, "reply": message.get("reply"), "timed_out": timed_out}


def _once(
    asked: Asked, what: str, body: dict[str, Any] | None = None, timeout_s: float | None = 10.0
) -> dict[str, Any]:
    # Never repeated on a guess: a key that may have reached the pane is not pressed again, nor a new program ended.
    return asked.cluster.client.post_once(f"/agents/{asked.agent}/{what}", body or {}, timeout_s=timeout_s)


def interrupt(asked: Asked) -> dict[str, Any]:
    """Interrupt an agent's turn."""
    return {"agents": [_once(asked, "interrupt")]}


def restart_agent(asked: Asked) -> dict[str, Any]:
    """Start an agent's program anew."""
    return _once(asked, "restart", timeout_s=_PROGRAMS_S)


def stop_agent(asked: Asked) -> dict[str, Any]:
    """End an agent's program."""
    return asked.cluster.client.post(f"/agents/{asked.agent}/stop", timeout_s=_PROGRAMS_S)


def keys(asked: Asked) -> dict[str, Any]:
    """Type into a pane what a person typed."""
    return _once(asked, "keys", {"keys": asked.body_as(models.KeysRequest).data})


def answer(asked: Asked) -> dict[str, Any]:
    """Answer a dialog."""
    body = asked.body_as(models.DialogRequest)
    return asked.cluster.client.post(
        f"/agents/{asked.agent}/dialog",
        {"dialog_id": body.dialog_id, "option": body.option, "answer_id": new_id("ans_")},
    )


def acknowledge_alert(asked: Asked) -> dict[str, Any]:
    """Say that an alert was seen."""
    return _alert(asked, asked.alert, "acknowledge")


def resolve_alert(asked: Asked) -> dict[str, Any]:
    """Close an alert by hand."""
    return _alert(asked, asked.alert, "clear")


def clear_alerts(asked: Asked) -> dict[str, Any]:
    """Close every open alert."""
    return _alert(asked, "all", "clear")


def _alert(asked: Asked, alert: str, what: str) -> dict[str, Any]:
    return asked.cluster.client.post(f"/alerts/{alert}/{what}", {"by": asked.actor.by})


def lift(asked: Asked) -> dict[str, Any]:
    """Let delivery go on."""
    body = asked.body_as(models.LiftRequest)
    return asked.cluster.client.post("/guards/lift", {**body.model_dump(), "by": asked.actor.by})


def start_monitoring(asked: Asked) -> dict[str, Any]:
    """Watch over the agents again."""
    return asked.cluster.client.post("/monitoring/start")


def stop_monitoring(asked: Asked) -> dict[str, Any]:
    """Open no alerts until it is started again."""
    return asked.cluster.client.post("/monitoring/stop")
