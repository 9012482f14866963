"""An open model follows its line: to a release that was installed, and back from one that is no good.

Three things lead back: a release that cannot be opened, one that took its process down a few times while it was opened
or gave its first answer, and one that the guard sets aside and that fails its self-test anew. Wrong answers to wrong
inputs do not.
"""

from __future__ import annotations

import _thread
import contextlib
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from haversack.base.counted import counted
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
from haversack.deliver.starts import LOOP, Starts
from haversack.deliver.update import Tried
from haversack.deliver.whole import damage, go_back, lying, mended
from haversack.run.guard import lasting
from haversack.run.loaded import Loaded
from haversack.run.model import Model

_MOST_DOUBLED = 5
"""So often the time between two looks is doubled: what the machine lacks may take a model's opening to find out."""
First = Callable[[], AbstractContextManager[None]]
"""Makes what a call is computed in, until one has answered."""
Load = Callable[[Path, str, Callable[[], Loaded] | None, Sink, First], Loaded]
"""(slot's folder, target, opens the release before, sink, first) -> the release in memory."""


class Follower:
    """Keeps one model at the release that is in use.

    Args:
        slots: of the line.
        load: takes a slot into memory.
        sink: told what happens.
        test: the self-test of a release.
    """

    def __init__(self, slots: Slots, load: Load, sink: Sink, test: Tried) -> None:
        self._slots, self._load, self._sink, self._test = slots, load, lasting(sink), test
        self._starts = Starts(slots.folder)
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._suspect = self._told = ""
        self._wrong = 0
        self._now: Installed | None = None
        self._failed: tuple[Installed, int] | None = None
        self._model: weakref.ref[Model] | None = None

    def opened(self) -> Model:
        """Return the model in use.

        Raises:
            EnvironmentFault: nothing is installed, or its runtime is not.
            Refused, ConversionError, VerificationError: it cannot be opened, and there is none to go back to.
        """
        with self._lock:
            began = time.perf_counter()
            try:
                loaded = self._loaded()
            except Refused as error:
                loaded = self._anew(error)
            model = Model(loaded)
            self._model = weakref.ref(model, lambda _: self._wake.set())
            text = f"{self._slots.folder.name} {model.version} is open"
            self._sink(Event("run", "done", text, data={"seconds": time.perf_counter() - began}))
            return model

    def _anew(self, wrong: Refused) -> Loaded:
        """Return what lies whole where it is the pointer that is damaged; in a home that cannot be written, too.

        Raises:
            Refused: something else is damaged, or all is.
        """
        if self._mend():
            return self._loaded()
        try:
            self._slots.pointer()
        except Refused:
            there = lying(self._slots)
            if there.current is not None:
                text = f"what tells which release is in use is damaged; {there.current.version} lies whole, and answers"
                self._sink(Event("run", "finding", f"{self._slots.folder.name}: {text}"))
                return self._tried(there.current, there.other)
        raise wrong

    def _mend(self) -> bool:
        """Put the pointer right where it is not, and say whether that was done."""
        with contextlib.suppress(Refused, EnvironmentFault):
            if text := mended(self._slots):
                self._sink(Event("run", "finding", f"{self._slots.folder.name}: {text}"))
                return True
        return False

    def start(self, seconds: float) -> None:
        """Look every so many seconds, in a thread that ends with the model.

        The first wait is that of a bare thread: a Thread's start waits until it runs, as long as reading a small file
        takes where a core is free, and milliseconds where none is.
        """
        _thread.start_new_thread(_begin, (self, seconds, f"haversack-{self._slots.folder.name}"))

    def look(self) -> bool:
        """Exchange the release, if another one is in use; say whether the model still lives.

        Nothing that goes wrong here stops the model that answers: it is told, once, and tried again, less and less
        often.
        """
        model = self._model() if self._model is not None else None
        if model is None:
            return False
        with self._lock:
            try:
                self._exchange(model)
            except UsageError:  # it was closed
                return False
            except (HaversackError, MemoryError, OSError) as error:
                cause = error.cause if isinstance(error, HaversackError) else f"{type(error).__name__}: {error}"
                text = f"{self._slots.folder.name}: the model stays as it is: {cause}"
                if text != self._told:
                    self._sink(Event("run", "note", text))
                self._told = text
                self._wrong += 1
            else:
                self._told, self._wrong = "", 0
        return True

    def _exchange(self, model: Model) -> None:
        """Let the release that is in use answer, unless it does, or could not be opened before."""
        _ = model.version  # raises where it was closed
        self._judge()
        written, current = self._slots.written(), self._slots.pointer().current
        if current is not None and current != self._now and (current, written) != self._failed:
            try:
                loaded = self._loaded()
            except EnvironmentFault:  # as there may be no descriptor left: it is tried again
                raise
            except HaversackError:
                self._failed = (current, written)
                raise
            model.swap(loaded)
            self._sink(Event("run", "done", f"{self._slots.folder.name} {model.version} answers from now on"))

    def pause(self, seconds: float) -> float:
        """Return how long to wait for the next look: so long, or more where the last ones went wrong."""
        return seconds * float(1 << min(self._wrong, _MOST_DOUBLED))

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
        installed = self._now
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
        self._failed, looked = None, False
        while True:
            written = self._slots.written()
            with self._slots.held() as (installed, other):
                begun = not looked and other is not None and self._slots.is_set_aside(installed)
                try:
                    if not begun:
                        return self._tried(installed, other)
                except (ConversionError, Refused, VerificationError) as error:
                    wrong: HaversackError = error
            if begun:  # whoever went back was killed amid it
                looked = True
                self._mend()
                continue
            try:
                self._back(installed, wrong.cause)
            except EnvironmentFault as error:
                if other is None or damage(self._slots, other):
                    raise wrong from error
                text = f"{installed.version} cannot be opened: {wrong.cause}; that is not written down: {error.cause}"
                self._sink(
                    Event("run", "finding", f"{self._slots.folder.name} {text}", data={"instead": other.version})
                )
                self._failed = (installed, written)  # on paper it stays in use: it is not opened again
                with self._slots.held():
                    return self._tried(other, None)

    def _tried(self, installed: Installed, other: Installed | None) -> Loaded:
        name, sequence = f"{self._slots.folder.name} {installed.version}", installed.sequence
        if (count := self._starts.crashed(sequence)) >= LOOP:
            cause = f"{counted(count, 'process', 'processes')} ended while it was opened or gave its first answer"
            if other is not None:
                raise VerificationError(cause, where=name)
            self._sink(Event("run", "finding", f"{name}: {cause}; it is tried again: there is no other"))
        before = partial(self._before, other) if other is not None else None
        first = partial(self._first, sequence)
        try:
            with self._starts.marked(sequence):
                loaded = self._load(self._slots.path(installed), installed.target, before, self._hear, first)
        except (UsageError, EnvironmentFault, ConversionError) as error:  # as where a file is gone
            if faults := damage(self._slots, installed):
                step = f"haversack client update {self._slots.folder.name}    (fetches it again)"
                raise Refused("it is not what was installed", where=name, faults=faults, next_step=step) from error
            raise
        self._now = installed
        return loaded

    @contextlib.contextmanager
    def _first(self, sequence: int) -> Iterator[None]:
        """Mark that a first answer is computed; one that comes forgets the crashes of before."""
        with self._starts.marked(sequence):
            yield
        self._starts.went_well(sequence)

    def _before(self, other: Installed) -> Loaded:
        """Return the release before, for the guard: the one that was there when the model was opened, or none."""
        with self._slots.held() as there:
            if other not in there:
                raise EnvironmentFault("there is no other model any more", where=self._slots.folder.name)
            return self._load(self._slots.path(other), other.target, None, self._sink, contextlib.nullcontext)

    def _back(self, installed: Installed, reason: str) -> None:
        damaged = False
        with contextlib.suppress(EnvironmentFault):
            damaged = bool(damage(self._slots, installed))  # a disk lost something: the release itself may be good
        back = go_back(self._slots, reason, sequence=installed.sequence, damaged=damaged)
        text = f"{self._slots.folder.name} {installed.version} is set aside for {back.version}: {reason}"
        if not damaged and not self._slots.is_set_aside(installed):
            text = f"{text}; that could not be written down: an update may install it again"
        self._sink(Event("run", "finding", text, data={"rolled_back": installed.version, "to": back.version}))


def _begin(follower: Follower, seconds: float, name: str) -> None:
    """Wait for the first time, and go on in a thread that is listed under its name."""
    thread = threading.Thread(target=_follow, args=(follower, seconds), name=name, daemon=True)
    while True:
        follower.wait(seconds)
        with contextlib.suppress(RuntimeError):  # the system has no thread left: it is tried again
            thread.start()
            return


def _follow(follower: Follower, seconds: float) -> None:
    """Look until the model is gone or closed; nothing here holds it in between."""
    while follower.look():
        follower.wait(follower.pause(seconds))
