"""The local model, seen from the gateway: starting its process, and ending it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import sys
import tempfile
import time
from pathlib import Path

from orchestrator_lab.errors import GatewayError
from orchestrator_lab.gateway.traffic import ApiError
from orchestrator_lab.models import DEFAULT_MODEL, find

__all__ = ["LocalModel"]

logger = logging.getLogger(__name__)

_START_TIMEOUT_S = 120.0


class LocalModel:
    """One model in a process of its own, which ends when this process does.

    Parameters
    ----------
    model : str or None
        A model's name or a GGUF file's path; the default model when None.
    log_path : Path or None
        Where llama.cpp's log goes; nowhere when None.
    context : int
        Tokens that one request may have, question and answer together.
    slots : int
        Requests worked on at a time; more wait their turn. Four keep the prompts of four agents
        warm, and give 1.2 times the tokens a second of one.
    """

    def __init__(
        self,
        model: str | None,
        log_path: Path | None = None,
        *,
        context: int = 4096,
        slots: int = 4,
    ) -> None:
        self.path = find(model)
        named = Path(model or DEFAULT_MODEL).name
        self.name = named.removesuffix(".gguf")
        self.key = secrets.token_urlsafe(24)
        self.base_url: str | None = None
        self.load_s: float | None = None
        self._log_path = log_path
        self._context = context
        self._slots = slots
        self._process: asyncio.subprocess.Process | None = None

    @property
    def running(self) -> bool:
        """Whether the process lives and answers."""
        process = self._process
        return self.base_url is not None and process is not None and process.returncode is None

    @property
    def pid(self) -> int | None:
        """The process, when there is one."""
        return self._process.pid if self._process is not None else None

    async def start(self) -> str:
        """Start the process and wait until the model answers.

        Returns
        -------
        str
            Its base URL.

        Raises
        ------
        GatewayError
            When the process ends before that or takes longer than two minutes; quotes its log.
        """
        begun = time.perf_counter()
        self.base_url = None
        log = os.open(self._log_path or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with tempfile.TemporaryDirectory(prefix="olab-model-") as folder:
            port_file = Path(folder) / "address"
            command = [sys.executable, "-m", "orchestrator_lab.gateway.local_server"]
            command += ["--model", str(self.path), "--name", self.name]
            command += ["--context", str(self._context), "--slots", str(self._slots)]
            try:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    "--port-file",
                    str(port_file),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    # Ctrl-C in the owner's terminal is not for it: it ends with its parent.
                    start_new_session=True,
                )
            finally:
                os.close(log)
            self._process = process
            try:
                if process.stdin is not None:
                    # By its input, not its arguments: those are open to everyone on the machine.
                    process.stdin.write(self.key.encode() + b"\n")
                    with contextlib.suppress(ConnectionError):
                        await process.stdin.drain()
                address = await self._wait(process, port_file, begun + _START_TIMEOUT_S)
            except BaseException:
                await self.stop()
                raise
        self.base_url = address
        self.load_s = time.perf_counter() - begun
        logger.info("local model %s answers at %s after %.1f s", self.name, address, self.load_s)
        return address

    async def _wait(self, process: asyncio.subprocess.Process, port_file: Path, deadline: float) -> str:
        while not port_file.exists():  # noqa: ASYNC240 - one stat of a local file
            if process.returncode is not None:
                raise self._failed(process.returncode)
            if time.perf_counter() > deadline:
                msg = f"the local model {self.name} was not ready within {_START_TIMEOUT_S:.0f} s"
                raise GatewayError(msg, model=self.name)
            await asyncio.sleep(0.02)
        address = port_file.read_text(encoding="utf-8").strip()  # noqa: ASYNC240 - one line
        import httpx

        async with httpx.AsyncClient(trust_env=False) as client:
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    if (await client.get(f"{address}/health")).status_code == 200:
                        return address
                if process.returncode is not None:
                    raise self._failed(process.returncode)
                if time.perf_counter() > deadline:
                    msg = f"the local model {self.name} at {address} is not healthy"
                    raise GatewayError(msg, model=self.name)
                await asyncio.sleep(0.05)

    def _failed(self, status: int) -> GatewayError:
        if status == 3:
            msg = "the local model needs xllamacpp; install it with: pip install 'orchestrator-lab[local]'"
            return GatewayError(msg, model=self.name)
        tail = ""
        if self._log_path is not None and self._log_path.exists():
            lines = self._log_path.read_text(encoding="utf-8", errors="replace").splitlines()
            tail = " | ".join(line.strip() for line in lines[-3:])
        where = f"; its log {self._log_path} ends with: {tail}" if tail else ""
        msg = f"the local model {self.path} could not be loaded (exit status {status}){where}"
        return GatewayError(msg, model=self.name, status=503)

    def explain(self, status: int, body: bytes) -> ApiError:
        """Say what llama.cpp's error means for the agent's user.

        Parameters
        ----------
        status : int
            HTTP status of its answer.
        body : bytes
            The answer.

        Returns
        -------
        ApiError
            One sentence that names the model and, for a question too long, both sizes.
        """
        try:
            error = json.loads(body)["error"]
            kind, text = str(error["type"]), str(error["message"])
        except (ValueError, KeyError, TypeError):
            kind, text = "", body[:200].decode("utf-8", "replace")
        if kind == "exceed_context_size_error":
            size, room = error.get("n_prompt_tokens"), error.get("n_ctx")
            # "prompt is too long" is what clients of the real API know this error by.
            sentence = (
                f"prompt is too long: {size} tokens > {room} maximum of the local model {self.name}; "
                "start a new conversation, shorten the instructions or use a larger model"
            )
            return ApiError(400, "invalid_request_error", sentence, retry=False)
        kinds = {400: "invalid_request_error", 404: "not_found_error", 503: "overloaded_error"}
        sentence = f"the local model {self.name} answered: {text}"
        return ApiError(status, kinds.get(status, "api_error"), sentence)

    async def stop(self) -> None:
        """End the process, at the latest after two seconds by force."""
        process, self._process = self._process, None
        self.base_url = None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 2.0)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
