"""Settings of this process that must stand before torch is loaded: sleeping threads, memory that is kept."""

from __future__ import annotations

import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names of glibc's mallopt
KEPT_BYTES = 192 << 20


def settle() -> None:
    """Let idle threads sleep, and freed memory be used again.

    Spinning threads take the cores from what is measured. Activations of tens of megabytes are otherwise mapped and
    unmapped for every node: on a vision model the kernel's page faults took a sixth of all CPU time. Blocks above
    192 MiB still go back at once, so that the peak stays bounded. Both wishes give way to the user's environment.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # musl has none
        mallopt(_MMAP_THRESHOLD, KEPT_BYTES)
        mallopt(_TRIM_THRESHOLD, KEPT_BYTES)
