"""The race: variants of a plan are simulated on a few rows, and only the winner is worth making real."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from haversack.base.counted import counted
from haversack.base.encodings import Encodings
from haversack.base.model import Sample
from haversack.base.plan import Plan
from haversack.base.progress import Event
from haversack.base.progress import steps as told
from haversack.compress.prepare.contract import SHELF as PREPARE
from haversack.flow.ahead import travelling
from haversack.flow.squeeze import Squeezer
from haversack.flow.steps import Steps
from haversack.tools.data.stock import Stock
from haversack.tools.graph.batches import rebatch
from haversack.tools.graph.simulate import Simulator
from haversack.tools.numerics.relative import Errors

ROWS, BATCH = 16, 4
"""Rows of calibration samples that every variant is simulated on, at most where batches can be cut, and how many at
once."""
LEAD = 0.03
"""A later variant must be better than an earlier one by this fraction: less is chance on so few rows."""


@dataclass(frozen=True)
class Raced:
    """What a race ends with.

    Attributes:
        order: the plans, the winner first, the others by their forecast error.
        lost: digest of every other plan -> why it is not made.
        rows: how many rows each was simulated on.
    """

    order: tuple[Plan, ...]
    lost: Mapping[str, str] = field(default_factory=dict)
    rows: int = 0


def race(steps: Steps, variants: Sequence[Plan]) -> Raced:
    """Return the variants with the one in front whose simulated outputs are nearest to the float model's.

    Simulated are weights and activations in float32, without the steps that need encodings first (bias correction
    helps them all); relative errors rank recipes, so a *forecast* says who is made real first, and only measurement
    says how good that is. The rows are held back from what sets ranges, and evenly spread over them; where there are
    too few to hold some back they set the ranges of the variants as well, and errors on other samples are larger.

    Args:
        steps: of the run: its model, calibration data, ranges and ledger.
        variants: the first one is preferred where the difference means little.

    Raises:
        JobError: no calibration samples, or NaN in weights or activations.
    """
    if len(variants) < 2:
        return Raced(tuple(variants))
    errors, rows = _errors(steps, variants)
    winner = 0
    for index, error in enumerate(errors):
        if error < errors[winner] * (1.0 - LEAD):
            winner = index
    first = variants[winner]
    lost = {
        plan.digest: _why(error, errors[winner], first.origin, rows)
        for plan, error in zip(variants, errors, strict=True)
        if plan is not first
    }
    others = sorted((index for index in range(len(variants)) if index != winner), key=errors.__getitem__)
    return Raced((first, *(variants[index] for index in others)), lost, rows)


def _why(error: float, least: float, winner: str, rows: int) -> str:
    """Say in words why a variant did not win."""
    where = f"simulated on {counted(rows, 'calibration row')}"
    if not math.isfinite(error):
        return f"its forecast output is not finite ({where})"
    if error < least:
        return f"forecast output error {error:.4f} does not lead {least:.4f} of {winner} by {LEAD:.0%} ({where})"
    return f"forecast output error {error:.4f}, {winner} has {least:.4f} ({where})"


def _errors(steps: Steps, variants: Sequence[Plan]) -> tuple[list[float], int]:
    """Return the simulated relative error of each variant's outputs, and on how many rows."""

    def make() -> tuple[np.ndarray, int]:
        rows = Stock.of(steps.model.inputs, steps.data.held).take(1, ROWS)
        batches = list(rebatch(steps.model, rows, BATCH))
        exact = Simulator(steps.model).run(Encodings.none(), batches)
        tell = steps.shop.tell
        tell(Event("choose", "start", f"{counted(len(variants), 'variant')} by simulation"))
        run, squeeze = travelling(steps.squeeze, steps.data, steps.spread)
        found = run(error_of, Course(squeeze, tuple(batches), tuple(exact)), variants)
        errors = [next(found) for _ in told(variants, tell, "choose", "variants by simulation", len(variants))]
        return np.array(errors), sum(map(_rows, batches))

    found, rows = steps.shop.remember(
        "choose",
        "race of variants",
        [*(plan.shared_digest for plan in variants), ROWS, *steps.content],
        make,
        save=lambda made: ({"rows": made[1]}, {"errors": made[0]}),
        load=lambda data, arrays: (arrays["errors"], int(data["rows"])),
    )
    return [float(error) for error in found], rows


def _rows(sample: Sample) -> int:
    return int(sample[0].shape[0]) if sample[0].ndim else 1


@dataclass(frozen=True, eq=False)
class Course:
    """What every variant is run on.

    Attributes:
        squeeze: applies plans.
        batches: the rows.
        exact: the float model's outputs on them.
    """

    squeeze: Squeezer
    batches: tuple[Sample, ...]
    exact: tuple[tuple[np.ndarray, ...], ...]


def error_of(course: Course, plan: Plan) -> float:
    """Return the simulated relative error of a variant's outputs (``Errors.moved``), infinite where not finite.

    Raises:
        JobError: NaN in weights or activations.
    """
    early = [step for step in plan.prepare if "encodings" not in PREPARE.build(step.part, step.settings).needs]
    squeezed = course.squeeze(replace(plan, prepare=tuple(early)))
    made = Simulator(squeezed.model).run(squeezed.encodings, course.batches)
    errors = Errors()
    for row, exact in zip(made, course.exact, strict=True):
        errors.add(row, exact)
    return errors.moved if math.isfinite(errors.moved) else math.inf
