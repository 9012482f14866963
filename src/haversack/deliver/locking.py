"""Locks of a device's home: one updater at a time, and nobody clears a slot that somebody is opening."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from haversack.base.errors import EnvironmentFault
from haversack.tools.store import atomic

_STEP_SECONDS = 0.05


@contextlib.contextmanager
def held(path: Path, *, shared: bool = False, wait_seconds: float = 0.0) -> Iterator[None]:
    """Hold a lock for the block; the kernel lets go of it when the process ends, however it ends.

    Args:
        path: the lock's file, made if need be; it stays.
        shared: others may hold it too, as long as nobody holds it alone.
        wait_seconds: for so long it is tried.

    Raises:
        EnvironmentFault: another process or thread holds it, or the file cannot be made or locked.
    """
    with atomic.told(path, "take the lock", "name another home with --home"):
        descriptor = _opened(path, shared=shared)
    owner = os.getpid()
    try:
        _take(descriptor, path, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, wait_seconds)
        yield
    finally:
        if os.getpid() == owner:  # a child forked meanwhile holds the same lock: it ends with us, not with the child
            _let_go(descriptor)
        os.close(descriptor)


def _opened(path: Path, *, shared: bool) -> int:
    """Open a lock's file; one who only reads may not be allowed to write."""
    if shared:
        with contextlib.suppress(FileNotFoundError):
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _let_go(descriptor: int) -> None:
    with contextlib.suppress(OSError):  # closing it is what is left to try
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _take(descriptor: int, path: Path, kind: int, wait_seconds: float) -> None:
    until = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                step = "wait for it to end, then repeat the same command"
                raise EnvironmentFault(
                    "another process or thread works here", where=str(path), next_step=step
                ) from None
            time.sleep(_STEP_SECONDS)
        except OSError as error:  # a disk over the network may have none
            raise atomic.fault(error, path, "take the lock", "name a home on another disk with --home") from error
        else:
            return
