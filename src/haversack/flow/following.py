"""An open model follows its line: to a release that was installed, and back from one that is no good.

Three things lead back: a release that cannot be opened, one that took its process down a few times while it was opened,
and one that the guard sets aside and that fails its self-test anew. Wrong answers to wrong inputs do not.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from haversack.base.errors import (
    ConversionError,
    EnvironmentFault,
    Fault,
    HaversackError,
    Refused,
    UsageError,
    VerificationError,
)
from haversack.base.progress import Event, Sink
from haversack.deliver import selftest
from haversack.deliver.selftest import Verdict
from haversack.deliver.slots import Installed, Slots
from haversack.deliver.starts import LOOP, Mark, Starts
from haversack.deliver.update import Tried
from haversack.run.loaded import Loaded
from haversack.run.model import Model

SETTLED_SECONDS = 10.0
"""A process that lives so long after an opening did not die of it."""
Load = Callable[[Path, str, Callable[[], Loaded] | None, Sink], Loaded]
"""(slot's folder, target, opens the release before, sink) -> the release in memory."""


@dataclass
class _Opened:
    """What was opened: which release, since when, and its mark."""

    installed: Installed
    mark: Mark
    since: float


class Follower:
    """Keeps one model at the release that is in use.

    Args:
        slots: of the line.
        load: takes a slot into memory.
        sink: told what happens.
        test: the self-test of a release.
    """

    def __init__(self, slots: Slots, load: Load, sink: Sink, test: Tried) -> None:
        self._slots, self._load, self._sink, self._test = slots, load, sink, test
        self._starts = Starts(slots.folder)
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._suspect = ""
        self._now: _Opened | None = None
        self._trying: Mark | None = None
        self._over = False
        self._failed: Installed | None = None
        self._model: weakref.ref[Model] | None = None

    def opened(self) -> Model:
        """Return the model in use.

        Raises:
            EnvironmentFault: nothing is installed, or its runtime is not.
            Refused, ConversionError, VerificationError: it cannot be opened, and there is none to go back to.
        """
        with self._lock:
            began = time.perf_counter()
            model = Model(self._loaded())
            self._model = weakref.ref(model)
            weakref.finalize(model, self._finish)
            text = f"{self._slots.folder.name} {model.version} is open"
            self._sink(Event("run", "done", text, data={"seconds": time.perf_counter() - began}))
            return model

    def start(self, model: Model, seconds: float) -> None:
        """Look every so many seconds, in a thread that ends with the model."""
        name = f"haversack-{self._slots.folder.name}"
        threading.Thread(target=_follow, args=(weakref.ref(model), self, seconds), name=name, daemon=True).start()

    def look(self) -> bool:
        """Exchange the release, if another one is in use; say whether the model still lives.

        Nothing that goes wrong here stops the model that answers: it is told and tried again.
        """
        model = self._model() if self._model is not None else None
        if model is None or self._over:
            return False
        with self._lock:
            now = self._now
            if now is not None and time.monotonic() - now.since > SETTLED_SECONDS:
                now.mark.end()
                self._starts.went_well(now.installed.sequence)
            try:
                self._exchange(model)
            except UsageError:  # it was closed
                self._end()
                return False
            except HaversackError as error:
                self._failed = self._slots.pointer().current
                self._sink(Event("run", "note", f"{self._slots.folder.name}: the model stays as it is: {error.cause}"))
        return True

    def _exchange(self, model: Model) -> None:
        """Let the release that is in use answer, unless it does, or could not be opened before."""
        _ = model.version  # raises where it was closed
        self._judge()
        current = self._slots.pointer().current
        if current not in (self._now.installed if self._now is not None else None, self._failed):
            model.swap(self._loaded())
            self._failed = None
            self._sink(Event("run", "done", f"{self._slots.folder.name} {model.version} answers from now on"))

    def wait(self, seconds: float) -> None:
        """Wait so long, or until there is something to look at."""
        self._wake.wait(seconds)
        self._wake.clear()

    def _hear(self, event: Event) -> None:
        """Pass on what the guard says, and look into it soon where it set the release aside."""
        self._sink(event)
        if event.data.get("guard") == "tripped":
            self._suspect = str(event.data.get("cause", event.text))
            self._wake.set()

    def _judge(self) -> None:
        """Try a release anew that the guard set aside; one that fails is quarantined for the one before it."""
        reason, self._suspect = self._suspect, ""
        if not reason or self._now is None:
            return
        installed = self._now.installed
        with self._slots.opening() as current:
            if current != installed:
                return
            verdict = self._verdict(current)
        if verdict.well:
            text = "its golden vectors are answered as they should be: look at the inputs that it was given"
            self._sink(Event("run", "note", f"{self._slots.folder.name} {installed.version} stays in use: {text}"))
            return
        self._back(installed, f"{reason}; {verdict.faults[0]}")

    def _verdict(self, installed: Installed) -> Verdict:
        try:
            return self._test(selftest.trial_of(self._slots.path(installed), installed.target), None)
        except Refused as error:
            return Verdict(error.faults or (Fault(error.where, error.cause),))

    def _loaded(self) -> Loaded:
        """Return the release in use in memory, or the one before it where that cannot be."""
        while True:
            with self._slots.held() as (installed, other):
                try:
                    before = None if other is None else functools.partial(self._before, other)
                    return self._tried(installed, before)
                except (ConversionError, Refused, VerificationError) as error:
                    wrong: HaversackError = error
            try:
                self._back(installed, wrong.cause)
            except EnvironmentFault:
                raise wrong from None

    def _tried(self, installed: Installed, before: Callable[[], Loaded] | None) -> Loaded:
        name, sequence = f"{self._slots.folder.name} {installed.version}", installed.sequence
        if (count := self._starts.crashed(sequence)) >= LOOP:
            raise VerificationError(f"opening it took the process down {count} times", where=name)
        mark = self._trying = self._starts.begin(sequence)
        try:
            loaded = self._load(self._slots.path(installed), installed.target, before, self._hear)
        except BaseException:
            mark.end()
            raise
        finally:
            self._trying = None
        self._end()
        self._now = _Opened(installed, mark, time.monotonic())
        if self._over:
            self._end()
        return loaded

    def _before(self, other: Installed) -> Loaded:
        """Return the release that was the way back at the opening, for the guard.

        Raises:
            EnvironmentFault: it lies there no more, since another was installed in its slot.
        """
        with self._slots.held() as lying:
            if other not in lying:
                raise EnvironmentFault("there is no other model", where=self._slots.folder.name)
            return self._load(self._slots.path(other), other.target, None, self._sink)

    def _back(self, installed: Installed, reason: str) -> None:
        damaged = False
        with contextlib.suppress(UsageError, EnvironmentFault):
            try:
                selftest.trial_of(self._slots.path(installed), installed.target)
            except Refused:
                damaged = True  # a disk lost something: the release itself may be good
        back = self._slots.way_back(reason, sequence=installed.sequence, damaged=damaged)
        text = f"{self._slots.folder.name} {installed.version} is set aside for {back.version}: {reason}"
        self._sink(Event("run", "finding", text, data={"rolled_back": installed.version, "to": back.version}))

    def _finish(self) -> None:
        """End for good: the model is gone, or the process exits, perhaps amid an opening, and has not crashed."""
        self._over = True
        self._wake.set()
        if (trying := self._trying) is not None:
            trying.end()
        self._end()

    def _end(self) -> None:
        now, self._now = self._now, None
        if now is not None:
            now.mark.end()


def _follow(model: weakref.ref[Model], follower: Follower, seconds: float) -> None:
    """Look until the model is gone or closed; holds no reference to it in between."""
    while model() is not None:
        follower.wait(seconds)
        if not follower.look():
            return
