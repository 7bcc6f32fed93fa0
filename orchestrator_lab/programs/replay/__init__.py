"""A recorded agent, played on a real terminal: it waits for what was typed, and gives what was shown and told then.

``python -m orchestrator_lab.programs.replay REEL`` is how the lab starts it. A reel is a file of JSON lines, made from
a run's journal and recording.
"""

from __future__ import annotations
