"""Backups of a cluster: its configuration, its settings and its runs, never its secrets.

A backup is a folder, made in one step: each run in it is a bundle of its own, which whatever reads a run reads.
"""

from __future__ import annotations

from orchestrator_lab.backup.creating import Created, create_backup
from orchestrator_lab.backup.listing import Backup, find_backup, find_backups
from orchestrator_lab.backup.restoring import Restored, restore_backup
from orchestrator_lab.backup.verifying import VerifiedBackup, verify_backup

__all__ = [
    "Backup",
    "Created",
    "Restored",
    "VerifiedBackup",
    "create_backup",
    "find_backup",
    "find_backups",
    "restore_backup",
    "verify_backup",
]
