"""The reference: the meaning of an encoded graph, which every runtime must repeat bit for bit where it is all integers.

It is no runtime and no part of the shelf: it writes no file. ``interpret`` decides which unit runs in integers (the law
in ``base.encodings``), ``layer`` and ``combine`` say what that means, ``grid`` moves values onto their integers;
``symmetric`` is the rounding of a runtime that has signed codes around 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from haversack.base.encodings import Encodings
from haversack.base.model import Model, Sample

if TYPE_CHECKING:
    from haversack.targets.reference.interpret import Interpreter

Observe = Callable[[str, np.ndarray], None]


@dataclass(frozen=True)
class Reference:
    """Executes a model with its encodings exactly.

    Attributes:
        integer_ops: the ops that run in integers where their tensors allow it; None for all whose integer meaning is
            known (conv1d, conv2d, linear, add, spatial mean).
        at_once: rows of a batch computed together, which bounds the memory; 0 for whole batches. Batches are cut only
            where that cannot change a value: a free batch dimension in all inputs and outputs, nothing Dynamic.
        arithmetic: ``law``, or ``symmetric`` for a runtime whose codes end at -127 and round half away from zero.
    """

    integer_ops: frozenset[str] | None = None
    at_once: int = 4
    arithmetic: str = "law"

    def opened(self, model: Model, encodings: Encodings) -> Interpreter:
        """Return the model ready to run many times (``Interpreter.run``).

        Raises:
            ConversionError: encodings that the reference cannot execute, all of them at once.
        """
        from haversack.targets.reference.interpret import Interpreter

        return Interpreter(model, encodings, self.integer_ops, self.at_once, self.arithmetic)

    def run(
        self, model: Model, encodings: Encodings, inputs: Sample, *, observe: Observe | None = None
    ) -> tuple[np.ndarray, ...]:
        """Run one batch and return the outputs as float32 values (see ``Interpreter.run``)."""
        return self.opened(model, encodings).run(inputs, observe=observe)
