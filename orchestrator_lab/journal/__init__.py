"""The append-only record of one run, and the recordings of its panes."""

from __future__ import annotations
