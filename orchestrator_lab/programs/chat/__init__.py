"""A small interactive chat for a terminal: the agent for machines without an agent CLI.

``python -m orchestrator_lab.programs.chat --settings FILE`` is how the lab starts it;
``python -m orchestrator_lab.programs.chat --base-url URL --model NAME`` is how a person does.
"""

from __future__ import annotations
