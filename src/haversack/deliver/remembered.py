"""The small files of a home, each a record in canonical form: read within a bound, and told of when damaged."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TypeVar

from haversack.base.errors import Refused
from haversack.tools.store import atomic
from haversack.tools.trust import canonical

Record = TypeVar("Record")
_NO_FILE = frozenset({errno.EISDIR, errno.ELOOP})
"""What lies there is a folder, or a link to itself."""


def read(path: Path, absent: Record, *, limit: int, doing: str, next_step: str) -> Record:
    """Return the record that a file holds, or ``absent`` where there is no file.

    Args:
        path: the file.
        absent: a record of the same class.
        limit: bytes that are looked at at all.
        doing: what it is read for, as ``read the floor``.
        next_step: what to do where it is damaged.

    Raises:
        Refused: it is damaged; with ``next_step``.
        EnvironmentFault: it cannot be read.
    """
    with atomic.told(path, doing, atomic.HOME):
        try:
            data = atomic.read(path, limit)
        except FileNotFoundError:
            return absent
        except OSError as error:
            if error.errno not in _NO_FILE:
                raise
            step = f"move it away, then {next_step}"  # no file takes the place of a folder
            raise Refused(atomic.why(error), where=str(path), next_step=step) from error
    try:
        return canonical.loads(data, type(absent), where=str(path), limit=limit)
    except Refused as error:
        error.next_step = next_step
        raise
