"""What a program does outside of its delegates: calls of kernels, and the constants that they read.

Read by slots of ``program.fbs`` (ExecuTorch 1.x); nothing is trusted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from haversack.tools.formats.flat import Spoiled, Table

CHAR, FLOAT = 1, 6
"""ExecuTorch's numbers of int8 and float32."""
_DTYPES: dict[int, np.dtype[Any]] = {CHAR: np.dtype(np.int8), FLOAT: np.dtype("<f4")}
_NULL, _TENSOR = 1, 5
_KERNEL_CALL = 1


@dataclass(frozen=True)
class Calls:
    """The instructions of a method.

    Attributes:
        made: (operator's name, numbers of its arguments) of each instruction; a call of a delegate has no name.
        values: tables of the method's values: their kind and what they are.
        offsets: where each constant begins in ``held``.
        held: the constants' bytes.
    """

    made: tuple[tuple[str, tuple[int, ...]], ...] = ()
    values: tuple[Table, ...] = field(default=(), repr=False)
    offsets: tuple[int, ...] = field(default=(), repr=False)
    held: memoryview = field(default=memoryview(b""), repr=False)

    def is_null(self, index: int) -> bool:
        """Say whether a value is none.

        Raises:
            Spoiled: there is no such value.
        """
        return self._value(index).integer(0, "B") == _NULL

    def constant(self, index: int, kind: int) -> np.ndarray:
        """Return a constant tensor of a kind, as a view of the file.

        Raises:
            Spoiled: the value is none, or its bytes are not in the file.
        """
        value = self._value(index)
        tensor = value.table(1)
        if value.integer(0, "B") != _TENSOR or tensor is None or tensor.integer(0, "b") != kind:
            raise Spoiled(f"value {index} is no constant of kind {kind}")
        shape, number = tensor.numbers(2, "i"), tensor.integer(5)
        if not 0 < number < len(self.offsets) or min(shape, default=0) < 0:
            raise Spoiled(f"value {index} of shape {shape} has no constant {number}")
        count, start = prod(shape), self.offsets[number]
        if start + count * _DTYPES[kind].itemsize > len(self.held):
            raise Spoiled(f"a constant of shape {shape} leads out of the file")
        return np.frombuffer(self.held, _DTYPES[kind], count, start).reshape(shape)

    def _value(self, index: int) -> Table:
        if not 0 <= index < len(self.values):
            raise Spoiled(f"there is no value {index}")
        return self.values[index]


def calls(program: Table, plan: Table, segment: Callable[[int], memoryview]) -> Calls:
    """Return the calls of a method.

    Args:
        program: root of the file.
        plan: the method.
        segment: index -> the bytes of a segment.

    Raises:
        Spoiled: they are not as ExecuTorch writes them.
    """
    names = [operator.text(0) for operator in plan.tables(6)]
    made: list[tuple[str, tuple[int, ...]]] = []
    for step in (step for chain in plan.tables(5) for step in chain.tables(2)):
        call = step.table(1)
        if step.integer(0, "B") != _KERNEL_CALL or call is None:
            made.append(("", ()))
            continue
        index = call.integer(0, "i")
        if not 0 <= index < len(names):
            raise Spoiled(f"there is no operator {index}")
        made.append((names[index], call.numbers(1, "i")))
    stored = program.table(5)
    offsets = () if stored is None else stored.numbers(1, "Q")
    held = memoryview(b"") if stored is None or not offsets else segment(stored.integer(0))
    return Calls(tuple(made), plan.tables(2), offsets, held)
