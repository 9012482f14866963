"""AdaRound: whether a weight is rounded up or down is trained, whole matrices at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from haversack.compress.prepare.by_outputs import ByOutputs, Rows
from haversack.compress.prepare.moments import Moments
from haversack.tools.numerics.soft_rounding import STEPS, softly_rounded


@dataclass(frozen=True)
class Adaround(ByOutputs):
    """Rounds weights as gptq does, then trains for each whether it is rounded up or down, all of a layer at once.

    Nagel et al. 2020 (arXiv:2004.10568, equations 21 to 24): soft roundings between two neighbouring codes, an error
    of outputs and a penalty that decides them. The error is taken by the inputs' second moments, so that an activation
    behind the layer plays no part; targets, refit and bias are gptq's. A row of weights keeps gptq's integers where
    the trained ones lose more; so does a layer where, fitted on half of the samples, they lose more on the other half,
    or where there is no other half. Integers of one bit stay gptq's.

    Attributes:
        samples: rows of calibration samples at most.
        damping: fraction of the Hessian's mean diagonal that is added to it at least; more where the refit needs more.
        megabytes: memory that the activations of all rows may take, in integers and in float side by side; where they
            do not fit, fewer rows are there, and others join as soon as there is room (``stages``).
        steps: of Adam, for each layer.

    Raises:
        ValueError: a setting is not positive.
    """

    steps: int = STEPS

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1:
            raise ValueError(f"steps must be positive, not {self.steps}")

    def _round(self, rows: Rows) -> np.ndarray:
        plain = rows.compensated(rows.whole)
        if rows.encoding.binary or len(rows.halves) < 2:
            return plain
        fitted, held = rows.halves
        start = rows.compensated(fitted)
        better = rows.lost(held, self._trained(rows, fitted, start)) < rows.lost(held, start)
        return self._trained(rows, rows.whole, plain) if better else plain

    def _trained(self, rows: Rows, seen: Moments, start: np.ndarray) -> np.ndarray:
        return softly_rounded(
            rows.target(seen),
            seen.hessian,
            rows.scale,
            rows.encoding.high,
            start,
            damping=rows.damping,
            steps=self.steps,
        )
