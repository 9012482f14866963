"""Writing a bundle: whole or not at all, and the same bytes for the same content, whoever writes it, when and where."""

from __future__ import annotations

import glob
import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from haversack.base import digest
from haversack.base.bundle import FORMAT, MANIFEST, BundleFile, Manifest, Variant
from haversack.base.errors import Fault, UsageError, VerificationError
from haversack.bundle.variant import Piece
from haversack.tools.store import atomic
from haversack.tools.trust import bundle, canonical
from haversack.tools.trust.bundle import Bundle

_CHUNK = 1 << 20


def write(
    name: str, version: str, pieces: Sequence[Piece], variants: Sequence[Variant], metric: tuple[str, str], to: Path
) -> Bundle:
    """Write a bundle and return it as a stranger would read it; the same one that is there already is left alone.

    Args:
        name, version: of the release.
        pieces: what goes into it.
        variants: one a runtime.
        metric: name and unit of what the variants' quality states.
        to: its folder, which must not hold anything else.

    Raises:
        UsageError: there is something else, or it is no set of files that a bundle may hold.
        VerificationError: a file changed while it was read.
        Refused: what was written is not what a device accepts.
        EnvironmentFault: it cannot be written; nothing is left.
    """
    with atomic.told(to.parent, "remove what a killed command left"):
        atomic.remove_leftovers(to.parent, f".{glob.escape(to.name[:100])}.*.part")
    stage = to.with_name(atomic.temporary_name(to.name))
    try:
        atomic.make_folder(stage)
        files = [_put(piece, stage) for piece in pieces]
        manifest = _manifest(name, version, files, variants, metric, to)
        atomic.write_bytes(stage / MANIFEST, canonical.dumps(manifest))
        bundle.open_bundle(stage)
        if to.is_dir() and any(to.iterdir()):
            _demand_same(to, manifest)
            return bundle.open_bundle(to)
        with atomic.told(to, "put the bundle in its place"):
            atomic.sync_folder(stage)
            stage.replace(to)
            atomic.sync_folder(to.parent)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return bundle.open_bundle(to)


def _manifest(
    name: str,
    version: str,
    files: Sequence[BundleFile],
    variants: Sequence[Variant],
    metric: tuple[str, str],
    to: Path,
) -> Manifest:
    ordered = tuple(sorted(files, key=lambda file: file.name))
    try:
        return Manifest(FORMAT, name, version, ordered, tuple(sorted(variants, key=lambda one: one.target)), metric)
    except ValueError as error:
        raise UsageError(f"it would be no bundle: {error}", where=str(to)) from error


def _put(piece: Piece, stage: Path) -> BundleFile:
    """Write a file and return its entry."""
    place = stage / piece.name
    try:
        if isinstance(piece.content, bytes):
            file = BundleFile(piece.name, piece.role, len(piece.content), digest.of_bytes(piece.content), piece.target)
            atomic.write_bytes(place, piece.content)
            return file
        size, sha256 = _copied(piece.content, place)
        if sha256 != piece.sha256:
            fault = Fault(piece.content.name, f"its sha256 is {sha256[:16]}…, and {piece.sha256[:16]}… was expected")
            raise VerificationError("a file of the run changed", where=str(piece.content), faults=(fault,))
        return BundleFile(piece.name, piece.role, size, sha256, piece.target)
    except ValueError as error:
        raise UsageError(f"it would be no bundle: {error}", where=piece.name) from error


def _copied(source: Path, place: Path) -> tuple[int, str]:
    state, size = hashlib.sha256(), 0
    with atomic.told(source, "read a file of the run"), source.open("rb") as stream, atomic.replacing(place) as copy:
        while chunk := stream.read(_CHUNK):
            state.update(chunk)
            copy.write(chunk)
            size += len(chunk)
    return size, state.hexdigest()


def _demand_same(to: Path, manifest: Manifest) -> None:
    """Refuse a folder that holds something else: a version that was given away never changes.

    Raises:
        UsageError: it does.
    """
    same = (to / MANIFEST).is_file() and (to / MANIFEST).read_bytes() == canonical.dumps(manifest)
    if not same:
        raise UsageError(
            "there is already something else in that folder",
            where=str(to),
            next_step=f"raise the version (--out {manifest.name}-NEXT.haversack), or delete the folder",
        )
