"""A list of operations as data, validated with every fault at once; it ships in the bundle as it stands."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from haversack.base import digest
from haversack.base.errors import Fault, JobError, UsageError
from haversack.base.model import Sample
from haversack.base.recipe import unstructure
from haversack.base.shelf import Shelf
from haversack.tools.data.preprocess.contract import Operation

SHELF = Shelf("haversack.tools.data.preprocess", "operation", also=frozenset({"pipeline"}))
_EXAMPLES = {
    "preprocess": 'preprocess = [{"op": "resize", "short_side": 256}, {"op": "center_crop"}, {"op": "normalize"}]',
    "degraded": 'degraded = [{"op": "blur", "sigma": 1.5}, {"op": "noise", "level": 0.1}]',
}


@dataclass(frozen=True)
class Pipeline:
    """Operations in order, each on one input of the model.

    Attributes:
        steps: (index of the input, operation).
        name: of the list in the job, for errors.
    """

    steps: tuple[tuple[int, Operation], ...] = ()
    name: str = field(default="preprocess", compare=False)

    @classmethod
    def parse(cls, entries: Sequence[Mapping[str, Any]], *, name: str = "preprocess") -> Pipeline:
        """Read ``[{"op": NAME, "input": 0, SETTING: …}, …]``; ``input`` is 0 unless it is said.

        Args:
            entries: one for each operation, in order.
            name: of the list in the job.

        Raises:
            JobError: with every fault of every entry, as ``preprocess[INDEX].FIELD``, the nearest name shown.
        """
        steps: list[tuple[int, Operation]] = []
        faults: list[Fault] = []
        for index, entry in enumerate(entries):
            try:
                steps.append(_step(entry))
            except UsageError as error:
                place = f"{name}[{index}]"
                inner = error.faults or (Fault(error.where, error.cause),)
                faults += [Fault(f"{place}.{fault.where}".rstrip("."), fault.cause) for fault in inner]
        if faults:
            step = f"{_EXAMPLES.get(name, _EXAMPLES['preprocess'])}    (has: {', '.join(SHELF.names())})"
            raise JobError(f"{name} cannot be read", where=name, faults=tuple(faults), next_step=step)
        return cls(tuple(steps), name)

    def __call__(self, sample: Sample) -> Sample:
        """Return a raw sample as the model takes it.

        Raises:
            JobError: an operation cannot take what it gets; ``where`` is ``preprocess[INDEX].OP``.
        """
        return tuple(np.ascontiguousarray(array) for array in self.strided(sample, range(len(sample))))

    def strided(self, sample: Sample, plain: Collection[int] = ()) -> Sample:
        """Return the same as a call, in whatever strides the last operations leave: a runtime may want other axes.

        Axes are moved before values are computed, where that is the same: they are fewer bytes then.

        Args:
            sample: raw.
            plain: indices of inputs whose axes are moved in memory, not only in strides: their runtime wants them so.

        Raises:
            JobError: as a call.
        """
        order = self._order()
        try:
            return self._through(order, sample, plain)
        except JobError:
            if order == sorted(order):
                raise
            return self._through(sorted(order), sample, plain)  # it tells of the first that is wrong

    def _through(self, order: Sequence[int], sample: Sample, plain: Collection[int]) -> Sample:
        found = tuple(sample)
        for index in order:
            found = self._after(index, found)
            place, operation = self.steps[index]
            if operation.moves and place in plain:
                found = (*found[:place], np.ascontiguousarray(found[place]), *found[place + 1 :])
        return found

    def _order(self) -> list[int]:
        """Return the order in which the operations are computed."""
        order: list[int] = []
        for index, (place, operation) in enumerate(self.steps):
            at = index
            while operation.moves and at and self.steps[order[at - 1]][0] == place and self._elementwise(order[at - 1]):
                at -= 1
            order.insert(at, index)
        return order

    def _elementwise(self, index: int) -> bool:
        return self.steps[index][1].elementwise

    def alone(self, index: int, sample: Sample) -> Sample:
        """Return a sample after one operation of the list, by its place in it.

        Raises:
            JobError: as in a call.
        """
        return tuple(np.ascontiguousarray(array) for array in self._after(index, sample))

    def _after(self, index: int, sample: Sample) -> Sample:
        place, operation = self.steps[index]
        where = f"{self.name}[{index}].{operation.name}"
        if place >= len(sample):
            raise JobError(f"there is no input {place}: the sample has {len(sample)}", where=where)
        try:
            changed = operation.strided(sample[place])
        except JobError as error:
            raise JobError(error.cause, where=where, faults=error.faults) from error
        return (*sample[:place], changed, *sample[place + 1 :])

    def over(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """Yield every sample as the model takes it; errors as in a call."""
        return (self(sample) for sample in samples)

    def data(self) -> list[dict[str, Any]]:
        """Return the list as JSON-able data with every setting said, so that it outlives a change of defaults."""
        return [{"op": step.name, "input": place, **unstructure(step)} for place, step in self.steps]

    @property
    def digest(self) -> str:
        """Content digest: the same for a list that leaves defaults out and one that says them."""
        return digest.of_data(self.data())


def _step(entry: object) -> tuple[int, Operation]:
    if not isinstance(entry, Mapping) or not all(isinstance(key, str) for key in entry):
        raise UsageError(f"it is a {type(entry).__name__}, not a dictionary with names")
    settings = dict(entry)
    name, place = settings.pop("op", None), settings.pop("input", 0)
    faults = []
    if not isinstance(name, str):
        faults.append(Fault("op", "it must name an operation"))
    if type(place) is not int or place < 0:
        faults.append(Fault("input", f"{place!r} is not the index of an input"))
    operation = None
    try:
        operation = SHELF.build(name, settings) if isinstance(name, str) else None
    except UsageError as error:
        faults += error.faults or (Fault("op", error.cause),)
    if faults or not isinstance(operation, Operation):
        raise UsageError("it cannot be read", faults=tuple(faults))
    return place, operation
