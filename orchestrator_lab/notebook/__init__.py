"""Notebooks as reproducible runs: executed in replay, frozen with all that a reader needs, checked cell by cell."""

from __future__ import annotations

from orchestrator_lab.notebook.sanitizing import SANITIZERS

__all__ = ["SANITIZERS"]
