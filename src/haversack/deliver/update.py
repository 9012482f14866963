"""An update, from the release that is offered to the model in use: each step leaves a home that answers as before.

The order is the safety: nothing of what is in use is touched before the pointer, and the pointer is replaced whole.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from haversack.base.bundle import LARGEST_MANIFEST, LINE, MANIFEST, Manifest
from haversack.base.counted import counted
from haversack.base.errors import EnvironmentFault, Fault, HaversackError, Refused, VerificationError
from haversack.base.progress import Event, Sink, silent
from haversack.base.release import DELTAS, Blob, Release, ReleaseFile
from haversack.deliver import bandwidth, conditions, locking, plan
from haversack.deliver.bandwidth import Allowed, Transfer
from haversack.deliver.fetch import Wanted, fetch
from haversack.deliver.home import Home
from haversack.deliver.patience import Bounds, TooSlow
from haversack.deliver.quarantine import Bad
from haversack.deliver.rebuild import OPENED, Rebuilder
from haversack.deliver.selftest import Trial, Verdict, trial_of, tried
from haversack.deliver.slots import STAGED, Installed, Slots
from haversack.deliver.store import QUOTA, Store
from haversack.deliver.whole import damage, go_back, mended, recognised, restored
from haversack.tools.store import atomic
from haversack.tools.trust import canonical

Action = Literal["installed", "current", "waiting", "quarantined"]
_LONGEST_REASON = 300
Thing = TypeVar("Thing")


class Source(Protocol):
    """A repository whose releases are trusted because of their signatures."""

    def release(self, line: str) -> Release:
        """Return the newest release of a line; the device's floor stands at it from then on, whatever caches forget."""

    def url(self, path: str) -> str:
        """Return where a path below the repository's root is fetched."""

    def key(self, release: Release) -> bytes | None:
        """Return the key of a release; None where it is not encrypted."""


@dataclass(frozen=True)
class Device:
    """What this device is, and what an update may cost it.

    Attributes:
        home: its folder.
        targets: the runtimes that it has, the preferred first.
        quota: bytes of the store.
        when: conditions that must hold.
        conditions: reads them.
        allowed: seconds and bytes of one update.
        bounds: of each transfer.
        wait_seconds: how long to wait for another updater.
    """

    home: Home
    targets: Sequence[str]
    quota: int = QUOTA
    when: tuple[str, ...] = ()
    conditions: conditions.Conditions = field(default_factory=conditions.Linux)
    allowed: Allowed = field(default_factory=Allowed)
    bounds: Bounds = field(default_factory=Bounds)
    wait_seconds: float = 0.0


Tried = Callable[[Trial, Trial | None], Verdict]
"""(new model, the one in use) -> the verdict of a self-test."""


@dataclass(frozen=True)
class Outcome:
    """What became of an update.

    Attributes:
        line: of the model.
        action: *installed*; *current*, there was nothing newer; *waiting* for conditions or for a line that is good
            enough; or *quarantined*: what is offered failed here before.
        installed: what is in use now; None where nothing is.
        before: what was.
        reason: in words, unless it is installed.
        bytes: that travelled.
        forms: name of a file -> how it came.
        verdict: of the self-test.
        seconds: of each part.
    """

    line: str
    action: Action
    installed: Installed | None
    before: Installed | None = None
    reason: str = ""
    bytes: int = 0
    forms: dict[str, str] = field(default_factory=dict, hash=False)
    verdict: Verdict = field(default_factory=Verdict)
    seconds: dict[str, float] = field(default_factory=dict, hash=False)


def update(line: str, source: Source, device: Device, sink: Sink = silent, test: Tried = tried) -> Outcome:
    """Bring a line to its newest release.

    Args:
        line: which.
        source: where releases come from.
        device: what is to be updated.
        sink: told about progress, with the seconds left.
        test: the self-test.

    Raises:
        VerificationError: the release failed its self-test: it is quarantined, and what was in use still is.
        Refused: signatures, sizes or digests are wrong, or an older release is offered.
        EnvironmentFault: the network, the disk or the conditions of the device; another process updates this home.
    """
    atomic.make_folder(device.home.folder, atomic.HOME)
    with locking.held(device.home.lock, wait_seconds=device.wait_seconds):
        return _Update(line, source, device, test, sink).run()


class _Update:
    """One update of one line, the home's lock held."""

    def __init__(self, line: str, source: Source, device: Device, test: Tried, sink: Sink) -> None:
        self.line, self.source, self.device, self.test, self.sink = line, source, device, test, sink
        self.slots = Slots(device.home.line(line))
        self.incoming = device.home.incoming / line
        self.store = Store(device.home.store, device.quota)
        self.past = bandwidth.read(device.home.speeds)
        self.before = self._in_use()
        self.bytes = 0
        self.forms: dict[str, str] = {}
        self.seconds: dict[str, float] = {}

    def run(self) -> Outcome:
        """Do it."""
        self._tidy()
        if unmet := conditions.unmet(self.device.conditions.read(self.device.home.folder), self.device.when):
            return self._nothing("waiting", "; ".join(map(str, unmet)))
        release = self._timed("metadata", lambda: self.source.release(self.line))
        if (reason := self._nothing_new(release)) is not None:
            return reason
        key = self._timed("key", lambda: self.source.key(release))
        self.rebuilder = Rebuilder(self.store, key)
        manifest = self._manifest(release)
        chosen = self._chosen(release, manifest)
        if isinstance(chosen, Outcome):
            return chosen
        self._timed("fetch", lambda: self._bring(chosen))
        files = {need.file.name: need.file.sha256 for need in chosen.needs}
        folder = self._timed("stage", lambda: self.slots.stage(files, self.store))
        try:
            verdict = self._timed("self-test", lambda: self._tried(release, chosen.target, folder))
        except HaversackError:
            with contextlib.suppress(EnvironmentFault):  # the next update clears it
                self.slots.remove_leftovers()
            raise
        installed = self.slots.activate(release.version, release.sequence, chosen.target, verdict.median_ms)
        self.sink(Event("deliver", "done", f"{self.line} {release.version} is in use"))
        self._afterwards()
        return Outcome(
            self.line, "installed", installed, self.before, "", self.bytes, self.forms, verdict, self.seconds
        )

    def _in_use(self) -> Installed | None:
        """Return what is in use; None where nothing is, or where neither the pointer nor the slots tell.

        What is older than the floor is no less refused: the source holds a release against that.
        """
        try:
            if text := mended(self.slots):
                self.sink(Event("deliver", "note", f"{self.line}: {text}"))
        except Refused as error:
            text = f"{self.line}: what tells which release is in use is damaged, the newest comes anew: {error.cause}"
            self.sink(Event("deliver", "note", text))
            return None
        return self.slots.pointer().current

    def _afterwards(self) -> None:
        """Collect garbage and remember speeds: the new model is in use, and nothing of this changes that."""
        try:
            for path in self.incoming.glob("*"):  # none where the folder is gone
                path.unlink(missing_ok=True)
            self.store.make_room(0, frozenset())
            bandwidth.write(self.past, self.device.home.speeds)
        except (OSError, EnvironmentFault) as error:
            self.sink(Event("deliver", "note", f"{self.line}: not everything was tidied up: {atomic.why(error)}"))

    def _tidy(self) -> None:
        """Remove what killed updates left, but for what has been fetched."""
        home = self.device.home
        with atomic.told(home.folder, "remove unfinished files", atomic.HOME):
            atomic.remove_leftovers(home.folder)  # others write here too, without the home's lock
            for path in [*self.incoming.glob(f"*{OPENED}"), *self.incoming.glob(".*")]:
                path.unlink(missing_ok=True)
        self.store.remove_leftovers()
        self.slots.remove_leftovers()
        for folder in home.lines.glob(f"*/{STAGED}"):  # another line's, killed amid it: its links fill the store
            if LINE.fullmatch(folder.parent.name):
                with contextlib.suppress(EnvironmentFault):
                    Slots(folder.parent).remove_leftovers()

    def _nothing_new(self, release: Release) -> Outcome | None:
        if self.before is not None:
            self.before = recognised(self.slots, self.before, release)
        try:
            named = [one for one in self.slots.quarantined() if one.names(release.sequence, release.version)]
            bad = named[-1] if named else None
        except Refused as error:  # a device without a person would never be updated again
            bad = None
            text = f"what was set aside is not known any more, and may be tried once more: {error.cause}"
            self.sink(Event("deliver", "note", f"{self.line}: {text}"))
        if bad is not None:
            return self._set_aside(release, bad)
        if self.before is None or release.sequence > self.before.sequence:
            self._step_back()
            return None
        if release.sequence == self.before.sequence:
            return self._nothing("current", f"{release.version} is the newest") if self._whole(self.before) else None
        where = f"{self.line} {release.version}"
        raise Refused(f"release {release.sequence} is older than {self.before.sequence}, which is in use", where=where)

    def _step_back(self) -> None:
        """Use the release before where the one in use is damaged: the new one takes the damaged slot then."""
        if self.before is None or not self._damage(self.before):
            return
        with contextlib.suppress(EnvironmentFault):  # there is none that is whole
            go_back(self.slots, "", sequence=self.before.sequence, damaged=True)
            self.before = self.slots.pointer().current

    def _set_aside(self, release: Release, bad: Bad) -> Outcome:
        """Install nothing, as what is offered failed here before.

        Raises:
            EnvironmentFault: what is in use is damaged, so that this is no answer.
        """
        reason = f"{release.version} is set aside here: {bad.reason}"
        if self.before is not None and (faults := self._damage(self.before)):
            cause = f"{self.before.version}, which is in use, is damaged, and the newest, {reason}"
            step = f"haversack client retry {self.line}, then haversack client update {self.line}"
            raise EnvironmentFault(cause, where=self.line, faults=faults, next_step=step)
        return self._nothing("quarantined", reason)

    def _nothing(self, action: Action, reason: str) -> Outcome:
        self.sink(Event("deliver", "note", f"{self.line}: {reason}"))
        return Outcome(
            self.line, action, self.before, self.before, reason, self.bytes, self.forms, Verdict(), self.seconds
        )

    def _manifest(self, release: Release) -> Manifest:
        file = plan.file_of(release, MANIFEST)
        if file.bytes > LARGEST_MANIFEST:
            raise Refused(f"its manifest has {file.bytes} bytes, and {LARGEST_MANIFEST} are allowed", where=self.line)
        if not self.store.has(file.sha256) or not self.store.sound(file.sha256):
            self.store.make_room(file.bytes + file.blobs[0].bytes, frozenset())
            self._timed("fetch", lambda: self._get(file, file.blobs[0]))
        with atomic.told(self.store.path(file.sha256), "read the manifest", atomic.HOME):
            data = self.store.path(file.sha256).read_bytes()
        manifest = canonical.loads(data, Manifest, where=f"{self.line} {MANIFEST}", limit=LARGEST_MANIFEST)
        plan.demand_same(release, manifest)
        return manifest

    def _chosen(self, release: Release, manifest: Manifest) -> plan.Plan | Outcome:
        """Choose a variant and blobs by what the line can carry; the first bytes of the largest blob tell that."""
        for file in release.files:  # a file that a disk has damaged is no base and no file
            for sha256 in (file.sha256, *(blob.base for blob in file.blobs if blob.base)):
                if self.store.has(sha256):
                    self.store.sound(sha256)
        self._forget({blob.sha256 for file in release.files for blob in file.blobs})
        found = plan.plans(release, manifest, self._targets(), self.store, self.past)
        largest = max(found[0].blobs, key=lambda blob: blob.bytes, default=None)
        most = self.device.allowed.bytes  # where all ways take more, nothing is asked about the line
        within = most is None or any(one.choice(self.past).bytes <= most for one in found)
        if within and largest is not None and largest.bytes > bandwidth.PROBE_BYTES:
            self._timed("probe", lambda: self._fetch(largest, "the first bytes", most=bandwidth.PROBE_BYTES))
            found = plan.plans(release, manifest, self._targets(), self.store, self.past)
        by_target = {one.target: one for one in found}
        choice = bandwidth.choose([one.choice(self.past) for one in found], self.device.allowed)
        if not self.device.allowed.holds(choice):
            cause = f"{release.version} takes {choice.bytes} bytes and about {choice.seconds:.0f} s on this line"
            return self._nothing("waiting", f"{cause}, more than is allowed")
        files = counted(len(choice.blobs), "file")
        text = f"{self.line} {release.version} for {choice.target}: {choice.bytes} bytes in {files}"
        self.sink(Event("deliver", "start", text, data={"forecast_seconds": choice.seconds, "bytes": choice.bytes}))
        return by_target[choice.target]

    def _forget(self, known: set[str]) -> None:
        """Remove parts of files that this release does not have."""
        with atomic.told(self.incoming, "remove parts of another release", atomic.HOME):
            for path in self.incoming.glob("*"):
                if path.stem not in known:
                    path.unlink(missing_ok=True)

    def _targets(self) -> list[str]:
        """Return the runtimes in order: that in use first, since deltas begin from its files."""
        used = [self.before.target] if self.before is not None and self.before.target in self.device.targets else []
        return [*used, *(target for target in self.device.targets if target not in used)]

    def _bring(self, chosen: plan.Plan) -> None:
        self.store.make_room(chosen.room(), chosen.kept)
        for need in chosen.missing:
            if need.blob is None or self.store.has(need.file.sha256):  # two names may be one file
                continue
            try:
                self._get(need.file, need.blob)
            except HaversackError as error:
                if need.blob.form not in DELTAS or isinstance(error, TooSlow):
                    raise
                self.sink(Event("deliver", "note", f"{need.file.name}: its delta is of no use ({error.cause})"))
                self._get(need.file, need.file.blobs[0])

    def _get(self, file: ReleaseFile, blob: Blob) -> None:
        path = self._fetch(blob, file.name)
        began = time.process_time()
        try:
            self.rebuilder.rebuild(blob, path, file)
        except Refused:
            path.unlink(missing_ok=True)
            raise
        self.past = self.past.worked(blob.form, file.bytes, time.process_time() - began)
        self.forms[file.name] = blob.form

    def _fetch(self, blob: Blob, label: str, most: int | None = None) -> Path:
        atomic.make_folder(self.incoming, atomic.HOME)
        wanted = Wanted(self.source.url(blob.path), blob.bytes, blob.sha256, label)
        took = fetch(wanted, self.incoming, self.device.bounds, self.sink, most=most)
        self.bytes += took.bytes
        self.past = self.past.after(Transfer(took.bytes, took.wait_seconds, took.seconds))
        return took.path

    def _tried(self, release: Release, target: str, folder: Path) -> Verdict:
        """Try what was staged, read anew as a stranger's.

        Raises:
            VerificationError: it failed and is quarantined.
        """
        self.sink(Event("deliver", "progress", f"{self.line} {release.version}: self-test"))
        try:
            verdict = self.test(trial_of(folder, target), self._last())
        except Refused as error:
            verdict = Verdict(error.faults or (Fault(error.where, error.cause),))
        if verdict.well:
            return verdict
        reason = str(verdict.faults[0])[:_LONGEST_REASON]
        self.slots.quarantine(release.sequence, release.version, reason)
        stays = f"{self.before.version} stays in use" if self.before is not None else "nothing is in use"
        cause = f"{release.version} failed its self-test and is quarantined; {stays}"
        raise VerificationError(cause, where=self.line, faults=verdict.faults)

    def _whole(self, installed: Installed) -> bool:
        """Say whether a slot holds what was put there; what a disk has damaged is told, and installed anew."""
        faults = self._damage(installed)
        if faults:
            text = f"{self.line} {installed.version} is damaged and comes anew: {faults[0]}"
            self.sink(Event("deliver", "note", text))
        return not faults

    def _damage(self, installed: Installed) -> tuple[Fault, ...]:
        """Return what is wrong with what is in use, and cannot be put right from the store."""
        faults = damage(self.slots, installed)
        if faults and restored(self.slots, installed, self.store):
            text = f"{self.line} {installed.version} was damaged, and is mended from the store: {faults[0]}"
            self.sink(Event("deliver", "note", text))
            return ()
        return faults

    def _last(self) -> Trial | None:
        """Return the model in use, to be held against; None where there is none or it is damaged."""
        try:
            return trial_of(self.slots.path(self.before), self.before.target) if self.before is not None else None
        except HaversackError:
            return None

    def _timed(self, name: str, work: Callable[[], Thing]) -> Thing:
        began = time.perf_counter()
        try:
            return work()
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began
