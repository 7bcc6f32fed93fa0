"""The local model's own process: llama.cpp's server, through xllamacpp.

Started by the gateway as ``python -m orchestrator_lab.gateway.local_server --model PATH --port-file
FILE``. The first line of its standard input is the key that it asks of its clients; when its
standard input ends, its parent is gone and so is it.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import threading
from pathlib import Path

__all__ = ["main"]

logger = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    """Serve a model until standard input ends.

    Parameters
    ----------
    arguments : list of str, optional
        The command line; ``sys.argv`` when None.

    Returns
    -------
    int
        Exit status: 0 after an orderly end, 1 when the model cannot be loaded, 3 without xllamacpp.
    """
    parser = argparse.ArgumentParser(prog="orchestrator_lab.gateway.local_server")
    parser.add_argument("--model", required=True, help="GGUF file")
    parser.add_argument("--name", default="local", help="the model's name in answers")
    parser.add_argument("--port-file", required=True, help="the address is written here when ready")
    parser.add_argument("--context", type=int, default=4096, help="tokens of one request")
    parser.add_argument("--slots", type=int, default=4, help="requests worked on at a time")
    parser.add_argument("--threads", type=int, default=0, help="0: half of the cores")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    key = sys.stdin.readline().strip()
    gone = threading.Event()
    threading.Thread(target=_watch_parent, args=(gone,), daemon=True).start()
    try:
        import xllamacpp
    except ImportError as problem:
        logger.error("xllamacpp is not installed (%s)", problem)  # noqa: TRY400 - a sentence, no stack
        return 3
    params = xllamacpp.CommonParams()
    params.model.path = options.model
    params.model_alias = {options.name}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    # The context is divided among the slots: each request has `context` tokens for itself.
    params.n_ctx = options.context * options.slots
    params.n_parallel = options.slots
    # llama.cpp's threads wait for each other at every step by spinning. Agents use the cores too, and
    # a thread without a core stalls all others: on two busy cores two threads give 1.5 tokens/s
    # where one gives 36 (idle: 55 against 37).
    threads = options.threads or max(1, _cores() // 2)
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.ui = False
    params.cache_ram_mib = 256  # prompts of past conversations; the default is 8 GiB
    if key:
        params.api_keys = [key]
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as problem:
        logger.error("the model cannot be loaded: %s", problem)  # noqa: TRY400 - likewise
        return 1
    part = Path(options.port_file + ".part")
    part.write_text(server.listening_address + "\n", encoding="utf-8")
    part.replace(options.port_file)
    gone.wait()
    # llama.cpp finishes what it works on before it ends; nobody waits for that any more.
    os._exit(0)


def _watch_parent(gone: threading.Event) -> None:
    while sys.stdin.buffer.read(4096):
        pass
    gone.set()
    # While the model loads, the main thread is inside llama.cpp and sees no event.
    threading.Event().wait(1.0)
    os._exit(0)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


if __name__ == "__main__":
    sys.exit(main())
