"""The interactive programs that the lab ships and runs in panes; they import nothing heavy."""

from __future__ import annotations
