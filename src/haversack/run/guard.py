"""Looks at every answer of a model; one that keeps failing is set aside, and the model before it answers.

A circuit breaker (Nygard, Release It!, 2nd edition, ch. 5): closed, it lets calls through and counts faults in a row;
open, calls go to the model before; half open, one call at a time tries the model again. Each trial that fails doubles
the time to the next.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from haversack.base.counted import counted
from haversack.base.errors import Fault, HaversackError, UsageError, VerificationError
from haversack.base.model import Port
from haversack.base.progress import Event, Sink, silent
from haversack.run.pool import Busy

Arrays = Mapping[str, np.ndarray]
"""Output name -> array, batch first."""
Result = TypeVar("Result")
Turn = Literal["own", "trial", "previous"]
STAGE = "run"
LOG = logging.getLogger("haversack.run")
LONGEST = 86_400.0
"""Seconds, a day: what a call or a pause may take at most."""


@dataclass(frozen=True)
class Watch:
    """What a guard looks at.

    Attributes:
        faults: so many in a row set a model aside.
        pause_seconds: from then until it is tried again, at first.
        longest_pause_seconds: how far that grows.
        limit_seconds: of one call, from when it has a session (of a batch so many times); 0 for no limit.
    """

    faults: int = 3
    pause_seconds: float = 30.0
    longest_pause_seconds: float = 3600.0
    limit_seconds: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what can never be met, or no clock can wait for.

        Raises:
            UsageError: with every field that cannot be, and what it may be.
        """
        pause, longest = self.pause_seconds, self.longest_pause_seconds
        told = {
            "faults": "" if self.faults >= 1 else "it must be at least 1",
            "pause_seconds": "" if 0 < pause <= LONGEST else f"it must be above 0, and at most {LONGEST:g}",
            "longest_pause_seconds": ""
            if pause <= longest <= LONGEST
            else f"it must be at least pause_seconds, and at most {LONGEST:g}",
            "limit_seconds": ""
            if 0 <= self.limit_seconds <= LONGEST
            else f"it must be 0 for none, or up to {LONGEST:g}",
        }
        faults = tuple(Fault(name, f"{text}, not {getattr(self, name)}") for name, text in told.items() if text)
        if faults:
            raise UsageError("a guard cannot watch so", faults=faults, next_step="leave them out for the defaults")


class NotFinite(VerificationError):
    """An answer has NaN or infinities; whose fault that is, what was given can tell."""


class TooSlow(VerificationError):
    """A call took longer than its limit. It goes on by itself: nothing can stop a runtime in our own process."""


class Guard:
    """Guards one release.

    Args:
        name: of the release, for events.
        watch: what to look at.
        sink: told of every fault, every trip and every recovery.
        clock: seconds that only grow.
    """

    def __init__(
        self, name: str, watch: Watch | None = None, *, sink: Sink = silent, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name, self.watch = name, watch or Watch()
        self._sink, self._clock = lasting(sink), clock
        self._lock = threading.Lock()
        self._in_a_row = 0
        self._pause = self.watch.pause_seconds
        self._until = 0.0
        self._state: Literal["closed", "open", "trying"] = "closed"

    @property
    def state(self) -> Literal["closed", "open", "trying"]:
        """``closed``: its model answers; ``open``: it is set aside; ``trying``: one call tries it again."""
        return self._state

    def call(self, own: Callable[[], Result], instead: Callable[[], Result] | None = None) -> Result:
        """Return what the guarded model answers, or what answers in its place.

        Args:
            own: calls the model and looks at its answer (``look``). What its caller did wrong (``UsageError``) and a
                call that was refused (``Busy``) are no faults of it.
            instead: calls the model before; None where there is none. Where that fails on the same input as well, it
                counts against neither. Nothing sets a model aside at a call that nobody answers in its place.

        Raises:
            VerificationError: its answer is wrong, or it is set aside, and nothing answers in its place.
            Exception: what ``own`` raised, where nothing answers in its place.
        """
        turn = self._turn()
        if turn == "previous":
            return self._answered_for(own, instead)
        try:
            answer = own()
        except (UsageError, Busy):
            self._abandoned(turn)
            raise
        except Exception as error:  # noqa: BLE001 - whatever a runtime raises: told, and raised where nothing else answers
            return self._otherwise(turn, error, instead)
        except BaseException:
            self._abandoned(turn)
            raise
        self._passed(turn)
        return answer

    def _answered_for(self, own: Callable[[], Result], instead: Callable[[], Result] | None) -> Result:
        """Return what answers while the model is set aside: itself, where nothing else can be asked."""
        if instead is None:
            return own()
        try:
            return instead()
        except Busy:
            raise
        except VerificationError as other:
            raise self._aside() from other
        except HaversackError:  # it is not there any more, cannot be opened, or takes no such input
            return own()

    def _otherwise(self, turn: Turn, error: Exception, instead: Callable[[], Result] | None) -> Result:
        """Return what answers in place of a model that failed, and count that against it.

        Where nothing answers, the model's own error is told.
        """
        if instead is None:
            self._failed(turn, error, alone=True)
            raise error
        try:
            answer = instead()
        except Exception as other:
            if isinstance(other, VerificationError) or not isinstance(other, HaversackError):
                self._abandoned(turn)
                text = f"{self.name}: {_words(error)}; the release before fails on the same input, which is left aside"
                self._tell("finding", text, guard="input")
            else:  # that one was not asked, or could not be
                self._failed(turn, error, alone=True)
            raise error from other
        except BaseException:
            self._abandoned(turn)
            raise
        self._failed(turn, error)
        return answer

    def _turn(self) -> Turn:
        """Say who takes a call."""
        with self._lock:
            if self._state == "open" and self._clock() >= self._until:
                self._state = "trying"
                return "trial"
            return "own" if self._state == "closed" else "previous"

    def _passed(self, turn: Turn) -> None:
        if turn == "own" and not self._in_a_row:
            return
        with self._lock:
            if turn == "trial":
                self._state, self._pause = "closed", self.watch.pause_seconds
            if self._state == "closed":
                self._in_a_row = 0
        if turn == "trial":
            self._tell("note", f"{self.name} answers well again", guard="recovered")

    def _failed(self, turn: Turn, error: Exception, *, alone: bool = False) -> None:
        with self._lock:
            self._in_a_row += 1
            enough = self._state == "closed" and self._in_a_row >= self.watch.faults
            trips = turn == "trial" or (enough and not alone)
            if trips:
                if turn == "trial":
                    self._pause = min(2 * self._pause, self.watch.longest_pause_seconds)
                self._state, self._until = "open", self._clock() + self._pause
            row, pause = self._in_a_row, self._pause
        cause = _words(error)
        self._tell("finding", f"{self.name}: {cause}", guard="fault", in_a_row=row)
        if trips:
            text = f"{self.name} is set aside after {counted(row, 'fault')} in a row, and tried again in {pause:g} s"
            self._tell("finding", text, guard="tripped", in_a_row=row, pause_seconds=pause, cause=cause)

    def _abandoned(self, turn: Turn) -> None:
        """Let the next call try the model, where one that was to try it told nothing of it."""
        with self._lock:
            if turn == "trial":
                self._state = "open"

    def _aside(self) -> HaversackError:
        left = max(0.0, self._until - self._clock())
        step = "go back to the release before: haversack client rollback LINE"
        cause = f"{self.name} is set aside after {counted(self._in_a_row, 'fault')} in a row"
        return VerificationError(f"{cause}, and tried again in {left:.3g} s", next_step=step)

    def _tell(self, kind: str, text: str, **data: object) -> None:
        self._sink(Event(STAGE, kind, text, data={"release": self.name, **data}))


class _Lasting:
    """A sink that may raise, and stops nobody: neither a caller nor a thread that follows a line."""

    def __init__(self, sink: Sink) -> None:
        self._sink, self._told = sink, False

    def __call__(self, event: Event) -> None:
        try:
            self._sink(event)
        except Exception as error:  # noqa: BLE001 - whatever a stranger's sink raises: logged, once
            if not self._told:
                self._told = True
                LOG.warning("the sink of events raises %s: %s (at: %s)", type(error).__name__, error, event.text)


def lasting(sink: Sink) -> Sink:
    """Return a sink that never raises: the first error of this one is logged (``haversack.run``), the next event comes.

    Ctrl-C in it goes on.
    """
    return sink if isinstance(sink, _Lasting) else _Lasting(sink)


def look(ports: Sequence[Port], outputs: Arrays) -> None:
    """Make sure that outputs (by name, batch first) are a model's: their shapes and dtypes, and no NaN or infinity.

    Raises:
        VerificationError: they are not; ``NotFinite``, where it is for their values alone.
    """
    for port in ports:
        name, shape = port.name, port.spec.shape
        if name not in outputs:
            raise VerificationError("the model does not give it", where=name)
        array = outputs[name]
        fits = array.ndim == len(shape) and all(
            isinstance(asked, str) or size == asked for size, asked in zip(array.shape[1:], shape[1:], strict=True)
        )
        if not fits or str(array.dtype) != port.spec.dtype:
            told = f"{list(shape)} {port.spec.dtype}"
            raise VerificationError(f"it is {array.dtype} {list(array.shape)}, not {told}", where=name)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            bad = array.size - int(np.isfinite(array).sum())
            raise NotFinite(f"{bad} of its {array.size} values are NaN or infinite", where=name)


def within(
    seconds: float,
    work: Callable[[], Result],
    after: Callable[[], None],
    before: Callable[[], object] = lambda: None,
) -> Result:
    """Return what ``work`` returns, or stop waiting for it.

    Args:
        seconds: to wait; 0 for no limit, and then no thread is started.
        work: runs in a thread of its own, which a process that ends does not wait for.
        after: is called when the work has ended, late or not, or never began; again where it was interrupted.
        before: is called first, and not counted.

    Raises:
        TooSlow: it takes longer.
        Busy: the system has no thread left.
        Exception: what ``work`` or ``before`` raised.
    """
    if not seconds:
        try:
            before()
            return work()
        finally:
            try:
                after()
            except BaseException:
                after()
                raise
    future: Future[Result] = Future()

    def run() -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - handed to the one who waits
            future.set_exception(error)
        finally:
            after()

    try:
        before()
        _start(run)
    except BaseException:
        if future.cancel():  # else it runs, and calls ``after`` itself
            after()
        raise
    try:
        return future.result(min(seconds, threading.TIMEOUT_MAX))  # a batch has so many times the limit of a call
    except TimeoutError as error:
        if future.done():
            raise
        raise TooSlow(f"it took longer than {seconds:g} s") from error


def _start(run: Callable[[], None]) -> None:
    """Run it in a thread of its own.

    Raises:
        Busy: the system has no thread left.
    """
    try:
        threading.Thread(target=run, name="haversack-call", daemon=True).start()
    except RuntimeError as error:
        step = "run fewer threads, let there be more (ulimit -u), or open the model without limit_seconds"
        raise Busy("the system has no thread left for a call with a time limit", next_step=step) from error


def _words(error: Exception) -> str:
    """Return the first line of what an error says."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
