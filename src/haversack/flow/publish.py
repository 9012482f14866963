"""``haversack publish``, ``keys`` and ``timestamp``: from a bundle to a signed release in a static repository."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from haversack.base.bundle import LARGEST_MANIFEST, MANIFEST, BundleFile, Manifest
from haversack.base.counted import counted
from haversack.base.errors import EXIT_ENVIRONMENT, UsageError
from haversack.base.progress import Sink, silent
from haversack.base.release import DELTAS, Blob, ReleaseFile
from haversack.deliver import publishing, renewal, rotation
from haversack.deliver.metadata import first_root
from haversack.deliver.places import opened as storage
from haversack.deliver.publishing import Delta
from haversack.deliver.repository import LARGEST, TIMESTAMP, Repository, utc
from haversack.tools.store import atomic
from haversack.tools.trust import canonical
from haversack.tools.trust import keys as key_folder
from haversack.tools.trust.bundle import no_bundle
from haversack.tools.trust.keys import FIRST_ROOT
from haversack.tools.trust.wrap import read_devices

_INSTEAD = "give the folder that haversack bundle made"


@dataclass(frozen=True)
class Made:
    """A new folder of keys."""

    folder: Path

    def lines(self) -> list[str]:
        """Return what a person reads."""
        return [
            f"keys of every role are in {self.folder}, readable by you alone",
            f"give {self.folder / FIRST_ROOT} to every device: it is what trust begins with",
            "move two of root-1, root-2 and root-3.pem to other places: two together may change everything, and only",
            "keys rotate and keys revoke need them",
            f"next: haversack publish BUNDLE --line LINE --repository site --keys {shlex.quote(str(self.folder))}",
        ]

    def data(self) -> dict[str, Any]:
        """Return it as JSON-able data."""
        return {"keys": str(self.folder), "root": str(self.folder / FIRST_ROOT)}


@dataclass(frozen=True)
class Changed:
    """A key that counts in place of another, or a line that is trusted no more."""

    rotation: rotation.Rotation
    folder: Path

    def lines(self) -> list[str]:
        """Return what a person reads."""
        done = self.rotation
        if done.new is None:
            told = [f"the line {done.role} is trusted no more: devices take none of its releases and go on with theirs"]
            told.append("its next release gets a new key, and devices take it again")
        else:
            told = [f"{done.role} has a new key, {done.new}"]
        if done.old:
            told.append(f"of no use any more: {', '.join(map(str, done.old))}")
        if done.was_root:
            told.append(f"new devices may be given {self.folder / f'{done.root_version}.root.json'}; others find it")
        return told

    def data(self) -> dict[str, Any]:
        """Return it as JSON-able data."""
        done = self.rotation
        new = None if done.new is None else str(done.new)
        return {"role": done.role, "new": new, "old": [str(path) for path in done.old], "root": done.root_version}


@dataclass(frozen=True)
class Published:
    """A bundle in a repository.

    Attributes:
        outcome: what was done.
        where: the repository.
        keys: the folder of keys.
        again: the command that does it again, but for its devices.
    """

    outcome: publishing.Outcome
    where: str
    keys: Path
    again: str

    def lines(self) -> list[str]:
        """Return what a person reads."""
        release, done = self.outcome.release, self.outcome
        name = f"{release.line} {release.version} (sequence {release.sequence})"
        if not done.changed:
            told = [f"{name} is in {self.where} already, with this content"]
        else:
            how = "encrypted" if release.encryption else "not encrypted"
            told = [f"{name} is in {self.where}: {done.full_bytes / 1e6:.3f} MB for all variants, {how}"]
            for file, blob in self._deltas():
                whole = f"{file.blobs[0].bytes:,} bytes whole"
                begun = done.bases.get(blob.base, "an older release")
                told.append(f"a delta of {blob.bytes:,} bytes for {file.name} from {begun}; it is {whole}")
            told += [f"no delta: {cause}" for cause in done.left_out]
        if done.new_key:
            told.append(f"the line has a key of its own, {done.new_key}: keep it")
        if done.enrolled:
            told.append(f"{counted(done.enrolled, 'device')} may open it that could not before")
        if done.lower_than:
            text = f"{release.version} is lower than {done.lower_than}, which it takes the place of on devices"
            told.append(f"note: {text}: what was published last counts, whatever its version")
        if done.dropped:
            gone, before = " and ".join(done.dropped), done.before.version if done.before else ""
            told.append(
                f"note: it has nothing for {gone}, as {before} had: devices with no other runtime stay at theirs"
            )
        if release.encryption and done.changed and not done.enrolled:
            told.append("no device can open it yet: put the .pub files that haversack client enrol makes into a folder")
            told.append(f"next: {self.again} --devices FOLDER")
        elif done.changed and release.sequence == 1:
            root = shlex.quote(str(self.keys / FIRST_ROOT))
            told.append(f"next, on a device: haversack client update {release.line} --repository URL --root {root}")
            told.append(
                f"(URL is where {self.where} is served, on this machine its path; a device needs a copy of {root})"
            )
        return told

    def data(self) -> dict[str, Any]:
        """Return it as JSON-able data."""
        release, done = self.outcome.release, self.outcome
        deltas = [
            {"file": file.name, "form": blob.form, "bytes": blob.bytes, "from": done.bases.get(blob.base)}
            for file, blob in self._deltas()
        ]
        return {
            "line": release.line,
            "version": release.version,
            "sequence": release.sequence,
            "changed": done.changed,
            "encrypted": release.encryption is not None,
            "full_bytes": done.full_bytes,
            "deltas": deltas,
            "left_out": list(done.left_out),
            "lower_than": done.lower_than or None,
            "dropped": list(done.dropped),
            "enrolled": done.enrolled,
            "new_key": done.new_key or None,
        }

    def _deltas(self) -> list[tuple[ReleaseFile, Blob]]:
        return [(file, blob) for file in self.outcome.release.files for blob in file.blobs if blob.form in DELTAS]


@dataclass(frozen=True)
class Renewed:
    """A timestamp, signed anew."""

    renewal: renewal.Renewal

    @property
    def exit_code(self) -> int:
        """0, or 6 where the last one had expired or was old: what should have signed it did not."""
        return EXIT_ENVIRONMENT if self.renewal.expired or self.renewal.late else 0

    def lines(self) -> list[str]:
        """Return what a person reads."""
        done = self.renewal
        told = [f"the timestamp is valid until {_time(done.expires)}"]
        if done.renewed:
            told.append(f"signed anew as well, past the half of their time: {', '.join(done.renewed)}")
        return told

    def alarms(self) -> list[str]:
        """Return what must not be overlooked."""
        done = self.renewal
        told = []
        if done.expired:
            told.append(f"THE TIMESTAMP HAD EXPIRED, {_time(done.found)}: until now devices took no updates")
        elif done.late:
            told.append(f"THE TIMESTAMP WAS PAST HALF OF ITS TIME: it would have expired {_time(done.found)}")
        if told:
            told.append("let a machine run haversack timestamp every 6 hours, and look why it did not")
        for role, when in done.closing.items():
            step = "haversack keys rotate KEYS --role root-1" if role == "root" else "its key is not here to sign it"
            told.append(f"{role} EXPIRES {_time(when)}, and devices take no updates then: {step}")
        return told

    def data(self) -> dict[str, Any]:
        """Return it as JSON-able data."""
        done = self.renewal
        return {
            "expires": done.expires.isoformat(),
            "had_expired": done.expired,
            "was_late": done.late,
            "renewed": list(done.renewed),
            "closing": {role: when.isoformat() for role, when in done.closing.items()},
        }


def make_keys(folder: Path) -> Made:
    """Make a folder with keys and the root metadata that devices are given.

    Raises:
        UsageError: there is something in it.
        EnvironmentFault: it cannot be written.
    """
    keys = key_folder.create(folder)
    atomic.write_bytes(folder / FIRST_ROOT, first_root(keys, utc()))
    return Made(folder)


def rotate(folder: Path, role: str, repository: str) -> Changed:
    """Give a role a new key.

    Raises:
        UsageError, Refused, EnvironmentFault: as ``deliver.rotation.rotate``.
    """
    return Changed(rotation.rotate(_repository(folder, repository), role), folder)


def revoke(folder: Path, role: str, repository: str) -> Changed:
    """Trust a role's key no more; see ``deliver.rotation.revoke``.

    Raises:
        UsageError, Refused, EnvironmentFault: as there.
    """
    return Changed(rotation.revoke(_repository(folder, repository), role), folder)


def publish(
    bundle: Path,
    *,
    line: str,
    repository: str,
    keys: Path,
    encrypt: bool = False,
    devices: Path | None = None,
    delta: Delta | None = None,
    sink: Sink = silent,
) -> Published:
    """Publish a bundle as the next release of its line; see ``deliver.publishing.publish``.

    Args:
        bundle: its folder.
        line: of the bundle: said twice, so that none goes where it does not belong.
        repository: a folder, or s3://BUCKET/PREFIX.
        keys: the folder of keys.
        encrypt: whether the release is encrypted.
        devices: a folder with their public keys.
        delta: makes deltas; None: none are made.
        sink: told of progress.

    Raises:
        UsageError, Refused, EnvironmentFault: as there.
    """
    manifest, read = _opened(bundle)
    if manifest.name != line:
        cause = f"the bundle is of the line {manifest.name}, not {line[:80]}"
        raise UsageError(cause, where=str(bundle), next_step=f"give --line {manifest.name}, or another bundle")
    enrolled = read_devices(devices) if devices is not None else ()
    place = _repository(keys, repository)
    done = publishing.publish(place, manifest, read, delta=delta, devices=enrolled, encrypt=encrypt, sink=sink)
    again = ["haversack", "publish", str(bundle), "--line", line, "--repository", repository, "--keys", str(keys)]
    return Published(done, place.storage.name, keys, shlex.join([*again, *(["--encrypt"] if encrypt else [])]))


def renew(repository: str, keys: Path) -> Renewed:
    """Sign the timestamp anew; see ``deliver.renewal.renew``.

    Raises:
        UsageError, Refused, EnvironmentFault: as there.
    """
    return Renewed(renewal.renew(_repository(keys, repository)))


def _repository(folder: Path, name: str) -> Repository:
    place = storage(name)
    if not key_folder.holds(folder) and place.read(TIMESTAMP, LARGEST) is not None:
        raise _no_keys(folder, place.name)
    return Repository(place, key_folder.read(folder))


def _no_keys(folder: Path, repository: str) -> UsageError:
    """Return what to say where keys of a repository are not: new ones would be of no use."""
    around = folder.parent
    beside = sorted(path for path in around.iterdir() if key_folder.holds(path)) if around.is_dir() else []
    found = f"give {' or '.join(str(path) for path in beside[:3])}, which has keys"
    cause = "no key is in it" if folder.is_dir() else "there is no such folder of keys"
    text = f"{cause}, and {repository} is signed with keys that new ones do not take the place of"
    step = found if beside else "give those that it was made with"
    return UsageError(text, where=str(folder), next_step=step)


def _opened(bundle: Path) -> tuple[Manifest, Callable[[BundleFile], bytes]]:
    """Return a bundle's manifest and what reads a file of it, following no links."""
    if not bundle.is_dir():
        raise UsageError("there is no such bundle", where=str(bundle), next_step=_INSTEAD)
    if not os.path.lexists(bundle / MANIFEST):
        raise no_bundle(bundle)
    data = _content(bundle / MANIFEST, LARGEST_MANIFEST)
    manifest = canonical.loads(data, Manifest, where=str(bundle / MANIFEST), limit=LARGEST_MANIFEST)
    return manifest, lambda file: _content(bundle / file.name, file.bytes)


def _content(path: Path, limit: int) -> bytes:
    with atomic.told(path, "read the bundle", _INSTEAD):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as stream:
            return stream.read(limit + 1)


def _time(when: datetime) -> str:
    return when.strftime("%Y-%m-%d %H:%M UTC")
