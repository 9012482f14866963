"""Releases of a line as its repository has them, and what they hold: so that deltas can begin from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haversack.base import digest
from haversack.base.errors import Refused
from haversack.base.release import LARGEST_RELEASE, Release, ReleaseFile
from haversack.deliver.repository import Repository, State
from haversack.deliver.rotation import LAST, sequence
from haversack.tools.codec import download
from haversack.tools.trust import canonical, stream, wrap

if TYPE_CHECKING:
    from tuf.api.metadata import TargetFile


def target_path(line: str, version: str) -> str:
    """Return the name of a release's target."""
    return f"{line}/{version}.json"


def stored_path(target: TargetFile) -> str:
    """Return where a target lies below the repository's root: its sha256 is in its name."""
    return f"targets/{target.get_prefixed_paths()[0]}"


def newest(repository: Repository, state: State, line: str, most: int) -> tuple[Release, ...]:
    """Return the newest releases of a line, the newest first.

    Raises:
        Refused: one is missing or not what is signed.
        EnvironmentFault: it cannot be read.
    """
    known = state.lines.get(line)
    files = sorted(known.signed.targets.values(), key=lambda file: -sequence(file.custom)) if known else []
    return tuple(read(repository, line, file) for file in files[:most])


def last_sequence(state: State, line: str) -> int:
    """Return the highest sequence that a line ever had, before it was revoked as well; 0 where it is new."""
    known, before = state.lines.get(line), state.targets.signed.unrecognized_fields.get(LAST, {})
    files = known.signed.targets.values() if known else ()
    return max([sequence(file.custom) for file in files] + [int(before.get(line, 0))], default=0)


def find(repository: Repository, state: State, line: str, version: str) -> Release | None:
    """Return a release of this version; None where there is none.

    Raises:
        Refused, EnvironmentFault: as ``newest``.
    """
    known = state.lines.get(line)
    file = known.signed.targets.get(target_path(line, version)) if known else None
    return read(repository, line, file) if file is not None else None


def read(repository: Repository, line: str, file: TargetFile) -> Release:
    """Return the release of a target.

    Raises:
        Refused: it is missing or not what is signed.
        EnvironmentFault: it cannot be read.
    """
    from tuf.api.exceptions import LengthOrHashMismatchError

    where = stored_path(file)
    found = repository.storage.read(where, LARGEST_RELEASE)
    if found is None:
        raise Refused("the repository lacks a release that it signed", where=f"{repository.storage.name}, {where}")
    try:
        file.verify_length_and_hashes(found.data)
    except LengthOrHashMismatchError as error:
        raise Refused("it is not the release that is signed", where=f"{repository.storage.name}, {where}") from error
    release = canonical.loads(found.data, Release, where=where, limit=LARGEST_RELEASE)
    if release.line != line or target_path(line, release.version) != file.path:
        raise Refused("it is a release of another line or version", where=f"{repository.storage.name}, {where}")
    return release


def release_key(repository: Repository, release: Release) -> bytes | None:
    """Return the key of an encrypted release, by the publisher's copy; None where there is none that opens.

    Raises:
        EnvironmentFault: the repository cannot be read.
    """
    keys = repository.keys
    if release.encryption is None or keys.publisher is None or keys.device is None:
        return None
    found = repository.storage.read(wrap.path(release.encryption.key_id, keys.device), wrap.WRAPPED_BYTES)
    if found is None:
        return None
    try:
        return wrap.unwrap(found.data, keys.publisher, release.line, release.version, release.encryption.key_id)
    except Refused:  # it was made for another publisher's key
        return None


def plain(repository: Repository, file: ReleaseFile, key: bytes | None) -> bytes | None:
    """Return a file of a release from its whole blob; None where the blob is missing.

    Args:
        repository: where it lies.
        file: of the release.
        key: of an encrypted release.

    Raises:
        Refused: the blob is not what is signed.
        EnvironmentFault: it cannot be read.
    """
    blob = file.blobs[0]
    found = repository.storage.read(blob.path, blob.bytes)
    if found is None:
        return None
    if digest.of_bytes(found.data) != blob.sha256:
        raise Refused("a blob is not what its name says", where=f"{repository.storage.name}, {blob.path}")
    data = stream.opened(found.data, key, limit=blob.bytes) if key is not None else found.data
    content = download.unpack(data, limit=file.bytes) if blob.form == "download" else data
    if digest.of_bytes(content) != file.sha256:
        raise Refused("a blob does not give the file that is signed", where=f"{repository.storage.name}, {blob.path}")
    return content
