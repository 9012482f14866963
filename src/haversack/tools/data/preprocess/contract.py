"""What a preprocessing operation is: a pure function of one batch of arrays, checked before and after.

Where it can, an operation uses only arithmetic that every machine does alike (integers, or IEEE floats element by
element; no BLAS), so that a device sees the very input that calibration saw; where it cannot, its docstring says so.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from haversack.base.counted import counted
from haversack.base.errors import Fault, JobError


@dataclass(frozen=True)
class Operation(abc.ABC):
    """A preprocessing operation: its settings and what it does to an array, batch first.

    Class attributes:
        ranks: how many dimensions it takes, the batch included; empty for any.
        dtypes: the dtypes it takes; empty for any number.
        elementwise: whether each value is made of the one at its place alone, so that the order of axes is no matter.
        moves: whether it changes the order of axes and nothing else.
    """

    ranks: ClassVar[tuple[int, ...]] = ()
    dtypes: ClassVar[tuple[str, ...]] = ()
    elementwise: ClassVar[bool] = False
    moves: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """The part's name: its file's."""
        return type(self).__module__.rpartition(".")[2]

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """Return the batch after the operation, contiguous: as many rows, shape and dtype as the part's docstring says.

        Raises:
            JobError: the array does not fit, with every fault, or the result is not finite.
        """
        return np.ascontiguousarray(self.strided(batch))

    def strided(self, batch: np.ndarray) -> np.ndarray:
        """Return the same as a call, in whatever strides it was made: an order of axes costs no copy.

        Raises:
            JobError: as a call.
        """
        faults = [Fault("", cause) for cause in [*self._interface_faults(batch), *self._late_faults(batch)]]
        if faults:
            shape = f"{batch.dtype} {list(batch.shape)}"
            raise JobError(f"{self.name} cannot take {shape}", where="preprocess", faults=tuple(faults))
        plain = batch if self.elementwise or self.moves else np.ascontiguousarray(batch)
        result = self._apply(plain)  # strides may decide in which order floats are added
        if len(result) != len(batch):
            raise JobError(f"{self.name} made {counted(len(result), 'row')} of {len(batch)}", where="preprocess")
        if result.dtype.kind == "f" and not self._bounded(batch) and not _finite(result):
            raise JobError(f"{self.name} made NaN or infinite values", where="preprocess")
        return result

    @abc.abstractmethod
    def _apply(self, batch: np.ndarray) -> np.ndarray:
        """Return the batch after the operation; the argument is checked and must not be changed."""

    def _bounded(self, batch: np.ndarray) -> bool:
        """Say whether the result is finite whatever values of its dtype the batch holds; it is not looked at then."""
        return False

    def _faults(self, batch: np.ndarray) -> list[str]:
        """Return what else is wrong with a batch of the right rank and dtype."""
        return []

    def _late_faults(self, batch: np.ndarray) -> list[str]:
        return [] if self._interface_faults(batch) else self._faults(batch)

    def _interface_faults(self, batch: np.ndarray) -> list[str]:
        faults = []
        if batch.ndim == 0 or (self.ranks and batch.ndim not in self.ranks):
            ranks = " or ".join(str(rank) for rank in self.ranks) or "at least 1"
            faults.append(f"it takes {ranks} dimensions, the batch included")
        if batch.size == 0:
            faults.append("it holds no values")
        if self.dtypes and str(batch.dtype) not in self.dtypes:
            faults.append(f"it takes {' or '.join(self.dtypes)}")
        elif batch.dtype.kind not in "biuf":
            faults.append("it takes numbers")
        return faults


def _finite(array: np.ndarray) -> bool:
    """Say whether all values are finite: by the extremes, which are NaN where a value is. It takes no new memory."""
    return not array.size or bool(np.isfinite(array.min()) and np.isfinite(array.max()))
