"""Whether slots hold what was put there: before one is gone back to, and where the pointer does not say any more."""

from __future__ import annotations

from typing import Literal

from haversack.base.bundle import VERSION
from haversack.base.errors import EnvironmentFault, Fault, Refused, UsageError
from haversack.deliver.selftest import trial_of
from haversack.deliver.slots import Installed, Pointer, Slots
from haversack.deliver.trial import ACCEPTED
from haversack.tools.trust.bundle import open_bundle

_UNKNOWN = 0
"""The sequence of a release of which only its slot tells: older than any that may be offered."""


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


def go_back(slots: Slots, reason: str, *, sequence: int = 0, damaged: bool = False) -> Installed:
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
    return slots.way_back(reason, sequence=sequence, damaged=damaged)


def mended(slots: Slots) -> Pointer | None:
    """Write a damaged pointer anew from the slots themselves, and return it; None where it is not damaged.

    The newest release that lies whole in a slot and was not set aside is in use then, and another one is the way back.

    Raises:
        Refused: it is damaged, and nothing lies whole.
        EnvironmentFault: the home cannot be read or written.
    """
    try:
        slots.pointer()
    except Refused:
        aside = {bad.version for bad in slots.set_aside()}
        there = [one for one in (_lying(slots, "a"), _lying(slots, "b")) if one and one.version not in aside]
        there.sort(key=_age)
        if not there:
            raise
        return slots.rewrite(Pointer(current=there[-1], other=there[0] if len(there) > 1 else None))
    return None


def _lying(slots: Slots, slot: Literal["a", "b"]) -> Installed | None:
    """Return the release that lies whole in a slot; None where none does."""
    for target in ACCEPTED:
        one = Installed(slot, "", _UNKNOWN, target)
        if not damage(slots, one):
            return Installed(slot, open_bundle(slots.path(one), target).manifest.version, _UNKNOWN, target)
    return None


def _age(installed: Installed) -> tuple[tuple[int, ...], bool, str]:
    """Return what versions are ordered by: a pre-release comes before what it is one of."""
    found = VERSION.fullmatch(installed.version)
    assert found is not None, "a manifest has no other"
    return tuple(int(found[place]) for place in (1, 2, 3)), not found[4], found[4] or ""
