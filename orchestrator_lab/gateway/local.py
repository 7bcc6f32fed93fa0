"""stub"""

from __future__ import annotations
from pathlib import Path


class LocalModel:
    def __init__(self, model: str | None, log_path: Path | None) -> None: ...

    running = False

    def check_same(self, model: str | None) -> str:
        return ""

    async def start(self) -> str:
        return ""

    async def stop(self) -> None: ...
