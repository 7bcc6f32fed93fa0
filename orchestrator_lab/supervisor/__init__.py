"""The process that decides for a cluster: lifecycle, delivery, states, its API."""

from __future__ import annotations
