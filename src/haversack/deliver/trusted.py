"""The device's side of a repository: the newest release of a line, as the client of python-tuf verified it.

Trust begins with root metadata that the device was given by its owner; none is taken from the repository. Beyond what
TUF checks, two floors that survive a wiped cache: the sequence of a line never falls, and time never runs back behind
the newest signature of root and targets that was seen, whatever the clock says.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from haversack.base.bundle import LINE
from haversack.base.errors import EnvironmentFault, Refused, UsageError
from haversack.base.release import LARGEST_RELEASE, Release
from haversack.base.shelf import nearest
from haversack.deliver.home import GOES_ON
from haversack.deliver.metadata import signed_at
from haversack.tools.store import atomic
from haversack.tools.trust import canonical
from haversack.tools.trust.keys import RESERVED

if TYPE_CHECKING:
    from tuf.api.metadata import TargetFile, Targets
    from tuf.ngclient import Updater
    from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet
    from tuf.ngclient.fetcher import FetcherInterface

Fetch = Callable[[str], Iterator[bytes]]
"""Returns the bytes of a path below the repository's root, in pieces; raises ``Missing`` where there is no such file.

It need not bound their number, that is done here; how long it may take is its own affair.
"""
LARGEST_ROOT, LARGEST_TIMESTAMP, LARGEST_SNAPSHOT, LARGEST_TARGETS = 1 << 17, 1 << 14, 1 << 20, 1 << 22
"""Bytes of metadata that are read at all."""
MOST_ROTATIONS = 256
"""Root metadata that follow each other in one update, at most."""


class Missing(EnvironmentFault):
    """The repository has no such file."""


class Expired(EnvironmentFault):
    """Metadata are too old: the publisher, or somebody on the way, keeps newer ones back. The model in use goes on."""


class Floor(Protocol):
    """What a device remembers for good: neither may ever fall."""

    def sequence(self, line: str) -> int:
        """Return the highest sequence of a line that was seen; 0 where none was."""

    def time(self) -> float:
        """Return the newest time that was signed, in seconds since the epoch; 0 where none was."""

    def lift(self, line: str, sequence: int, time: float) -> None:
        """Let neither be lower than this from now on; it is on the disk when this returns."""


@dataclass(frozen=True)
class Trusted:
    """A repository as a device sees it.

    Attributes:
        cache: a folder for metadata; may be wiped. Of one process at a time.
        fetch: gets files of the repository.
        root: root metadata that the owner gave to the device.
        floor: what the device remembers.
        clock: tells the time in seconds since the epoch; may be wrong.
    """

    cache: Path
    fetch: Fetch
    root: bytes
    floor: Floor
    clock: Callable[[], float] = lambda: datetime.now(UTC).timestamp()

    def release(self, line: str) -> Release:
        """Return the release of a line with the highest sequence.

        Raises:
            Refused: something is not signed as it must be, too large, older than what was seen, or no release; or the
                repository trusts no such line.
            Expired: metadata are too old.
            EnvironmentFault: the repository cannot be reached, or the cache not be written.
            UsageError: the line has a name that none can have.
        """
        if line in RESERVED or not LINE.fullmatch(line):
            raise UsageError(f"{line[:80]!r} is no name of a model line")
        with self._told(line):
            updater = self._updater()
            updater.refresh()
            updater.get_targetinfo(f"{line}/")  # nothing is called so: it loads the line's own role
            role = _role(updater, line)
            if role is None or not role.targets:
                near = nearest(line, _lines(updater))
                cause = f"the repository has no line {line}, or trusts its key no more{near}"
                raise Refused(cause, where=line, next_step=f"{GOES_ON}ask its publisher")
            number, path = max((_sequence(file, line), path) for path, file in role.targets.items())
            if [_sequence(file, line) for file in role.targets.values()].count(number) > 1:
                raise Refused(f"two releases have the sequence {number}", where=line)
            data = self._target(updater, path, LARGEST_RELEASE)
        release = canonical.loads(data, Release, where=path, limit=LARGEST_RELEASE)
        if (release.line, release.sequence, f"{line}/{release.version}.json") != (line, number, path):
            raise Refused("the release is of another line, version or sequence than is signed", where=path)
        if number < self.floor.sequence(line):
            cause = f"the newest release there has the sequence {number}, and {self.floor.sequence(line)} was seen here"
            raise Refused(cause, where=line, next_step="the repository was set back: ask its publisher")
        self.floor.lift(line, number, self._signed_time(updater))
        return release

    def refresh(self) -> None:
        """Bring the metadata of the top-level roles up to date.

        Raises:
            Refused, Expired, EnvironmentFault: as ``release``.
        """
        with self._told("metadata"):
            self._updater().refresh()

    def target(self, path: str, limit: int, kept: Path | None = None) -> bytes:
        """Return a target's bytes, verified.

        Args:
            path: its name.
            limit: the most bytes that it may have.
            kept: where it is kept, and not fetched again while it is the same; None: in the cache.

        Raises:
            Refused: there is none, it is not as it is signed, or has more than ``limit`` bytes; else as ``release``.
            Expired, EnvironmentFault: as ``release``.
        """
        with self._told(path):
            return self._target(self._updater(), path, limit, kept)

    def _target(self, updater: Updater, path: str, limit: int, kept: Path | None = None) -> bytes:
        info = updater.get_targetinfo(path)
        if info is None:
            raise Refused("nobody signed a target of this name", where=path)
        if info.length > limit:
            raise Refused(f"it has {info.length} bytes, and {limit} are allowed", where=path)
        kept = kept or self.cache / "release.json"
        if updater.find_cached_target(info, str(kept)) is None:
            updater.download_target(info, str(kept))
        return kept.read_bytes()

    def _updater(self) -> Updater:
        from tuf.ngclient import Updater, UpdaterConfig

        if not self.root:
            step = "give it with --root; whoever publishes has it as KEYS/1.root.json"
            raise UsageError("no root metadata say whom to believe, and none are taken on trust", next_step=step)
        config = UpdaterConfig(MOST_ROTATIONS, 32, LARGEST_ROOT, LARGEST_TIMESTAMP, LARGEST_SNAPSHOT, LARGEST_TARGETS)
        atomic.make_folder(self.cache, atomic.HOME)
        updater = Updater(
            str(self.cache), "metadata", None, "targets", _fetcher(self.fetch), config=config, bootstrap=self.root
        )
        trusted = _verified(updater)
        began = signed_at(trusted.root)
        seconds = max(self.clock(), self.floor.time(), began.timestamp() if began else 0.0)
        trusted.reference_time = datetime.fromtimestamp(seconds, UTC)
        return updater

    def _signed_time(self, updater: Updater) -> float:
        """Return when root or targets were signed, the later of both.

        Their keys lie offline. A time that the timestamp's key signs is not remembered: it lies on a machine, and
        whoever steals it could carry devices into a future in which every timestamp has expired.
        """
        trusted = _verified(updater)
        said = [time.timestamp() for role in (trusted.root, trusted.targets) if (time := signed_at(role)) is not None]
        return min(max(said, default=0.0), trusted.root.expires.timestamp())

    @contextlib.contextmanager
    def _told(self, where: str) -> Iterator[None]:
        """Turn the errors of python-tuf into ours."""
        from tuf.api import exceptions

        step = f"{GOES_ON}repeat later, and tell the publisher if it stays so"
        try:
            with atomic.told(self.cache, "keep metadata", atomic.HOME):
                yield
        except exceptions.ExpiredMetadataError as error:
            today = datetime.fromtimestamp(self.clock(), UTC).strftime("%Y-%m-%d %H:%M UTC")
            cause = f"the repository's metadata expired: {canonical.shown(str(error))} (it is {today} on this device)"
            clock = f"{GOES_ON}if the date is wrong, set the clock; else {step.removeprefix(GOES_ON)}"
            raise Expired(cause, where=where, next_step=clock) from error
        except exceptions.DownloadLengthMismatchError as error:
            cause = f"more bytes came than there should be: {canonical.shown(str(error))}"
            raise Refused(cause, where=where, next_step=step) from error
        except exceptions.DownloadError as error:
            raise EnvironmentFault(
                f"the repository cannot be read: {canonical.shown(str(error))}", where=where, next_step=step
            ) from error
        except (exceptions.RepositoryError, ValueError) as error:
            if not self.floor.time():  # nothing of it was ever believed
                step = "the repository is another publisher's, or --root is: compare it with KEYS/1.root.json"
            raise Refused(
                f"it is not what its publisher signed: {canonical.shown(str(error))}", where=where, next_step=step
            ) from error


def _verified(updater: Updater) -> TrustedMetadataSet:
    """Return what python-tuf verified, and by which time: it asks the system's clock unless that is set here."""
    return updater._trusted_set  # noqa: SLF001 - there is no public name for it


def _role(updater: Updater, line: str) -> Targets | None:
    """Return the verified role of a line; python-tuf looks targets up by name only and lists none."""
    from tuf.api.metadata import Targets

    found = _verified(updater).get(line)
    return found if isinstance(found, Targets) else None


def _lines(updater: Updater) -> tuple[str, ...]:
    """Return the lines that the repository trusts."""
    delegations = _verified(updater).targets.delegations
    return tuple((delegations.roles if delegations else None) or ())


def _sequence(file: TargetFile, line: str) -> int:
    custom = file.custom
    number = custom.get("sequence") if isinstance(custom, dict) else None
    if type(number) is not int or number < 1 or not file.path.startswith(f"{line}/"):
        raise Refused("a release in the line's metadata has no sequence, or another name", where=file.path[:200])
    return number


def _fetcher(fetch: Fetch) -> FetcherInterface:
    """Return a callable in the form that python-tuf asks for."""
    from tuf.api.exceptions import DownloadHTTPError
    from tuf.ngclient.fetcher import FetcherInterface

    class Fetcher(FetcherInterface):
        def _fetch(self, url: str) -> Iterator[bytes]:
            try:
                yield from fetch(url)
            except Missing as error:
                raise DownloadHTTPError(str(error), 404) from error

    return Fetcher()
