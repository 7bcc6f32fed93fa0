"""One client of the message soak: it writes as the user and as agents, and may be killed at any line.

``python soak_client.py CLUSTER LOG LANE SEED SHARE``. What it is about to ask for stands in LOG before it asks
(``intent``), and what came of it afterwards (``ack`` with the ids, or ``rejected``): a line that was asked for and not
acknowledged may have happened or not, all others must agree with the journal. SHARE is how many messages it makes.
"""

# ruff: noqa: S311 - chance decides who writes to whom

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

from orchestrator_lab.client import Client, find
from orchestrator_lab.errors import ClusterStopped, OrchestratorLabError
from orchestrator_lab.schema import new_id

#: Messages of one client that wait for their end at a time.
WINDOW = 8
#: Seconds after which a message is not waited for any longer; it is accounted for at the end.
PATIENCE_S = 20.0
#: Whom the last agent may not write to; see soak_messages.topology.
NAMES = ("ada", "bob", "cid", "dan", "eve", "fay", "gus", "hal")


class Lane:
    """One stream of requests."""

    def __init__(self, cluster: str, log: Path, lane: str, seed: int, share: int) -> None:
        self.client = Client(find(cluster), cluster)
        self.lane, self.share = lane, share
        self.chance = random.Random(f"{seed} {lane}")
        self.log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.count = self.made = 0
        self.waiting: deque[str] = deque()

    def note(self, what: str, tag: str, **facts: Any) -> None:
        os.write(self.log, json.dumps({"what": what, "tag": tag, **facts}).encode() + b"\n")

    def text(self) -> tuple[str, str]:
        self.count += 1
        tag = f"<{self.lane}-{self.count}>"
        words = ("alpha", "βήτα", "ガンマ", "d;", "#e", "'f'")
        body = " ".join(self.chance.choices(words, k=self.chance.randint(2, 9)))
        if self.chance.random() < 0.03:
            body += "\n" + "\n".join(f"line {number} of {tag}" for number in range(40))
        return tag, f"{tag} {body} {tag}"

    def run(self) -> None:
        actions = (self.send, self.ask, self.broadcast, self.converse, self.forbidden, self.short_lived)
        while self.made < self.share:
            action = self.chance.choices(actions, weights=(40, 34, 3, 5, 2, 3))[0]
            action(*self.text())
            while len(self.waiting) >= WINDOW:
                self.await_one()
        while self.waiting:
            self.await_one()
        self.note("done", self.lane, made=self.made)

    def await_one(self) -> None:
        path = self.waiting.popleft()
        with contextlib.suppress(OrchestratorLabError):
            self.client.get(path, timeout_s=PATIENCE_S, until="final")

    def try_to(self, tag: str, op: str, sent: int, call: Any, **facts: Any) -> None:
        self.note("intent", tag, op=op, **facts)
        try:
            paths, ids = call()
        except ClusterStopped as error:
            self.note("rejected", tag, why=str(error))
            time.sleep(0.05)  # whom it wrote to has been killed and comes back
        except (OrchestratorLabError, OSError, http.client.HTTPException) as error:
            # Whether it was taken in before the answer was lost is for the journal to say.
            self.note("unknown", tag, why=str(error))
            time.sleep(0.05)
        else:
            self.made += sent
            self.note("ack", tag, ids=ids)
            self.waiting += paths

    def post(self, names: list[str], text: str, **body: Any) -> tuple[list[str], list[str]]:
        ids = [new_id("msg_") for _ in names]
        self.client.post("/messages", {"to": names, "text": text, "message_ids": ids, **body})
        return [f"/messages/{one}" for one in ids], ids

    def send(self, tag: str, text: str) -> None:
        to = self.chance.choice(NAMES)
        self.try_to(tag, "send", 1, lambda: self.post([to], text))

    def short_lived(self, tag: str, text: str) -> None:
        to = self.chance.choice(NAMES)
        self.try_to(tag, "send", 1, lambda: self.post([to], text, expires_s=0.05))

    def broadcast(self, tag: str, text: str) -> None:
        self.try_to(tag, "broadcast", len(NAMES), lambda: self.post(list(NAMES), text, broadcast=True))

    def converse(self, tag: str, text: str) -> None:
        agents, rounds = self.chance.sample(NAMES[:-1], 3), self.chance.randint(1, 2)
        identity = new_id("cnv_")

        def call() -> tuple[list[str], list[str]]:
            body = {"agents": agents, "opening": text, "rounds": rounds, "conversation_id": identity}
            self.client.post("/conversations", body)
            return [f"/conversations/{identity}"], []

        self.try_to(tag, "converse", 3 * rounds, call, conversation_id=identity)

    def ask(self, tag: str, text: str) -> None:
        sender, to = self.chance.sample(NAMES[:-1], 2)
        self.try_to(tag, "ask", 2, lambda: self.as_agent(sender, to, text))

    def forbidden(self, tag: str, text: str) -> None:
        self.try_to(tag, "forbidden", 1, lambda: self.as_agent(NAMES[-1], NAMES[0], text))

    def as_agent(self, sender: str, to: str, text: str) -> tuple[list[str], list[str]]:
        """Write as an agent does; such a request is never repeated, since it carries no id."""
        kept = json.loads((self.client.folder / "agents" / sender / "agent.json").read_text())
        port = json.loads((self.client.folder / "cluster.json").read_text())["port"]
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=15)
        try:
            line.request(
                "POST",
                "/agent/messages",
                json.dumps({"to": to, "text": text}),
                {"Authorization": f"Bearer {kept['token']}", "Content-Type": "application/json"},
            )
            answer = line.getresponse()
            body = json.loads(answer.read())
        except ValueError as error:
            raise OSError(f"no answer: {error}") from error
        finally:
            line.close()
        if answer.status == 409:
            self.made += body["error"]["type"] == "MessageRefused"
            raise ClusterStopped(body["error"]["message"])
        ids = [one["message_id"] for one in body["messages"]]
        return [f"/messages/{one}" for one in ids], ids


if __name__ == "__main__":
    Lane(sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5])).run()
