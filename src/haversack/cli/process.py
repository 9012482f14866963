"""What holds for this process as a whole: how it ends, and settings that must stand before torch is loaded."""

from __future__ import annotations

import atexit
import errno
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from haversack.base.errors import HaversackError

GRACE_SECONDS = 5.0
UNWRITTEN = frozenset({errno.ENOSPC, errno.EIO, errno.EBADF, errno.EDQUOT, errno.EFBIG})
"""What a write to standard output may end in."""


class Terminated(KeyboardInterrupt):
    """Somebody asked this process to end (SIGTERM): all that clears up after Ctrl-C does so now.

    Attributes:
        exit_code: as a shell tells of SIGTERM.
    """

    exit_code = 143


@contextmanager
def orderly() -> Iterator[None]:
    """Let SIGTERM raise ``Terminated`` meanwhile, once; a second one ends the process at once.

    Python hears a signal between two steps of its own. Where a call of a runtime does not return, so that it is not
    heard within ``GRACE_SECONDS``, what is to be done at the end is done from here, and the process ends.

    Signals come to the main thread; elsewhere this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        heard.set()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Terminated

    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    before, wakes = signal.signal(signal.SIGTERM, end), signal.set_wakeup_fd(writes, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reads, heard), name="haversack-signals", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakes)
        signal.signal(signal.SIGTERM, before)
        os.close(writes)  # the thread ends


def _watch(reads: int, heard: threading.Event) -> None:
    """End the process after a SIGTERM that the main thread does not hear."""
    with os.fdopen(reads, "rb", buffering=0) as stream:
        while number := stream.read(1):
            if number[0] == signal.SIGTERM and not heard.wait(GRACE_SECONDS):
                atexit._run_exitfuncs()  # noqa: SLF001 - marks of what was at work go: nothing crashed
                os._exit(Terminated.exit_code)


def settle() -> None:
    """Let idle threads sleep, unless the environment says otherwise: spinning ones take the cores from others.

    A standard output or error that was closed is written to nowhere.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.stdout = sys.stdout or _nowhere()
    sys.stderr = sys.stderr or _nowhere()


def _nowhere() -> TextIO:
    return Path(os.devnull).open("w", encoding="utf-8")


def unwritten(error: OSError) -> HaversackError:
    """Return what to say of a standard output that cannot be written to, which holds what it was given no longer."""
    from haversack.base.errors import EnvironmentFault

    sys.stdout = _nowhere()
    step = "send it somewhere else, then repeat the same command"
    return EnvironmentFault(f"standard output cannot be written: {error.strerror}", next_step=step)
