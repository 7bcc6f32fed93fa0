"""Conversations that the lab did not start: the programs' own records, told as events of a run.

A transcript becomes the events that a cluster would have journalled, and the folds make the same tables of them.
Nothing is written into the programs' folders.
"""

from __future__ import annotations

from orchestrator_lab.importing.conversation import Conversation
from orchestrator_lab.importing.finding import find_conversations

__all__ = ["Conversation", "find_conversations"]
