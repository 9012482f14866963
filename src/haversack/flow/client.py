"""A device: releases come, are tried and used, and a model answers all the while. No torch. Reads as plain calls."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from haversack.base.errors import EnvironmentFault, Refused, VerificationError
from haversack.base.progress import Event, Sink, silent
from haversack.deliver import locking, settings
from haversack.deliver import root as roots
from haversack.deliver.floor import Floor
from haversack.deliver.home import GOES_ON, Home
from haversack.deliver.offer import Offer
from haversack.deliver.selftest import tried
from haversack.deliver.site import Site
from haversack.deliver.slots import Installed, Pointer, Slots
from haversack.deliver.starts import Starts
from haversack.deliver.store import Store
from haversack.deliver.trial import ACCEPTED
from haversack.deliver.update import Device, Outcome, Tried, update
from haversack.deliver.whole import go_back
from haversack.flow.device_state import State, state
from haversack.flow.following import First, Follower
from haversack.flow.tuned import Settled, settled
from haversack.run.loaded import Loaded, Serving
from haversack.run.model import Model
from haversack.run.opening import load, ready, setting_of
from haversack.run.source import found, lacks
from haversack.tools.store import atomic
from haversack.tools.trust import wrap

DEFAULT_HOME = Path("~/.haversack")
_ROOM = 1 << 20
"""Bytes that are made free for the way back on a full disk: it takes two small files."""
FOLLOW_SECONDS = 2.0
"""How often an open model looks whether another release is in use."""


class Client:
    """A device's models: ``update`` them, ``open`` them, and go back.

    Args:
        home: the device's folder.
        repository: URL of a folder that is served, or a folder; None for the one given before.
        root: the publisher's root metadata, a file; needed at the first contact only.
        device: what an update may cost this device, and on which conditions; its home is ``home``.
        sink: told about progress and findings.
        test: the self-test of a release; the usual one runs in a child.
        tune: what measures threads and delegate of a release after an update, unless something runs here; None for
            nothing, and one thread.
    """

    def __init__(
        self,
        home: str | Path = DEFAULT_HOME,
        repository: str | Path | None = None,
        root: str | Path | None = None,
        *,
        device: Device | None = None,
        sink: Sink = silent,
        test: Tried = tried,
        tune: Settled | None = settled,
    ) -> None:
        self.home = Home.at(home)
        self._repository = None if repository is None else Site.of(repository).root
        self._root = None if root is None else Path(root)
        runtimes = tuple(target for target in ACCEPTED if not lacks(target))
        self.device = Device(self.home, runtimes) if device is None else replace(device, home=self.home)
        self._sink, self._test, self._tune = sink, test, tune
        self._followers: weakref.WeakSet[Follower] = weakref.WeakSet()
        ready(Pointer(current=Installed("a", "1.0.0", 1, "a")), targets=self.device.targets)

    def update(self, line: str) -> Outcome:
        """Bring a line to its newest release; models of it that are open answer with it from their next call on.

        Raises:
            VerificationError: the release failed its self-test and is quarantined; what was in use still is.
            Refused: something is not signed, too large, too old or not what it says.
            EnvironmentFault: the network, the disk, expired metadata, or another process updates this home.
            UsageError: nobody said where updates come from, or whom to believe.
        """
        repository = settings.repository(self._repository, self.home.settings)
        try:
            outcome = update(line, self._offer(repository), self.device, self._sink, self._test)
        except VerificationError:  # of a release that was signed
            settings.remember(repository, self.home.settings)
            raise
        except (Refused, EnvironmentFault) as error:
            if not Slots(self.home.line(line)).written():
                error.next_step = error.next_step.replace(GOES_ON, "")
            raise
        if outcome.action != "waiting":
            settings.remember(repository, self.home.settings)
        open_here = [follower for follower in list(self._followers) if follower.look()]
        if self._tune is not None and outcome.installed is not None and outcome.action in ("installed", "current"):
            self._tune(line, self.home.folder, busy=self._busy(open_here), sink=self._sink)
        return outcome

    def _busy(self, open_here: list[Follower]) -> str:
        """Say why nothing is measured now, or nothing: somebody's inference would be slower, and the measure wrong."""
        if open_here:
            return "a model is open in this process"
        idle = self.device.conditions.read(self.home.folder).idle
        return "" if idle else "the device is busy" if idle is False else "it is not known whether the device is idle"

    def open(self, line: str, *, serving: Serving | None = None, threads: int = 0, follow: bool = True) -> Model:
        """Return the model in use, whatever becomes of network and repository; it exchanges releases by itself.

        A release that cannot be opened, or took its process down three times, is set aside for the one before it.

        Args:
            line: which.
            serving: sessions, caches and guard.
            threads: of one call; 0 for what was measured here, else one.
            follow: whether it goes on to releases that are installed later, by this process or another.

        Raises:
            EnvironmentFault: nothing is installed, or its runtime is not.
            Refused, ConversionError, VerificationError: it cannot be opened, and there is none to go back to.
        """

        def loader(folder: Path, target: str, before: Callable[[], Loaded] | None, sink: Sink, first: First) -> Loaded:
            source = found(folder, target, verified=True)  # when it was put there
            setting = setting_of(source, threads, self.home.folder)
            return load(source, serving, setting, previous=before, sink=sink, first=first)

        follower = Follower(Slots(self.home.line(line)), loader, self._sink, self._test)
        model = follower.opened()
        if follow:
            self._followers.add(follower)
            follower.start(FOLLOW_SECONDS)
        return model

    def status(self) -> State:
        """Return what is installed, set aside and remembered, and which files of the home are damaged.

        Raises:
            EnvironmentFault: the home cannot be read.
        """
        return state(self.home)

    def rollback(self, line: str, reason: str = "rolled back by hand") -> Installed:
        """Go back to the release before; the one in use is not installed again.

        On a full disk what an update has fetched makes room for it.

        Raises:
            EnvironmentFault: there is none that is whole, or it cannot be written.
            Refused: the pointer is damaged.
        """
        slots = Slots(self.home.line(line))
        left, other = (pointer := slots.pointer()).current, pointer.other
        sequence = left.sequence if left is not None else None
        try:
            back = go_back(slots, reason, sequence=sequence)
        except EnvironmentFault as error:
            if not atomic.is_full(error):
                raise
            self._make_room()
            back = go_back(slots, reason, sequence=sequence)
        if other is not None and back != other:
            cause, step = f"an update came first: {back.version} is in use now", "repeat the same command to go back"
            raise EnvironmentFault(cause, where=line, next_step=step)
        self._sink(Event("deliver", "done", f"{line}: back to {back.version}"))
        if left is not None and not slots.is_set_aside(left):
            self._set_aside(slots, left, reason)
        for follower in list(self._followers):
            follower.look()
        return back

    def _set_aside(self, slots: Slots, left: Installed, reason: str) -> None:
        """Write down what could not be, once more, with the room that can be made; what cannot be then is told."""
        try:
            self._make_room()
            slots.quarantine(left.sequence, left.version, reason)
        except EnvironmentFault as error:
            cause = f"that {left.version} is set aside could not be written down ({error.cause})"
            text = f"{slots.folder.name}: {cause}: an update may install it again"
            self._sink(Event("deliver", "note", text))

    def _make_room(self) -> None:
        """Remove what updates fetched and no slot uses, unless one is at work."""
        with contextlib.suppress(EnvironmentFault, OSError), locking.held(self.home.lock):
            for path in [path for path in self.home.incoming.glob("*/*") if path.is_file()]:
                path.unlink(missing_ok=True)
            Store(self.home.store, self.device.quota).make_room(_ROOM, frozenset())

    def retry(self, line: str) -> tuple[str, ...]:
        """Let releases that were set aside be installed again by the next update; return their versions.

        Raises:
            UsageError: the line has another form.
            Refused, EnvironmentFault: a file of the home is damaged, or cannot be written; there is nothing of it here.
        """
        slots = Slots(self.home.line(line))
        if not slots.is_there():
            raise slots.nothing()
        pardoned = slots.pardon()
        for bad in pardoned:
            Starts(slots.folder).forget(bad.sequence)
        return tuple(bad.version for bad in pardoned)

    def enrol(self, name: str = "device") -> wrap.Device:
        """Make this device's key, which never leaves it; its public half is for the publisher of encrypted releases.

        Raises:
            UsageError: it has one, or the name is none.
            EnvironmentFault: it cannot be written.
        """
        atomic.make_folder(self.home.folder, atomic.HOME)
        return wrap.create_device(self.home.device_key, name)

    def _offer(self, repository: str) -> Offer:
        site = Site.of(repository)
        unused = not Floor(self.home.floor).time()
        return Offer.of(site, roots.kept(self._root, self.home.root, unused=unused), self.home)
