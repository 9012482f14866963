"""What holds for this process as a whole: how it ends, and settings that must stand before torch is loaded."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(KeyboardInterrupt):
    """Somebody asked this process to end (SIGTERM): all that clears up after Ctrl-C does so now.

    Attributes:
        exit_code: as a shell tells of SIGTERM.
    """

    exit_code = 143


@contextmanager
def orderly() -> Iterator[None]:
    """Let SIGTERM raise ``Terminated`` meanwhile, once; a second one ends the process at once.

    Signals come to the main thread; elsewhere this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def settle() -> None:
    """Let idle threads sleep, unless the environment says otherwise: spinning ones take the cores from others."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
