"""``haversack doctor``."""

from __future__ import annotations

from haversack.cli.terminal import say, say_json


def doctor(*, device: str = "local", json: bool = False) -> int:
    """Tell what is installed, what each target can do here, and what adds the rest.

    Parameters
    ----------
    device:
        Look at another device: ssh:[user@]host[:port], adb:[serial] or qemu:CPU.
    json:
        Print JSON.
    """
    from haversack.base.errors import EXIT_ENVIRONMENT
    from haversack.flow import doctor as flow
    from haversack.flow import doctor_device

    found = flow.examine() if device == "local" else doctor_device.examine(device)
    if json:
        say_json(found.data())
    else:
        for line in found.lines():
            say(line)
    return 0 if found.healthy else EXIT_ENVIRONMENT
