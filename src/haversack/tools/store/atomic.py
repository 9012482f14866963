"""Files that appear whole or not at all, and what a disk's refusal means in words."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from haversack.base.errors import EnvironmentFault

OUT = "choose a folder that can be written with --out"
"""What to do where nothing can be written, in a command that writes into the folder of a run."""
HOME = "name another home with --home"
"""The same, in a command that writes into the home of a device."""
_MEANINGS = {
    errno.ENOSPC: ("the disk is full", "free some space, then repeat the same command: it resumes"),
    errno.EDQUOT: ("the disk quota is used up", "free some space, then repeat the same command: it resumes"),
    errno.EFBIG: ("a file grew over the limit on file sizes", "raise it (ulimit -f), then repeat the same command"),
    errno.EROFS: ("the file system is read-only", "{instead}"),
    errno.ENOENT: ("no folder can be made there, or one of the path is gone", "{instead}"),
    errno.EACCES: ("permission denied", "{instead}"),
    errno.EPERM: ("not permitted", "{instead}"),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", "{instead}"),
    errno.EISDIR: ("it is a folder, not a file", "move it away, or {instead}"),
    errno.ENOLCK: ("the disk gives no locks", "{instead}"),
    errno.ENOTSUP: ("the disk cannot do that", "{instead}"),
    errno.EIO: ("the disk reports an error", "look at the system's log (dmesg), and {instead}"),
}


def fault(error: OSError, path: Path, doing: str, instead: str = OUT) -> EnvironmentFault:
    """Return what an operating system's error means: cause, place, what was tried, what to do next.

    Args:
        error: what it raised.
        path: what was worked on.
        doing: what was done with it.
        instead: what to do where it cannot be written, as a clause.
    """
    unknown = (error.strerror or str(error), "look at the folder and its disk, then repeat the same command")
    cause, next_step = _MEANINGS.get(error.errno or 0, unknown)
    return EnvironmentFault(cause, where=str(path), tried=doing, next_step=next_step.replace("{instead}", instead))


def is_full(error: EnvironmentFault) -> bool:
    """Say whether it is for want of room on the disk."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in (errno.ENOSPC, errno.EDQUOT)


def why(error: Exception) -> str:
    """Return why something could not be read: the system's own words, without error number and path, or the text."""
    words = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return f"{words[:1].lower()}{words[1:]}"


@contextlib.contextmanager
def told(path: Path, doing: str, instead: str = OUT) -> Iterator[None]:
    """Turn every OSError of the block into an EnvironmentFault.

    Args:
        path: what the block works on.
        doing: what it does, as ``write the report``.
        instead: what to do where the path cannot be written, as a clause.

    Raises:
        EnvironmentFault: the block raised an OSError.
    """
    try:
        yield
    except OSError as error:
        raise fault(error, path, doing, instead) from error


def make_folder(path: Path, instead: str = OUT) -> Path:
    """Create a folder and its parents if need be, and return it.

    Args:
        path: the folder.
        instead: what to do where it cannot be made, as a clause.

    Raises:
        EnvironmentFault: it cannot be created, or is a file.
    """
    with told(path, "create the folder", instead):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise NotADirectoryError(errno.ENOTDIR, "", str(path)) from error
    return path


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a loss of power.

    Raises:
        OSError: the folder cannot be opened.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def replacing(path: Path, instead: str = OUT) -> Iterator[BinaryIO]:
    """Yield a stream whose content becomes ``path`` when the block ends well, and disappears otherwise.

    A reader sees the old file or the new one, never a part; after a loss of power as well.

    Args:
        path: the file.
        instead: what to do where it cannot be written, as a clause.

    Raises:
        EnvironmentFault: it cannot be written (full disk, read-only folder …); ``path`` is unchanged.
    """
    temporary = path.with_name(temporary_name(path.name))
    with told(path, "write the file", instead):
        try:
            with temporary.open("xb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
            sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def read(path: Path, most: int) -> bytes:
    """Return the bytes of a plain file, one more than ``most`` where it has more: without a stream, which takes longer.

    Raises:
        OSError: it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, min(os.fstat(descriptor).st_size, most) + 1)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, data: bytes | memoryview, instead: str = OUT) -> None:
    """Write a file whole or not at all; ``instead`` as in ``replacing``.

    Raises:
        EnvironmentFault: as ``replacing``.
    """
    with replacing(path, instead) as stream:
        stream.write(data)


def write_text(path: Path, text: str, instead: str = OUT) -> None:
    """Write a file in UTF-8 whole or not at all, newlines as they stand; ``instead`` as in ``replacing``.

    Raises:
        EnvironmentFault: as ``replacing``.
    """
    write_bytes(path, text.encode(), instead)


def temporary_name(name: str) -> str:
    """Return a hidden name that tells which process writes ``name``, so that leftovers can be recognised."""
    return f".{name[:100]}.{os.getpid()}-{secrets.token_hex(6)}.part"


def remove_leftovers(folder: Path, pattern: str = ".*.part") -> int:
    """Remove temporary files and folders in a folder whose writer is dead; return how many.

    Args:
        folder: where.
        pattern: of their names, as ``Path.glob`` has it.

    Raises:
        OSError: the folder cannot be listed, or a leftover cannot be removed.
    """
    removed = 0
    for path in list(folder.glob(pattern)):
        process = path.name.removesuffix(".part").rpartition(".")[2].partition("-")[0]
        if process.isdecimal() and not _lives(int(process)):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
            removed += 1
    return removed


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
