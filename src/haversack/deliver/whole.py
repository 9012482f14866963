"""Whether slots hold what was put there: before one is gone back to, and where the pointer does not say any more."""

from __future__ import annotations

from typing import Literal

from haversack.base import digest
from haversack.base.bundle import LARGEST_MANIFEST, MANIFEST, Manifest
from haversack.base.errors import EnvironmentFault, Fault, Refused, UsageError
from haversack.base.release import Release
from haversack.deliver import plan
from haversack.deliver.quarantine import UNKNOWN
from haversack.deliver.selftest import trial_of
from haversack.deliver.slots import Installed, Pointer, Slots
from haversack.deliver.starts import Starts
from haversack.deliver.store import Store
from haversack.deliver.trial import ACCEPTED
from haversack.tools.store import atomic
from haversack.tools.trust import canonical
from haversack.tools.trust.bundle import open_bundle


def damage(slots: Slots, installed: Installed) -> tuple[Fault, ...]:
    """Return what is wrong with the slot of a release; nothing where it holds what was put there.

    Raises:
        EnvironmentFault: it cannot be read.
    """
    try:
        trial_of(slots.path(installed), installed.target)
    except (Refused, UsageError) as error:
        return error.faults or (Fault(error.where, error.cause),)
    return ()


def go_back(slots: Slots, reason: str, *, sequence: int | None = None, damaged: bool = False) -> Installed:
    """Use what lies in the other slot, if that is whole, and quarantine what was in use; see ``Slots.way_back``.

    Raises:
        EnvironmentFault: there is nothing whole to go back to; what is in use still is.
        Refused: the pointer is damaged.
    """
    other = slots.pointer().other
    if other is not None and (faults := damage(slots, other)):
        line = slots.folder.name
        step = f"haversack client update {line}    (a newer release; what is in use is the way back then)"
        cause = f"{other.version}, to which it would go back, is damaged"
        raise EnvironmentFault(cause, where=line, faults=faults, next_step=step)
    back = slots.way_back(reason, sequence=sequence, damaged=damaged)
    if back.sequence == UNKNOWN:  # what was in use may have been counted under the same number
        Starts(slots.folder).forget(UNKNOWN)
    return back


def mended(slots: Slots) -> str:
    """Write the pointer anew where it is damaged, or where a way back was begun and not ended; say so, or nothing.

    Where it is damaged, what ``lying`` finds is in use then. A release in use that was set aside is one whose way back
    did not get to the pointer.

    Raises:
        Refused: it is damaged, and nothing lies whole.
        EnvironmentFault: the home cannot be read or written.
    """
    try:
        pointer = slots.pointer()
    except Refused:
        found = lying(slots)
        if found.current is None:
            raise
        anew = slots.rewrite(found)
        version = anew.current.version if anew.current is not None else "nothing"
        return f"what tells which release is in use was damaged; {version} lies whole, and is"
    now, other = pointer.current, pointer.other
    if now is None or other is None or not slots.is_set_aside(now) or slots.is_set_aside(other) or damage(slots, other):
        return ""
    back = slots.way_back("", sequence=now.sequence, damaged=True)  # it is on the list
    return f"{now.version} was set aside, and the way back did not come to its end; {back.version} is in use"


def restored(slots: Slots, installed: Installed, store: Store) -> bool:
    """Put what the store has in place of the files of the release in use, which are damaged; say whether it had all.

    Whoever calls it holds the lock of the home.

    Raises:
        EnvironmentFault: the home cannot be read or written.
    """
    path = slots.path(installed) / MANIFEST
    try:
        with atomic.told(path, "read the manifest", atomic.HOME):
            data = atomic.read(path, LARGEST_MANIFEST)
        manifest = canonical.loads(data, Manifest, where=str(path), limit=LARGEST_MANIFEST)
    except (Refused, EnvironmentFault):  # it is what is damaged
        return False
    files = {MANIFEST: digest.of_bytes(data), **{file.name: file.sha256 for file in manifest.of(installed.target)}}
    if not all(store.sound(sha256) for sha256 in files.values()):
        return False
    slots.stage(files, store)
    slots.activate(installed.version, installed.sequence, installed.target, installed.median_ms)
    return True


def recognised(slots: Slots, installed: Installed, release: Release) -> Installed:
    """Return what is in use with its sequence, where only its slot told of it and it is the release that is offered.

    Raises:
        EnvironmentFault: the home cannot be read or written.
    """
    path = slots.path(installed) / MANIFEST
    with atomic.told(path, "read the manifest", atomic.HOME):
        known = installed.sequence != UNKNOWN or installed.version != release.version or not path.is_file()
        if known or digest.of_file(path) != plan.file_of(release, MANIFEST).sha256:
            return installed
    return slots.number(installed, release.sequence)


def lying(slots: Slots) -> Pointer:
    """Return what lies whole in slots and was not set aside: what was put there last is in use, the other the way back.

    Raises:
        EnvironmentFault: they cannot be read.
    """
    there = [one for one in (_lying(slots, "a"), _lying(slots, "b")) if one and not slots.is_set_aside(one)]
    with atomic.told(slots.folder, "look at slots", atomic.HOME):
        there.sort(key=lambda one: slots.path(one).stat().st_mtime_ns)
    return Pointer(current=there[-1], other=there[0] if len(there) > 1 else None) if there else Pointer()


def _lying(slots: Slots, slot: Literal["a", "b"]) -> Installed | None:
    """Return the release that lies whole in a slot; None where none does."""
    for target in ACCEPTED:
        one = Installed(slot, "", UNKNOWN, target)
        if not damage(slots, one):
            return Installed(slot, open_bundle(slots.path(one), target).manifest.version, UNKNOWN, target)
    return None
