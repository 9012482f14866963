"""What the measurements say that a user must know."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from haversack.base.finding import Finding
from haversack.measure.noise import Difference

NOISY_SPREAD = 0.05


def of_speed(difference: Difference) -> tuple[Finding, ...]:
    """Return *slower-than-float* when an artefact is slower beyond the noise, *noisy* when nobody can say.

    Args:
        difference: the artefact's times against the float file's.
    """
    if difference.different and difference.ratio > 1:
        return (Finding("slower-than-float", f"its time against float's is {difference.why}"),)
    if not difference.different and difference.spread > NOISY_SPREAD:
        return (Finding("noisy", f"its speed cannot be told from float's here: {difference.why}"),)
    return ()


def of_outputs(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> tuple[Finding, ...]:
    """Return *not-finite* and *nondeterministic* for the outputs, by name, of two runs on the same inputs.

    Values are compared bit for bit, and shapes and dtypes with them.
    """
    findings = []
    for name, array in first.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            bad = array.size - int(np.isfinite(array).sum())
            text = f"output {name}: {bad} of its {array.size} values are NaN or infinite"
            findings.append(Finding("not-finite", text))
    differing = [name for name in {**first, **second} if not _same(first.get(name), second.get(name))]
    if differing:
        text = f"two runs on the same inputs differ in {', '.join(differing)}"
        findings.append(Finding("nondeterministic", text))
    return tuple(findings)


def _same(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    if one is None or other is None:
        return False
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
