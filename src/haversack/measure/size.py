"""How large an artefact is: on the disk, and as a compressed download."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from haversack.base import digest
from haversack.base.candidate import ArtifactFile
from haversack.base.errors import EnvironmentFault, MissingExtra

LEVEL = 19


def of_files(paths: Sequence[Path], root: Path) -> tuple[ArtifactFile, ...]:
    """Return size, zstd-19 size and sha256 of an artefact's files, each read once, one MiB at a time.

    Args:
        paths: the main file first, then its external data.
        root: the folder that the records' paths are relative to.

    Raises:
        EnvironmentFault: a file is missing, is no regular file, cannot be read or lies outside ``root``.
        MissingExtra: zstandard is not installed.
    """
    return tuple(_of_file(path, root) for path in paths)


def in_folder(main: Path, root: Path) -> tuple[ArtifactFile, ...]:
    """Return the same for ``main`` and every other file in its folder and below: its external data, sorted by path.

    Raises:
        EnvironmentFault, MissingExtra: as ``of_files``.
    """
    others = sorted(path for path in main.parent.rglob("*") if path != main and not path.is_dir())
    return of_files([main, *others], root)


def _of_file(path: Path, root: Path) -> ArtifactFile:
    try:
        import zstandard
    except ImportError as error:
        raise MissingExtra("zstandard", "pack", purpose="the size of a download") from error
    try:
        relative = path.absolute().relative_to(root.absolute())
    except ValueError as error:
        raise EnvironmentFault(f"it lies outside {root}", where=str(path)) from error
    if path.is_symlink() or not path.is_file():
        raise EnvironmentFault("it is no regular file", where=str(path), tried="measure its size")
    size, packed, state = 0, 0, hashlib.sha256()
    packer = zstandard.ZstdCompressor(level=LEVEL).compressobj(size=path.stat().st_size)
    for chunk in _chunks(path):
        size += len(chunk)
        state.update(chunk)
        packed += len(packer.compress(chunk))
    packed += len(packer.flush())
    return ArtifactFile(relative.as_posix(), size, packed, state.hexdigest())


def _chunks(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(digest.CHUNK_BYTES):
                yield chunk
    except OSError as error:
        raise EnvironmentFault(f"it cannot be read: {error.strerror}", where=str(path)) from error
