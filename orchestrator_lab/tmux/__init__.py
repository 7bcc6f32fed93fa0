"""The only place that talks to tmux."""

from __future__ import annotations
