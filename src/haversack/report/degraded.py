"""What ships on inputs made worse, as ``report.json`` holds it, beside the same samples as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class DegradedRecord:
    """One target's artefact and the float model on inputs made worse in one way; a number is None where there is none.

    Values are the metric's; drops are the artefact's against float on the same samples, positive is worse.

    Attributes:
        target: the runtime.
        degradation: ``blur(sigma=1.5)``.
        settings: the operation with every setting said, as the job's list would have it.
        samples: how many samples of the untouched half were scored.
        value, clean_value: of the artefact, on inputs made worse and on the same as they are.
        float_value, float_clean_value: of the float model; None for a metric against float, which says nothing of it.
        drop, drop_low, drop_high: on inputs made worse, with a paired 95 % interval.
        clean_drop: on the same samples as they are.
        excess, excess_low, excess_high: ``drop - clean_drop``, with a paired 95 % interval.
        less_robust: whether the interval of the excess lies above 0, or float can be scored and the artefact cannot.
        against_float: whether the metric is one against float.
        cause: why something could not be scored; empty where all could.
    """

    target: str
    degradation: str
    settings: Mapping[str, Any] = field(hash=False)
    samples: int
    value: float | None = None
    clean_value: float | None = None
    float_value: float | None = None
    float_clean_value: float | None = None
    drop: float | None = None
    drop_low: float | None = None
    drop_high: float | None = None
    clean_drop: float | None = None
    excess: float | None = None
    excess_low: float | None = None
    excess_high: float | None = None
    less_robust: bool = False
    against_float: bool = False
    cause: str = ""

    @property
    def change(self) -> float | None:
        """How the artefact's value changes by the degradation."""
        return _between(self.value, self.clean_value)

    @property
    def float_change(self) -> float | None:
        """How the float model's value changes by the degradation."""
        return _between(self.float_value, self.float_clean_value)


def _between(there: float | None, clean: float | None) -> float | None:
    return None if there is None or clean is None else there - clean
