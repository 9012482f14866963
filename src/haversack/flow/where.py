"""Where a run measures: the device that was asked for, the runtimes it has, and what a report tells of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from haversack.base.errors import EnvironmentFault, Fault
from haversack.flow.request import Runtimes
from haversack.measure import devices
from haversack.measure.device import Device
from haversack.measure.local import LocalDevice
from haversack.measure.remote import RemoteDevice
from haversack.report import facts
from haversack.report.record import Environment


@contextmanager
def measured_on(name: str, tried: Runtimes) -> Iterator[tuple[LocalDevice, Runtimes]]:
    """Open a device, and leave out what it has no runtime for, where the user asked for any.

    Raises:
        UsageError: there is no such device, or it is emulated.
        EnvironmentFault: it cannot be reached, or lacks a runtime that was named, or all.
    """
    with devices.measuring(name) as device:
        lacking = {target: why for target in tried.targets if (why := device.lacks(target, looking=True))}
        left = tuple(target for target in tried.targets if target not in lacking)
        if lacking and (not tried.one or not left):
            raise EnvironmentFault(
                f"{name} cannot run {', '.join(lacking)}",
                where="--device",
                faults=tuple(Fault(target, why) for target, why in lacking.items()),
                next_step=f"haversack doctor --device {name}",
            )
        yield device, replace(tried, targets=left, left_out={**tried.left_out, **lacking})


def environment(machine: Environment, device: Device) -> Environment:
    """Return what a report tells of where it was measured: this machine, or the device that stood in for it."""
    if not isinstance(device, RemoteDevice):
        return machine
    about = device.about
    return facts.of_device(
        machine,
        device=device.name,
        python=".".join(map(str, about.python)),
        os=f"{about.system} {about.machine}",
        cpuinfo=about.cpuinfo,
        cores=about.cores,
        versions={name: found for name, found in about.packages.items() if found},
    )
