"""Reading a flat folder that a stranger filled: links, pipes and devices are never opened, all sizes are bounded."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from haversack.base.errors import Fault, UsageError
from haversack.tools.store import atomic
from haversack.tools.trust.canonical import shown

_CHUNK = 1 << 20
_ELSEWHERE = "look at it from an account that may read it"
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@contextlib.contextmanager
def opened(folder: Path, next_step: str) -> Iterator[int]:
    """Yield a descriptor of a folder; errors of the system within the block are told.

    Args:
        folder: it may be a link.
        next_step: what to do where there is none.

    Raises:
        UsageError: there is no such folder.
        EnvironmentFault: it cannot be read.
    """
    try:
        inside = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError("there is no such folder", where=str(folder), next_step=next_step) from error
    except OSError as error:
        raise atomic.fault(error, folder, "open the folder", _ELSEWHERE) from error
    try:
        with atomic.told(folder, "read the folder", _ELSEWHERE):
            yield inside
    finally:
        os.close(inside)


def listed(inside: int, most: int) -> tuple[dict[str, int], list[Fault]]:
    """Return plain files by name with their sizes, and a fault for everything else.

    Args:
        inside: descriptor of the folder.
        most: entries that are looked at; more are a fault.

    Raises:
        OSError: the folder cannot be listed.
    """
    files: dict[str, int] = {}
    faults: list[Fault] = []
    with os.scandir(inside) as entries:
        for number, entry in enumerate(entries):
            if number >= most:
                faults.append(Fault("", f"there are more than {most} files in it"))
                break
            state = entry.stat(follow_symlinks=False)
            if stat.S_ISREG(state.st_mode):
                files[entry.name] = state.st_size
            else:
                faults.append(Fault(shown(entry.name), f"it is {_kind(state.st_mode)}, not a plain file"))
    return files, faults


@contextlib.contextmanager
def plain(inside: int, name: str) -> Iterator[tuple[int, int]]:
    """Yield descriptor and size of a plain file.

    Args:
        inside: descriptor of the folder.
        name: in it.

    Raises:
        ValueError: it is none.
        OSError: it cannot be opened.
    """
    if "/" in name or not stat.S_ISREG(os.stat(name, dir_fd=inside, follow_symlinks=False).st_mode):
        raise ValueError("it is not a plain file")  # opening a device may already do something
    try:
        descriptor = os.open(name, _FLAGS, dir_fd=inside)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # it was changed under our hands
            raise ValueError("it is not a plain file") from error
        raise
    try:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            raise ValueError("it is not a plain file")
        yield descriptor, state.st_size
    finally:
        os.close(descriptor)


def whole(inside: int, name: str, most: int) -> bytes:
    """Return the bytes of a file.

    Args:
        inside: descriptor of the folder.
        name: in it.
        most: bytes it may have.

    Raises:
        ValueError: it is no plain file, has more, or changed its size while it was read.
        OSError: it cannot be read.
    """
    with plain(inside, name) as (descriptor, size):
        if size > most:
            raise ValueError(f"it has {size} bytes, and {most} are allowed")
        data = os.read(descriptor, size + 1)
        while 0 < len(data) < size and (more := os.read(descriptor, size + 1 - len(data))):
            data += more  # the system reads at most 2 GiB at once
    if len(data) != size:
        raise ValueError("it changed while it was read")
    return data


def digest_of(descriptor: int, size: int) -> str:
    """Return the sha256 of an open file of so many bytes, hexadecimal; one of a changed size has another.

    Raises:
        OSError: it cannot be read.
    """
    state = hashlib.sha256()
    at = 0
    while at <= size and (chunk := os.pread(descriptor, _CHUNK, at)):
        state.update(chunk)
        at += len(chunk)
    return state.hexdigest()


def _kind(mode: int) -> str:
    kinds = {"a link": stat.S_ISLNK, "a folder": stat.S_ISDIR, "a pipe": stat.S_ISFIFO, "a socket": stat.S_ISSOCK}
    return next((kind for kind, test in kinds.items() if test(mode)), "a device")
