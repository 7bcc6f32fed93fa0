"""Runs in one file: exported with what is private masked, opened without being unpacked, checked to the last byte."""

from __future__ import annotations

from orchestrator_lab.bundle.layout import SUFFIX, is_bundle

__all__ = ["SUFFIX", "is_bundle"]
