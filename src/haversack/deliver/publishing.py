"""From a bundle to a release: blobs, wrapped keys, the one file that is signed, and then the metadata that sign it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from haversack.base import digest
from haversack.base.bundle import MANIFEST, BundleFile, Manifest
from haversack.base.errors import EnvironmentFault, Refused, UsageError
from haversack.base.progress import Event, Sink, silent
from haversack.base.release import FORMAT, Blob, Encryption, Form, Release, ReleaseFile
from haversack.base.versions import lower
from haversack.deliver import releases
from haversack.deliver.repository import Repository, State, delegated
from haversack.deliver.rotation import delegate
from haversack.tools.codec import download
from haversack.tools.formats.index import hints
from haversack.tools.trust import canonical, stream, wrap
from haversack.tools.trust.keys import RESERVED
from haversack.tools.trust.wrap import Device

if TYPE_CHECKING:
    from tuf.api.metadata import Targets

Delta = Callable[[bytes, bytes], tuple[Literal["hvd1", "bsdiff"], bytes] | None]
"""(old file, new file) -> the form and bytes of what makes the new of the old; None where it is not worth it."""
BASES = 3
"""Releases that deltas begin from: the newest so many."""
WORTH = 0.6
"""A delta travels if it has at most this part of the whole download's bytes."""
LEAST = 4096
"""Bytes of a whole download below which no delta is made."""


@dataclass(frozen=True)
class Outcome:
    """What was published.

    Attributes:
        release: as it is signed.
        changed: whether anything new is in the repository: False where the same bundle was published before.
        enrolled: devices that the key of an encrypted release was wrapped for now.
        new_key: the file of the line's key, where it was made now.
        left_out: why files have no delta, where one was tried for.
        before: the newest release until now; None where nothing changed, or this is the first.
        bases: digest of a file that a delta may begin from -> the version of the newest release that has it.
    """

    release: Release
    changed: bool
    enrolled: int = 0
    new_key: str = ""
    left_out: tuple[str, ...] = ()
    before: Release | None = None
    bases: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def full_bytes(self) -> int:
        """Of the whole download of all files that devices fetch."""
        return sum(file.blobs[0].bytes for file in self.release.files if file.role != "encodings")

    @property
    def lower_than(self) -> str:
        """The version of the release before, where this one's is lower; else empty."""
        return self.before.version if self.before and lower(self.release.version, self.before.version) else ""

    @property
    def dropped(self) -> tuple[str, ...]:
        """The runtimes that the release before had files for, and this one has not."""
        had = {file.target for file in self.before.files} if self.before else set()
        return tuple(sorted(had - {file.target for file in self.release.files} - {""}))


@dataclass
class _Making:
    """What a release is made of, while it is made: blobs go into the repository as they come."""

    repository: Repository
    key: bytes | None
    known: frozenset[str]
    left_out: list[str] = field(default_factory=list)

    def blob(self, content: bytes, form: Form, base: str = "") -> Blob:
        """Store bytes under their digest, encrypted where the release is, and return what names them."""
        data = content if self.key is None else stream.sealed(content, self.key, digest.of_bytes(content))
        blob = Blob(digest.of_bytes(data), len(data), form, base)
        if blob.sha256 not in self.known and not self.repository.storage.create(blob.path, data):
            where = f"{self.repository.storage.name}, {blob.path}"
            raise EnvironmentFault("other bytes lie there than its name says", where=where, next_step="remove it")
        return blob


def publish(
    repository: Repository,
    manifest: Manifest,
    read: Callable[[BundleFile], bytes],
    *,
    delta: Delta | None = None,
    devices: Sequence[Device] = (),
    encrypt: bool = False,
    sink: Sink = silent,
) -> Outcome:
    """Publish a bundle as the next release of its line.

    The same bundle published again changes nothing, except that more devices may be given the key of an encrypted one.
    Nothing that is there is changed or removed before the new timestamp, which is written last.

    Args:
        repository: where to; made if need be, and the line with a key of its own.
        manifest: of the bundle.
        read: returns a file of it.
        delta: makes deltas from older releases; None: none are made.
        devices: that the key of an encrypted release is wrapped for.
        encrypt: whether it is.
        sink: told of each file.

    Raises:
        UsageError: the line's name is taken, devices without encryption, or a key is missing.
        Refused: the version exists with other content, or the repository is not what its keys signed.
        EnvironmentFault: it cannot be read or written, or somebody else published meanwhile: repeat the command.
    """
    line, version = manifest.name, manifest.version
    if line in RESERVED:
        raise UsageError(f"a model line cannot be called {line}: a role of the repository is")
    if devices and not encrypt:
        raise UsageError("devices are named, but the release is not to be encrypted", next_step="add --encrypt")
    state = repository.start()
    if before := releases.find(repository, state, line, version):
        _check_same(before, manifest, encrypt=encrypt)
        for _ in _contents(manifest, read):  # files that were changed since are not what was published
            pass
        return Outcome(before, changed=False, enrolled=_wrap_more(repository, before, devices))
    repository, targets, new_key = _line_key(repository, state, line)
    bases = releases.newest(repository, state, line, BASES)
    key = wrap.new_key() if encrypt else None
    known = frozenset(blob.sha256 for base in bases for file in base.files for blob in file.blobs)
    making = _Making(repository, key, known)
    files, count = [], len(manifest.files) + 1
    for number, (file, content) in enumerate(_contents(manifest, read)):
        sink(Event("deliver", "progress", "make blobs", number, count))
        whole = _whole(making, content)
        deltas = _deltas(making, file, content, bases, delta, whole.bytes) if delta is not None else ()
        files.append(replace(file, blobs=(whole, *deltas)))
    sink(Event("deliver", "progress", "make blobs", count, count))
    encryption = Encryption("aes-256-gcm-stream", wrap.key_id(key)) if key is not None else None
    number = releases.last_sequence(state, line) + 1
    release = Release(FORMAT, line, version, number, tuple(sorted(files, key=lambda file: file.name)), encryption)
    enrolled = _wrap(repository, release, key, devices) if key is not None else 0
    _sign(repository, state, release, targets)
    begun = {file.sha256: base.version for base in reversed(bases) for file in base.files}
    told = Outcome(release, changed=True, enrolled=enrolled, new_key=new_key, bases=begun)
    return replace(told, left_out=tuple(making.left_out), before=bases[0] if bases else None)


def _contents(manifest: Manifest, read: Callable[[BundleFile], bytes]) -> Iterator[tuple[ReleaseFile, bytes]]:
    """Yield every file of a bundle with its bytes, the manifest first; the blobs are still to come."""
    data = canonical.dumps(manifest)
    nothing = (Blob("0" * 64, 0, "plain"),)
    yield ReleaseFile(MANIFEST, "manifest", len(data), digest.of_bytes(data), nothing), data
    for file in manifest.files:
        content = read(file)
        if len(content) != file.bytes or digest.of_bytes(content) != file.sha256:
            raise Refused("it is not the file that the manifest names", where=file.name)
        yield ReleaseFile(file.name, file.role, file.bytes, file.sha256, nothing, file.target), content


def _whole(making: _Making, content: bytes) -> Blob:
    packed = download.pack(content, hints(content))
    return making.blob(packed, "download") if len(packed) < len(content) else making.blob(content, "plain")


def _deltas(
    making: _Making, file: ReleaseFile, content: bytes, bases: Sequence[Release], delta: Delta, whole: int
) -> Iterator[Blob]:
    """Yield deltas from the files of the same name in older releases, each of another content and worth its bytes."""
    tried = {file.sha256}
    worth = whole >= LEAST and file.role != "encodings"  # these no device fetches
    for base in bases if worth else ():
        old = next((one for one in base.files if one.name == file.name and one.target == file.target), None)
        if old is None or old.sha256 in tried:
            continue
        tried.add(old.sha256)
        key = releases.release_key(making.repository, base)
        if base.encryption is not None and key is None:
            making.left_out.append(f"{file.name} of {base.version}: the publisher's key does not open it")
            continue
        before = releases.plain(making.repository, old, key)
        if before is None:
            making.left_out.append(f"{file.name} of {base.version}: its blob is gone")
            continue
        found = delta(before, content)
        if found is not None and len(found[1]) <= WORTH * whole:
            yield making.blob(found[1], found[0], old.sha256)


def _check_same(before: Release, manifest: Manifest, *, encrypt: bool) -> None:
    """Say whether a release that is there holds this bundle.

    Raises:
        Refused: it holds another, or is encrypted and this is not to be, or the other way round.
    """
    data = canonical.dumps(manifest)
    mine = {file.name: (file.bytes, file.sha256) for file in manifest.files}
    mine[MANIFEST] = (len(data), digest.of_bytes(data))
    theirs = {file.name: (file.bytes, file.sha256) for file in before.files}
    where, step = f"{before.line} {before.version}", "give the bundle a new version: what is published never changes"
    if differing := sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name)):
        cause = f"this version is published with other content ({', '.join(differing[:3])})"
        raise Refused(cause, where=where, next_step=step)
    if encrypt != (before.encryption is not None):
        cause = f"this version is published {'without' if encrypt else 'with'} encryption"
        raise Refused(cause, where=where, next_step=step)


def _line_key(repository: Repository, state: State, line: str) -> tuple[Repository, Targets | None, str]:
    """Return the repository with a key for a line, ``targets`` that trusts it if it is new, and a new key's file."""
    if line in delegated(state.targets):
        return repository, None, ""
    keys, made = repository.keys, ""
    if not keys.of(line):
        keys, key = keys.with_new(line, state.targets.signed.version if _was_known(state, line) else 1)
        made = str(key.path)
    targets = copy.deepcopy(state.targets.signed)
    delegate(targets, line, keys.of(line)[-1])
    return replace(repository, keys=keys), targets, made


def _was_known(state: State, line: str) -> bool:
    return f"{line}.json" in state.snapshot.signed.meta


def _wrap(repository: Repository, release: Release, key: bytes, devices: Sequence[Device]) -> int:
    """Store the key of a release for devices, and for the publisher; return how many are new."""
    assert release.encryption is not None
    own = repository.keys.device
    count = 0
    for device in (*devices, *((own,) if own else ())):
        path = wrap.path(release.encryption.key_id, device)
        if repository.storage.read(path, wrap.WRAPPED_BYTES) is None:
            data = wrap.wrap(key, device, release.line, release.version)
            count += repository.storage.create(path, data) and device is not own
    return count


def _wrap_more(repository: Repository, release: Release, devices: Sequence[Device]) -> int:
    """Give the key of a release that is there to more devices."""
    if not devices or release.encryption is None:
        return 0
    key = releases.release_key(repository, release)
    if key is None:
        cause = "the key of this release was not wrapped for the publisher's key, so that no device can be added"
        raise UsageError(cause, where=str(repository.keys.folder), next_step="publish a new version for them")
    return _wrap(repository, release, key, devices)


def _sign(repository: Repository, state: State, release: Release, targets: Targets | None) -> None:
    """Store the release and let the line's metadata name it."""
    from tuf.api.metadata import TargetFile
    from tuf.api.metadata import Targets as Role

    data = canonical.dumps(release)
    file = TargetFile.from_data(releases.target_path(release.line, release.version), data, ["sha256"])
    file.unrecognized_fields["custom"] = {"sequence": release.sequence}
    known = state.lines.get(release.line)
    line = copy.deepcopy(known.signed) if known else Role()
    line.targets[file.path] = file
    if not repository.storage.create(releases.stored_path(file), data):
        raise EnvironmentFault("another release lies there", where=f"{repository.storage.name}, {file.path}")
    repository.commit(state, {release.line: line} | ({"targets": targets} if targets is not None else {}))
