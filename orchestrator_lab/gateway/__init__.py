"""The loopback model endpoint that agents may be pointed at."""

from __future__ import annotations
