"""What a model answers: arrays by name, with the labels of the bundle, and which release gave them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from haversack.base.counted import counted
from haversack.base.errors import UsageError


@dataclass(frozen=True)
class Scored:
    """A class: its label, or its number where the bundle has no labels; its number; its score as the model gives it."""

    label: str
    index: int
    score: float


@dataclass(frozen=True, eq=False)
class Answer(Mapping[str, np.ndarray]):
    """Outputs by name, batch first, shapes and dtypes as the model has them; ``np.asarray`` gives the only one.

    Attributes:
        outputs: name -> array, in the model's order.
        version: of the release that gave them: the one before where the guard had set the current one aside.
        labels: of the classes; none where the bundle has none.
        milliseconds: from the call to the answer, waiting and preprocessing among it.
        cached: whether they were taken from the cache.
    """

    outputs: Mapping[str, np.ndarray]
    version: str
    labels: tuple[str, ...] = field(default=(), repr=False)
    milliseconds: float = 0.0
    cached: bool = False

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.outputs:
            raise UsageError(f"the model has no output {name!r}", next_step=f"ask for {', '.join(self.outputs)}")
        return self.outputs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.outputs)

    def __len__(self) -> int:
        return len(self.outputs)

    def __contains__(self, name: object) -> bool:
        return name in self.outputs

    @property
    def array(self) -> np.ndarray:
        """The only output, batch first.

        Raises:
            UsageError: there are several.
        """
        if len(self.outputs) != 1:
            step = f"ask for one by name: {', '.join(self.outputs)}"
            raise UsageError(f"the model has {counted(len(self.outputs), 'output')}", next_step=step)
        return next(iter(self.outputs.values()))

    def __array__(self, dtype: np.dtype[Any] | None = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.array, dtype=dtype, copy=copy)

    def top(self, count: int = 5, output: str = "") -> list[tuple[Scored, ...]]:
        """Return the best classes of each row, best first; of equal scores the one with the lower number.

        Args:
            count: how many of a row, at most.
            output: name of the output with the scores, shape [n, classes]; the only such one if empty.

        Raises:
            UsageError: there is no such output, or ``count`` is below 1.
        """
        if count < 1:
            raise UsageError(f"the best {count} classes are none", where="top")
        scores = self.scores(output)
        best = np.argsort(-scores.astype(np.float64), axis=1, kind="stable")[:, :count]
        return [
            tuple(Scored(self._label(index), index, float(row[index])) for index in map(int, order))
            for row, order in zip(scores, best, strict=True)
        ]

    @property
    def classified(self) -> bool:
        """Whether one output, and no other, has scores of classes."""
        return len(self._fitting()) == 1

    def scores(self, output: str = "") -> np.ndarray:
        """Return the scores of classes, shape [n, classes], of an output by name, or of the only one that has them.

        Raises:
            UsageError: no output has them, or several have.
        """
        fits = self._fitting()
        if output and output not in fits:
            raise UsageError(f"the output {output!r} has no scores of classes", next_step=f"ask for {', '.join(fits)}")
        if not output and len(fits) != 1:
            step = f"name one: {', '.join(fits)}" if fits else f"look at the arrays: {', '.join(self.outputs)}"
            raise UsageError(f"{counted(len(fits), 'output')} can be scores of classes", where="top", next_step=step)
        return self.outputs[output or fits[0]]

    def _fitting(self) -> list[str]:
        classes = len(self.labels)
        return [
            name
            for name, array in self.outputs.items()
            if array.ndim == 2 and array.dtype.kind in "fiu" and classes in (0, array.shape[1])
        ]

    def _label(self, index: int) -> str:
        return self.labels[index] if self.labels else str(index)
