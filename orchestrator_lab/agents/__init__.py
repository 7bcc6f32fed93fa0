"""What the lab must know about each kind of agent."""

from __future__ import annotations
