"""What processes leave in a line's folder: marks of those who are at it or died, and locks."""

from __future__ import annotations

import contextlib
from pathlib import Path

from haversack.base.errors import EnvironmentFault
from haversack.deliver import locking


def marks(folder: Path) -> list[str]:
    """Return the names of the marks of a line that nobody took away; an empty file is none."""
    starts = folder / "starts"
    return sorted(path.name for path in starts.iterdir() if path.stat().st_size) if starts.exists() else []


def free(path: Path) -> bool:
    """Say whether nobody holds a lock alone."""
    with contextlib.suppress(EnvironmentFault), locking.held(path, shared=True):
        return True
    return False
