"""Plans applied once for all runtimes: one set of integers, scales and zero-points, whatever it is injected into."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from haversack.base.constraints import Constraints
from haversack.base.model import Model, Sample
from haversack.base.plan import Plan
from haversack.base.profile import TensorStatistics
from haversack.base.progress import Sink, silent
from haversack.compress.apply import Compressed, apply

KEPT = 2
"""Results that are remembered: the next runtime asks for the plan that the last one was measured with."""


@dataclass(frozen=True)
class Squeezer:
    """Applies plans to one model.

    Attributes:
        model: the folded float model.
        ranges: gives a model's activation ranges.
        constraints: of all selected targets together.
        samples: returns calibration batches, afresh at each call.
        made: digest of a plan without its target -> what it gave.
    """

    model: Model
    ranges: Callable[[Model], Mapping[str, TensorStatistics]]
    constraints: Constraints
    samples: Callable[[], Iterable[Sample]]
    made: OrderedDict[str, Compressed] = field(default_factory=OrderedDict, compare=False)

    def __call__(self, plan: Plan, sink: Sink = silent) -> Compressed:
        """Return the prepared model and its encodings; a plan that differs in its target alone is not applied again.

        Args:
            plan: its layers name nodes of the prepared graph.
            sink: told of each step.

        Raises:
            UsageError, ConversionError, JobError, VerificationError: as ``compress.apply``.
        """
        key = replace(plan, target="").digest
        if key not in self.made:
            self.made[key] = apply(
                self.model,
                plan,
                ranges=self.ranges,
                constraints=self.constraints,
                samples=self.samples,
                sink=sink,
            )
        self.made.move_to_end(key)
        while len(self.made) > KEPT:
            self.made.popitem(last=False)
        return self.made[key]
