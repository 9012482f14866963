"""``adb:[serial]``: a device that the system's ``adb`` reaches, with a Python of its own.

Android has none. Two ways are real: a board whose Linux runs adbd beside its ``python3``, and Termux, where its package
allows ``run-as`` (a debuggable build, as Termux publishes them on GitHub). Never run on a phone so far: the client side
is tested against a server that speaks adb's protocol and runs commands here (docs/decisions/0008).
"""

from __future__ import annotations

import re

from haversack.base.errors import UsageError
from haversack.measure.ssh import python
from haversack.tools.worker.link import Carrier

_SERIAL = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._:-]{0,127})?")
_FILES = "/data/data/com.termux/files"
_TERMUX = (
    f"F={_FILES}; if run-as com.termux test -x $F/usr/bin/python 2> /dev/null; then "
    "exec run-as com.termux env HOME=$F/home PREFIX=$F/usr TMPDIR=$F/usr/tmp LANG=C.UTF-8 PATH=$F/usr/bin:/system/bin "
    "$F/usr/bin/python -u -c {run}; fi; "
)
INSTALLS = "in Termux: pkg install python python-numpy python-onnxruntime; elsewhere there: pip install {packages}"
HINTS = {
    "not found": "adb devices    (is it plugged in, and USB debugging on?)",
    "no devices": "adb devices    (is it plugged in, and USB debugging on?)",
    "unauthorized": "allow this computer on the device's screen",
    "more than one device": "name it: adb:SERIAL, as adb devices lists it",
    "no Python 3": f"install Termux from its releases on GitHub, and {INSTALLS.partition(';')[0]}",
}


def carrier(serial: str) -> Carrier:
    """Return how a device is reached; without a serial, the only one that adb knows.

    Raises:
        UsageError: it cannot be a serial. Nothing that begins with a dash or holds a character of the shell's is one.
    """
    if not _SERIAL.fullmatch(serial):
        raise UsageError(
            f"{serial!r} is no serial",
            where="--device adb:",
            next_step="adb devices lists them: adb:emulator-5554, adb:192.168.1.7:5555; adb: takes the only one",
        )
    chosen = ["-s", serial] if serial else []
    return Carrier(f"adb:{serial}", lambda size: ["adb", *chosen, "shell", "-T", command(size)], HINTS)


def command(size: int) -> str:
    """Return the command that runs, in a device's Python, the first ``size`` bytes of standard input as a program."""
    return python(size, before=_TERMUX.format(run=f'"import sys;exec(sys.stdin.buffer.read({size:d}))"'))
