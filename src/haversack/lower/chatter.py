"""What runtimes say of themselves when a file is opened in this process: told to nobody; all else is passed on."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

CHATTER = (b"INFO: ",)
"""How lines begin in which a native library tells what it does, and not what is wrong."""


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Keep such lines, which libraries write past Python to descriptor 2, away; the other lines follow at the end.

    What Python writes to standard error meanwhile, a display of progress for one, goes where it always goes.
    """
    sys.stderr.flush()
    kept, before = os.dup(2), sys.stderr
    with tempfile.TemporaryFile() as said, os.fdopen(os.dup(kept), "w", buffering=1, encoding="utf-8") as ours:
        os.dup2(said.fileno(), 2)
        if _writes_to(before, 2):
            sys.stderr = ours
        try:
            yield
        finally:
            sys.stderr = before
            os.dup2(kept, 2)
            os.close(kept)
            said.seek(0)
            for line in said:
                if not line.startswith(CHATTER):
                    os.write(2, line)


def _writes_to(stream: object, descriptor: int) -> bool:
    """Say whether a stream's text ends up at a descriptor; a test's or a display's own stream says no."""
    try:
        return bool(stream.fileno() == descriptor)  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return False
