"""The race: variants of a plan are simulated on a few rows, and only the winner is worth making real."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from haversack.base.encodings import Encodings
from haversack.base.model import Sample
from haversack.base.plan import Plan
from haversack.base.progress import Event
from haversack.compress.prepare.contract import SHELF as PREPARE
from haversack.compress.prepare.contract import relative_error
from haversack.flow.steps import Steps
from haversack.profile.sensitivity import hold_back
from haversack.tools.graph.batches import rebatch
from haversack.tools.graph.simulate import Simulator

ROWS, BATCH = 16, 4
"""Rows of calibration samples that every variant is simulated on, and how many at once."""
LEAD = 0.03
"""A later variant must be better than an earlier one by this fraction: less is chance on so few rows."""


@dataclass(frozen=True)
class Raced:
    """What a race ends with.

    Attributes:
        order: the plans, the winner first.
        lost: digest of every other plan -> why it is not made.
    """

    order: tuple[Plan, ...]
    lost: Mapping[str, str] = field(default_factory=dict)


def race(steps: Steps, variants: Sequence[Plan]) -> Raced:
    """Return the variants with the one in front whose simulated outputs are nearest to the float model's.

    Simulated are weights and activations in float32, without the steps that need encodings first (bias correction
    helps them all); relative errors rank recipes, so a *forecast* says who is made real, and only measurement says how
    good that is.

    Args:
        steps: of the run: its model, calibration data, ranges and ledger.
        variants: the first one is preferred where the difference means little.

    Raises:
        JobError: no calibration samples, or NaN in weights or activations.
    """
    if len(variants) < 2:
        return Raced(tuple(variants))
    errors = _errors(steps, variants)
    winner = 0
    for index, error in enumerate(errors):
        if error < errors[winner] * (1.0 - LEAD):
            winner = index
    first = variants[winner]
    said = f"its output error of {errors[winner]:.4f}, by simulation on {ROWS} calibration samples"
    lost = {
        plan.digest: f"forecast output error {error:.4f} is no better than {first.origin} with {said}"
        for plan, error in zip(variants, errors, strict=True)
        if plan is not first
    }
    return Raced((first, *(plan for plan in variants if plan is not first)), lost)


def _errors(steps: Steps, variants: Sequence[Plan]) -> list[float]:
    """Return the simulated relative error of each variant's outputs."""

    def make() -> np.ndarray:
        _, held = hold_back(list(steps.data.calibration()), ROWS)
        batches = list(rebatch(steps.model, held, BATCH))[: -(-ROWS // BATCH)]
        simulator = Simulator(steps.model)
        exact = simulator.run(Encodings.none(), batches)
        steps.shop.tell(Event("choose", "start", f"{len(variants)} variants by simulation"))
        return np.array([_error(steps, plan, simulator, batches, exact) for plan in variants])

    found: np.ndarray = steps.shop.remember(
        "choose",
        "race of variants",
        [*(replace(plan, target="").digest for plan in variants), ROWS, *steps.content],
        make,
        save=lambda made: ({}, {"errors": made}),
        load=lambda _, arrays: arrays["errors"],
    )
    return [float(error) for error in found]


def _error(
    steps: Steps, plan: Plan, simulator: Simulator, batches: Sequence[Sample], exact: Sequence[tuple[np.ndarray, ...]]
) -> float:
    early = [step for step in plan.prepare if "encodings" not in PREPARE.build(step.part, step.settings).needs]
    squeezed = steps.squeeze(replace(plan, prepare=tuple(early)))
    same = squeezed.model.digest == steps.model.digest
    walker = simulator if same else Simulator(squeezed.model)
    made = walker.run(squeezed.encodings, batches)
    error = relative_error(
        (value for row in made for value in row if value.dtype.kind == "f"),
        (value for row in exact for value in row if value.dtype.kind == "f"),
    )
    return error if math.isfinite(error) else math.inf
