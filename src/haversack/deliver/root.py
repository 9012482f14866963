"""Root metadata that a device's owner gives it: kept in its home, since trust begins with nothing that was fetched."""

from __future__ import annotations

from pathlib import Path

from haversack.base.errors import Refused, UsageError
from haversack.tools.store import atomic

LARGEST = 1 << 20


def kept(given: Path | None, place: Path, *, unused: bool = False) -> bytes:
    """Return the root metadata that a home trusts; those given at its first contact stay.

    Args:
        given: a file from the owner, or None.
        place: where the home keeps them.
        unused: nothing was believed because of those that are kept: a mistake then, for which others may be given.

    Raises:
        UsageError: there are none, or the file cannot be read.
        Refused: others were given before.
    """
    before = _read(place) if place.exists() else b""
    if given is None:
        if not before:
            step = "give it with --root; whoever publishes has it as KEYS/1.root.json"
            raise UsageError("no root metadata say whom to believe, and none are taken on trust", next_step=step)
        return before
    data = _read(given)
    if before and data != before and not unused:
        step = f"leave --root out; to trust another publisher, remove {place} or name another --home"
        raise Refused("this home was given other root metadata before", where=str(given), next_step=step)
    if data != before:
        atomic.make_folder(place.parent, atomic.HOME)
        atomic.write_bytes(place, data, atomic.HOME)
    return data


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(LARGEST + 1)
    except OSError as error:
        step = "whoever publishes has it as KEYS/1.root.json"
        raise UsageError(f"it cannot be read: {atomic.why(error)}", where=str(path), next_step=step) from error
    if not data or len(data) > LARGEST:
        raise UsageError("it is no root metadata", where=str(path))
    return data
