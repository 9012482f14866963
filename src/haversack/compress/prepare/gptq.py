"""GPTQ: integers are chosen so that a layer's outputs, not its weights, come nearest to float."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from haversack.compress.prepare.by_outputs import ByOutputs, Rows


@dataclass(frozen=True)
class Gptq(ByOutputs):
    """Rounds weights so that a layer's outputs come nearest to float on what the quantized layers before it give.

    Layer after layer: the float weights are refitted to the inputs as they arrive (ridge regression on exact against
    arriving inputs, damped as does best on half of the samples when fitted on the other half), then rounded column by
    column, each column making up for the error of those before it (Frantar et al. 2022, arXiv:2210.17323), with
    centred Hessians, one for each group of a convolution. The bias takes the rest of the mean, as in ``bias_correct``.
    The new weights are the values of integers at the scales that the encodings have; up to four bits have new scales
    (``ByOutputs``). Layers without a bias of their own, or with a weight that others read, are left alone; of one with
    a palette only the bias changes.

    Attributes:
        samples: rows of calibration samples at most.
        damping: fraction of the Hessian's mean diagonal that is added to it at least; more where the refit needs more.
        megabytes: memory that the activations of all rows may take, in integers and in float side by side; where they
            do not fit, fewer rows are there, and others join as soon as there is room (``stages``).

    Raises:
        ValueError: a setting is not positive.
    """

    def _round(self, rows: Rows) -> np.ndarray:
        return rows.compensated(rows.whole)
