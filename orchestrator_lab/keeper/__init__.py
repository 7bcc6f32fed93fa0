"""The process that holds a cluster's sockets and pane bytes, and keeps its supervisor alive.

``python -m orchestrator_lab.keeper R`` is small and dull on purpose: one loop, no threads, no
policy. Nothing is imported here, so that importing a part of it costs only that part.
"""

from __future__ import annotations
