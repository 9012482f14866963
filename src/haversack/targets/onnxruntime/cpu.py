"""What this processor does with int8, and the session option that follows from it."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from haversack.base.finding import Finding

_TOLD = frozenset(
    "avx2 avx512f avx512bw avx_vnni avx512_vnni amx_int8 asimd asimddp i8mm sve".split()  # as the kernel spells them
)
_VNNI = frozenset({"avx_vnni", "avx512_vnni", "amx_int8"})
_X86 = frozenset({"x86_64", "amd64", "i686"})
PRECISION = "session.x64quantprecision"


@cache
def features(listing: Path = Path("/proc/cpuinfo")) -> tuple[str, ...]:
    """Return the machine's name and those of its processor's features that decide how int8 runs, sorted.

    Without a listing (no Linux) only the machine's name is known. It is read once a process.
    """
    machine = platform.machine().lower()
    try:
        lines = listing.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return (machine,)
    words = {word for line in lines if line.lower().startswith(("flags", "features")) for word in line.split()}
    return (machine, *sorted(words & _TOLD))


def session_options(found: tuple[str, ...]) -> dict[str, str]:
    """Return the options under which int8 is exact on a processor with these features.

    x86 without VNNI multiplies uint8 by int8 in pairs whose 16-bit sum saturates; the option makes ONNX Runtime turn
    int8 weights into uint8, whose kernels do not. Where VNNI exists it would only cost time.
    """
    if found and found[0] in _X86 and not _VNNI & set(found):
        return {PRECISION: "1"}
    return {}


def risks(options: Mapping[str, str]) -> tuple[Finding, ...]:
    """Return *saturation-risk* for a file that multiplies integers and is opened without the option here.

    Args:
        options: those that this machine needs, as ``session_options`` returns them.
    """
    if PRECISION in options:
        return ()
    text = f"on x86 processors without VNNI, open it with {PRECISION}=1: sums of 16 bits saturate there"
    return (Finding("saturation-risk", text),)


def suited(settings: Mapping[str, str], found: tuple[str, ...]) -> dict[str, str]:
    """Return the options of a file for a processor, which may not be the one that the file was made on.

    The option of exact integers is set where the processor needs it, whatever the file says, and never on others than
    x86, which do not know it. A file without integers is not changed by it.

    Args:
        settings: of the file.
        found: the processor's, as ``features`` returns them.
    """
    others = {name: value for name, value in settings.items() if name != PRECISION or (found and found[0] in _X86)}
    return others | session_options(found)
