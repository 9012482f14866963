"""Several files and folders that take their places together: all of them, or none."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Sequence
from pathlib import Path

from haversack.tools.store import atomic

ASIDE = "aside"


def put(stage: Path, into: Path, names: Sequence[str]) -> None:
    """Move what was made in one folder into another of the same disk; what stood there is put back if that fails.

    Only names change, so a full disk does not stop half-way. What ``names`` ends with leaves its place first and takes
    it last: a process that is killed in between leaves a folder without it.

    Args:
        stage: where it was made; what stood in the places is left in its folder ``aside``.
        into: where it goes.
        names: paths below both, of files and folders.

    Raises:
        EnvironmentFault: it cannot be moved, or a folder stands where a file is to go; ``into`` is as it was.
    """
    moved: list[tuple[Path, Path]] = []

    def move(source: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        source.replace(target)
        moved.append((source, target))

    place = into
    try:
        for name in reversed(names):
            place = into / name
            if place.is_dir() and not (stage / name).is_dir():
                raise IsADirectoryError(errno.EISDIR, "", str(place))
            if place.exists():
                move(place, stage / ASIDE / name)
        for name in names:
            place = into / name
            move(stage / name, place)
        atomic.sync_folder(into)
    except OSError as error:
        for source, target in reversed(moved):
            with contextlib.suppress(OSError):  # the error is the one to tell
                target.replace(source)
        for name in names:
            with contextlib.suppress(OSError):  # something is in it
                (into / name).parent.rmdir()
        raise atomic.fault(error, place, "put what was made in its place") from error
