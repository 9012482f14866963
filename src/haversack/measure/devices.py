"""Devices by name: ``local``, ``qemu:CPU``, ``ssh:[user@]host[:port]``, ``adb:[serial]``."""

from __future__ import annotations

from haversack.base.errors import UsageError
from haversack.base.shelf import nearest
from haversack.measure import adb, ssh
from haversack.measure.emulated import PROCESSORS, EmulatedDevice
from haversack.measure.local import LocalDevice
from haversack.measure.remote import RemoteDevice
from haversack.tools.worker.process import DEFAULT_LIMITS, Limits

FAR = ("ssh:[user@]host[:port]", "adb:[serial]")


def names() -> tuple[str, ...]:
    """Return the names of all devices, and how those over a connection are named."""
    return ("local", *(f"qemu:{name}" for name in PROCESSORS), *FAR)


def opened(name: str, limits: Limits = DEFAULT_LIMITS) -> LocalDevice:
    """Return a device, a context manager.

    Args:
        name: one of ``names()``.
        limits: of its children, as for this machine; an emulated one has longer ones.

    Raises:
        UsageError: there is no such device (all are listed), or its address is none.
        EnvironmentFault: what it needs is not installed, or it cannot be reached.
    """
    check(name)
    kind, _, which = name.partition(":")
    if kind == "ssh":
        return RemoteDevice(ssh.carrier(which), ssh.installs(which), limits=limits)
    if kind == "adb":
        return RemoteDevice(adb.carrier(which), adb.INSTALLS, limits=limits)
    return EmulatedDevice(which, limits=limits) if kind == "qemu" else LocalDevice(limits=limits)


def check(name: str) -> None:
    """Look at a device's name alone; nothing is opened or reached.

    Raises:
        UsageError: there is no such device (all are listed), or its address is none.
    """
    kind, colon, which = name.partition(":")
    far = {"ssh": ssh.carrier, "adb": adb.carrier}
    if colon and kind in far:
        far[kind](which)
    elif name != "local" and not (kind == "qemu" and which in PROCESSORS):
        cause = f"there is no device {name!r}{nearest(name, names())}"
        raise UsageError(cause, where="--device", next_step=f"one of {', '.join(names())}")


def check_measuring(name: str) -> None:
    """Look at the name of a device whose times and memory must count; nothing is opened or reached.

    Raises:
        UsageError: as ``check``; or it is emulated.
    """
    if name.startswith("qemu:"):
        raise UsageError(
            f"{name} is emulated: its times and its memory are not those of the processor",
            where="--device",
            next_step="pack with --device local or a real one, then haversack verify OUT --device " + name,
        )
    check(name)


def measuring(name: str, limits: Limits = DEFAULT_LIMITS) -> LocalDevice:
    """Return a device whose times and memory count, a context manager.

    Raises:
        UsageError, EnvironmentFault: as ``opened``; an emulated one measures nothing.
    """
    check_measuring(name)
    return opened(name, limits)
