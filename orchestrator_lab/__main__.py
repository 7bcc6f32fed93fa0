"""``python -m orchestrator_lab``: the command line."""

from __future__ import annotations

from orchestrator_lab.cli import main

if __name__ == "__main__":
    main()
