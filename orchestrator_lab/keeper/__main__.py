"""Entry of ``python -m orchestrator_lab.keeper``."""

from __future__ import annotations

import sys

from orchestrator_lab.keeper.main import main

sys.exit(main(sys.argv[1:]))
