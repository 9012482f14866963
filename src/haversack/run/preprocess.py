"""Raw inputs made into what the model takes, as the bundle's preprocess.json says; repeated ones come from a cache."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from haversack.base.errors import Fault, JobError, UsageError
from haversack.base.model import Port
from haversack.run.results import NONE, Bounds, Cache, key_of
from haversack.run.session import unfit, words
from haversack.tools.data.preprocess.pipeline import Pipeline

Arrays = Mapping[str, np.ndarray]
"""Input name -> array, batch first."""


class Preprocess:
    """A pipeline over named inputs, with a cache of its own.

    Args:
        pipeline: the operations; one without steps changes nothing.
        names: of the model's inputs, in order.
        bounds: of the cache.
        turned: names of the inputs whose axes the file has in another order than the model.
    """

    def __init__(
        self, pipeline: Pipeline, names: Sequence[str], bounds: Bounds = NONE, *, turned: Collection[str] = ()
    ) -> None:
        self.pipeline, self.cache = pipeline, Cache(bounds)
        self._names = tuple(names)
        self._plain = frozenset(place for place, name in enumerate(names) if name not in turned)

    @property
    def raw(self) -> dict[str, tuple[int, ...]]:
        """Names of the inputs that are given raw, each with the dimensions that it may have; none for any.

        What does not say how many it takes keeps them.
        """
        found: dict[str, tuple[int, ...]] = {}
        for place, step in self.pipeline.steps:
            found[self._names[place]] = found.get(self._names[place]) or step.ranks
        return found

    def __call__(self, inputs: Arrays) -> Arrays:
        """Return inputs as the model takes them, batch first; shapes, dtypes and strides as the operations give them.

        Raises:
            UsageError: an input is missing, or an operation cannot take what it gets.
        """
        if not self.pipeline.steps:
            return inputs
        if missing := [name for name in self._names if name not in inputs]:
            raise UsageError(f"inputs are missing: {', '.join(missing)}", next_step=f"give {', '.join(self._names)}")
        key = key_of(inputs) if self.cache.bounds.entries else ""
        if (known := self.cache.get(key)) is not None:
            return known
        try:
            made = self.pipeline.strided(tuple(inputs[name] for name in self._names), self._plain)
        except JobError as error:
            step = "give raw data as the first operation takes them, batch first"
            raise UsageError(error.cause, where=error.where, faults=error.faults, next_step=step) from None
        found = {**inputs, **dict(zip(self._names, made, strict=True))}
        self.cache.put(key, found)
        return found

    def refused(self, inputs: Arrays, error: UsageError, ports: Sequence[Port]) -> UsageError:
        """Return what to say of raw inputs that cannot be preprocessed, or do not fit the model afterwards.

        Args:
            inputs: as they were given, of any shape and dtype.
            error: what was said of them; the model's own shapes in it mislead whoever is to give raw ones.
            ports: the model's inputs, in order.
        """
        if faults := not_finite(inputs):
            return UsageError("the inputs are not finite", faults=faults, next_step="give finite numbers")
        raw = self.raw
        found = {port.name: inputs[port.name] for port in ports if port.name in raw and port.name in inputs}
        bare = [name for name, array in found.items() if raw[name] and array.ndim not in raw[name]]
        bare = [name for name in bare if found[name].ndim + 1 in raw[name]]
        done = [port.name for port in ports if port.name in found and not unfit(port, found[port.name])]
        faults = error.faults or (Fault("", error.cause),)
        step = f"give {', '.join(self._words(port) if port.name in raw else words([port]) for port in ports)}"
        if bare:
            cause = f"{' and '.join(bare)} lacks the axis of the batch"
            return UsageError(cause, where=error.where, faults=faults, next_step="add it: give x[None] in place of x")
        if done:
            cause = f"the bundle preprocesses raw inputs, and {' and '.join(done)} looks preprocessed already"
            return UsageError(cause, where=error.where, faults=faults, next_step=step)
        return UsageError(error.cause, where=error.where, faults=error.faults, next_step=step)

    def _words(self, port: Port) -> str:
        """Return a raw input as a person reads it: its dimensions as far as they are known, and what comes after."""
        place, ranks = self._names.index(port.name), self.raw[port.name]
        steps = [step.name for at, step in self.pipeline.steps if at == place]
        if "to_chw" in steps and len(port.spec.shape) == 4:
            shape = f" [n, height, width, {port.spec.shape[1]}]"
        else:
            shape = f" of {' or '.join(map(str, ranks))} dimensions, the batch included" if ranks else " batch first"
        return f"{port.name} raw,{shape}, as it is before {', '.join(steps)}"


def not_finite(inputs: Arrays, place: str = "") -> tuple[Fault, ...]:
    """Return a fault for each input of floats, of any shape, that has NaN or infinities.

    Args:
        inputs: by name.
        place: what is said behind their names, as of which sample they are.
    """
    counts = {name: int((~np.isfinite(array)).sum()) for name, array in inputs.items() if array.dtype.kind in "fc"}
    return tuple(
        Fault(f"{name}{place}", f"{bad} of its {inputs[name].size} values are NaN or infinite")
        for name, bad in counts.items()
        if bad
    )
