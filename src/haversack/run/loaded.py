"""One release in memory: its sessions, preprocessing, labels, caches and guard. A model exchanges it whole."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import numpy as np

from haversack.base.errors import UsageError
from haversack.base.model import Port
from haversack.base.progress import Event, Sink, silent
from haversack.run import batching
from haversack.run.answer import Answer
from haversack.run.guard import Guard, NotFinite, TooSlow, Watch, lasting, look, within
from haversack.run.pool import Place, Pool
from haversack.run.preprocess import Preprocess, not_finite
from haversack.run.results import NONE, Bounds, Cache, key_of
from haversack.run.session import Session, Setting
from haversack.run.source import Source, kind_of
from haversack.tools.data.preprocess.pipeline import Pipeline

Arrays = Mapping[str, np.ndarray]
"""Input or output name -> array, batch first."""


@dataclass(frozen=True)
class Serving:
    """How a model serves its callers.

    Attributes:
        sessions: how many calls are computed at once.
        waiting: how many more may wait.
        wait_seconds: how long one waits at most.
        most_rows: of one call of a batch, where the file's batch is free.
        results: bounds of the cache of answers; none by default, since a digest of every input takes time too.
        preprocessed: bounds of the cache of preprocessed inputs.
        watch: what the guard looks at.
    """

    sessions: int = 1
    waiting: int = 128
    wait_seconds: float = 60.0
    most_rows: int = batching.MOST_ROWS
    results: Bounds = NONE
    preprocessed: Bounds = NONE
    watch: Watch = field(default_factory=Watch)


class Loaded:
    """An open release. Whoever calls it holds it; it closes when it is retired and the last one lets go.

    Args:
        source: what to open.
        pipeline: from raw inputs to the model's.
        labels: of the classes.
        serving: how.
        setting: threads and delegate.
        previous: opens the release before, when the guard needs it for the first time; None where there is none.
        sink: told what the guard finds.
        first: makes what a call is computed in, until one has answered.

    Attributes:
        version: of the release.
        inputs, outputs: the model's ports, in order.

    Raises:
        ConversionError, EnvironmentFault: as ``Session``.
    """

    def __init__(
        self,
        source: Source,
        pipeline: Pipeline,
        labels: tuple[str, ...] = (),
        serving: Serving | None = None,
        setting: Setting | None = None,
        *,
        previous: Callable[[], Loaded] | None = None,
        sink: Sink = silent,
        first: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.source, self.labels, self.setting = source, labels, setting or Setting()
        self.serving = serving or Serving()
        self.version = source.manifest.version
        kind = kind_of(source.target)
        self._pool = Pool(
            lambda: Session(source, self.setting),
            size=self.serving.sessions,
            waiting=self.serving.waiting,
            seconds=self.serving.wait_seconds,
            shared=kind is not None and kind.overlapping,
        )
        self.inputs, self.outputs = self._pool.first.inputs, self._pool.first.outputs
        names = [port.name for port in self.inputs]
        turned = source.artifact.layouts
        self.preprocess = Preprocess(pipeline, names, self.serving.preprocessed, turned=turned)
        self.results = Cache(self.serving.results)
        self.guard = Guard(f"{source.manifest.name} {self.version}", self.serving.watch, sink=sink)
        self._before = _Before(previous) if previous is not None else None
        self._sink, self._began, self._answered, self._until_first = lasting(sink), time.perf_counter(), False, first
        self._lock = threading.Lock()
        self._holders, self._retired = 0, False

    def hold(self) -> bool:
        """Keep it open until ``release``; False where it is closed already."""
        with self._lock:
            if self._retired and not self._holders:
                return False
            self._holders += 1
            return True

    def release(self) -> None:
        """Let go of what was held."""
        with self._lock:
            self._holders -= 1
            done = self._retired and not self._holders
        if done:
            self._close()

    def retire(self) -> None:
        """Close it, now or when the last one lets go."""
        with self._lock:
            if self._retired:
                return
            self._retired = True
            done = not self._holders
        if done:
            self._close()

    def answers(self, samples: Sequence[Arrays]) -> list[Answer]:
        """Return the answer to each of several raw inputs by name, batch first, in few calls.

        Raises:
            UsageError: an input does not fit, or is not finite and the answer is not for it.
            Busy: too many calls at once.
            VerificationError: the answer is wrong, and nothing answers in its place.
        """
        before = self._before
        instead = None if before is None else lambda: before.answers(samples)
        return self.guard.call(lambda: self._marked(samples), instead)

    def _marked(self, samples: Sequence[Arrays]) -> list[Answer]:
        """Return its own answers; until there was one, each attempt is marked as one."""
        if self._answered:
            return self._own(samples)
        with self._until_first():
            found = self._own(samples)
        self._first()
        return found

    def _first(self) -> None:
        """Tell that the first answer is there, once: what began with the first byte of a download ends here."""
        with self._lock:
            told, self._answered = self._answered, True
        if not told:
            spent = time.perf_counter() - self._began
            text = f"{self.source.manifest.name} {self.version} gave its first answer"
            self._sink(Event("run", "done", text, data={"seconds": spent, "first_answer": True}))

    def _own(self, samples: Sequence[Arrays]) -> list[Answer]:
        keys = [key_of(sample) for sample in samples] if self.serving.results.entries else [""] * len(samples)
        known = [self.results.get(key) for key in keys]
        new = [index for index, outputs in enumerate(known) if outputs is None]
        if new:
            try:
                computed = self._computed([samples[index] for index in new])
            except NotFinite as error:
                raise _refused(samples, new, error) or error from None
            for index, outputs in zip(new, computed, strict=True):
                self.results.put(keys[index], outputs)
                known[index] = outputs
        fresh = set(new)
        return [
            Answer(outputs or {}, self.version, self.labels, cached=index not in fresh)
            for index, outputs in enumerate(known)
        ]

    def _computed(self, samples: Sequence[Arrays]) -> list[dict[str, np.ndarray]]:
        fed = [self._fed(sample) for sample in samples]
        place: Place[Session] = Place()
        limit = self.serving.watch.limit_seconds
        try:
            found = within(
                limit * len(samples),
                lambda: self._called(place.session, fed),
                after=lambda: self._pool.give(place),
                before=lambda: self._pool.take(place=place, patience=limit),
            )
        except TooSlow:
            self._pool.late(place)
            raise
        for outputs in found:
            look(self.outputs, outputs)
        return found

    def _fed(self, sample: Arrays) -> Arrays:
        """Return a raw sample as the model takes it.

        Raises:
            UsageError: it does not fit, in words that are about what was given.
        """
        try:
            fed = self.preprocess(sample)
            self._pool.first.fit(fed)
        except UsageError as error:
            if not self.preprocess.raw:
                raise
            raise self.preprocess.refused(sample, error, self.inputs) from None
        return fed

    def _called(self, session: Session, samples: Sequence[Arrays]) -> list[dict[str, np.ndarray]]:
        if len(samples) == 1 and all(_whole(port, samples[0][port.name]) for port in self.inputs):
            return [session.run(samples[0])]
        return batching.many(session.run, samples, rows=self.source.rows, most=self.serving.most_rows)

    def _close(self) -> None:
        self._pool.close()
        self.results.clear()
        self.preprocess.cache.clear()
        if self._before is not None:
            self._before.close()


class _Before:
    """The release before, opened when it is needed for the first time."""

    def __init__(self, opens: Callable[[], Loaded]) -> None:
        self._opens = opens
        self._lock = threading.Lock()
        self._loaded: Loaded | None = None
        self._closed = False

    def answers(self, samples: Sequence[Arrays]) -> list[Answer]:
        """Return its answers; see ``Loaded.answers``."""
        with self._lock:
            if self._closed:
                raise UsageError("the model is closed")
            if self._loaded is None:
                self._loaded = self._opens()
            loaded = self._loaded
        return loaded.answers(samples)

    def close(self) -> None:
        """Close it, if it was opened."""
        with self._lock:
            self._closed = True
            if self._loaded is not None:
                self._loaded.retire()


def _refused(samples: Sequence[Arrays], asked: Sequence[int], error: NotFinite) -> UsageError | None:
    """Return what to say of raw inputs that are not finite themselves, where an answer is not; None where they are.

    It is looked at only now: it would take time of every call. One sample may spoil the answers of a whole batch; those
    whose answers were known are not ``asked``.
    """
    places = [(number, f" of sample {number}" if len(samples) > 1 else "") for number in asked]
    faults = [fault for number, place in places for fault in not_finite(samples[number], place)]
    if not faults:
        return None
    cause = f"the inputs are not finite, and so the answer is not ({error.where}: {error.cause})"
    return UsageError(cause, faults=tuple(faults), next_step="give finite numbers")


def _whole(port: Port, array: np.ndarray) -> bool:
    """Say whether an array is what one call of the file takes."""
    first = port.spec.shape[:1]
    return not first or isinstance(first[0], str) or first[0] == len(array)
