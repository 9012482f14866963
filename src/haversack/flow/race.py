"""The race: variants of a plan are simulated on a few rows, and only the winner is worth making real."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from haversack.base.counted import counted
from haversack.base.encodings import Encodings
from haversack.base.model import Port, Sample
from haversack.base.plan import Plan
from haversack.base.progress import Event
from haversack.base.progress import steps as told
from haversack.compress.prepare.contract import SHELF as PREPARE
from haversack.flow.ahead import travelling
from haversack.flow.squeeze import Squeezer
from haversack.flow.steps import Steps
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
    says how good that is. The rows are calibration samples, which set the ranges of the variants as well: errors on
    other samples are larger. That is the same for all variants, but it is no independent judgement.

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
        batches = list(rebatch(steps.model, spread(steps.model.inputs, steps.data.calibration), BATCH))
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


def spread(ports: Sequence[Port], samples: Callable[[], Iterable[Sample]], rows: int = ROWS) -> list[Sample]:
    """Return rows evenly spread over all samples; only these are held.

    Args:
        ports: the model's inputs; where axis 0 of one is fixed, or the inputs of a sample disagree on it, whole samples
            are taken: as few as give that many rows.
        samples: returns the samples, arrays batch first, afresh at each call.
        rows: how many; all where there are fewer.
    """
    lengths, free = [], all(port.spec.shape and isinstance(port.spec.shape[0], str) for port in ports)
    for sample in samples():
        lengths.append(_rows(sample))
        free = free and bool(sample[0].ndim) and len({array.shape[:1] for array in sample}) == 1
    if not free:
        count = min(len(lengths), -(-rows // max(1, min(lengths, default=1))))
        chosen = set(_evenly(len(lengths), count))
        return [sample for index, sample in enumerate(samples()) if index in chosen]
    total = sum(lengths)
    wanted = _evenly(total, min(rows, total))
    found, start = [], 0
    for sample, length in zip(samples(), lengths, strict=True):
        mine = [index - start for index in wanted if start <= index < start + length]
        found += [tuple(array[index : index + 1].copy() for array in sample) for index in mine]
        start += length
    return found


def _evenly(total: int, count: int) -> list[int]:
    return [(2 * index + 1) * total // (2 * count) for index in range(count)]


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
