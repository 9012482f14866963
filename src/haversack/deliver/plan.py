"""What an update needs: which variant, and for each of its files the blob by which it comes, if it is not here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from haversack.base.bundle import MANIFEST, Manifest
from haversack.base.errors import EnvironmentFault, Fault, Refused
from haversack.base.release import DELTAS, Blob, Release, ReleaseFile
from haversack.deliver.bandwidth import Choice, Past, cheapest
from haversack.deliver.store import Store


@dataclass(frozen=True)
class Need:
    """One file of a variant.

    Attributes:
        file: as the release has it.
        blob: by which it comes; None where the store has it.
    """

    file: ReleaseFile
    blob: Blob | None


@dataclass(frozen=True)
class Plan:
    """One variant, and how it comes.

    Attributes:
        target: the runtime.
        needs: every file of it.
    """

    target: str
    needs: tuple[Need, ...]

    @property
    def missing(self) -> tuple[Need, ...]:
        """What is not in the store."""
        return tuple(need for need in self.needs if need.blob is not None)

    @property
    def blobs(self) -> tuple[Blob, ...]:
        """What travels."""
        return tuple(need.blob for need in self.needs if need.blob is not None)

    @property
    def kept(self) -> frozenset[str]:
        """What the store must keep while the update is made: files that are there, and bases of deltas."""
        return frozenset(need.file.sha256 for need in self.needs) | {blob.base for blob in self.blobs if blob.base}

    def room(self) -> int:
        """Return the bytes of files to come, and of the largest blob while it is turned into one, twice."""
        return sum(need.file.bytes for need in self.missing) + 2 * max((blob.bytes for blob in self.blobs), default=0)

    def choice(self, past: Past) -> Choice:
        """Return it with a forecast."""
        seconds = sum(past.seconds(need.blob, need.file.bytes) for need in self.missing if need.blob is not None)
        return Choice(self.target, self.blobs, seconds)


def file_of(release: Release, name: str) -> ReleaseFile:
    """Return a release's file by its name; the manifest is always there.

    Raises:
        Refused: the release has none of this name.
    """
    for file in release.files:
        if file.name == name:
            return file
    raise Refused(f"the release has no {name}", where=f"{release.line} {release.version}")


def demand_same(release: Release, manifest: Manifest) -> None:
    """Make sure that a release and the manifest in it speak of the same files.

    Raises:
        Refused: they do not; all differences.
    """
    theirs = {file.name: (file.role, file.bytes, file.sha256, file.target) for file in release.files}
    mine = {file.name: (file.role, file.bytes, file.sha256, file.target) for file in manifest.files}
    theirs.pop(MANIFEST)
    faults = [
        Fault(name, "the manifest and the release say different things of it")
        for name in sorted({*mine, *theirs})
        if mine.get(name) != theirs.get(name)
    ]
    if (manifest.name, manifest.version) != (release.line, release.version):
        faults.append(Fault(MANIFEST, f"it is of {manifest.name} {manifest.version}"))
    if faults:
        where = f"{release.line} {release.version}"
        raise Refused("its manifest is not the release's", where=where, faults=tuple(faults))


def plans(release: Release, manifest: Manifest, targets: Sequence[str], store: Store, past: Past) -> tuple[Plan, ...]:
    """Return a plan for every variant that this device takes, in the order of ``targets``.

    Raises:
        EnvironmentFault: there is no such variant.
    """
    there = [variant.target for variant in manifest.variants]
    mine = [target for target in targets if target in there]
    if not mine:
        cause = f"it is made for {', '.join(there)}, and this device runs {', '.join(targets) or 'none of them'}"
        raise EnvironmentFault(cause, where=f"{release.line} {release.version}", next_step="haversack doctor")
    return tuple(_plan(release, target, store, past) for target in mine)


def _plan(release: Release, target: str, store: Store, past: Past) -> Plan:
    needs = []
    for file in release.of(target):
        usable = [blob for blob in file.blobs if blob.form not in DELTAS or store.has(blob.base)]
        needs.append(Need(file, None if store.has(file.sha256) else cheapest(past, usable, file.bytes)))
    return Plan(target, tuple(needs))
