"""A model that is called like a function, from many threads, while its release is exchanged under it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import numpy as np

from haversack.base.counted import counted
from haversack.base.errors import Fault, UsageError
from haversack.base.model import Port
from haversack.run.answer import Answer
from haversack.run.loaded import Loaded
from haversack.run.session import Setting, words

Given = Any
"""One raw input of a call: an array, or what NumPy makes one of; or all inputs, as a tuple or by name."""


class Model:
    """A callable model; thread-safe, and a context manager.

    A call runs on the release that was current when it began, to its end: the exchange of a release is one assignment,
    and the old one closes when the last call on it has ended.

    Args:
        loaded: the release to begin with.
    """

    def __init__(self, loaded: Loaded) -> None:
        self._current: Loaded | None = loaded
        self._lock = threading.Lock()

    def __call__(self, *inputs: Given, **named: Given) -> Answer:
        """Return the answer to one batch: ``model(x)``, ``model(image=x)`` or ``model({"image": x})``, batch first.

        Raises:
            UsageError: an input does not fit, or the model is closed.
            Busy: too many calls at once; base class ``EnvironmentFault``.
            VerificationError: the answer is wrong (NaN, shape, too slow), and no release before answers in its place.
        """
        began = time.perf_counter()
        with self._held() as loaded:
            (answer,) = loaded.answers([_named(inputs, named, loaded.inputs)])
        return replace(answer, milliseconds=(time.perf_counter() - began) * 1000)

    def batch(self, samples: Sequence[Given]) -> list[Answer]:
        """Return the answer to each of several samples, in order, in few calls: stacked where the batch is free.

        Args:
            samples: each as for a call: an array of one row or more, a tuple of arrays, or arrays by name.

        Raises:
            UsageError, Busy, VerificationError: as in a call, for all of them.
        """
        began = time.perf_counter()
        with self._held() as loaded:
            fed = [_named(one if isinstance(one, tuple) else (one,), {}, loaded.inputs) for one in samples]
            answers = loaded.answers(fed) if fed else []
        spent = (time.perf_counter() - began) * 1000
        return [replace(answer, milliseconds=spent / len(answers)) for answer in answers]

    def swap(self, loaded: Loaded) -> None:
        """Let another release answer the calls that begin from now on; the old one closes after its last call.

        Raises:
            UsageError: the model is closed; the other release is closed too.
        """
        with self._lock:
            old = self._current
            if old is not None:
                self._current = loaded
        (old or loaded).retire()
        if old is None:
            raise UsageError("the model is closed")

    def close(self) -> None:
        """Let go of everything, after the last call that is under way; later calls raise."""
        with self._lock:
            old, self._current = self._current, None
        if old is not None:
            old.retire()

    @property
    def name(self) -> str:
        """Of the model line."""
        return self._now().source.manifest.name

    @property
    def version(self) -> str:
        """Of the current release."""
        return self._now().version

    @property
    def target(self) -> str:
        """The runtime that answers."""
        return self._now().source.target

    @property
    def setting(self) -> Setting:
        """Threads and delegate."""
        return self._now().setting

    @property
    def labels(self) -> tuple[str, ...]:
        """Of the classes; none where the bundle has none."""
        return self._now().labels

    @property
    def inputs(self) -> tuple[Port, ...]:
        """The model's inputs, in order; what is preprocessed is given raw instead."""
        return self._now().inputs

    @property
    def outputs(self) -> tuple[Port, ...]:
        """The model's outputs, in order."""
        return self._now().outputs

    @property
    def raw(self) -> dict[str, tuple[int, ...]]:
        """Names of the inputs that the bundle preprocesses, each with the dimensions that it may have; none for any."""
        return self._now().preprocess.raw

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _now(self) -> Loaded:
        loaded = self._current
        if loaded is None:
            raise UsageError("the model is closed", next_step="open it again")
        return loaded

    @contextmanager
    def _held(self) -> Iterator[Loaded]:
        """Hold the current release for one call."""
        loaded = self._now()
        while not loaded.hold():  # it was exchanged and closed in between
            loaded = self._now()
        try:
            yield loaded
        finally:
            loaded.release()


def _named(inputs: Sequence[Given], named: Mapping[str, Given], ports: Sequence[Port]) -> dict[str, np.ndarray]:
    """Return the inputs of a call by name."""
    if len(inputs) == 1 and isinstance(inputs[0], Mapping):
        named, inputs = {**inputs[0], **named}, ()
    named = {str(name): value for name, value in named.items()}
    names = [port.name for port in ports]
    twice = sorted({*names[: len(inputs)]} & {*named})
    if len(inputs) > len(names) or twice:
        cause = f"{', '.join(twice)} is given twice" if twice else f"there are {counted(len(inputs), 'input')}"
        raise UsageError(f"the inputs do not fit: {cause}", next_step=f"give {words(ports)}")
    given = {**dict(zip(names, inputs, strict=False)), **named}
    found: dict[str, np.ndarray] = {}
    faults = []
    for name, value in given.items():
        try:
            found[name] = np.asarray(value)
        except (ValueError, TypeError, OverflowError, RuntimeError) as error:  # unlike lengths; a tensor of a graph
            why = str(error).partition("\n")[0]
            faults.append(Fault(name, f"it is no array of numbers: {why}"))
        else:
            if found[name].dtype.hasobject:
                faults.append(Fault(name, "it is no array of numbers, but of Python objects"))
    if faults:
        raise UsageError("the inputs do not fit", faults=tuple(faults), next_step=f"give {words(ports)}")
    return found
