"""A laboratory for real command-line agents in tmux, driven from notebooks."""

from __future__ import annotations

__version__ = "0.1.0"
