"""Root metadata that a device's owner gives it: kept in its home, since trust begins with nothing that was fetched."""

from __future__ import annotations

from pathlib import Path

from haversack.base.errors import Refused, UsageError
from haversack.tools.store import atomic

LARGEST = 1 << 20
_WHOSE = "whoever publishes has it as KEYS/1.root.json"


def kept(given: Path | None, place: Path, *, unused: bool = False) -> bytes:
    """Return the root metadata that a home trusts; those given at its first contact stay.

    Args:
        given: a file from the owner, or None.
        place: where the home keeps them.
        unused: nothing was believed because of those that are kept: a mistake then, for which others may be given.

    Raises:
        UsageError: there are none, or the file cannot be read, or is none.
        Refused: others were given before, or those that are kept are damaged.
        EnvironmentFault: the home cannot be read or written.
    """
    if given is None:
        if (known := read(place)) is None:
            step = "give it with --root; whoever publishes has it as KEYS/1.root.json"
            raise UsageError("no root metadata say whom to believe, and none are taken on trust", next_step=step)
        return known
    before, data = _kept(place), _read(given)
    if not _is_root(data):
        raise UsageError("it is no root metadata", where=str(given), next_step=_WHOSE)
    if before is not None and _is_root(before) and data != before and not unused:
        step = f"leave --root out; to trust another publisher, remove {place} or name another --home"
        raise Refused("this home was given other root metadata before", where=str(given), next_step=step)
    if data != before:
        atomic.make_folder(place.parent, atomic.HOME)
        atomic.write_bytes(place, data, atomic.HOME)
    return data


def read(place: Path) -> bytes | None:
    """Return the root metadata that a home keeps; None where it has none.

    Raises:
        Refused: the file is damaged.
        EnvironmentFault: it cannot be read.
    """
    data = _kept(place)
    if data is not None and not _is_root(data):
        step = f"give the publisher's once more, with --root KEYS/1.root.json: they take the place of {place}"
        raise Refused("it is no root metadata: the file is damaged", where=str(place), next_step=step)
    return data


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(LARGEST + 1)
    except OSError as error:
        raise UsageError(f"it cannot be read: {atomic.why(error)}", where=str(path), next_step=_WHOSE) from error
    return data


def _kept(place: Path) -> bytes | None:
    with atomic.told(place, "read the root metadata", atomic.HOME):
        try:
            return atomic.read(place, LARGEST)
        except FileNotFoundError:
            return None


def _is_root(data: bytes) -> bool:
    """Say whether bytes have the form of root metadata; who signed them is not asked here."""
    from tuf.api.metadata import Metadata, Root
    from tuf.api.serialization import DeserializationError

    try:
        return len(data) <= LARGEST and isinstance(Metadata.from_bytes(data).signed, Root)
    except DeserializationError:
        return False
