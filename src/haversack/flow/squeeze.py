"""Plans applied once for all runtimes: one set of integers, scales and zero-points, whatever it is injected into."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from haversack.base.constraints import Constraints
from haversack.base.model import Model, Sample
from haversack.base.plan import Plan
from haversack.base.profile import TensorStatistics
from haversack.base.progress import Event, Sink, silent
from haversack.compress.apply import Compressed, apply

KEPT = 2
"""Results that are remembered: the next runtime asks for the plan that the last one was measured with."""


@dataclass(frozen=True)
class Squeezer:
    """Applies plans to one model.

    Attributes:
        model: the folded float model.
        ranges: gives a model's activation ranges.
        constraints: target -> its own, with those of all selected targets that it shares encodings with.
        samples: returns calibration batches, afresh at each call.
        made: digest of a plan without its target -> what it gave.
        ahead: the like of plans that were applied before anybody asked; each until it is asked for.
    """

    model: Model
    ranges: Callable[[Model], Mapping[str, TensorStatistics]]
    constraints: Mapping[str, Constraints]
    samples: Callable[[], Iterable[Sample]]
    made: OrderedDict[str, Compressed] = field(default_factory=OrderedDict, compare=False)
    ahead: dict[str, Compressed] = field(default_factory=dict, compare=False)

    def __call__(self, plan: Plan, sink: Sink = silent) -> Compressed:
        """Return the prepared model and its encodings; what differs in a target with equal demands is not made again.

        Args:
            plan: its layers name nodes of the prepared graph.
            sink: told of each step.

        Raises:
            UsageError, ConversionError, JobError, VerificationError: as ``compress.apply``.
        """
        constraints = self.constraints[plan.target]
        key = self.key(plan)
        if key in self.ahead:
            self.made[key] = self.ahead.pop(key)
        if key not in self.made:
            self._tell(plan.target, sink)
            self.made[key] = apply(
                self.model,
                plan,
                ranges=self.ranges,
                constraints=constraints,
                samples=self.samples,
                sink=sink,
            )
        self.made.move_to_end(key)
        while len(self.made) > KEPT:
            self.made.popitem(last=False)
        return self.made[key]

    def key(self, plan: Plan) -> str:
        """Return what decides the result of a plan."""
        return f"{plan.shared_digest} {self.alike(plan.target)}"

    def _tell(self, target: str, sink: Sink) -> None:
        """Say that demands contradict each other, where they do: then each side gets encodings of its own."""
        alike = self.alike(target)
        if others := [name for name in self.constraints if name not in alike]:
            text = f"encodings for {', '.join(alike)} alone: what {', '.join(others)} demands contradicts them"
            sink(Event("compress", "note", text))

    def alike(self, target: str) -> tuple[str, ...]:
        """Return the targets that one set of encodings serves, this one among them."""
        return tuple(name for name, one in self.constraints.items() if one == self.constraints[target])


def together(constraints: Mapping[str, Constraints]) -> dict[str, Constraints]:
    """Return target -> the union of all that can share its encodings.

    Targets that take symmetric activations only cannot share with those whose grids do the clamping: a grid that
    starts at a clamp's lower end has no code below it. Each side gets encodings of its own.

    Args:
        constraints: target -> what it demands.

    Raises:
        ValueError: as ``Constraints.union``.
    """
    return {
        name: Constraints.union(other for other in constraints.values() if other.symmetric == one.symmetric)
        for name, one in constraints.items()
    }


def groupable(constraints: Iterable[Constraints]) -> dict[str, frozenset[int]]:
    """Return node key -> how many 4-bit weights may share a scale in the files of every target."""
    first, *others = (one.groups for one in constraints)
    common = {key: found.intersection(*(one.get(key, ()) for one in others)) for key, found in first.items()}
    return {key: found for key, found in common.items() if found}


def narrowable(constraints: Iterable[Constraints]) -> dict[str, frozenset[int]]:
    """Return node key -> fewer bits than 8 in which the files of some target can hold its weights."""
    found: dict[str, frozenset[int]] = {}
    for one in constraints:
        for key, widths in one.widths.items():
            found[key] = found.get(key, frozenset()) | widths
    return found
