"""What holds for this process as a whole: how it ends, and settings that must stand before torch is loaded."""

from __future__ import annotations

import atexit
import errno
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

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

    Signals come to the main thread; elsewhere this does nothing. A forked child hears them as if this were not.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        heard.set()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Terminated

    _heard_before.append(signal.signal(signal.SIGTERM, end))
    try:
        with _watched(heard):
            yield
    except KeyboardInterrupt as stop:
        if heard.is_set() and not isinstance(stop, Terminated):
            raise Terminated from stop  # a library that was waiting made it a plain one
        raise
    finally:
        signal.signal(signal.SIGTERM, _heard_before.pop())


_heard_before: list[Any] = []
"""What heard SIGTERM before ``orderly``, as it nests."""


def _forked() -> None:
    """Let a child of ``orderly`` hear SIGTERM as its parent did before: a pool of a job's ends its workers so."""
    if _heard_before:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, _heard_before[0])
        _heard_before.clear()


os.register_at_fork(after_in_child=_forked)


@contextmanager
def _watched(heard: threading.Event) -> Iterator[None]:
    """Look meanwhile whether a SIGTERM is heard; where there is no descriptor or thread left for that, nobody looks."""
    try:
        reads, writes = os.pipe()
    except OSError:
        yield
        return
    try:
        threading.Thread(target=_watch, args=(reads, heard), name="haversack-signals", daemon=True).start()
    except RuntimeError:
        os.close(reads)
        os.close(writes)
        yield
        return
    os.set_blocking(writes, False)
    wakes = signal.set_wakeup_fd(writes, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakes)
        os.close(writes)  # the thread ends


def _watch(reads: int, heard: threading.Event) -> None:
    """End the process after a SIGTERM that the main thread does not hear, or a second one."""
    with os.fdopen(reads, "rb", buffering=0) as stream:
        while number := stream.read(1):
            if number[0] != signal.SIGTERM:
                continue
            again, _, _ = select.select([stream], [], [], GRACE_SECONDS)
            if not heard.is_set() and (not again or stream.read(1)):
                # Marks of what was at work go: nothing crashed. What hangs there too is not waited for.
                tidy = threading.Thread(target=atexit._run_exitfuncs, daemon=True)  # noqa: SLF001 - no public name
                tidy.start()
                tidy.join(GRACE_SECONDS)
                os._exit(Terminated.exit_code)


def settle() -> None:
    """Let idle threads sleep, unless the environment says otherwise: spinning ones take the cores from others.

    A standard stream that was closed is one of nowhere: else the next file that is opened would be taken for it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
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
