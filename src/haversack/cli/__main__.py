"""``python -m haversack.cli``."""

from __future__ import annotations

import sys

from haversack.cli import main

sys.exit(main())
