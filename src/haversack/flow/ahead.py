"""Plans applied elsewhere, all at once: what applies them as it travels, and what comes back."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from haversack.base.encodings import Encodings
from haversack.base.errors import ConversionError, VerificationError
from haversack.base.finding import Finding
from haversack.base.model import Model, Sample
from haversack.base.plan import Plan
from haversack.base.profile import TensorStatistics
from haversack.base.progress import Sink, silent, steps
from haversack.base.spread import Spread, here
from haversack.compress.apply import Compressed
from haversack.flow.data import Data
from haversack.flow.squeeze import Squeezer
from haversack.profile.ranges import ranges


@dataclass(frozen=True)
class Held:
    """Samples that are held, in the place of what returns them afresh at each call; unlike that it can travel."""

    batches: Sequence[Sample]

    def __call__(self) -> Iterator[Sample]:
        """Return them."""
        return iter(self.batches)


@dataclass(frozen=True)
class Ranged:
    """Activation ranges of the folded model that are known; those of a model that preparation changed are taken anew.

    Attributes:
        digest: of the folded model.
        known: its ranges.
        samples: calibration batches.
    """

    digest: str
    known: Mapping[str, TensorStatistics]
    samples: Held

    def __call__(self, model: Model) -> Mapping[str, TensorStatistics]:
        """Return a model's ranges."""
        return self.known if model.digest == self.digest else ranges(model, self.samples.batches)


@dataclass(frozen=True)
class Applied:
    """What applying a plan changed; the rest of the model need not travel.

    Attributes:
        weights: name -> those that changed, in their shapes and dtypes.
        notes: of the model.
        encodings, findings: as ``Compressed`` has them.
    """

    weights: Mapping[str, np.ndarray]
    notes: tuple[str, ...]
    encodings: Encodings
    findings: tuple[Finding, ...]

    def whole(self, model: Model) -> Compressed:
        """Return the model with a plan applied."""
        return Compressed(replace(model.with_weights(self.weights), notes=self.notes), self.encodings, self.findings)


def applied(squeezer: Squeezer, plan: Plan) -> Applied:
    """Return what a plan changes.

    Raises:
        UsageError, ConversionError, JobError, VerificationError: as ``compress.apply``.
    """
    made, weights = squeezer(plan), squeezer.model.weights
    assert made.model.program is squeezer.model.program, "no step of preparation changes the graph of a folded model"
    changed = {name: value for name, value in made.model.weights.items() if value is not weights[name]}
    return Applied(changed, made.model.notes, made.encodings, made.findings)


def travelling(squeezer: Squeezer, data: Data, spread: Spread) -> tuple[Spread, Squeezer]:
    """Return where plans are applied, and what applies them there: as values, that can travel.

    It is here, and the very squeezer, where nothing is spread, or the calibration set is too large to be kept in
    memory: then it does not travel.
    """
    kept = data.kept_calibration() if spread is not here else None
    if kept is None:
        return here, squeezer
    samples = Held(kept)
    known = Ranged(squeezer.model.digest, squeezer.ranges(squeezer.model), samples)
    return spread, replace(squeezer, ranges=known, samples=samples, made=OrderedDict(), ahead={})


def apply_ahead(squeezer: Squeezer, plans: Iterable[Plan], data: Data, spread: Spread, sink: Sink = silent) -> None:
    """Apply plans that will all be asked for, at once, where that is not here; one alone would gain nothing.

    Args:
        squeezer: will be asked for them, and then has them.
        plans: those that do not differ but in targets with equal demands are one.
        data: the samples that they are applied with.
        spread: where that may be done.
        sink: told of the progress.

    Raises:
        JobError, UsageError: the job is at fault. What else fails is told by the plan that fails, when it is made.
    """
    wanted = {key: plan for plan in plans if (key := squeezer.key(plan)) not in {*squeezer.made, *squeezer.ahead}}
    if len(wanted) < 2 or spread is here:
        return
    where, far = travelling(squeezer, data, spread)
    if where is here:
        return
    made = where(applied, far, list(wanted.values()))
    with suppress(ConversionError, VerificationError):
        for key in steps(wanted, sink, "compress", "plans applied at once", len(wanted)):
            squeezer.ahead[key] = next(made).whole(squeezer.model)
