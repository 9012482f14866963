"""Sensitivity: how far the model's output moves when one layer alone is stored and run in fewer bits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np

from haversack.base.encodings import Encodings
from haversack.base.errors import JobError
from haversack.base.graph import Node
from haversack.base.model import Model, Sample
from haversack.base.plan import LayerPlan
from haversack.base.progress import Sink, silent, steps
from haversack.base.spread import Light, Spread, here
from haversack.tools.graph import tied
from haversack.tools.graph.batches import rebatch
from haversack.tools.graph.simulate import Simulator
from haversack.tools.numerics.relative import Errors

Perturb = Callable[[Model, str, LayerPlan], Encodings]
"""Model, node key of a layer, its plan -> the encodings when only that layer, with what reads the same weight, has it;
empty where it cannot."""
Ways = Callable[[Node], Mapping[str, LayerPlan]]
"""Node -> kind (``LayerPlan.kind``) -> the plan that is tried for it."""

ROWS = 4
"""Rows of samples that are run for each layer and precision, at least, and how many at once."""


@dataclass(frozen=True, eq=False)
class Held(Light):
    """What the output of a perturbed model is held against.

    Attributes:
        model: the prepared model.
        perturb: see ``Perturb``.
        batches: the rows that are run.
        exact: the float outputs on them, batch by batch.
    """

    model: Model
    perturb: Perturb
    batches: tuple[Sample, ...]
    exact: tuple[tuple[np.ndarray, ...], ...]

    @cached_property
    def simulator(self) -> Simulator:
        """What runs the model."""
        return Simulator(self.model)


def moved(held: Held, task: tuple[str, LayerPlan]) -> float | None:
    """Return the relative error of the output when one layer alone has a plan; None where it cannot have it.

    Args:
        held: what it is held against.
        task: node key of the layer, and its plan.
    """
    encodings = held.perturb(held.model, *task)
    if not encodings.tensors:
        return None
    errors = Errors()
    for made, exact in zip(held.simulator.run(encodings, held.batches), held.exact, strict=True):
        errors.add(made, exact)
    return errors.relative


def sensitivity(
    model: Model,
    perturb: Perturb,
    samples: Iterable[Sample],
    sink: Sink = silent,
    *,
    ways: Ways = lambda _: {"int8": LayerPlan()},
    spread: Spread = here,
    rows: int = ROWS,
) -> dict[str, dict[str, float]]:
    """Return node key of each layer -> kind -> relative error of the output: what ``Profile.sensitivity`` holds.

    The error is |y - float| / |float| of a float output, and of several the root of the mean of their squares, with
    encodings simulated in float32. Cost: layers * ways * rows of one forward pass each; memory: what is live at one
    layer, of all rows. Layers that read one weight are one (``tools.graph.tied``): the first of them has the error of
    all together.

    Args:
        model: the prepared model.
        perturb: see ``Perturb``.
        samples: best such as nothing was fitted to.
        sink: told after each layer.
        ways: those to try for each layer.
        spread: where the layers are run; each way of each layer is a task.
        rows: so many of the first rows are used, four at a time.

    Raises:
        JobError: no samples, or the float output is all zero or not finite, so that no error is relative to it.
    """
    batches = list(islice(rebatch(model, samples, ROWS), max(1, rows // ROWS)))
    if not batches:
        raise JobError("calibration() gives no samples", next_step="let it yield at least one batch of inputs")
    exact = Simulator(model).run(Encodings.none(), batches)
    held = Held(model, perturb, tuple(batches), tuple(exact))
    whole = Errors()
    for outputs in exact:
        floats = [y for y in outputs if y.dtype.kind == "f"]
        whole.add(floats, floats)
    if not (math.isfinite(whole.size) and whole.size > 0):
        raise JobError(
            "the float model's output is zero or not finite on the calibration samples",
            where=model.name,
            tried="taking errors relative to it",
            next_step="look at calibration() and the model's weights",
        )
    layers = [model.graph.by_key[key] for key in tied.calls(model.graph)]
    tried = {node.key: ways(node) for node in layers}
    errors = spread(moved, held, [(key, layer) for key, kinds in tried.items() for layer in kinds.values()])
    found: dict[str, dict[str, float]] = {}
    for node in steps(layers, sink, "profile", "sensitivity of layers", len(layers)):
        for kind in tried[node.key]:
            error = next(errors)
            if error is not None:
                found.setdefault(node.key, {})[kind] = error
    return found
