"""Devices by name: ``local``, ``qemu:CPU``."""

from __future__ import annotations

from haversack.base.errors import UsageError
from haversack.base.shelf import nearest
from haversack.measure.emulated import PROCESSORS, EmulatedDevice
from haversack.measure.local import LocalDevice
from haversack.tools.worker.process import DEFAULT_LIMITS, Limits

LATER = ("ssh", "adb")
"""Kinds that are meant to be, and are not there yet."""


def names() -> tuple[str, ...]:
    """Return the names of all devices."""
    return ("local", *(f"qemu:{name}" for name in PROCESSORS))


def opened(name: str, limits: Limits = DEFAULT_LIMITS) -> LocalDevice:
    """Return a device, a context manager.

    Args:
        name: one of ``names()``.
        limits: of its children, as for this machine; an emulated one has longer ones.

    Raises:
        UsageError: there is no such device (all are listed), or none of that kind yet.
        EnvironmentFault: what it needs is not installed.
    """
    kind, colon, which = name.partition(":")
    if name == "local":
        return LocalDevice(limits=limits)
    if kind == "qemu" and which in PROCESSORS:
        return EmulatedDevice(which, limits=limits)
    if kind in LATER and colon:
        cause = f"{kind}: devices are not there yet"
    else:
        cause = f"there is no device {name!r}{nearest(name, names())}"
    raise UsageError(cause, where="--device", next_step=f"one of {', '.join(names())}")
